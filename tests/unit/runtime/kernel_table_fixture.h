// SPDX-License-Identifier: BSD-3-Clause
// A kernel table over a real store in a temporary folder, a fake device and a fake compile function.
#pragma once

#include "cache/directory.h"
#include "runtime/kernels/kernel_table.h"

#include <chrono>
#include <doctest/doctest.h>
#include <mutex>
#include <thread>

namespace flashplus::kernel_table_test {

inline const Target kTarget{Isa::X86_64_v3, 0};
inline const Target kGpu{Isa::Sm80, 90};

inline PlannedKernel sampleKernel(const Target &target = kTarget, int head_dim = 64) {
  KernelSpec spec;
  spec.head_dim_qk = spec.head_dim_v = head_dim;
  return {spec, feasibleSchedules(spec, offlineProfile(target)).front()};
}

/// Thread-safe like every device. What a test reads of it without a lock, it reads when no thread runs.
struct FakeDevice final : Device {
  explicit FakeDevice(const Target &target) { profile_ = offlineProfile(target); }
  DLDevice id() const override { return {kDLCPU, 0}; }
  std::string name() const override { return "fake"; }
  std::string detail() const override { return ""; }
  const DeviceProfile &profile() const override { return profile_; }
  Result<std::unique_ptr<LoadedKernel>> load(const Artifact &artifact) override {
    std::lock_guard lock(mutex);
    ++loads;
    loaded_code = artifact.code;
    if (refusals > 0) {
      --refusals;
      return refusal;
    }
    return std::make_unique<LoadedKernel>();
  }
  Status launch(LoadedKernel &, const void *, const Geometry &, std::span<const TensorLayout>,
                void *) override {
    return Status::ok();
  }
  Status clearAsync(void *, size_t, void *) override { return Status::ok(); }
  std::string assemblerId() const override { return assembler; }
  Result<Artifact> assemble(const Artifact &ptx) override {
    std::lock_guard lock(mutex);
    ++assembles;
    Artifact out = ptx;
    out.kind = CodeKind::Cubin;
    out.code.push_back('!');
    return out;
  }
  Result<void *> allocate(size_t) override { return Status(StatusCode::OutOfMemory, "none"); }
  Status release(void *) override { return Status::ok(); }
  Result<void *> allocateAsync(size_t, void *) override { return Status(StatusCode::OutOfMemory, "none"); }
  Status releaseAsync(void *, void *) override { return Status::ok(); }
  Status copyToDevice(void *, const void *, size_t) override { return Status::ok(); }
  Status copyToHost(void *, const void *, size_t) override { return Status::ok(); }
  Status synchronize(void *) override { return Status::ok(); }

  std::mutex mutex;
  DeviceProfile profile_;
  std::string assembler;
  std::vector<uint8_t> loaded_code;
  int loads = 0, assembles = 0, refusals = 0;
  Status refusal{StatusCode::CompileFailed, "the device refuses this code"};
};

/// A table with what a test wants to see of it.
struct Fixture {
  explicit Fixture(const std::string &dir, bool offline = false, Target target = kTarget)
      : store(KernelStore::open(dir, log(), systemFileOps(),
                                offline ? KernelStore::Bad::Keep : KernelStore::Bad::Remove)),
        device(target),
        table(
            *store,
            [this](const std::string &spec, const std::string &schedule, const std::string &target_text,
                   bool ptx,
                   const CompilerLibrary::Waiting &) { return compile(spec, schedule, target_text, ptx); },
            offline, log(),
            [this](const flashplus_event &event) {
              std::lock_guard lock(mutex);
              CHECK(event.struct_size == sizeof event);
              events.push_back(event.kind);
              last_detail = event.detail;
              last_key = event.key;
              last = event;
            },
            [this](const Target &) { return may_assemble; }) {}

  KernelStore::Log log() {
    return [this](const std::string &message) {
      std::lock_guard lock(mutex);
      warnings.push_back(message);
    };
  }

  Result<Compiled> compile(const std::string &spec, const std::string &schedule, const std::string &target,
                           bool ptx) {
    ++compiles;
    std::this_thread::sleep_for(std::chrono::milliseconds(compile_ms));
    if (!failure && !(ptx && failure.code() == StatusCode::IoError))
      return failure;
    auto s = KernelSpec::parse(spec);
    auto h = Schedule::parse(schedule);
    auto t = Target::parse(target);
    Artifact artifact;
    artifact.kind = ptx ? CodeKind::Ptx : kind;
    const std::string code = "code of " + spec;
    artifact.code.assign(code.begin(), code.end());
    artifact.launch = *launchSchema(*s, *h, *t);
    artifact.launch.threads += wrong_threads;
    artifact.provenance = "fake";
    return Compiled{std::move(artifact), {1, 2, 3, 4, 0}};
  }

  std::mutex mutex;
  std::vector<std::string> warnings;
  std::vector<flashplus_event_kind> events;
  std::string last_detail, last_key;
  flashplus_event last{}; ///< Its text is gone.
  std::unique_ptr<KernelStore> store;
  FakeDevice device;
  std::atomic<int> compiles{0};
  int compile_ms = 0, wrong_threads = 0;
  bool may_assemble = false;
  CodeKind kind = CodeKind::X86Object;
  Status failure;
  KernelTable table;
};

inline std::string entryFile(const Fixture &f, const PlannedKernel &kernel, const Target &target = kTarget) {
  return entryPath(f.store->dir(), KernelTable::keyOf(kernel, target).hash());
}

} // namespace flashplus::kernel_table_test
