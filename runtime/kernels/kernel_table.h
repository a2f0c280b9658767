// SPDX-License-Identifier: BSD-3-Clause
// From (spec, schedule, target) to code, and to code that is resident on a device: in-process table, disk,
// compiler.
#pragma once

#include "cache/key_lock.h"
#include "cache/store.h"
#include "cache/tiers.h"
#include "flashplus/flashplus.h"
#include "runtime/devices/device.h"
#include "runtime/kernels/compiler_library.h"
#include "runtime/kernels/flights.h"
#include "runtime/kernels/launch_count.h"
#include "runtime/kernels/miss_record.h"
#include "templates/registry.h"

#include <atomic>
#include <functional>
#include <memory>
#include <shared_mutex>
#include <string>
#include <unordered_map>

namespace flashplus {

/// Code and where it came from.
struct KernelCode {
  enum class Source { Memory, Disk, Compiled };

  KernelKey key;
  Artifact artifact;
  Source source = Source::Compiled;
  double compile_ms = 0; ///< 0 unless compiled by this call.
  double load_ms = 0;    ///< Reading and verifying the disk entry; 0 unless it was a hit.
  int tier = -1;         ///< These two of a hit, as in ReadResult.
  std::string mark;
};

/// A kernel that can be launched. Shared by the table and the plans that use it.
struct ResidentKernel {
  std::shared_ptr<const KernelCode> code;
  std::unique_ptr<LoadedKernel> loaded;
  mutable std::atomic<bool> used{true}; ///< Made or launched since idle kernels were last looked for.

  void noteUse() const {
    if (!used.load(std::memory_order_relaxed)) // written once, so that threads share the line
      used.store(true, std::memory_order_relaxed);
  }
};

/// The counts of flashplus_counters, by its names, and its times: there they are NAME_ms. Members and copies
/// are made from these lists, of which the first has what every launch adds to.
#define FLASHPLUS_LAUNCH_COUNTS(X) X(memory_hits)
#define FLASHPLUS_KERNEL_COUNTS(X)                                                                           \
  X(disk_hits)                                                                                               \
  X(compiles)                                                                                                \
  X(corrupt)                                                                                                 \
  X(publish_failures)                                                                                        \
  X(miss_absent)                                                                                             \
  X(miss_damaged)                                                                                            \
  X(miss_unreadable)                                                                                         \
  X(miss_refused)                                                                                            \
  X(compile_failures)                                                                                        \
  X(fallbacks)                                                                                               \
  X(resident_kernels)                                                                                        \
  X(resident_bytes)                                                                                          \
  X(late_compiles)
#define FLASHPLUS_KERNEL_TIMES(X) X(compile) X(load) X(build) X(passes) X(optimize) X(emit) X(assemble)

struct KernelCounters {
#define FLASHPLUS_LAUNCH_COUNT(NAME) LaunchCount NAME;
#define FLASHPLUS_COUNT(NAME) std::atomic<int64_t> NAME{0};
#define FLASHPLUS_TIME(NAME) std::atomic<int64_t> NAME##_us{0};
  FLASHPLUS_LAUNCH_COUNTS(FLASHPLUS_LAUNCH_COUNT)
  FLASHPLUS_KERNEL_COUNTS(FLASHPLUS_COUNT)
  FLASHPLUS_KERNEL_TIMES(FLASHPLUS_TIME)
#undef FLASHPLUS_TIME
#undef FLASHPLUS_COUNT
#undef FLASHPLUS_LAUNCH_COUNT
};

/// Thread-safe. Two threads that miss the same kernel make it once: the second waits for the first.
class KernelTable {
public:
  /// With `ptx` the result is left as PTX text even where it could be assembled. `waiting` may be called
  /// while it takes its time.
  using Compile = std::function<Result<Compiled>(const std::string &spec, const std::string &schedule,
                                                 const std::string &target, bool ptx,
                                                 const CompilerLibrary::Waiting &waiting)>;
  using Listen = std::function<void(const flashplus_event &)>;
  using Log = std::function<void(const std::string &)>;
  using MayAssemble = std::function<bool(const Target &target)>;
  /// What makes code for a target besides this build ("" for a CPU); nothing if that is not known now.
  using Toolchain = std::function<std::optional<std::string>(const Target &target)>;

  /// Where code is kept: the folder that is written, those that are only read and looked up before it, and
  /// the locks by which the processes of a machine share the work; null: none. All must outlive the table.
  struct Stores {
    Stores(KernelStore &own, std::vector<KernelSource *> before = {}, const KeyLocks *locks = nullptr)
        : own(own), before(std::move(before)), locks(locks) {}
    KernelStore &own;
    std::vector<KernelSource *> before;
    const KeyLocks *locks;
    MissRecord *misses = nullptr; ///< Null, or told of each kernel that none of them has.
  };

