// SPDX-License-Identifier: BSD-3-Clause
// flashplus_get_kernel, flashplus_print_stage, flashplus_reachable_kernels, flashplus_spec_of.
#include "runtime/context.h"
#include "runtime/api/error.h"
#include "runtime/arguments/backward_args.h"
#include "runtime/arguments/forward_args.h"
#include "runtime/arguments/public_structs.h"
#include "templates/forward/planner.h"
#include "templates/planner.h"

#include <cstdlib>
#include <cstring>

using namespace flashplus;

struct flashplus_kernel {
  std::shared_ptr<const KernelCode> code;
  std::string key, key_text;
};

namespace {

struct KernelName {
  PlannedKernel kernel;
  Target target;
};

Result<KernelName> parseSpecAndTarget(const char *spec, const char *target) {
  if (!spec || !target)
    return invalidArgument(spec ? "target is null" : "spec is null");
  auto parsed_spec = KernelSpec::parse(spec);
  if (!parsed_spec)
    return parsed_spec.status();
  auto parsed_target = Target::parse(target);
  if (!parsed_target)
    return parsed_target.status();
  return KernelName{{std::move(*parsed_spec), {}}, *parsed_target};
}

Status noSchedule(const KernelName &name) {
  FLASHPLUS_RETURN_IF_ERROR(checkDTypes(name.kernel.spec, name.target));
  return {StatusCode::Unsupported,
          "no schedule of '" + name.kernel.spec.text() + "' fits " + name.target.text()};
}

Result<KernelName> parseName(const char *spec, const char *schedule, const char *target) {
  auto known = parseSpecAndTarget(spec, target);
  if (!known)
    return known;
  KernelName &name = *known;
  if (schedule) {
    auto parsed = Schedule::parse(schedule);
    if (!parsed)
      return parsed.status();
    name.kernel.schedule = completeSchedule(std::move(*parsed));
  } else {
    auto feasible = feasibleSchedules(name.kernel.spec, offlineProfile(name.target));
    if (feasible.empty())
      return noSchedule(name);
    name.kernel.schedule = std::move(feasible.front());
  }
  auto launch = launchSchema(name.kernel.spec, name.kernel.schedule, name.target);
  if (!launch)
    return launch.status();
  return name;
}

Status copyText(const std::string &from, char **to) {
  *to = static_cast<char *>(std::malloc(from.size() + 1));
  if (!*to)
    return {StatusCode::OutOfMemory, "out of host memory"};
  std::memcpy(*to, from.c_str(), from.size() + 1);
  return Status::ok();
}

/// The tuning records that speak for a spec, a line each: which of them a plan takes depends on the device
/// and the sizes.
std::string tunedLines(const Context &context, const KernelName &name) {
  std::string text;
  for (const TunedSchedule &t : context.tuning().find(name.kernel.spec, "", name.target))
    text += "\nrecord    " + t.record + ": " + std::to_string(t.queries) + " queries, " +
            std::to_string(t.keys) + " keys: " + t.schedule.text();
  return text;
}

const char *kindName(CodeKind kind) {
  return kind == CodeKind::X86Object ? "x86-object" : kind == CodeKind::Ptx ? "ptx" : "cubin";
}

const char *sourceName(KernelCode::Source source) {
  return source == KernelCode::Source::Memory ? "memory"
         : source == KernelCode::Source::Disk ? "disk"
                                              : "compiled";
}

} // namespace

flashplus_status flashplus_get_kernel(flashplus_context *context, const char *spec, const char *schedule,
                                      const char *target, flashplus_kernel **out) {
  return guarded([&]() -> Status {
    if (!context || !out)
      return invalidArgument(context ? "out is null" : "context is null");
    *out = nullptr;
    auto name = parseName(spec, schedule, target);
    if (!name)
      return name.status();
    auto code = context->impl->kernels().code(name->kernel, name->target);
    if (!code)
      return code.status();
    *out = new flashplus_kernel{*code, (*code)->key.hex(), (*code)->key.text()};
    return Status::ok();
  });
}

void flashplus_kernel_destroy(flashplus_kernel *kernel) { delete kernel; }

