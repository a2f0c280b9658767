// SPDX-License-Identifier: BSD-3-Clause
// flashplus run: one forward on real or random input, measured, and compared with the reference on request.
#include "tools/flashplus/check.h"
#include "tools/flashplus/command.h"
#include "tools/flashplus/counters.h"
#include "tools/flashplus/device_flag.h"
#include "tools/flashplus/problem_flags.h"
#include "tools/flashplus/table.h"
#include "tools/flashplus/tensors.h"
#include "tools/flashplus/workbench.h"
#include "tools/io/npy.h"
#include "tools/io/safetensors.h"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace flashplus::tool {

namespace {

struct RunFlags : ProblemFlags {
  std::string out, device = "auto";
  int repeat = 20;
};

double now() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

/// What one run showed; times in milliseconds, negative where there is none.
struct Measured {
  std::string from;       ///< "memory", "disk", "compiled", or a mixture
  double compile_ms = -1; ///< Cold: spec to resident kernels, the compiler included.
  double load_ms = -1;    ///< Warm: the same from the disk cache.
  double run_ms = -1;     ///< Median.
  int runs = 0;
  double gflops = -1;
  flashplus_counters counters = {};
  Json plan;
  std::optional<reference::Comparison> check;
};

std::string describeSource(const flashplus_counters &counters) {
  std::vector<std::pair<int64_t, const char *>> parts = {
      {counters.compiles, "compiled"}, {counters.disk_hits, "disk"}, {counters.memory_hits, "memory"}};
  std::erase_if(parts, [](const auto &part) { return part.first == 0; });
  if (parts.size() == 1)
    return parts[0].second;
  std::string text;
  for (auto [count, name] : parts)
    text += (text.empty() ? "" : ", ") + std::to_string(count) + " " + name;
  return text.empty() ? "unknown" : text;
}

/// Time from spec to resident kernels with the disk cache alone, in a context that has loaded nothing; -1
/// when the disk cache does not have them.
double measureWarmLoad(const CommonFlags &flags, DLDevice device, const flashplus_forward_args &args) {
  Result<Context> context = makeContext(flags, /*offline=*/true);
  if (!context || !wakeDevice(context->get(), device).isOk())
    return -1;
  double start = now();
  Result<Plan> plan = createPlan(context->get(), args);
  return plan ? now() - start : -1;
}

Status measureRuns(flashplus_context *context, DLDevice device, flashplus_plan *plan,
                   const flashplus_forward_args &args, int repeat, Measured &measured) {
  size_t workspace_bytes = flashplus_plan_workspace(plan);
  void *workspace = nullptr;
  if (workspace_bytes)
    FLASHPLUS_RETURN_IF_ERROR(
        libraryStatus(flashplus_device_malloc(context, device, workspace_bytes, &workspace)));
  const std::vector<char> zeros(std::min<size_t>(workspace_bytes, FLASHPLUS_WORKSPACE_ZEROED));
  if (workspace)
    FLASHPLUS_RETURN_IF_ERROR(
        libraryStatus(flashplus_copy_to_device(context, device, workspace, zeros.data(), zeros.size())));
  auto runMany = [&](int count, double &each) -> Status {
    double start = now();
    for (int i = 0; i < count; ++i)
      FLASHPLUS_RETURN_IF_ERROR(
          libraryStatus(flashplus_plan_run(plan, &args, workspace, workspace_bytes, nullptr)));
    FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_synchronize(context, device, nullptr)));
    each = (now() - start) / count;
    return Status::ok();
  };
  auto measure = [&]() -> Status {
    double first = 0;
    FLASHPLUS_RETURN_IF_ERROR(runMany(1, first));
    if (repeat == 0)
      return Status::ok();
    FLASHPLUS_RETURN_IF_ERROR(runMany(1, first));
    // A sample takes at least about 2 ms, so that launches of a GPU overlap; all of them at most about 5 s.
    int inner = static_cast<int>(std::clamp(2.0 / std::max(first, 1e-3), 1.0, 1000.0));
    std::vector<double> samples;
    double start = now();
    do {
      FLASHPLUS_RETURN_IF_ERROR(runMany(inner, samples.emplace_back()));
    } while (static_cast<int>(samples.size()) < repeat && now() - start < 5000);
    std::nth_element(samples.begin(), samples.begin() + static_cast<long>(samples.size() / 2), samples.end());
    measured.run_ms = samples[samples.size() / 2];
    measured.runs = static_cast<int>(samples.size());
    return Status::ok();
  };
  Status status = measure();
  if (workspace)
    (void)flashplus_device_free(context, device, workspace);
  return status;
}

