// SPDX-License-Identifier: BSD-3-Clause
// flashplus inspect: any stage of a kernel's way from spec to machine code, as text.
#include "tools/flashplus/choice.h"
#include "tools/flashplus/command.h"
#include "tools/flashplus/gpu_names.h"
#include "tools/flashplus/sass.h"
#include "tools/flashplus/spec_flags.h"
#include "tools/flashplus/workbench.h"

#include "spec/score_gradient.h"
#include "templates/registry.h"

#include <cstdio>

namespace flashplus::tool {

namespace {

struct InspectFlags {
  CommonFlags common;
  std::string stage, spec, schedule, target, arch;
  std::string operation; ///< "": the spec's own.
  std::string gpu, disassembler;
  std::vector<std::string> score_gradients;
  std::string dtype = "bf16", window, score, alibi = "none", sinks = "none";
  int head_dim = 128, head_dim_v = 0, alignment = 0;
  bool causal = false, softcap = false, dropout = false, split = false, paged = false;
  bool has_spec_flags = false;
};

Result<std::string> specText(const InspectFlags &flags) {
  if (!flags.spec.empty()) {
    if (flags.has_spec_flags)
      return invalidArgument(
          "--spec: gives the whole spec, so flags such as --head-dim can't be added to it");
    Result<KernelSpec> spec = KernelSpec::parse(flags.spec);
    return spec ? Result<std::string>(spec->text()) : invalidArgument("--spec: " + spec.status().message());
  }
  KernelSpec spec;
  spec.dtype = *parseDType(flags.dtype); // checked by the parser of flags
  spec.head_dim_qk = flags.head_dim;
  spec.head_dim_v = flags.head_dim_v ? flags.head_dim_v : flags.head_dim;
  spec.results = flags.split ? Results::Partial : Results::Final;
  spec.keys = flags.paged ? KeyAddressing::Paged : KeyAddressing::Rows;
  if (!flags.window.empty()) {
    auto sides = parseIntegers("--window", flags.window, 2, 2);
    if (!sides)
      return sides.status();
    spec.bounded_left = (*sides)[0] >= 0;
    spec.bounded_right = (*sides)[1] >= 0;
  }
  spec.bounded_right |= flags.causal;
  spec.dropout = flags.dropout;
  if (const auto dtype = parseDType(flags.sinks))
    spec.sinks = sinksOf(*dtype);
  spec.alignment = flags.alignment ? flags.alignment : naturalAlignment(spec);
  Result<ScoreExpr> score = composeScore(flags.score, flags.softcap, flags.alibi);
  if (!score)
    return score.status();
  spec.score = std::move(*score);
  FLASHPLUS_RETURN_IF_ERROR(spec.validate());
  return spec.text();
}

/// Bits of score_grads (spec/fields.h), if gradients of the score's own inputs are asked for; by the names of
/// --score where they are given there.
Result<std::optional<int>> wantedGradients(const InspectFlags &flags, const std::string &spec_text) {
  if (flags.score_gradients.empty() && flags.operation != "backward_score")
    return std::optional<int>();
  if (!flags.operation.empty() && flags.operation != "backward_score")
    return invalidArgument("--score-gradients: only with --operation backward_score");
  Result<KernelSpec> spec = KernelSpec::parse(spec_text);
  if (!spec)
    return spec.status();
  ScoreExpr score = spec->score;
  if (!flags.score.empty() && !flags.softcap && flags.alibi == "none") {
    Result<ScoreExpr> named = composeScore(flags.score, false, "none");
    if (!named)
      return named.status();
    score = std::move(*named);
  }
  auto bits =
      scoreGradients("--score-gradients", score,
                     flags.score_gradients.empty() ? std::vector<std::string>{"all"} : flags.score_gradients);
  return bits ? Result<std::optional<int>>(std::optional<int>(*bits)) : bits.status();
}

/// The spec of the kernel of `operation` among those of the backward of `forward`, or of a forward with new
/// keys, which say what a plan has on `target`.
Result<std::string> backwardSpec(flashplus_context *context, const std::string &forward,
                                 const std::string &operation, const std::string &target,
                                 std::optional<int> score_gradients) {
  Result<KernelSpec> spec = KernelSpec::parse(forward);
  if (!spec)
    return spec.status();
  const bool partial = spec->isPartial();
  if (operation == "append")
    spec->append = true; // a forward's
  else
    spec->op = Operation::Backward;
  spec->results = Results::Final;
  if (score_gradients)
    spec->score_grads = *score_gradients;
  std::vector<std::string> specs;
  FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_reachable_kernels(
      context, spec->text().c_str(), target.c_str(),
      [](void *to, const char *text, const char *) {
        static_cast<std::vector<std::string> *>(to)->push_back(text);
      },
      &specs)));
  std::string names;
  for (const std::string &text : specs) {
    Result<KernelSpec> kernel = KernelSpec::parse(text);
    if (!kernel)
      return kernel.status();
    const std::string name(operationInfo(kernel->op).name);
    if (name == operation && kernel->isPartial() == partial)
      return text;
    if (const std::string shown = name + (kernel->isPartial() ? " with --split" : "");
        names.find(shown + ",") == std::string::npos)
      names += " " + shown + ",";
  }
  if (!names.empty())
    names.pop_back();
  return invalidArgument("--operation '" + operation + "'" + (partial ? " with --split" : "") +
                         ": is no kernel of this backward on " + target + ", allowed are" + names);
}

