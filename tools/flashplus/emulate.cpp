// SPDX-License-Identifier: BSD-3-Clause
// flashplus emulate: one forward, and its backward on request, on the PTX emulator, with what it executed.
#include "emulator/flashplus_emulator.h"
#include "tools/flashplus/append.h"
#include "tools/flashplus/check.h"
#include "tools/flashplus/choice.h"
#include "tools/flashplus/command.h"
#include "tools/flashplus/gradients.h"
#include "tools/flashplus/interrupt.h"
#include "tools/flashplus/kernel_facts.h"
#include "tools/flashplus/machine.h"
#include "tools/flashplus/outputs.h"
#include "tools/flashplus/problem_flags.h"
#include "tools/flashplus/report.h"
#include "tools/flashplus/run_report.h"
#include "tools/flashplus/spec_flags.h"
#include "tools/flashplus/table.h"
#include "tools/flashplus/workbench.h"

#include <dlfcn.h>
#include <map>

namespace flashplus::tool {

namespace {

struct EmulateFlags {
  ProblemFlags problem;
  std::string async = "late", target, schedule, html;
  uint64_t seed = 1, step_limit = 0;
};

const std::map<std::string, int> kModes = {{"late", FLASHPLUS_EMULATOR_LATE},
                                           {"eager", FLASHPLUS_EMULATOR_EAGER},
                                           {"random", FLASHPLUS_EMULATOR_RANDOM}};

/// libflashplus-emulator.so beside libflashplus.so, where the runtime opens it too; the command does without
/// it otherwise.
struct Emulator {
  decltype(&flashplus_emulator_configure) configure = nullptr;
  decltype(&flashplus_emulator_report) report = nullptr;

  static Result<Emulator> open() {
    std::string path = "libflashplus-emulator.so";
    Dl_info info;
    if (dladdr(reinterpret_cast<const void *>(&flashplus_forward), &info) && info.dli_fname)
      if (const std::string self = info.dli_fname; self.rfind('/') != std::string::npos)
        path = self.substr(0, self.rfind('/') + 1) + path;
    // stays open: the runtime's devices live in it
    void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      const char *why = dlerror();
      return Status(StatusCode::NoDevice,
                    std::string("the emulator cannot be opened: ") + (why ? why : path));
    }
    Emulator e;
    e.configure = reinterpret_cast<decltype(e.configure)>(dlsym(library, "flashplus_emulator_configure"));
    e.report = reinterpret_cast<decltype(e.report)>(dlsym(library, "flashplus_emulator_report"));
    if (!e.configure || !e.report)
      return Status(StatusCode::NoDevice,
                    "the emulator " + path + " is of another version: it lacks its settings or its report");
    return e;
  }
};

/// The emulator's device for a target: number 0 has sm_80's instructions, number 1 those of sm_90a.
Result<DLDevice> emulatedDevice(const std::string &target, flashplus_context *context) {
  if (target.empty())
    return DLDevice{kDLExtDev, 0};
  auto targets = expandTargets(context, {target}, {});
  if (!targets)
    return targets.status();
  const std::string &text = targets->front();
  if (!text.starts_with("sm_"))
    return invalidArgument("--target " + target +
                           ": is no GPU; --target sm_80 and sm_90a are emulated, and 'flashplus "
                           "run --device cpu' runs a CPU's kernels");
  return DLDevice{kDLExtDev, text.starts_with("sm_90a") ? 1 : 0};
}

/// The schedule of the step of a plan that has a choice of them.
std::string forwardSchedule(const flashplus_plan *plan) {
  const Json json = Json::parse(flashplus_plan_describe(plan), nullptr, /*allow_exceptions=*/false);
  for (const Json &step : json.value("steps", Json::array()))
    if (step.value("spec", "").starts_with("forward"))
      return step.value("schedule", "");
  return "";
}

std::string countText(double n) { return n < 1e15 ? std::to_string(static_cast<int64_t>(n)) : numberText(n); }

void printLaunch(const Json &launch) {
  Table table;
  auto number = [](const Json &j, const char *name) { return countText(j.value(name, 0.0)); };
  table.add({"kernel", launch.value("entry", "")});
  table.add({"  blocks x threads", countText(launch["grid"][0].get<double>()) + " x " +
                                       countText(launch["block"][0].get<double>())});
  table.add({"  shared memory", bytesText(launch.value("shared_memory", 0.0))});
  table.add({"  warp instructions", number(launch, "warp_instructions") + ", " +
                                        numberText(launch.value("active_lanes", 0.0), 3) + " lanes each"});
  for (const auto &[name, count] : launch["mix"].items())
    table.add({"    " + name, countText(count.get<double>())});
  const Json &bytes = launch["bytes"];
  table.add({"  global memory",
             number(bytes, "global_read") + " bytes read, " + number(bytes, "global_written") + " written"});
  table.add({"  L2 (32-byte sectors)",
             number(bytes, "l2_read") + " bytes read, " + number(bytes, "l2_written") + " written"});
  table.add({"  shared memory",
             number(bytes, "shared_read") + " bytes read, " + number(bytes, "shared_written") + " written"});
  table.add({"  bank conflicts",
             number(launch, "bank_conflict_passes") + " of " + number(launch, "shared_passes") + " passes"});
  int shown = 0;
  for (const Json &line : launch["bank_conflicts"])
    if (shown++ < 5)
      table.add(
          {"    line " + number(line, "line"),
           number(line, "extra_passes") + " in " + number(line, "executed") + ": " + line.value("text", "")});
  table.add({"  SM cycles, if alone"});
  for (const auto &[name, cycles] : launch["cycles"].items())
    table.add({"    " + name,
               countText(cycles.get<double>()) + (name == launch.value("limiter", "") ? "  <- limit" : "")});
  table.print();
}

Status writeReport(const EmulateFlags &flags, flashplus_context *context, DLDevice device,
                   const Problem &problem, const flashplus_forward_args &args, Json whole) {
  Json kernels = Json::array(), machine = {{"version", flashplus_version()}, {"date", nowText()}};
  if (auto plan = createPlan(context, args)) {
    const Json described =
        Json::parse(flashplus_plan_describe(plan->get()), nullptr, /*allow_exceptions=*/false);
    addKernelFacts(context, described, kernels);
  }
  if (auto all = describe(context))
    machine["build"] = (*all)["compiler"].value("build", "");
  whole["kernels"] = std::move(kernels);
  machine["device"] = {{"model", "the PTX emulator"}};
  whole["machine"] = std::move(machine);
  whole["target"] = device.device_id == 1 ? "sm_90a" : "sm_80";
  whole["problem"] = problem.source + ", q " + io::shapeText(problem.q.shape) + ", k " +
                     io::shapeText(problem.k.shape) + ", " + std::string(io::elementName(problem.q.type)) +
                     (problem.causal ? ", causal" : "");
  return writeText(flags.html, emulateReport(whole));
}

/// What --check found; empty without it.
struct Checks {
  std::optional<reference::Comparison> forward;
  std::optional<reference::BackwardComparison> backward;
  std::optional<std::string> cache; ///< Of an append: where the cache is wrong, "" for nowhere.