Status writeOutputs(const std::string &path, io::Tensor output, io::Tensor lse) {
  if (path.ends_with(".safetensors")) {
    io::TensorMap tensors;
    tensors.emplace("o", std::move(output));
    tensors.emplace("lse", std::move(lse));
    return io::writeSafetensors(path, tensors);
  }
  FLASHPLUS_RETURN_IF_ERROR(io::writeNpy(path, output));
  return io::writeNpy(path.substr(0, path.size() - 4) + ".lse.npy", lse);
}

void printText(const RunFlags &flags, const Problem &problem, const Measured &measured) {
  Table table;
  Json steps = measured.plan.value("steps", Json::array());
  auto timeText = [](double ms, const char *none) {
    return ms < 0 ? std::string(none) : millisecondsText(ms);
  };
  table.add({"device", measured.plan.value("device", "") +
                           (steps.empty() ? "" : " (" + steps[0].value("target", "") + ")")});
  table.add({"input", problem.source + ": q " + io::shapeText(problem.q.shape) + ", k " +
                          io::shapeText(problem.k.shape) + ", v " + io::shapeText(problem.v.shape) + ", " +
                          std::string(io::elementName(problem.q.type))});
  for (const Json &step : steps) {
    table.add({"kernel", step.value("spec", "")});
    table.add({"  schedule", step.value("schedule", "")});
    table.add({"  key", step.value("key", "")});
  }
  table.add({"kernel from", measured.from + " (" + std::to_string(measured.counters.compiles) +
                                " compiled, " + std::to_string(measured.counters.disk_hits) + " from disk)"});
  table.add({"cold compile", timeText(measured.compile_ms, "- (nothing was compiled)")});
  table.add({"warm load", timeText(measured.load_ms, "- (not in the disk cache)")});
  table.add({"run", timeText(measured.run_ms, "-") +
                        (measured.runs ? " (median of " + std::to_string(measured.runs) + ")" : "")});
  table.add({"speed", measured.gflops < 0 ? "-" : numberText(measured.gflops, 4) + " GFLOP/s"});
  if (const auto &check = measured.check) {
    table.add({"largest error", numberText(check->absolute_error) + " against fp64"});
    table.add({"  of a row",
               numberText(check->error) + " of its largest value, allowed " + numberText(check->bound)});
    table.add({"  of lse", numberText(check->lse_error) + ", allowed " + numberText(check->lse_bound)});
    table.add({"check", check->good() ? "good" : "FAILED"});
  }
  if (!flags.out.empty())
    table.add({"written", flags.out});
  table.print();
}

void printAsJson(const RunFlags &flags, const Problem &problem, const Measured &measured) {
  auto orNull = [](double value) { return value < 0 || !std::isfinite(value) ? Json(nullptr) : Json(value); };
  Json json = {{"device", measured.plan.value("device", "")},
               {"input",
                {{"source", problem.source},
                 {"dtype", io::elementName(problem.q.type)},
                 {"q", problem.q.shape},
                 {"k", problem.k.shape},
                 {"v", problem.v.shape}}},
               {"plan", measured.plan},
               {"from", measured.from},
               {"cold_compile_ms", orNull(measured.compile_ms)},
               {"warm_load_ms", orNull(measured.load_ms)},
               {"run_ms", orNull(measured.run_ms)},
               {"runs", measured.runs},
               {"gflops", orNull(measured.gflops)},
               {"counters", countersJson(measured.counters)}};
  if (const auto &check = measured.check)
    json["check"] = {{"good", check->good()},
                     {"absolute_error", orNull(check->absolute_error)},
                     {"error", orNull(check->error)},
                     {"bound", orNull(check->bound)},
                     {"lse_error", orNull(check->lse_error)},
                     {"lse_bound", orNull(check->lse_bound)},
                     {"rows", check->rows}};
  if (!flags.out.empty())
    json["written"] = flags.out;
  printJson(json);
}

