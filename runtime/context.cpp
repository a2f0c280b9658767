// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/context.h"

#include "build_id.h"
#include "cache/pack.h"
#include "runtime/api/error.h"
#include "runtime/arguments/public_structs.h"
#include "runtime/devices/cpu/cpu_device.h"
#include "runtime/devices/cpu/processors.h"
#include "runtime/devices/cuda/cuda_device.h"
#include "runtime/devices/emulator/emulator_library.h"
#include "runtime/kernels/calls_in_flight.h"

#include <algorithm>
#include <cstring>
#include <ranges>
#include <unistd.h>

namespace flashplus {
namespace {

constexpr const char *kLocksParent = "/dev/shm"; ///< Of this machine, and gone when it restarts.

Status checkOptions(const flashplus_context_options &o) {
  if (o.num_threads < 0 || o.num_threads > kMaxThreads)
    return invalidArgument("options.num_threads is " + std::to_string(o.num_threads) + "; it must be 0 to " +
                           std::to_string(kMaxThreads));
  for (const auto &[name, value] : {std::pair<const char *, int64_t>("compile_bytes", o.compile_bytes),
                                    {"compile_seconds", o.compile_seconds}})
    if (value < -1)
      return invalidArgument("options." + std::string(name) + " is " + std::to_string(value) +
                             "; it must be positive, 0 for the default or -1 for no limit");
  if (o.parallel_for && (o.pool_threads < 1 || o.pool_threads > kMaxThreads))
    return invalidArgument("options.pool_threads is " + std::to_string(o.pool_threads) +
                           "; with parallel_for it must be 1 to " + std::to_string(kMaxThreads));
  return Status::ok();
}

/// The one that the caller gives (-1: none), else the environment's (-1: it has none), else `usual`; 0: none.
int64_t limit(int64_t option, int64_t environment, int64_t usual) {
  return option ? std::max<int64_t>(option, 0) : environment >= 0 ? environment : usual;
}

} // namespace

Context::~Context() = default;

void Context::log(const std::string &message) const {
  {
    std::lock_guard lock(warnings_mutex_);
    ++warnings_count_;
    if (warnings_.size() == kKeptWarnings)
      warnings_.erase(warnings_.begin());
    warnings_.push_back(message);
  }
  lines_->write(LogLines::Level::Warn, message);
  if (log_)
    log_(log_context_, message.c_str());
}

std::vector<std::string> Context::warnings() const {
  std::lock_guard lock(warnings_mutex_);
  return warnings_;
}

int64_t Context::warningsCount() const {
  std::lock_guard lock(warnings_mutex_);
  return warnings_count_;
}

Result<std::shared_ptr<Context>> Context::create(const flashplus_context_options *options) {
  flashplus_context_options o;
  FLASHPLUS_RETURN_IF_ERROR(readContextOptions(options, o));
  FLASHPLUS_RETURN_IF_ERROR(checkOptions(o));
  const Environment environment = Environment::read();
  CudaLimits limits;
  limits.shared_memory_per_block = environment.cuda_shared_memory;
  if (!environment.cuda_target.empty()) {
    auto target = Target::parse(environment.cuda_target);
    if (!target || !isGpu(target->isa))
      return invalidArgument("$FLASHPLUS_CUDA_TARGET is '" + environment.cuda_target +
                             "'; it must be a GPU target such as sm_80");
    limits.isa = target->isa;
  }
  std::optional<Target> cpu_target;
  if (!environment.cpu_target.empty()) {
    auto target = Target::parse(environment.cpu_target);
    if (!target || isGpu(target->isa))
      return invalidArgument("$FLASHPLUS_CPU_TARGET is '" + environment.cpu_target +
                             "'; it must be a CPU target such as x86-64-v3");
    cpu_target = *target;
  }
  if (const std::string &late = environment.late_compile; !late.empty() && late != "warn" && late != "error")
    return invalidArgument("$FLASHPLUS_LATE_COMPILE is '" + late + "'; it must be warn or error");
  if (const std::string &values = environment.debug_values; !values.empty() && values != "0" && values != "1")
    return invalidArgument("$FLASHPLUS_DEBUG_VALUES is '" + values + "'; it must be 0 or 1");
  auto lines = LogLines::open(environment.log);
  if (!lines)
    return lines.status();
  { const CallInFlight first; } // what it makes once is made before threads fork
  std::shared_ptr<Context> c(new Context);
  c->lines_ = std::move(*lines);
  c->debugs_values_ = environment.debug_values == "1";
  c->late_ = environment.late_compile == "error" ? KernelTable::Late::Error : KernelTable::Late::Warn;
  c->cuda_limits_ = limits;
  c->cpu_target_ = cpu_target;
  c->log_ = o.log;
  c->log_context_ = o.log_context;
  int threads = o.num_threads ? o.num_threads : environment.num_threads;
  c->pool_ = o.parallel_for ? std::make_unique<ThreadPool>(o.parallel_for, o.pool, o.pool_threads)
                            : std::make_unique<ThreadPool>(threads ? threads : usableProcessors());
  const Context *self = c.get();
  auto log = [self](const std::string &message) { self->log(message); };
  const std::string cache_dir = o.cache_dir ? o.cache_dir : environment.cache_dir;
  for (const std::string &problem : environment.problems)
    log(problem);
  // Who can't rebuild what is damaged does not delete it, and makes no folder to put nothing into.
  c->store_ = o.offline ? KernelStore::openReadOnly(cache_dir, log) : KernelStore::open(cache_dir, log);
  c->store_->setNotesUse(true); // who is offline shares the folder with those who write it
  const int64_t most = environment.cache_bytes;
  c->store_->setMostBytes(most >= 0 ? most : KernelStore::kDefaultMostBytes,
                          std::string("$FLASHPLUS_CACHE_SIZE") + (most >= 0 ? "" : ", by default"));
  for (const std::string &folder : environment.cache_path)
    if (folder.starts_with("/"))
      c->read_only_sources_.push_back(openSource(folder, FLASHPLUS_BUILD_ID, log));
    else
      log("$FLASHPLUS_CACHE_PATH has '" + folder + "', which is left out: it must be an absolute path");
  if (access(kLocksParent, W_OK) == 0)
    c->locks_ = std::make_unique<KeyLocks>(
        std::string(kLocksParent) + "/flashplus-" + std::to_string(geteuid()), log);
  if (o.cache_dir && *o.cache_dir && !o.cache_optional && !c->store_->onDisk())
    return Status(StatusCode::IoError,
                  "options.cache_dir is '" + cache_dir + "', which cannot be used: " + c->store_->reason() +
                      "; name another folder, \"\" for none, or set cache_optional to 1");
  auto debug =
      KernelDebug::open(environment.debug_kernels, cache_dir.empty() ? "/tmp" : cache_dir + "/jitdump", log);
  if (!debug)
    return debug.status();
  c->kernel_debug_ = std::move(*debug);
  if (!environment.tuning.empty())
    c->tuning_ = TuningRecords::read(environment.tuning, log);
  else {
    const auto addRecords = [&](const KernelSource &source) {
      for (const TextFile &file :
           source.texts("tuning", ".json", {kMostTuningBytes, kMostTuningFiles, kMostTuningBytesInAll}))
        c->tuning_.addText(file.text, file.path, log);
    };
    // A later record's choices go first: those of the cache, then those of the path in its order.
    for (const auto &source : c->read_only_sources_ | std::views::reverse)
      addRecords(*source);
    addRecords(*c->store_);
  }
  CompilerOptions compiling{.in_process = o.compile_in_process || environment.compile_in_process, .log = log};
  compiling.limits.bytes = limit(o.compile_bytes, environment.compile_bytes, compiling.limits.bytes);
  compiling.limits.seconds = limit(o.compile_seconds, environment.compile_seconds, compiling.limits.seconds);
  c->compiler_ = std::make_unique<CompilerLibrary>(o.compiler_path ? o.compiler_path : environment.compiler,
                                                   environment.nvjitlink, environment.ptxas, environment.path,
                                                   std::move(compiling));
  CompilerLibrary *compiler = c->compiler_.get();
  std::vector<KernelSource *> before;
  for (const auto &source : c->read_only_sources_)
    before.push_back(source.get());
  if (!environment.record_misses.empty()) {
    auto misses = MissRecord::open(environment.record_misses);
    if (!misses)
      return misses.status();
    c->misses_ = std::move(*misses);
  }
  KernelTable::Stores stores(*c->store_, before, c->locks_.get());
  stores.misses = c->misses_.get();
  c->kernels_ = std::make_unique<KernelTable>(
      stores,
      [compiler](const std::string &spec, const std::string &schedule, const std::string &target, bool ptx,
                 const CompilerLibrary::Waiting &waiting) {
        return ptx ? compiler->compilePtx(spec, schedule, target, waiting)
                   : compiler->compile(spec, schedule, target, waiting);
      },
      o.offline != 0, log,
      o.listener || c->lines_->takes(LogLines::Level::Info)
          ? KernelTable::Listen(
                [self, listener = o.listener, listens = o.listener_context](const flashplus_event &event) {
                  if (self->lines_->takes(LogLines::Level::Info))
                    self->note(eventText(event));
                  if (listener)
                    listener(listens, &event);
                })
          : nullptr,
      [compiler](const Target &target) { return compiler->mayAssemble(target); });
  c->usage_ = std::make_unique<UsageReport>(*c->store_, c->kernels_->counters);
  c->kernels_->afterWork([usage = c->usage_.get()] { usage->workDone(); });
  c->note("library " + std::string(flashplus_version()) + ", build " FLASHPLUS_BUILD_ID ", cache " +
          (c->store_->onDisk() ? "'" + c->store_->dir() + "'" : "in memory only") + ", " +
          std::to_string(before.size()) + " folders that are only read, " +
          (o.offline ? "offline" : "compiling") + ", " + std::to_string(c->pool_->threads()) + " threads");
  c->kernels_->rememberRefusals([compiler](const Target &target) { return compiler->toolchain(target); });
  return c;
}

Result<std::unique_ptr<Device>> Context::openDevice(DLDevice id) {
  if (id.device_type == kDLCPU && id.device_id == 0)
    return createCpuDevice(*pool_, cpu_target_, kernel_debug_);
  if (id.device_type == kDLExtDev)
    return createEmulatorDevice(id.device_id, pool_->threads());
  if (id.device_type != kDLCUDA)
    return Status(StatusCode::NoDevice, "device type " + std::to_string(int(id.device_type)) + " number " +
                                            std::to_string(id.device_id) +
                                            " does not exist; there is kDLCPU (1) number 0, kDLCUDA (2) and "
                                            "kDLExtDev (12), the emulator");
  auto driver = cuda::openDriver();
  if (!driver)
    return driver.status();
  auto count = cudaDeviceCount(**driver);
  if (!count)
    return count.status();
  if (id.device_id < 0 || id.device_id >= *count)
    return Status(StatusCode::NoDevice, "cuda:" + std::to_string(id.device_id) +
                                            " does not exist; there are " + std::to_string(*count) +
                                            " GPUs, numbered from 0");
  return createCudaDevice(**driver, id.device_id, cuda_limits_);
}

Device *Context::findDevice(DLDevice id) {
  std::lock_guard lock(devices_mutex_);
  const auto it = devices_.find({int(id.device_type), int(id.device_id)});
  return it == devices_.end() ? nullptr : it->second.get();
}

Result<Device *> Context::device(DLDevice id) {
  if (Device *open = openDeviceOf(id))
    return open;
  Device *device = findDevice(id);
  if (!device) {
    const std::pair key(int(id.device_type), int(id.device_id));
    const Flights::Flight flight(opening_devices_,
                                 std::to_string(key.first) + ":" + std::to_string(key.second));
    device = findDevice(id); // opened while we waited?
    if (!device) {
      const NotCancelled whole;
      auto opened = openDevice(id);
      if (!opened) // not kept: the next call may find the memory or the driver that this one lacked
        return opened.status();
      device = opened->get();
      std::lock_guard lock(devices_mutex_);
      devices_.emplace(key, std::move(*opened));
    }
  }
  if (std::atomic<Device *> *slot = openSlot(id))
    slot->store(device, std::memory_order_release);
  return device;
}

Result<int64_t> Context::dropIdleKernels() {
  if (isCallInFlight())
    return invalidArgument(
        "flashplus_drop_idle_kernels was called by a callback of another call, for which it "
        "would wait; call it from outside");
  if (!canWaitForCalls())
    return Status(StatusCode::Unsupported, "kernels cannot be dropped: the system has no membarrier(2)");
  std::vector<std::shared_ptr<ResidentKernel>> idle = kernels_->findIdle();
  specs_.forget(idle);
  kernels_->takeIdle(idle);
  if (idle.empty())
    return int64_t(0);
  // Calls that were in flight before may put what they found into the memo once more, where others find it:
  // both are waited for.
  for (int round = 0; round < 2; ++round) {
    plans_.clear();
    waitForCallsInFlight();
  }
  note("dropped " + std::to_string(idle.size()) + " kernels that were idle");
  return int64_t(idle.size());
}

std::vector<Schedule> Context::rejected(const std::string &id) {
  std::lock_guard lock(rejected_mutex_);
  const auto it = rejected_.find(id);
  return it == rejected_.end() ? std::vector<Schedule>() : it->second;
}

bool Context::reject(const std::string &id, const Schedule &schedule) {
  std::lock_guard lock(rejected_mutex_);
  std::vector<Schedule> &list = rejected_[id];
  if (std::find(list.begin(), list.end(), schedule) != list.end())
    return false;
  list.push_back(schedule);
  return true;
}

} // namespace flashplus