  bool goodForward() const { return (!forward || forward->good()) && (!cache || cache->empty()); }
  bool good() const { return goodForward() && (!backward || backward->good()); }
};

Result<Checks> checkAll(const ProblemFlags &flags, const Problem &problem, const DeviceProblem &on_device,
                        const DeviceAppend &append, const DeviceGradients &gradients) {
  Checks checks;
  if (!flags.check)
    return checks;
  Result<io::Tensor> output = on_device.output(), lse = on_device.lse();
  if (!output || !lse)
    return output ? lse.status() : output.status();
  Result<reference::Comparison> forward = checkOutputs(problem, *output, *lse, flags.common.threads);
  if (!forward)
    return forward.status();
  checks.forward = *forward;
  if (flags.append.given()) {
    auto cache = append.checkCache(problem);
    if (!cache)
      return cache.status();
    checks.cache = *cache;
  }
  if (flags.backward) {
    Result<io::Tensor> dq = gradients.dq(), dk = gradients.dk(), dv = gradients.dv();
    if (!dq || !dk || !dv)
      return !dq ? dq.status() : !dk ? dk.status() : dv.status();
    auto backward = checkGradients(problem, *dq, *dk, *dv, flags.common.threads);
    if (!backward)
      return backward.status();
    checks.backward = std::move(*backward);
  }
  return checks;
}

void printChecks(const Checks &checks) {
  if (!checks.forward)
    return;
  Table table;
  if (checks.cache)
    table.add({"cache", checks.cache->empty() ? "as it should be, bit by bit" : "FAILED: " + *checks.cache});
  table.add({"check", checks.goodForward() ? "good" : "FAILED"});
  if (checks.backward)
    table.add(
        {"check of gradients", checks.backward->good() ? "good" : "FAILED: " + checks.backward->complaint()});
  table.print();
}

/// The schedule that --schedule stands for: its text, whole; "" without the flag.
Result<std::string> wantedSchedule(const EmulateFlags &flags, flashplus_context *context,
                                   const flashplus_forward_args &args) {
  if (flags.schedule.empty())
    return std::string();
  auto plan = createPlan(context, args);
  if (!plan)
    return plan.status();
  return scheduleText("--schedule", flags.schedule, forwardSchedule(plan->get()));
}

Status configure(const Emulator &emulator, const EmulateFlags &flags) {
  flashplus_emulator_options options = {};
  options.struct_size = sizeof options;
  options.async = kModes.at(flags.async);
  options.seed = flags.seed;
  options.step_limit = flags.step_limit;
  options.record = 1;
  return emulator.configure(&options) == 0 ? Status::ok()
                                           : Status(StatusCode::Internal, "the emulator refused its options");
}

Result<int> emulate(const EmulateFlags &flags) {
  FLASHPLUS_RETURN_IF_ERROR(prepareOutputs({{"--html", flags.html, ".html .htm"}}));
  sayWhenEnded("no result was written; kernels that were compiled are in the cache");
  Result<Problem> loaded = makeProblem(flags.problem);
  if (!loaded)
    return loaded.status();
  Problem &problem = *loaded;
  Result<Context> context = makeContext(flags.problem.common);
  if (!context)
    return context.status();
  const Result<Emulator> emulator = Emulator::open();
  if (!emulator)
    return emulator.status();
  auto device = emulatedDevice(flags.target, context->get());
  if (!device)
    return device.status();
  FLASHPLUS_RETURN_IF_ERROR(configure(*emulator, flags));
  DeviceProblem on_device;
  FLASHPLUS_RETURN_IF_ERROR(on_device.upload(context->get(), *device, problem));
  flashplus_forward_args forward_args = on_device.args();
  DeviceAppend append;
  if (flags.problem.append.given())
    FLASHPLUS_RETURN_IF_ERROR(
        append.upload(context->get(), *device, flags.problem.append, problem, forward_args));
  const Result<std::string> schedule = wantedSchedule(flags, context->get(), forward_args);
  if (!schedule)
    return schedule.status();
  if (!schedule->empty())
    forward_args.schedule = schedule->c_str();
  FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_forward(context->get(), &forward_args, nullptr)));
  DeviceGradients gradients;
  if (flags.problem.backward) {
    FLASHPLUS_RETURN_IF_ERROR(gradients.upload(context->get(), *device, problem, on_device));
    FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_backward(context->get(), &gradients.args(), nullptr)));
  }
  Json json = {{"launches", Json::parse(emulator->report(), nullptr, /*allow_exceptions=*/false)}};
  const Result<Checks> checks = checkAll(flags.problem, problem, on_device, append, gradients);
  if (!checks)
    return checks.status();
  if (checks->forward)
    json["check"] = checkJson(*checks->forward, checks->cache);
  if (checks->backward)
    json["backward"] = {{"check", checkJson(*checks->backward)}};
  // What ran is printed whether or not its page can be written.
  if (flags.problem.common.json) {
    printJson(json);
  } else {
    for (const Json &launch : json["launches"])
      printLaunch(launch);
    printChecks(*checks);
  }
  if (!flags.html.empty())
    FLASHPLUS_RETURN_IF_ERROR(writeReport(flags, context->get(), *device, problem, forward_args, json));
  return checks->good() ? kExitGood : kExitFailed;
}

} // namespace

