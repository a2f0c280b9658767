// SPDX-License-Identifier: BSD-3-Clause
// flashplus warmup: fills the disk cache ahead of time. Needs no device. Kernels that are there already are
// left alone, so a warm-up that was interrupted goes on where it was.
#include "tools/flashplus/choice.h"
#include "tools/flashplus/counters.h"
#include "tools/flashplus/disk_cache.h"
#include "tools/flashplus/gpu_names.h"
#include "tools/flashplus/interrupt.h"
#include "tools/flashplus/progress.h"
#include "tools/flashplus/spec_flags.h"
#include "tools/flashplus/table.h"
#include "tools/flashplus/variants.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <numeric>
#include <optional>
#include <random>
#include <thread>

namespace flashplus::tool {

namespace {

struct WarmupFlags : VariantFlags {
  CommonFlags common;
  bool list = false, dry_run = false;
  std::optional<bool> require_cubin; ///< Unset: for targets that need one.
  int jobs = 0;
};

enum class Found { Missing, Present, Compiled, Failed };

struct Outcome {
  Found found = Found::Missing;
  std::string key, kind, message;
  double compile_ms = 0;
  bool reached = false; ///< Not where a signal came before.
};

/// Without a cubin sm_90a kernels are assembled by the driver at every start, for seconds.
bool wantsCubin(const WarmupFlags &flags, const std::string &target) {
  return gpuTarget(target) && flags.require_cubin.value_or(target.starts_with("sm_90a"));
}

Outcome fetchKernel(flashplus_context *context, const Kernel &kernel, bool offline, bool wants_cubin) {
  Outcome outcome;
  flashplus_kernel *handle = nullptr;
  flashplus_status status = flashplus_get_kernel(context, kernel.spec.c_str(), kernel.schedule.c_str(),
                                                 kernel.target.c_str(), &handle);
  if (status != FLASHPLUS_OK) {
    outcome.found = offline && status == FLASHPLUS_NOT_RESIDENT ? Found::Missing : Found::Failed;
    outcome.message = libraryStatus(status).message();
    return outcome;
  }
  flashplus_kernel_info info = {};
  info.struct_size = sizeof info;
  if (flashplus_kernel_get_info(handle, &info) == FLASHPLUS_OK) {
    outcome.key = info.key ? info.key : "";
    outcome.found =
        info.source && std::string_view(info.source) == "compiled" ? Found::Compiled : Found::Present;
    outcome.compile_ms = info.compile_ms;
    outcome.kind = info.kind ? info.kind : "";
    if (wants_cubin && outcome.kind != "cubin") {
      outcome.found = offline ? Found::Missing : Found::Failed;
      outcome.message =
          "is PTX, which the driver assembles at every start: there is no assembler for " + kernel.target +
          " (ptxas of the CUDA toolkit; $FLASHPLUS_PTXAS names one). --no-require-cubin takes PTX";
    }
  }
  flashplus_kernel_destroy(handle);
  return outcome;
}

/// Looks every kernel up, compiling what is missing unless `offline`.
std::vector<Outcome> fetchAll(flashplus_context *context, const std::vector<Kernel> &kernels, int jobs,
                              const WarmupFlags &flags) {
  const bool offline = flags.dry_run;
  std::vector<Outcome> outcomes(kernels.size());
  std::atomic<size_t> next = 0;
  Progress progress(offline ? "looking up" : "warming up", static_cast<int64_t>(kernels.size()));
  // Each process has an order of its own, so that two that run at a time make different kernels and find
  // those of the other, instead of waiting for each other at every one.
  std::vector<size_t> order(kernels.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::ranges::shuffle(order, std::mt19937_64(std::random_device()()));
  auto work = [&] {
    for (size_t at; !interrupted() && (at = next.fetch_add(1)) < kernels.size();) {
      const size_t i = order[at];
      outcomes[i] = fetchKernel(context, kernels[i], offline, wantsCubin(flags, kernels[i].target));
      outcomes[i].reached = true;
      progress.step();
    }
  };
  std::vector<std::jthread> threads;
  for (int i = 1; i < jobs; ++i)
    threads.emplace_back(work);
  work();
  threads.clear(); // joins
  return outcomes;
}

/// How many of the kernels that are done are not in the cache: it had to be kept below its size.
Result<size_t> countEvicted(const std::vector<Kernel> &kernels, const std::vector<Outcome> &outcomes,
                            const WarmupFlags &flags) {
  Result<Context> reader = makeContext(flags.common, /*offline=*/true);
  if (!reader)
    return reader.status();
  size_t gone = 0;
  for (size_t i = 0; i < kernels.size(); ++i)
    if (outcomes[i].found == Found::Present || outcomes[i].found == Found::Compiled)
      gone += fetchKernel(reader->get(), kernels[i], /*offline=*/true, /*wants_cubin=*/false).found ==
              Found::Missing;
  return gone;
}

std::string_view foundText(Found found) {
  switch (found) {
  case Found::Missing:
    return "missing";
  case Found::Present:
    return "present";
  case Found::Compiled:
    return "compiled";
  case Found::Failed:
    return "failed";
  }
  return "";
}

void listVariants(const Variants &variants, bool json) {
  if (json) {
    Json rows = Json::array();
    for (const auto &[spec, target, purpose] : variants.specs) {
      rows.push_back({{"spec", spec}, {"target", target}});
      if (!purpose.empty())
        rows.back()["for"] = purpose;
    }
    Json list = {{"variants", rows}, {"kernels", variants.kernels.size()}};
    if (!variants.model.empty())
      list["model"] = variants.model;
    printJson(list);
    return;
  }
  const bool model = !variants.model.empty();
  if (model)
    std::printf("%s\n", variants.model.c_str());
  Table table(model ? std::vector<std::string>{"target", "for", "variant"}
                    : std::vector<std::string>{"target", "variant"});
  for (const auto &[spec, target, purpose] : variants.specs)
    table.add(model ? std::vector<std::string>{target, purpose, spec}
                    : std::vector<std::string>{target, spec});
  table.print();
  std::printf("%zu variants, %zu kernels\n", variants.specs.size(), variants.kernels.size());
}

struct Tally {
  size_t missing = 0, present = 0, compiled = 0, failed = 0, not_reached = 0;

  explicit Tally(const std::vector<Outcome> &outcomes) {
    for (const Outcome &outcome : outcomes)
      ++(!outcome.reached                   ? not_reached
         : outcome.found == Found::Missing  ? missing
         : outcome.found == Found::Present  ? present
         : outcome.found == Found::Compiled ? compiled
                                            : failed);
  }
};

void printOutcomesJson(const WarmupFlags &flags, const Variants &variants,
                       const std::vector<Outcome> &outcomes, const Tally &tally,
                       const flashplus_counters &counters, int64_t not_kept) {
  Json rows = Json::array();
  for (size_t i = 0; i < outcomes.size(); ++i) {
    const Kernel &kernel = variants.kernels[i];
    const Outcome &outcome = outcomes[i];
    Json row = {{"spec", kernel.spec},
                {"schedule", kernel.schedule},
                {"target", kernel.target},
                {"state", outcome.reached ? foundText(outcome.found) : "not reached"}};
    if (!outcome.key.empty())
      row["key"] = outcome.key;
    if (!outcome.kind.empty())
      row["kind"] = outcome.kind;
    if (outcome.found == Found::Failed)
      row["message"] = outcome.message;
    if (outcome.found == Found::Compiled)
      row["compile_ms"] = outcome.compile_ms;
    rows.push_back(std::move(row));
  }
  Json whole = {{"variants", variants.specs.size()},  {"kernels", rows},
                {"compiled", tally.compiled},         {"present", tally.present},
                {"missing", tally.missing},           {"failed", tally.failed},
                {"not_reached", tally.not_reached},   {"not_kept", not_kept},
                {"counters", countersJson(counters)}, {"dry_run", flags.dry_run}};
  whole["interrupted"] = tally.not_reached > 0;
  printJson(whole);
}

void printOutcomes(const WarmupFlags &flags, const Variants &variants, const std::vector<Outcome> &outcomes,
                   const Tally &tally) {
  const std::vector<Kernel> &kernels = variants.kernels;
  if (flags.dry_run)
    for (size_t i = 0; i < kernels.size(); ++i)
      if (outcomes[i].reached)
        std::printf("%-7s  %s  %s  %s\n", outcomes[i].found == Found::Missing ? "compile" : "present",
                    kernels[i].target.c_str(), kernels[i].spec.c_str(), kernels[i].schedule.c_str());
  std::printf("%zu variants, %zu kernels: ", variants.specs.size(), kernels.size());
  if (flags.dry_run)
    std::printf("%zu to compile, %zu present", tally.missing, tally.present);
  else
    std::printf("%zu compiled, %zu present, %zu failed", tally.compiled, tally.present, tally.failed);
  std::printf("%s\n",
              tally.not_reached ? (", " + std::to_string(tally.not_reached) + " not reached").c_str() : "");
  for (size_t i = 0; i < kernels.size(); ++i)
    if (outcomes[i].found == Found::Failed)
      std::fprintf(stderr, "failed: %s  %s  %s: %s\n", kernels[i].target.c_str(), kernels[i].spec.c_str(),
                   kernels[i].schedule.c_str(), outcomes[i].message.c_str());
}

/// Flags that do not go together.
Status checkFlags(const WarmupFlags &flags) {
  if (!flags.score_gradients.empty() && !flags.backward)
    return invalidArgument("--score-gradients: only with --backward");
  if (flags.namesSpecs() &&
      (flags.has_variant_flags || !flags.model.empty() || flags.backward || flags.paged || flags.append))
    return invalidArgument(std::string(flags.spec_texts.empty() ? "--specs" : "--spec") +
                           ": names kernels whole; no other flag that chooses variants goes with it");
  if (!flags.model.empty()) {
    if (!flags.head_dims.empty() || !flags.head_dims_v.empty() || !flags.score.empty() ||
        !flags.score_gradients.empty() || flags.window != "no" || flags.softcap != "no" ||
        flags.dropout != "no" || flags.alibi != std::vector<std::string>{"none"} ||
        flags.alignment != std::vector<std::string>{"auto"} ||
        flags.sinks != std::vector<std::string>{"none"})
      return invalidArgument(
          "--model: of the flags that choose variants, only --dtype and --causal go with it");
    if (flags.paged || flags.append)
      return invalidArgument("--model: has --paged and --append of itself");
  }
  return Status::ok();
}

Result<int> warmup(const WarmupFlags &flags) {
  FLASHPLUS_RETURN_IF_ERROR(checkFlags(flags));
  Result<Context> context = makeContext(flags.common, /*offline=*/flags.dry_run || flags.list);
  if (!context)
    return context.status();
  auto variants = enumerateVariants(flags, context->get());
  if (!variants)
    return variants.status();
  if (flags.list) {
    listVariants(*variants, flags.common.json);
    return kExitGood;
  }
  if (!flags.dry_run)
    if (auto store = openStore(context->get()); !store)
      return Status(store.status().code(), "nothing to fill: " + store.status().message());
  int jobs = flags.jobs ? flags.jobs : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const std::vector<Kernel> &kernels = variants->kernels;
  const Interruptible asks;
  std::vector<Outcome> outcomes = fetchAll(context->get(), kernels, jobs, flags);
  flashplus_counters counters = {};
  counters.struct_size = sizeof counters;
  FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_get_counters(context->get(), &counters)));
  const Tally tally(outcomes);
  // A kernel that was compiled but could not be kept is no use to the next process.
  int64_t not_kept = counters.publish_failures;
  if (counters.evicted > 0 && !flags.dry_run) {
    auto evicted = countEvicted(kernels, outcomes, flags);
    if (!evicted)
      return evicted.status();
    not_kept = std::max(not_kept, int64_t(*evicted));
  }
  if (flags.common.json)
    printOutcomesJson(flags, *variants, outcomes, tally, counters, not_kept);
  else
    printOutcomes(flags, *variants, outcomes, tally);
  if (not_kept && !flags.common.json)
    std::fprintf(stderr, "flashplus: %lld kernels could not be kept in the cache%s\n",
                 static_cast<long long>(not_kept),
                 counters.evicted > 0 ? ", which is too small for them ($FLASHPLUS_CACHE_SIZE)" : "");
  if (tally.not_reached) // a signal that came after the last kernel ended nothing
    return endedEarly(flags.dry_run
                          ? "not all kernels were looked up"
                          : "the " + std::to_string(tally.compiled + tally.present - size_t(not_kept)) +
                                " kernels are in the cache, and the same command goes on where this one was");
  return tally.failed == 0 && not_kept == 0 ? kExitGood : kExitFailed;
}

} // namespace