/// The schedule of `text`, which may name some knobs of the first one that `target` has for `spec`, or an
/// algorithm and some of its knobs, as `bench` takes it.
Result<std::string> wholeSchedule(flashplus_context *context, const std::string &spec,
                                  const std::string &target, const std::string &text) {
  struct Visit {
    const std::string *spec;
    std::string first, others;
  } visit = {&spec, "", ""};
  FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_reachable_kernels(
      context, spec.c_str(), target.c_str(),
      [](void *to, const char *kernel, const char *schedule) {
        auto &v = *static_cast<Visit *>(to);
        if (v.first.empty() && *v.spec == kernel)
          v.first = schedule;
      },
      &visit)));
  Result<std::string> whole = scheduleText("--schedule", text, visit.first);
  if (!whole)
    return whole.status();
  Result<Schedule> schedule = Schedule::parse(*whole);
  return schedule ? Result<std::string>(completeSchedule(*schedule).text()) : schedule.status();
}

/// The machine code of a GPU's kernel, from the cache or compiled.
Result<std::string> sassText(flashplus_context *context, const InspectFlags &flags, const std::string &spec,
                             const std::string &schedule, const std::string &target) {
  if (!target.starts_with("sm_"))
    return invalidArgument("--stage sass: " + target + " is no GPU; its machine code is --stage asm");
  flashplus_kernel *raw = nullptr;
  FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_get_kernel(
      context, spec.c_str(), schedule.empty() ? nullptr : schedule.c_str(), target.c_str(), &raw)));
  const std::unique_ptr<flashplus_kernel, void (*)(flashplus_kernel *)> kernel(raw, flashplus_kernel_destroy);
  flashplus_kernel_info info = {};
  info.struct_size = sizeof info;
  FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_kernel_get_info(raw, &info)));
  if (std::string_view(info.kind) != "cubin")
    return Status(StatusCode::Unsupported,
                  "--stage sass: the kernel is PTX, for there is no assembler here (ptxas or nvJitLink; "
                  "$FLASHPLUS_PTXAS and $FLASHPLUS_NVJITLINK name them)");
  return disassemble(std::span(static_cast<const std::byte *>(info.code), info.code_size),
                     flags.disassembler);
}

/// The score and its derivatives, which no target changes.
Result<std::string> scoreText(const std::string &spec_text) {
  Result<KernelSpec> spec = KernelSpec::parse(spec_text);
  if (!spec)
    return spec.status();
  const ScoreGradient gradient = differentiate(spec->score);
  return "canonical = " + spec->score.canonical() + "\n" + gradient.text() +
         (gradient.isLinear() ? "linear in s\n" : "not linear in s\n");
}