Result<int> runForward(const RunFlags &flags) {
  if (!flags.out.empty() && !flags.out.ends_with(".safetensors") && !flags.out.ends_with(".npy"))
    return invalidArgument("--out '" + flags.out + "': must end in .safetensors or .npy");
  Result<Problem> loaded = makeProblem(flags);
  if (!loaded)
    return loaded.status();
  const Problem &problem = *loaded;
  Result<Context> context = makeContext(flags.common);
  if (!context)
    return context.status();
  Result<DLDevice> device = chooseDevice(flags.device, context->get(), problem.q.type != io::ElementType::F32);
  if (!device)
    return device.status();
  FLASHPLUS_RETURN_IF_ERROR(wakeDevice(context->get(), *device));
  DeviceProblem on_device;
  FLASHPLUS_RETURN_IF_ERROR(on_device.upload(context->get(), *device, problem));

  Measured measured;
  double start = now();
  Result<Plan> plan = createPlan(context->get(), on_device.args());
  double first_ms = now() - start;
  if (!plan)
    return plan.status();
  measured.counters.struct_size = sizeof measured.counters;
  FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_get_counters(context->get(), &measured.counters)));
  measured.from = describeSource(measured.counters);
  measured.plan = Json::parse(flashplus_plan_describe(plan->get()), nullptr, /*allow_exceptions=*/false);
  if (!measured.plan.is_object())
    measured.plan = Json::object();
  if (measured.counters.compiles > 0) {
    measured.compile_ms = first_ms;
    measured.load_ms = measureWarmLoad(flags.common, *device, on_device.args());
  } else if (measured.counters.disk_hits > 0) {
    measured.load_ms = first_ms; // this very process started warm
  }

  FLASHPLUS_RETURN_IF_ERROR(
      measureRuns(context->get(), *device, plan->get(), on_device.args(), flags.repeat, measured));
  if (measured.run_ms > 0) {
    double flops = 2 * visiblePairs(problem) * static_cast<double>(problem.headsQ()) *
                   static_cast<double>(problem.q.shape.back() + problem.v.shape.back());
    measured.gflops = flops / measured.run_ms / 1e6;
  }
  Result<io::Tensor> output = on_device.output();
  if (!output)
    return output.status();
  Result<io::Tensor> lse = on_device.lse();
  if (!lse)
    return lse.status();
  if (flags.check) {
    Result<reference::Comparison> report = checkOutputs(problem, *output, *lse, flags.common.threads);
    if (!report)
      return report.status();
    measured.check = *report;
  }
  if (!flags.out.empty())
    FLASHPLUS_RETURN_IF_ERROR(writeOutputs(flags.out, std::move(*output), std::move(*lse)));
  (flags.common.json ? printAsJson : printText)(flags, problem, measured);
  return measured.check && !measured.check->good() ? kExitFailed : kExitGood;
}

} // namespace

void addRun(CLI::App &app, Action *selected) {
  CLI::App *verb = app.add_subcommand("run", "Run forward attention on files or random input and measure it");
  verb->footer(
      "Files: .safetensors with tensors q, k, v, or .npy; (batch, seqlen, heads, head_dim), or (total, "
      "heads,\n"
      "head_dim) with --cu-seqlens-q/-k. With --out FILE.npy the log-sum-exp goes to FILE.lse.npy.\n\n"
      "Examples:\n"
      "  flashplus run --in tests/data/minilm_layer0_qkv.safetensors --check\n"
      "  flashplus run --random 1,4096,4096,16,4,128 --dtype bf16 --causal --window 1024,0 --device cpu\n"
      "  flashplus run --random 2,64,64,4,4,64 --score 's + bias[h] * w' --tensor bias=bias.npy --scalar "
      "w=0.5");
  auto flags = std::make_shared<RunFlags>();
  RunFlags &f = *flags;
  addProblemFlags(*verb, f);
  verb->add_option("-o,--out", f.out, "Write o and lse to .safetensors or .npy")->type_name("FILE");
  verb->add_option("--device", f.device, "auto, cpu, cuda, cuda:N or emulator")
      ->type_name("DEVICE")
      ->capture_default_str();
  verb->add_option("--repeat", f.repeat, "Timed runs; 0 runs once without timing")
      ->check(CLI::Range(0, 100000))
      ->type_name("N")
      ->capture_default_str();
  verb->callback([flags, selected] { *selected = [flags] { return runForward(*flags); }; });
}

} // namespace flashplus::tool