void addWarmup(CLI::App &app, Action *selected) {
  CLI::App *verb = app.add_subcommand("warmup", "Fill the kernel cache ahead of time; needs no GPU");
  verb->footer(
      std::string("Without flags that choose variants, what a release ships is warmed (see --list).\n"
                  "Afterwards no shape of a warmed variant compiles. --backward adds what gradients need: "
                  "the backward\n"
                  "of each variant beside its forward; --paged what serving from a cache of pages needs; "
                  "--append the\n"
                  "step that writes new keys into a cache. --model takes the variants from a model of "
                  "transformers: all\n"
                  "that its server meets (prefill, chunked prefill, decode, pages, new keys), and with "
                  "--backward its\n"
                  "training; --dtype and --causal may say otherwise than the file.\n\n") +
      "GPUs that --gpu knows:\n" + gpuTableText() +
      "\nExamples:\n"
      "  flashplus warmup --gpu h100,l40s --head-dim 128 --dtype bf16 --causal\n"
      "  flashplus warmup --target sm_80 --arch sm_80,sm_90 --head-dim 64,128 --dtype bf16 --causal both\n"
      "  flashplus warmup --target cpu --jobs 2\n"
      "  flashplus warmup --target cpu --head-dim 64 --dtype bf16 --causal --backward\n"
      "  flashplus warmup --gpu h100 --head-dim 64 --alibi heads --backward --score-gradients all   # trains "
      "slopes\n"
      "  flashplus warmup --model Llama-3.1-8B/config.json --target sm_90a\n"
      "  flashplus warmup --target sm_80 --spec 'forward dtype=bf16 dqk=64 dv=64 right=1'\n"
      "  flashplus warmup --specs missed.txt\n"
      "  flashplus warmup --list --json");
  auto flags = std::make_shared<WarmupFlags>();
  WarmupFlags &f = *flags;
  auto list = [](CLI::Option *option) { return option->delimiter(',')->allow_extra_args(false); };
  list(verb->add_option("--target", f.targets,
                        "cpu, cuda, x86-64-v3, x86-64-v4, sm_80, sm_90a, sm_80@sm_90, ... [this machine's]"))
      ->type_name("TARGET,...");
  list(verb->add_option("--gpu", f.gpus, "GPUs by name, such as h100,l40s,a100: their targets"))
      ->type_name("NAME,...");
  list(verb->add_option("--arch", f.archs, "Chips that a GPU target is assembled for [its own]"))
      ->type_name("CHIP,...");
  std::vector<CLI::Option *> variant_options = {
      list(verb->add_option("--head-dim", f.head_dims, "Head dims of q and k"))
          ->check(CLI::Range(1, kMaxHeadDim))
          ->type_name("N,..."),
      list(verb->add_option("--head-dim-v", f.head_dims_v, "Head dims of v, one or one each [as --head-dim]"))
          ->check(CLI::Range(1, kMaxHeadDim))
          ->type_name("N,..."),
      list(verb->add_option("--dtype", f.dtypes, "fp16, bf16, fp32 (CPU) [fp16,bf16]"))
          ->transform(dtypeNames())
          ->type_name("TYPE,..."),
      addCausalFlag(
          *verb, /*several=*/true,
          [&f](const std::vector<bool> &causal) {
            f.causal = causal.size() > 1 ? "both" : causal.front() ? "yes" : "no";
          },
          "both"),
      verb->add_option("--window", f.window,
                       "Sliding window: yes, no or both; left: on the left only, but with --causal yes")
          ->transform(oneOf({"yes", "no", "both", "left"}))
          ->type_name("WHICH")
          ->capture_default_str(),
      verb->add_option("--softcap", f.softcap, "Softcap: yes, no or both")
          ->transform(oneOf({"yes", "no", "both"}))
          ->type_name("WHICH")
          ->capture_default_str(),
      verb->add_option("--dropout", f.dropout, "Dropout: yes, no or both")
          ->transform(oneOf({"yes", "no", "both"}))
          ->type_name("WHICH")
          ->capture_default_str(),
      list(verb->add_option("--alibi", f.alibi,
                            "ALiBi slopes: none, heads, batch (per batch and head) [none]"))
          ->transform(oneOf({"none", "heads", "batch"}))
          ->type_name("KIND,..."),
      list(verb->add_option("--sinks", f.sinks,
                            "Attention sinks, of which dtypes: none, same (as --dtype), fp16, bf16, fp32 "
                            "[none]"))
          ->transform(dtypeNames({"none", "same"}))
          ->type_name("TYPE,..."),
      verb->add_option("--score", f.score, "Score expression")->type_name("EXPR"),
      list(verb->add_option("--alignment", f.alignment,
                            "Row alignment: 16, element, or auto (16 if compact) [auto]"))
          ->transform(oneOf({"16", "element", "auto"}))
          ->type_name("KIND,...")};
  variant_options.push_back(
      list(verb->add_option(
               "--score-gradients", f.score_gradients,
               "With --backward, inputs of the score whose gradients are wanted, by name, or all"))
          ->type_name("NAME,..."));
  verb->add_option("--spec", f.spec_texts, "A variant as errors and `cache ls` name it; may be given again")
      ->allow_extra_args(false)
      ->type_name("TEXT");
  verb->add_option("--specs", f.spec_files,
                   "A file of them, one a line, as $FLASHPLUS_RECORD_MISSES and `run --record-misses` write")
      ->allow_extra_args(false)
      ->type_name("FILE");
  verb->add_option("--model", f.model, "The variants of a model: its config.json, as transformers has it")
      ->type_name("FILE");
  verb->add_flag("--paged", f.paged, "For serving: the kernels that find keys in pages, too");
  verb->add_flag("--backward", f.backward, "For training: the kernels of the backward, too");
  verb->add_flag("--append", f.append, "For serving: the kernels that write new keys into a cache, too");
  verb->add_flag("--list", f.list, "Print the variants and stop");
  verb->add_flag("--dry-run", f.dry_run, "Print which kernels would be compiled, and compile none");
  verb->add_flag_callback(
      "--require-cubin", [flags] { flags->require_cubin = true; },
      "A GPU kernel that could not be assembled and is PTX counts as failed [for sm_90a]");
  verb->add_flag_callback(
      "--no-require-cubin", [flags] { flags->require_cubin = false; }, "PTX will do");
  verb->add_option("-j,--jobs", f.jobs, "Kernels compiled at a time [all cores]")
      ->check(CLI::Range(1, 1024))
      ->type_name("N");
  addCommonFlags(*verb, f.common);
  verb->callback([flags, selected, variant_options, verb] {
    for (const CLI::Option *option : variant_options)
      flags->has_variant_flags |= option->count() > 0;
    flags->has_causal = verb->get_option("--causal")->count() > 0;
    *selected = [flags] { return warmup(*flags); };
  });
}

} // namespace flashplus::tool
