// SPDX-License-Identifier: BSD-3-Clause
// flashplus run: one forward, and its backward on request, on real or random input, measured, and compared
// with the reference where that is asked for.
#include "tools/flashplus/append.h"
#include "tools/flashplus/check.h"
#include "tools/flashplus/command.h"
#include "tools/flashplus/device_flag.h"
#include "tools/flashplus/gradients.h"
#include "tools/flashplus/interrupt.h"
#include "tools/flashplus/machine.h"
#include "tools/flashplus/outputs.h"
#include "tools/flashplus/problem_flags.h"
#include "tools/flashplus/run_report.h"
#include "tools/flashplus/tensors.h"
#include "tools/flashplus/workbench.h"
#include "tools/io/npy.h"
#include "tools/io/safetensors.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>

namespace flashplus::tool {

namespace {

struct RunFlags : ProblemFlags {
  std::string out, device = "auto", record_misses;
  int repeat = 20;
};

double now() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

/// A forward or a backward, as the library's calls take it.
struct Pass {
  std::function<Result<Plan>(flashplus_context *)> plan;
  std::function<flashplus_status(flashplus_plan *, void *workspace, size_t bytes)> run;
  double flops;
};

Pass forwardPass(const flashplus_forward_args &args, double flops) {
  return {[&args](flashplus_context *context) { return createPlan(context, args); },
          [&args](flashplus_plan *plan, void *workspace, size_t bytes) {
            return flashplus_plan_run(plan, &args, workspace, bytes, nullptr);
          },
          flops};
}

Pass backwardPass(const flashplus_backward_args &args, double forward_flops) {
  return {[&args](flashplus_context *context) { return createPlan(context, args); },
          [&args](flashplus_plan *plan, void *workspace, size_t bytes) {
            return flashplus_backward_plan_run(plan, &args, workspace, bytes, nullptr);
          },
          kBackwardFlops * forward_flops};
}

/// Time from spec to resident kernels with the disk cache alone, in a context that has loaded nothing; -1
/// when the disk cache does not have them.
double measureWarmLoad(const CommonFlags &flags, DLDevice device, const Pass &pass) {
  Result<Context> context = makeContext(flags, /*offline=*/true);
  if (!context || !wakeDevice(context->get(), device).isOk())
    return -1;
  double start = now();
  Result<Plan> plan = pass.plan(context->get());
  return plan ? now() - start : -1;
}

Status measureRuns(flashplus_context *context, DLDevice device, flashplus_plan *plan, const Pass &pass,
                   int repeat, MeasuredPass &measured) {
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
      FLASHPLUS_RETURN_IF_ERROR(libraryStatus(pass.run(plan, workspace, workspace_bytes)));
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

/// Plans `pass`, runs it at least once and times it. `counters` are those before, and become those after its
/// plan was made. `ran`: what did before it, for people.
Status measurePass(const RunFlags &flags, flashplus_context *context, DLDevice device, const Pass &pass,
                   const std::string &ran, flashplus_counters &counters, MeasuredPass &measured) {
  const flashplus_counters before = counters;
  double start = now();
  Result<Plan> plan = [&] {
    const Interruptible asks; // a kernel that is being compiled is kept
    return pass.plan(context);
  }();
  double first_ms = now() - start;
  if (interrupted())
    return Status(StatusCode::NotResident, "interrupted; " + ran + ", and what was compiled is in the cache");
  if (!plan)
    return plan.status();
  counters.struct_size = sizeof counters;
  FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_get_counters(context, &counters)));
  measured.compiled = counters.compiles - before.compiles;
  measured.from_disk = counters.disk_hits - before.disk_hits;
  measured.from_memory = counters.memory_hits - before.memory_hits;
  measured.plan = Json::parse(flashplus_plan_describe(plan->get()), nullptr, /*allow_exceptions=*/false);
  if (!measured.plan.is_object())
    measured.plan = Json::object();
  if (measured.compiled > 0) {
    measured.compile_ms = first_ms;
    measured.load_ms = measureWarmLoad(flags.common, device, pass);
  } else if (measured.from_disk > 0) {
    measured.load_ms = first_ms; // this very process started warm
  }
  FLASHPLUS_RETURN_IF_ERROR(measureRuns(context, device, plan->get(), pass, flags.repeat, measured));
  if (measured.run_ms > 0)
    measured.gflops = pass.flops / measured.run_ms / 1e6;
  return Status::ok();
}

using Outputs = std::map<std::string, io::Tensor>;

/// Every tensor that was asked for is in the one .safetensors file, or in an .npy file of its own beside that
/// of o.
Status writeOutputs(const std::string &path, Outputs outputs) {
  if (path.ends_with(".safetensors")) {
    io::TensorMap tensors;
    for (auto &[name, tensor] : outputs)
      tensors.emplace(name, std::move(tensor));
    return io::writeSafetensors(path, tensors);
  }
  FLASHPLUS_RETURN_IF_ERROR(io::writeNpy(path, outputs["o"])); // first: a failure names what was asked for
  outputs.erase("o");
  for (const auto &[name, tensor] : outputs)
    FLASHPLUS_RETURN_IF_ERROR(io::writeNpy(path.substr(0, path.size() - 4) + "." + name + ".npy", tensor));
  return Status::ok();
}

Result<int> runProblem(const RunFlags &flags) {
  FLASHPLUS_RETURN_IF_ERROR(prepareOutputs({{"--out", flags.out, ".safetensors .npy"}}));
  FLASHPLUS_RETURN_IF_ERROR(prepareAppend("--record-misses", flags.record_misses));
  sayWhenEnded("no result was written; kernels that were compiled are in the cache");
  Result<Problem> loaded = makeProblem(flags);
  if (!loaded)
    return loaded.status();
  Problem &problem = *loaded;
  if (!flags.record_misses.empty())
    ::setenv("FLASHPLUS_RECORD_MISSES", flags.record_misses.c_str(), 1); // while there is one thread
  Result<Context> context = makeContext(flags.common);
  if (!context)
    return context.status();
  Result<DLDevice> device =
      chooseDevice(flags.device, context->get(), problem.q.type != io::ElementType::F32);
  if (!device)
    return device.status();
  FLASHPLUS_RETURN_IF_ERROR(wakeDevice(context->get(), *device));
  DeviceProblem on_device;
  FLASHPLUS_RETURN_IF_ERROR(on_device.upload(context->get(), *device, problem));
  flashplus_forward_args forward_args = on_device.args();
  DeviceAppend append;
  if (flags.append.given())
    FLASHPLUS_RETURN_IF_ERROR(append.upload(context->get(), *device, flags.append, problem, forward_args));
  const double flops = 2 * visiblePairs(problem) * static_cast<double>(problem.headsQ()) *
                       static_cast<double>(problem.q.shape.back() + problem.v.shape.back());

  Measured measured;
  Outputs outputs;
  auto keep = [&](const char *name, Result<io::Tensor> tensor) -> Status {
    if (!tensor)
      return tensor.status();
    outputs[name] = std::move(*tensor);
    return Status::ok();
  };
  FLASHPLUS_RETURN_IF_ERROR(measurePass(flags, context->get(), *device, forwardPass(forward_args, flops),
                                        "nothing ran", measured.counters, measured.forward));
  FLASHPLUS_RETURN_IF_ERROR(keep("o", on_device.output()));
  FLASHPLUS_RETURN_IF_ERROR(keep("lse", on_device.lse()));
  DeviceGradients gradients;
  if (flags.backward) {
    FLASHPLUS_RETURN_IF_ERROR(gradients.upload(context->get(), *device, problem, on_device));
    FLASHPLUS_RETURN_IF_ERROR(measurePass(flags, context->get(), *device,
                                          backwardPass(gradients.args(), flops),
                                          "the forward ran and its result is not shown, the backward did not",
                                          measured.counters, measured.backward.emplace()));
    FLASHPLUS_RETURN_IF_ERROR(keep("dq", gradients.dq()));
    FLASHPLUS_RETURN_IF_ERROR(keep("dk", gradients.dk()));
    FLASHPLUS_RETURN_IF_ERROR(keep("dv", gradients.dv()));
  }
  if (flags.check) {
    auto report = checkOutputs(problem, outputs["o"], outputs["lse"], flags.common.threads);
    if (!report)
      return report.status();
    measured.check = *report;
    if (flags.append.given()) {
      auto cache = append.checkCache(problem);
      if (!cache)
        return cache.status();
      measured.cache = *cache;
    }
  }
  if (flags.check && flags.backward) {
    auto report = checkGradients(problem, outputs["dq"], outputs["dk"], outputs["dv"], flags.common.threads);
    if (!report)
      return report.status();
    measured.check_backward = *report;
  }
  sayWhenEnded(nullptr); // from here on files are
  if (!flags.out.empty()) {
    if (flags.backward)
      outputs["dout"] = *problem.dout;
    FLASHPLUS_RETURN_IF_ERROR(writeOutputs(flags.out, std::move(outputs)));
  }
  (flags.common.json ? printRunJson : printRunText)(problem, measured, flags.out);
  return measured.good() ? kExitGood : kExitFailed;
}

} // namespace