using namespace flashplus;

flashplus_status flashplus_context_create(const flashplus_context_options *options, flashplus_context **out) {
  return guarded([&]() -> Status {
    if (!out)
      return invalidArgument("out is null");
    *out = nullptr;
    auto context = Context::create(options);
    if (!context)
      return context.status();
    *out = new flashplus_context{std::move(*context)};
    return Status::ok();
  });
}

void flashplus_context_destroy(flashplus_context *context) {
  const NotCancelled whole; // joins threads
  delete context;
}

flashplus_status flashplus_get_counters(flashplus_context *context, flashplus_counters *out) {
  return guarded([&]() -> Status {
    if (!context || !out)
      return invalidArgument(context ? "out is null" : "context is null");
    const KernelCounters &c = context->impl->kernels().counters;
    flashplus_counters all{.struct_size = sizeof all,
                           .warnings = context->impl->warningsCount(),
                           .evicted = context->impl->store().counters().evicted};
#define FLASHPLUS_COUNT(NAME) all.NAME = c.NAME;
#define FLASHPLUS_TIME(NAME) all.NAME##_ms = double(c.NAME##_us) / 1000;
    FLASHPLUS_LAUNCH_COUNTS(FLASHPLUS_COUNT)
    FLASHPLUS_KERNEL_COUNTS(FLASHPLUS_COUNT)
    FLASHPLUS_KERNEL_TIMES(FLASHPLUS_TIME)
#undef FLASHPLUS_TIME
#undef FLASHPLUS_COUNT
#define FLASHPLUS_ONE(NAME) +1
    // The lists have every field but the three that are not a KernelTable's.
    static_assert(sizeof all == sizeof(int64_t) * (3 FLASHPLUS_LAUNCH_COUNTS(FLASHPLUS_ONE)
                                                       FLASHPLUS_KERNEL_COUNTS(FLASHPLUS_ONE)
                                                           FLASHPLUS_KERNEL_TIMES(FLASHPLUS_ONE)));
#undef FLASHPLUS_ONE
    return fillStruct("out", "flashplus_counters", out, FLASHPLUS_SIZE_WITH(flashplus_counters, load_ms),
                      all);
  });
}