int print(const InspectFlags &flags, const std::string &spec, const std::string &schedule, const Json &target,
          std::string text) {
  if (flags.common.json) {
    printJson({{"stage", flags.stage},
               {"spec", spec},
               {"schedule", schedule.empty() ? Json(nullptr) : Json(schedule)},
               {"target", target},
               {"text", text}});
    return kExitGood;
  }
  if (!text.ends_with('\n'))
    text += '\n';
  std::fwrite(text.data(), 1, text.size(), stdout);
  return kExitGood;
}

Result<int> inspect(const InspectFlags &flags) {
  if (!flags.disassembler.empty() && flags.stage != "sass")
    return invalidArgument("--disassembler: only with --stage sass");
  Result<std::string> spec = specText(flags);
  if (!spec)
    return spec.status();
  if (flags.stage == "score") {
    Result<std::string> text = scoreText(*spec);
    return text ? Result<int>(print(flags, *spec, "", nullptr, *text)) : text.status();
  }
  Result<Context> context = makeContext(flags.common);
  if (!context)
    return context.status();
  std::string target_flag = flags.target.empty() ? "cpu" : flags.target;
  if (!flags.gpu.empty()) {
    if (!flags.target.empty())
      return invalidArgument("--gpu: not with --target, which says the same");
    auto target = gpuTargetFor("--gpu", flags.gpu);
    if (!target)
      return target.status();
    target_flag = *target;
  }
  auto targets = expandTargets(context->get(), {target_flag},
                               flags.arch.empty() ? std::vector<std::string>{} : std::vector{flags.arch});
  if (!targets)
    return targets.status();
  auto wanted = wantedGradients(flags, *spec);
  if (!wanted)
    return wanted.status();
  if (!flags.operation.empty() && flags.operation != "forward") {
    spec = backwardSpec(context->get(), *spec, flags.operation, targets->front(), *wanted);
    if (!spec)
      return spec.status();
  }
  std::string schedule;
  if (!flags.schedule.empty()) {
    auto whole = wholeSchedule(context->get(), *spec, targets->front(), flags.schedule);
    if (!whole)
      return whole.status();
    schedule = *whole;
  }
  if (flags.stage == "sass") {
    auto sass = sassText(context->get(), flags, *spec, schedule, targets->front());
    return sass ? Result<int>(print(flags, *spec, schedule, targets->front(), *sass)) : sass.status();
  }
  char *raw = nullptr;
  FLASHPLUS_RETURN_IF_ERROR(libraryStatus(
      flashplus_print_stage(context->get(), spec->c_str(), schedule.empty() ? nullptr : schedule.c_str(),
                            targets->front().c_str(), flags.stage.c_str(), &raw)));
  std::unique_ptr<char, void (*)(char *)> text(raw, flashplus_free_text);
  return print(flags, *spec, schedule, targets->front(), text.get());
}

} // namespace