void addRun(CLI::App &app, Action *selected) {
  CLI::App *verb = app.add_subcommand("run", "Run attention on files or random input and measure it");
  verb->footer(
      "Files: .safetensors with tensors q, k, v, or .npy; (batch, seqlen, heads, head_dim), or (total, "
      "heads,\n"
      "head_dim) with --cu-seqlens-q/-k. With --out FILE.npy the log-sum-exp goes to FILE.lse.npy.\n"
      "--backward runs the backward after the forward, measures both and with --check judges both;\n"
      "dq, dk, dv and dout are written beside o. --num-splits, --lse-empty and --batch-invariant are the\n"
      "forward's.\n\n"
      "Examples:\n"
      "  flashplus run --in tests/data/minilm_layer0_qkv.safetensors --check\n"
      "  flashplus run --random 1,4096,4096,16,4,128 --dtype bf16 --causal --window 1024,0 --device cpu\n"
      "  flashplus run --random 2,512,512,8,2,64 --causal --backward --check\n"
      "  flashplus run --random 8,1,1024,32,8,128 --causal --append 1 --rotary 128 --check\n"
      "  flashplus run --random 4,1,2000,32,8,128 --page-size 16 --pages random --check\n"
      "  flashplus run --decode 64,8192,32,8,128 --ragged --page-size 16 --append 1 --rotary 128\n"
      "  flashplus run --decode 4,700,16,2,64 --rows 4 --ragged --check\n"
      "  flashplus run --random 2,64,64,4,4,64 --score 's + bias[h] * w' --tensor bias=bias.npy --scalar "
      "w=0.5");
  auto flags = std::make_shared<RunFlags>();
  RunFlags &f = *flags;
  addProblemFlags(*verb, f);
  verb->add_option("-o,--out", f.out, "Write o and lse (and gradients) to .safetensors or .npy")
      ->type_name("FILE");
  verb->add_option("--device", f.device, "auto, cpu, cuda, cuda:N or emulator")
      ->type_name("DEVICE")
      ->capture_default_str();
  verb->add_option("--record-misses", f.record_misses,
                   "Add a line to this file for each kernel that is in no cache (warmup --specs)")
      ->type_name("FILE");
  verb->add_option("--repeat", f.repeat, "Timed runs; 0 runs once without timing")
      ->check(CLI::Range(0, 100000))
      ->type_name("N")
      ->capture_default_str();
  verb->callback([flags, selected] { *selected = [flags] { return runProblem(*flags); }; });
}

} // namespace flashplus::tool