void addEmulate(CLI::App &app, Action *selected) {
  CLI::App *verb =
      app.add_subcommand("emulate", "Run the GPU kernels on the PTX emulator: errors, counts, a roofline");
  verb->footer("No GPU is needed. A kernel that does something PTX does not allow fails with the PTX line "
               "and thread.\n"
               "Cycles are those of a Hopper SM's units, each for itself (docs/emulator.md).\n\n"
               "Examples:\n"
               "  flashplus emulate --random 1,256,256,2,2,64 --causal --check\n"
               "  flashplus emulate --random 1,96,96,2,1,64 --causal --backward --check\n"
               "  flashplus emulate --decode 2,300,8,2,64 --ragged --page-size 16 --append 1 --rotary 64 "
               "--check\n"
               "  flashplus emulate --random 1,128,128,1,1,64 --target sm_90a --schedule tile_n=64\n"
               "  flashplus emulate --random 1,64,64,1,1,128 --async random --order-seed 7 --json");
  auto flags = std::make_shared<EmulateFlags>();
  addProblemFlags(*verb, flags->problem);
  verb->add_option("--async", flags->async, "When asynchronous copies land: late, eager or random")
      ->transform(oneOf({"late", "eager", "random"}))
      ->type_name("WHEN")
      ->capture_default_str();
  verb->add_option("--target", flags->target, "Whose instructions: sm_80 or sm_90a, or a GPU's name [sm_80]")
      ->type_name("TARGET");
  verb->add_option("--schedule", flags->schedule,
                   "Force the forward's schedule, or some knobs of the chosen one")
      ->type_name("NAME=N,...|TEXT");
  verb->add_option("--html", flags->html, "Write a report for people: a roofline, instructions, memory")
      ->type_name("FILE.html");
  verb->add_option("--order-seed", flags->seed, "Seed of --async random")
      ->check(unsignedNumber())
      ->type_name("N")
      ->capture_default_str();
  verb->add_option("--step-limit", flags->step_limit,
                   "Instructions of a block's warps before it is stopped [2^34]")
      ->check(unsignedNumber())
      ->type_name("N");
  verb->callback([flags, selected] { *selected = [flags] { return emulate(*flags); }; });
}

} // namespace flashplus::tool