flashplus_status flashplus_mark_ready(flashplus_context *context, flashplus_late_compile late) {
  return guarded([&]() -> Status {
    if (!context)
      return invalidArgument("context is null");
    using Late = KernelTable::Late;
    if (late != FLASHPLUS_LATE_ALLOW) // it has done its work
      context->impl->compiler().rest();
    KernelTable &kernels = context->impl->kernels();
    context->impl->usage().write(/*patient=*/false);
    switch (late) {
    case FLASHPLUS_LATE_ENVIRONMENT:
      kernels.setLate(context->impl->lateByDefault());
      return Status::ok();
    case FLASHPLUS_LATE_WARN:
      kernels.setLate(Late::Warn);
      return Status::ok();
    case FLASHPLUS_LATE_ERROR:
      kernels.setLate(Late::Error);
      return Status::ok();
    case FLASHPLUS_LATE_ALLOW:
      kernels.setLate(Late::Allow);
      return Status::ok();
    }
    return invalidArgument(
        "late is " + std::to_string(int(late)) +
        "; it must be FLASHPLUS_LATE_ENVIRONMENT (0), _WARN (1), _ERROR (2) or _ALLOW (3)");
  });
}

flashplus_status flashplus_drop_idle_kernels(flashplus_context *context, int64_t *dropped) {
  return guarded([&]() -> Status {
    if (!context)
      return invalidArgument("context is null");
    auto count = context->impl->dropIdleKernels();
    if (!count)
      return count.status();
    if (dropped)
      *dropped = *count;
    return Status::ok();
  });
}