flashplus_status flashplus_kernel_get_info(const flashplus_kernel *kernel, flashplus_kernel_info *out) {
  return guarded([&]() -> Status {
    if (!kernel || !out)
      return invalidArgument(kernel ? "out is null" : "kernel is null");
    const KernelCode &c = *kernel->code;
    const Artifact &a = c.artifact;
    flashplus_kernel_info all = {};
    all.key = kernel->key.c_str();
    all.key_text = kernel->key_text.c_str();
    all.spec = c.key.spec.c_str();
    all.schedule = c.key.schedule.c_str();
    all.target = c.key.target.c_str();
    all.kind = kindName(a.kind);
    all.code = a.code.data();
    all.code_size = a.code.size();
    all.entry = a.launch.entry.c_str();
    all.threads = a.launch.threads;
    all.shared_memory = a.launch.shared_memory;
    all.scratch = a.launch.scratch;
    all.params_size = a.launch.params_size;
    all.registers = a.resources.registers;
    all.spill_bytes = a.resources.spill_bytes;
    all.stack_bytes = a.resources.stack_bytes;
    all.source = sourceName(c.source);
    all.provenance = a.provenance.c_str();
    all.compile_ms = c.compile_ms;
    all.load_ms = c.load_ms;
    return fillStruct("out", "flashplus_kernel_info", out,
                      FLASHPLUS_SIZE_WITH(flashplus_kernel_info, load_ms), all);
  });
}

flashplus_status flashplus_print_stage(flashplus_context *context, const char *spec, const char *schedule,
                                       const char *target, const char *stage, char **text) {
  return guarded([&]() -> Status {
    if (!context || !stage || !text)
      return invalidArgument(!context ? "context is null" : !stage ? "stage is null" : "text is null");
    auto name = parseName(spec, schedule, target);
    if (!name)
      return name.status();
    const std::string spec_text = name->kernel.spec.text(), schedule_text = name->kernel.schedule.text();
    if (std::strcmp(stage, "spec") == 0)
      return copyText("spec      " + spec_text + "\nschedule  " + schedule_text + "\nsource    " +
                          (schedule ? "forced" : "default table") + tunedLines(*context->impl, *name) +
                          "\ntarget    " + name->target.text() + "\nkey       " +
                          KernelTable::keyOf(name->kernel, name->target).hex() + "\n",
                      text);
    auto printed = context->impl->compiler().print(spec_text, schedule_text, name->target.text(), stage);
    if (!printed)
      return printed.status();
    return copyText(*printed, text);
  });
}

void flashplus_free_text(char *text) { std::free(text); }

flashplus_status flashplus_reachable_kernels(flashplus_context *context, const char *spec, const char *target,
                                             flashplus_kernel_visitor visit, void *visitor_context) {
  return guarded([&]() -> Status {
    if (!context || !visit)
      return invalidArgument(context ? "visit is null" : "context is null");
    auto name = parseSpecAndTarget(spec, target);
    if (!name)
      return name.status();
    const KernelSpec wanted = name->kernel.spec;
    const auto kernels = reachableKernels(wanted, offlineProfile(name->target));
    if (kernels.empty())
      return noSchedule(*name);
    for (const PlannedKernel &k : kernels)
      visit(visitor_context, k.spec.text().c_str(), k.schedule.text().c_str());
    // What plans take from tuning records, of whichever model: one more kernel is cheaper than a missing one.
    for (const KernelSpec &step : tunedSpecs(wanted, name->target))
      for (const TunedSchedule &t : context->impl->tuning().find(step, "", name->target))
        for (const KernelSpec &one : {step, sharesOf(step)})
          if (launchSchema(one, t.schedule, name->target))
            visit(visitor_context, one.text().c_str(), t.schedule.text().c_str());
    return Status::ok();
  });
}

namespace {

template <class Problem, class Args>
flashplus_status specOf(const Args *args,
                        Status (*check)(const Args *, DataPointers, ScoreTable &, Problem &), char **text) {
  return guarded([&]() -> Status {
    if (!text)
      return invalidArgument("text is null");
    *text = nullptr;
    ScoreTable scores;
    Problem problem;
    FLASHPLUS_RETURN_IF_ERROR(check(args, DataPointers::Optional, scores, problem));
    const KernelSpec spec = problem.spec.spec();
    FLASHPLUS_RETURN_IF_ERROR(spec.validate());
    return copyText(spec.text(), text);
  });
}

} // namespace

flashplus_status flashplus_spec_of(const flashplus_forward_args *args, char **text) {
  return specOf(args, checkForwardArgs, text);
}

flashplus_status flashplus_backward_spec_of(const flashplus_backward_args *args, char **text) {
  return specOf(args, checkBackwardArgs, text);
}
