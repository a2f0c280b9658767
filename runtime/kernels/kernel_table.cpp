// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/kernels/kernel_table.h"

#include "build_id.h"

#include <chrono>
#include <utility>

namespace flashplus {
namespace {

using Clock = std::chrono::steady_clock;

/// The driver field of keys whose code was left as PTX on purpose.
constexpr const char *kPtxDriver = "ptx";

constexpr const char *kHowToWarm =
    "plan such a call before flashplus_mark_ready, or warm the cache with flashplus warmup";

double millisecondsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

} // namespace

void KernelTable::tell(flashplus_event_kind kind, const KernelKey &key, const std::string &detail, double ms,
                       const flashplus_compile_times &times, size_t code_bytes) const {
  if (!listen_)
    return;
  const std::string hex = kind == FLASHPLUS_EVENT_FALLBACK ? "" : key.hex();
  listen_({.struct_size = sizeof(flashplus_event),
           .kind = kind,
           .key = hex.c_str(),
           .spec = key.spec.c_str(),
           .schedule = key.schedule.c_str(),
           .target = key.target.c_str(),
           .detail = detail.c_str(),
           .ms = ms,
           .build_ms = times.build,
           .passes_ms = times.passes,
           .optimize_ms = times.optimize,
           .emit_ms = times.emit,
           .assemble_ms = times.assemble,
           .code_bytes = int64_t(code_bytes)});
}

void KernelTable::fellBack(const PlannedKernel &kernel, const Target &target, const std::string &why) {
  ++counters.fallbacks;
  tell(FLASHPLUS_EVENT_FALLBACK, keyOf(kernel, target), why);
}

KernelKey KernelTable::keyOf(const PlannedKernel &kernel, const Target &target) {
  KernelKey key;
  key.spec = kernel.spec.text();
  key.schedule = kernel.schedule.text();
  key.target = target.text();
  const ParamLayout layout = paramLayout(kernel.spec);
  key.params = paramLayoutText(layout.fields, layout.size);
  key.build = FLASHPLUS_BUILD_ID;
  return key;
}

void KernelTable::refuse(const KernelKey &key, int tier, const std::string &mark, const std::string &why) {
  store_.discard(key, tier, mark, why);
  ++counters.corrupt;
  ++counters.miss_refused;
  tell(FLASHPLUS_EVENT_REFUSED, key, why);
}

KernelTable::Found KernelTable::read(const std::vector<KernelKey> &names, const LaunchSchema &plan,
                                     const Target &target, bool ptx) {
  Found found;
  const std::atomic<bool> &ptx_is_final = ptx_is_final_[isaInfo(target.isa).has(kSetMaxRegisters)];
  for (const KernelKey &name : names) {
    const auto start = Clock::now();
    ReadResult read = store_.read(name);
    // The checksum finds damage. That memory and threads are what the code was written for is compared, since
    // with less it would write where it must not. Another folder may have a good one.
    for (size_t folders = store_.readOnly(); read.isHit() && !(read.artifact->launch == plan); --folders) {
      const bool is_last = read.tier < 0 || folders == 0;
      refuse(name, read.tier, read.mark, "its launch schema is not the plan's");
      read = is_last ? ReadResult{.miss = Miss::Absent} : store_.read(name);
    }
    switch (read.miss) {
    case Miss::None:
      break;
    case Miss::Absent:
    case Miss::MemoryOnly:
      ++counters.miss_absent;
      break;
    case Miss::Damaged:
      ++counters.corrupt;
      ++counters.miss_damaged;
      tell(FLASHPLUS_EVENT_DAMAGED, name);
      break;
    case Miss::Unreadable:
    case Miss::Untrusted:
      ++counters.miss_unreadable;
      break;
    }
    found.is_in_no_cache &= read.miss == Miss::Absent || read.miss == Miss::MemoryOnly;
    if (!read.isHit())
      continue;
    // Code that was left as PTX, on a machine that had neither nvJitLink nor a driver, is of no use to a
    // device.
    if (names.size() > 1 && !ptx && read.artifact->kind == CodeKind::Ptx)
      continue;
    auto code = std::make_shared<KernelCode>();
    code->key = name;
    code->artifact = std::move(*read.artifact);
    code->source = KernelCode::Source::Disk;
    code->load_ms = millisecondsSince(start);
    code->tier = read.tier;
    code->mark = std::move(read.mark);
    if (code->artifact.kind == CodeKind::Ptx && !ptx && !offline_ && late_ == Late::Allow && !ptx_is_final &&
        may_assemble_ && may_assemble_(target)) {
      found.not_assembled = std::move(code);
      return found;
    }
    ++counters.disk_hits;
    counters.load_us += int64_t(code->load_ms * 1000);
    tell(FLASHPLUS_EVENT_DISK_HIT, name, "", code->load_ms, {}, code->artifact.code.size());
    found.code = std::move(code);
    return found;
  }
  return found;
}

void KernelTable::recordMiss(const KernelKey &key) const {
  if (misses_)
    if (Status kept = misses_->add(key.spec, key.schedule, key.target); !kept)
      log_(kept.message());
}

std::unique_ptr<KeyLock> KernelTable::lock(const KernelKey &key) {
  // Without a folder to share, or room in it, there is nothing to wait for.
  if (!locks_ || shares_in_vain_ || offline_ || late_ == Late::Error || !store_.own().onDisk() ||
      !store_.own().canWrite())
    return nullptr;
  const std::string folder = store_.own().identity();
  return folder.empty() ? nullptr
                        : locks_->take(hashText(folder + "\n" + key.text()).hex(),
                                       "'" + key.spec + "' with '" + key.schedule + "' for " + key.target);
}

Result<std::shared_ptr<const KernelCode>> KernelTable::code(const PlannedKernel &kernel, const Target &target,
                                                            Device *assembler) {
  auto code = readOrMake(kernel, target, assembler);
  if (after_work_)
    after_work_();
  return code;
}

Result<std::shared_ptr<const KernelCode>> KernelTable::readOrMake(const PlannedKernel &kernel,
                                                                  const Target &target, Device *assembler) {
  KernelKey key = keyOf(kernel, target);
  std::vector<KernelKey> names{key};
  const bool ptx = assembler && assembler->takesPtx();
  if (ptx) {
    names.front().driver = key.driver = kPtxDriver;
  } else if (assembler && !assembler->assemblerId().empty()) {
    names.push_back(key);
    names.back().driver = assembler->assemblerId();
  }
  auto plan = launchSchema(kernel.spec, kernel.schedule, target);
  if (!plan)
    return plan.status();
  const Flights::Flight flight(flights_, key.text());
  Found found = read(names, *plan, target, ptx);
  if (found.code)
    return std::shared_ptr<const KernelCode>(std::move(found.code));
  const auto marks = [&] {
    std::vector<std::string> all;
    for (const KernelKey &name : names)
      all.push_back(store_.mark(name));
    return all;
  };
  const std::vector<std::string> before =
      found.is_in_no_cache ? std::vector<std::string>(names.size()) : marks();
  std::unique_ptr<KeyLock> lock = this->lock(key);
  if (lock) {
    // Another process may have made it meanwhile. What was of no use before is not read again.
    if (const std::vector<std::string> now = marks(); now != before) {
      Found later = read(names, *plan, target, ptx);
      if (later.code)
        return std::shared_ptr<const KernelCode>(std::move(later.code));
      if (later.not_assembled)
        found = std::move(later);
    } else if (lock->waited()) {
      // It could not make it, or not keep it. So it would be for all who wait now, each after the other.
      lock.reset();
    }
  }
  auto made = make(kernel, target, std::move(key), assembler, found.is_in_no_cache);
  if (!found.not_assembled)
    return made;
  std::atomic<bool> &ptx_is_final = ptx_is_final_[isaInfo(target.isa).has(kSetMaxRegisters)];
  if (made ? (*made)->artifact.kind == CodeKind::Ptx : made.status().code() == StatusCode::IoError)
    ptx_is_final = true;
  if (made || made.status().code() != StatusCode::IoError)
    return made;
  log_("a kernel is on disk as PTX only and could not be assembled now, so the driver does it: " +
       made.status().message());
  ++counters.disk_hits;
  return std::shared_ptr<const KernelCode>(std::move(found.not_assembled));
}

Status KernelTable::refused(const KernelKey &key, const Target &target) {
  if (!toolchain_)
    return Status::ok();
  const auto known = store_.refusal(key);
  if (!known)
    return Status::ok();
  // Who compiles nothing can find nothing else out.
  if (!offline_ && late_ != Late::Error && toolchain_(target) != known->toolchain)
    return Status::ok();
  ++counters.compile_failures;
  return {StatusCode::CompileFailed, known->reason +
                                         " (so it was when it was compiled before; flashplus cache "
                                         "clear forgets that)"};
}

Result<std::shared_ptr<const KernelCode>> KernelTable::make(const PlannedKernel &kernel, const Target &target,
                                                            KernelKey key, Device *assembler, bool is_miss) {
  FLASHPLUS_RETURN_IF_ERROR(refused(key, target));
  if (is_miss)
    recordMiss(key);
  if (offline_)
    return Status(StatusCode::NotResident,
                  "kernel '" + key.spec + "' with '" + key.schedule + "' for " + key.target +
                      " is not in the cache, and compiling is off; warm it with: flashplus "
                      "warmup --spec '" +
                      key.spec + "' --target " + key.target);
  if (const Late late = late_; late != Late::Allow) {
    ++counters.late_compiles;
    const std::string what = "kernel '" + key.spec + "' with '" + key.schedule + "' for " + key.target +
                             " is in no cache, and the context was marked ready";
    if (late == Late::Error)
      return Status(StatusCode::NotResident, what + ", after which nothing is compiled; " + kHowToWarm);
    log_(what + "; it is compiled now; " + kHowToWarm);
  }
  const auto start = Clock::now();
  auto failed = [&](const Status &status) {
    ++counters.compile_failures;
    tell(FLASHPLUS_EVENT_COMPILE_FAILED, key, status.message(), millisecondsSince(start));
    return status;
  };
  CompilerLibrary::Waiting waiting;
  if (listen_)
    waiting = [&](double ms) { tell(FLASHPLUS_EVENT_COMPILING, key, "", ms); };
  tell(FLASHPLUS_EVENT_COMPILE_STARTED, key);
  const bool ptx = assembler && assembler->takesPtx();
  auto compiled = compile_(key.spec, key.schedule, target.text(), ptx, waiting);
  bool lasting = true;
  if (!compiled && compiled.status().code() == StatusCode::IoError && assembler && !ptx &&
      isGpu(target.isa)) {
    // The assembler could not be run, which may be different in a moment: the driver takes PTX, and nothing
    // is kept.
    log_("a kernel could not be assembled now, so the driver does it, and it is not kept: " +
         compiled.status().message());
    compiled = compile_(key.spec, key.schedule, target.text(), true, waiting);
    lasting = false;
  }
  if (!compiled && compiled.status().code() == StatusCode::CompileFailed && toolchain_)
    if (auto toolchain = toolchain_(target))
      store_.own().noteRefusal(key, {std::move(*toolchain), compiled.status().message()});
  if (!compiled)
    return failed(compiled.status());
  Artifact *artifact = &compiled->artifact;
  flashplus_compile_times &times = compiled->times;
  if (ptx)
    key.driver = kPtxDriver;
  else if (assembler && !assembler->assemblerId().empty() && artifact->kind == CodeKind::Ptx) {
    const auto assembling = Clock::now();
    auto assembled = assembler->assemble(*artifact);
    if (!assembled)
      return failed(assembled.status());
    *artifact = std::move(*assembled);
    times.assemble = millisecondsSince(assembling);
    key.driver = assembler->assemblerId();
  }
  auto expected = launchSchema(kernel.spec, kernel.schedule, target);
  if (!expected)
    return expected.status();
  if (!(artifact->launch == *expected))
    return failed(
        Status(StatusCode::Internal, "the compiler's launch schema of '" + key.spec + "' is not the plan's"));
  auto code = std::make_shared<KernelCode>();
  code->key = std::move(key);
  code->artifact = std::move(*artifact);
  code->compile_ms = millisecondsSince(start);
  ++counters.compiles;
  counters.compile_us += int64_t(code->compile_ms * 1000);
  for (auto [total, ms] : {std::pair{&counters.build_us, times.build},
                           {&counters.passes_us, times.passes},
                           {&counters.optimize_us, times.optimize},
                           {&counters.emit_us, times.emit},
                           {&counters.assemble_us, times.assemble}})
    *total += int64_t(ms * 1000);
  tell(FLASHPLUS_EVENT_COMPILED, code->key, "", code->compile_ms, times, code->artifact.code.size());
  if (!lasting && code->key.driver.empty()) {
    shares_in_vain_ = true;
    return std::shared_ptr<const KernelCode>(std::move(code));
  }
  Status status = store_.publish(code->key, code->artifact);
  shares_in_vain_ = !status;
  if (!status) {
    // The kernel runs all the same; only the next process pays.
    ++counters.publish_failures;
    // Where this user may only read, it is so for every kernel.
    if (store_.own().canWrite() || !read_only_told_.exchange(true))
      log_("a kernel could not be written to the cache: " + status.message() +
           (store_.own().canWrite() ? "" : "; this and further ones are kept in memory only"));
    tell(FLASHPLUS_EVENT_PUBLISH_FAILED, code->key, status.message());
  }
  return std::shared_ptr<const KernelCode>(std::move(code));
}

std::shared_ptr<ResidentKernel> KernelTable::find(const std::string &id) {
  std::shared_lock lock(table_mutex_);
  const auto it = table_.find(id);
  return it == table_.end() ? nullptr : it->second;
}

std::vector<std::shared_ptr<ResidentKernel>> KernelTable::findIdle() {
  std::vector<std::shared_ptr<ResidentKernel>> idle;
  std::shared_lock lock(table_mutex_);
  const bool only_from_disk = offline_ || late_ != Late::Allow;
  for (const auto &[id, kernel] : table_) {
    if (kernel->used.exchange(false, std::memory_order_relaxed))
      continue;
    const KernelCode &code = *kernel->code;
    if (!only_from_disk || code.source == KernelCode::Source::Disk || !store_.mark(code.key).empty())
      idle.push_back(kernel);
  }
  std::ranges::sort(idle);
  return idle;
}

void KernelTable::takeIdle(std::vector<std::shared_ptr<ResidentKernel>> &idle) {
  std::vector<std::shared_ptr<ResidentKernel>> taken;
  std::unique_lock lock(table_mutex_);
  std::erase_if(table_, [&](const auto &item) {
    const std::shared_ptr<ResidentKernel> &kernel = item.second;
    // The table has one, `idle` another; nobody gets a third while the table is locked.
    if (!std::ranges::binary_search(idle, kernel) || kernel.use_count() > 2 || kernel->used)
      return false;
    --counters.resident_kernels;
    counters.resident_bytes -= int64_t(kernel->code->artifact.code.size());
    taken.push_back(kernel);
    return true;
  });
  idle = std::move(taken);
}

Result<std::shared_ptr<ResidentKernel>> KernelTable::resident(const PlannedKernel &kernel, Device &device,
                                                              bool may_make) {
  const Target &target = device.profile().target;
  const std::string id = device.name() + "\n" + kernel.spec.text() + "\n" + kernel.schedule.text();
  if (auto found = find(id)) {
    counters.memory_hits += 1;
    return found;
  }
  if (!may_make)
    return Status(StatusCode::NotResident,
                  "kernel '" + kernel.spec.text() + "' is not loaded on " + device.name() +
                      ", and the stream is being captured; plan before the capture begins");
  const Flights::Flight flight(flights_, id);
  if (auto found = find(id)) { // made while we waited
    counters.memory_hits += 1;
    return found;
  }
  auto code = this->code(kernel, target, &device);
  if (!code)
    return code.status();
  auto loaded = device.load((*code)->artifact);
  for (size_t folders = store_.readOnly(); !loaded && loaded.status().code() == StatusCode::CompileFailed &&
                                           (*code)->source == KernelCode::Source::Disk;
       --folders) {
    // The device refuses a cached entry: a miss. Another folder may have one; else it is rebuilt, once. Where
    // that can't be done, it is kept.
    refuse((*code)->key, (*code)->tier, (*code)->mark, loaded.status().message());
    code =
        folders ? this->code(kernel, target, &device) : make(kernel, target, keyOf(kernel, target), &device);
    if (!code)
      return code.status();
    loaded = device.load((*code)->artifact);
    if (!folders)
      break;
  }
  if (!loaded)
    return loaded.status();
  auto entry = std::make_shared<ResidentKernel>();
  entry->code = std::move(*code);
  entry->loaded = std::move(*loaded);
  ++counters.resident_kernels;
  counters.resident_bytes += int64_t(entry->code->artifact.code.size());
  std::unique_lock lock(table_mutex_);
  return table_.emplace(id, std::move(entry)).first->second; // never replaced: plan records point to it
}

} // namespace flashplus