// --- device memory -----------------------------------------------------------------------------------------

namespace {

template <class Body> flashplus_status onDevice(flashplus_context *context, DLDevice id, Body body) {
  return guarded([&]() -> Status {
    if (!context)
      return invalidArgument("context is null");
    auto device = context->impl->device(id);
    if (!device)
      return device.status();
    return body(**device);
  });
}

Status checkCopy(const void *to, const char *to_name, const void *from, const char *from_name, size_t bytes) {
  if (bytes && (!to || !from))
    return invalidArgument(std::string(to ? from_name : to_name) + " is null; it must point to " +
                           std::to_string(bytes) + " bytes");
  return Status::ok();
}

} // namespace

flashplus_status flashplus_device_malloc(flashplus_context *context, DLDevice device, size_t bytes,
                                         void **out) {
  return onDevice(context, device, [&](Device &d) -> Status {
    if (!out)
      return invalidArgument("out is null");
    *out = nullptr;
    auto memory = d.allocate(bytes);
    if (!memory)
      return memory.status();
    *out = *memory;
    return Status::ok();
  });
}

flashplus_status flashplus_device_free(flashplus_context *context, DLDevice device, void *memory) {
  return onDevice(context, device, [&](Device &d) { return memory ? d.release(memory) : Status::ok(); });
}

flashplus_status flashplus_copy_to_device(flashplus_context *context, DLDevice device, void *dst,
                                          const void *host_src, size_t bytes) {
  return onDevice(context, device, [&](Device &d) -> Status {
    FLASHPLUS_RETURN_IF_ERROR(checkCopy(dst, "dst", host_src, "host_src", bytes));
    return bytes ? d.copyToDevice(dst, host_src, bytes) : Status::ok();
  });
}

flashplus_status flashplus_copy_to_host(flashplus_context *context, DLDevice device, void *host_dst,
                                        const void *src, size_t bytes) {
  return onDevice(context, device, [&](Device &d) -> Status {
    FLASHPLUS_RETURN_IF_ERROR(checkCopy(host_dst, "host_dst", src, "src", bytes));
    return bytes ? d.copyToHost(host_dst, src, bytes) : Status::ok();
  });
}

flashplus_status flashplus_synchronize(flashplus_context *context, DLDevice device, void *stream) {
  return onDevice(context, device, [&](Device &d) { return d.synchronize(stream); });
}