void addInspect(CLI::App &app, Action *selected) {
  CLI::App *verb =
      app.add_subcommand("inspect", "Print one stage of a kernel: spec, IR, machine code, resources");
  verb->footer("Examples:\n"
               "  flashplus inspect --stage ptx --target sm_80 --arch sm_90 --head-dim 128 --causal\n"
               "  flashplus inspect --stage loops --head-dim 64 --dtype fp32 --score 's + bias[h, q, k]'\n"
               "  flashplus inspect --stage score --score 'cap * tanh(s / cap) - slopes[h] * abs(q - k)'\n"
               "  flashplus inspect --stage loops --operation backward --head-dim 64 --causal\n"
               "  flashplus inspect --stage resources --operation backward_kv --target sm_80 --head-dim 128\n"
               "  flashplus inspect --stage resources --gpu h100 --head-dim 128 --schedule tile_n=64\n"
               "  flashplus inspect --stage loops --operation backward_score --score 's + bias[h] * w' "
               "--score-gradients w\n"
               "  flashplus inspect --stage asm --spec 'forward dtype=bf16 dqk=64 dv=64'");
  auto flags = std::make_shared<InspectFlags>();
  InspectFlags &f = *flags;
  verb->add_option("--stage", f.stage,
                   "What to print; score: with its derivatives; ptx and sass are for GPUs, asm for CPUs")
      ->required()
      ->transform(oneOf({"spec", "score", "attn", "loops", "llvm", "ptx", "asm", "sass", "resources"}))
      ->type_name("STAGE");
  verb->add_option(
          "--target", f.target,
          "cpu or cuda (this machine's), x86-64-v3, x86-64-v4, sm_80, sm_90a, sm_80@sm_90, ... [cpu]")
      ->type_name("TARGET");
  verb->add_option("--gpu", f.gpu, "A GPU by name, such as h100: its target")->type_name("NAME");
  verb->add_option("--disassembler", f.disassembler,
                   "For --stage sass, an nvdisasm or cuobjdump [of the search path]")
      ->type_name("FILE");
  verb->add_option("--arch", f.arch, "Chip a GPU target is assembled for, such as sm_90")->type_name("CHIP");
  verb->add_option("--schedule", f.schedule, "Schedule, or some knobs of the target's default")
      ->type_name("NAME=N,...|TEXT");
  verb->add_option("--spec", f.spec, "Canonical spec text, instead of the flags below")->type_name("TEXT");
  std::vector<CLI::Option *> spec_options = {
      verb->add_option("--dtype", f.dtype, "fp16, bf16 or fp32")
          ->transform(dtypeNames())
          ->type_name("TYPE")
          ->capture_default_str(),
      verb->add_option("--head-dim", f.head_dim, "Head dim of q and k")
          ->check(CLI::Range(1, kMaxHeadDim))
          ->type_name("N")
          ->capture_default_str(),
      verb->add_option("--head-dim-v", f.head_dim_v, "Head dim of v and o [as --head-dim]")
          ->check(CLI::Range(1, kMaxHeadDim))
          ->type_name("N"),
      addCausalFlag(
          *verb, /*several=*/false, [&f](const std::vector<bool> &causal) { f.causal = causal.front(); },
          "no"),
      verb->add_option("--window", f.window, "Sliding window; only which sides are bounded matters")
          ->type_name("L,R"),
      verb->add_flag("--softcap", f.softcap, "With softcap (its value is no part of the kernel)"),
      verb->add_flag("--dropout", f.dropout, "With dropout (its rate is no part of the kernel)"),
      verb->add_option("--alibi", f.alibi, "ALiBi slopes: none, heads, or batch (per batch and head)")
          ->transform(oneOf({"none", "heads", "batch"}))
          ->type_name("KIND"),
      verb->add_option("--sinks", f.sinks, "Attention sinks, of which dtype: none, fp16, bf16 or fp32")
          ->transform(dtypeNames({"none"}))
          ->type_name("TYPE"),
      verb->add_option("--score", f.score, "Score expression")->type_name("EXPR"),
      verb->add_option("--operation", f.operation,
                       "Of a forward with new keys: append. Of a backward: backward_delta; backward and "
                       "backward_sum (CPU, sm_90a), backward_kv or "
                       "backward_q (GPU); backward_score, of the gradients of the score's own inputs")
          ->transform(oneOf({"forward", "append", "backward", "backward_delta", "backward_sum", "backward_kv",
                             "backward_q", "backward_score"}))
          ->type_name("NAME"),
      verb->add_option("--score-gradients", f.score_gradients,
                       "For backward_score, which inputs of the score, by name [all]")
          ->delimiter(',')
          ->allow_extra_args(false)
          ->type_name("NAME,..."),
      verb->add_flag("--split", f.split, "The kernel of one share of the keys"),
      verb->add_flag("--paged", f.paged, "The kernel that finds keys in pages"),
      verb->add_option("--alignment", f.alignment, "Bytes rows are aligned to [16 if compact rows are]")
          ->check(CLI::IsMember({2, 4, 16}))
          ->type_name("BYTES")};
  addCommonFlags(*verb, f.common);
  verb->callback([flags, selected, spec_options] {
    for (const CLI::Option *option : spec_options)
      flags->has_spec_flags |= option->count() > 0;
    *selected = [flags] { return inspect(*flags); };
  });
}

} // namespace flashplus::tool