  /// With `offline` nothing is ever compiled. `may_assemble` says whether a
  /// compilation might give a cubin where the disk has only PTX; without it PTX is taken as it is.
  KernelTable(const Stores &stores, Compile compile, bool offline, Log log, Listen listen = {},
              MayAssemble may_assemble = {})
      : store_(stores.own, stores.before, log), locks_(stores.locks), misses_(stores.misses),
        compile_(std::move(compile)), offline_(offline), log_(std::move(log)), listen_(std::move(listen)),
        may_assemble_(std::move(may_assemble)) {}

  /// The key without a driver: the one under which the compiler's own output is stored.
  static KernelKey keyOf(const PlannedKernel &kernel, const Target &target);

  /// Code alone, from disk or compiled; needs no device. `assembler` may turn PTX into a cubin when the
  /// compiler could not (then the entry is keyed on it). PTX on disk is compiled again where an assembler may
  /// be had, until that has given PTX once: a better artifact then replaces it for everyone. Without an
  /// assembler PTX is what there is.
  Result<std::shared_ptr<const KernelCode>> code(const PlannedKernel &kernel, const Target &target,
                                                 Device *assembler = nullptr);

  /// Loaded on `device`. With `may_make` false only what is already resident is returned, else NotResident.
  Result<std::shared_ptr<ResidentKernel>> resident(const PlannedKernel &kernel, Device &device,
                                                   bool may_make);

  /// Kernels that were neither made nor launched since the last call of this, but for those that could not be
  /// had again without a compilation that is not allowed. Sorted. They stay in the table;
  /// takeIdle() takes them out.
  std::vector<std::shared_ptr<ResidentKernel>> findIdle();
  /// Takes `idle` out of the table, and those out of `idle` that somebody else holds or has launched
  /// meanwhile. What is left is the caller's to free, once no call is in flight that may have found it.
  void takeIdle(std::vector<std::shared_ptr<ResidentKernel>> &idle);

  /// Counts a schedule that is left out, and tells the listener.
  void fellBack(const PlannedKernel &kernel, const Target &target, const std::string &why);

  KernelCounters counters;

  bool offline() const { return offline_; }

  /// Called after a kernel was read or made, by the thread that did it. Set before the table is used.
  void afterWork(std::function<void()> call) { after_work_ = std::move(call); }
  /// From now on what the compiler refuses (CompileFailed) is kept in the store that is written, and not
  /// tried again with the same toolchain, by any process.
  void rememberRefusals(Toolchain toolchain) { toolchain_ = std::move(toolchain); }

  /// What a compilation is from now on. At first all are welcome.
  enum class Late { Allow, Warn, Error };
  void setLate(Late late) { late_ = late; }

private:
  Result<std::shared_ptr<const KernelCode>> readOrMake(const PlannedKernel &kernel, const Target &target,
                                                       Device *assembler);
  Result<std::shared_ptr<const KernelCode>> make(const PlannedKernel &kernel, const Target &target,
                                                 KernelKey key, Device *assembler, bool is_miss = false);
  struct Found {
    std::shared_ptr<KernelCode> code;          ///< Null if nothing on disk is of use.
    std::shared_ptr<KernelCode> not_assembled; ///< PTX that might be had as a cubin.
    bool is_in_no_cache = true;                ///< No folder has anything.
  };
  /// The first of `names` on disk that is of use. What is to be launched otherwise than `plan` says is of
  /// none.
  Found read(const std::vector<KernelKey> &names, const LaunchSchema &plan, const Target &target, bool ptx);
  /// An entry of that tier and mark (ReadResult) that no device or plan can use: removed if that may be done,
  /// counted, told.
  void refuse(const KernelKey &key, int tier, const std::string &mark, const std::string &why);
  void recordMiss(const KernelKey &key) const;
  /// Only one process of the machine makes a kernel at a time; null if that can't be had, or is of no use.
  std::unique_ptr<KeyLock> lock(const KernelKey &key);
  std::shared_ptr<ResidentKernel> find(const std::string &id);
  /// Ok unless `key` is known to be refused.
  Status refused(const KernelKey &key, const Target &target);
  void tell(flashplus_event_kind kind, const KernelKey &key, const std::string &detail = "", double ms = 0,
            const flashplus_compile_times &times = {}, size_t code_bytes = 0) const;

  Tiers store_;
  const KeyLocks *const locks_;
  MissRecord *const misses_;
  std::atomic<bool> read_only_told_{false};
  std::function<void()> after_work_;
  std::atomic<bool> shares_in_vain_{false}; ///< What was made last was not kept, so nobody need wait.
  const Compile compile_;
  const bool offline_;
  std::atomic<Late> late_{Late::Allow};
  const Log log_;
  const Listen listen_;
  const MayAssemble may_assemble_;
  Toolchain toolchain_;
  std::atomic<bool> ptx_is_final_[2] = {}; ///< In this process asking for a cubin was in vain; [1]: for
                                           ///< sm_90a, which not every assembler is for.

  ForkSafe<std::shared_mutex> table_mutex_;
  std::unordered_map<std::string, std::shared_ptr<ResidentKernel>> table_;
  Flights flights_;
};

} // namespace flashplus
