// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/devices/cpu/cpu_device.h"

#include "runtime/devices/cpu/cpu_features.h"
#include "runtime/devices/cpu/elf_loader.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace flashplus {
namespace {

using Entry = void (*)(const void *params, int64_t work_item, void *scratch);

struct CpuKernel final : LoadedKernel {
  std::unique_ptr<LoadedObject> object;
  std::unique_ptr<GdbSymbols> symbols; ///< Withdrawn before the code goes.
  Entry entry = nullptr;
  int64_t scratch = 0;
};

/// Scratch of one worker, grown when more is asked for.
class Scratch {
public:
  Scratch() = default;
  Scratch(const Scratch &) = delete;
  Scratch &operator=(const Scratch &) = delete;
  ~Scratch() { std::free(memory_); }
  void *get(size_t bytes) {
    if (bytes <= size_)
      return memory_;
    std::free(memory_);
    size_ = (bytes + 4095) / 4096 * 4096;
    memory_ = std::aligned_alloc(4096, size_);
    if (!memory_)
      size_ = 0;
    return memory_;
  }

private:
  void *memory_ = nullptr;
  size_t size_ = 0;
};

/// A thread keeps up to so much for its next launch: memory that is new costs a fault a page, which only a
/// long launch makes up for.
constexpr size_t kMostKept = size_t(4) << 20;

class CpuDevice final : public Device {
public:
  CpuDevice(ThreadPool &pool, const Target &target, KernelDebug debug)
      : pool_(pool), debug_(std::move(debug)) {
    profile_.target = target;
    profile_.multiprocessors = pool.threads();
  }

  DLDevice id() const override { return {kDLCPU, 0}; }
  std::string name() const override { return "cpu"; }
  std::string detail() const override { return std::to_string(pool_.threads()) + " threads"; }
  std::string model() const override { return processorModel(); }
  const DeviceProfile &profile() const override { return profile_; }

  Result<std::unique_ptr<LoadedKernel>> load(const Artifact &artifact) override {
    if (artifact.kind != CodeKind::X86Object)
      return Status(StatusCode::CompileFailed, "the artifact holds no x86 code");
    auto object = LoadedObject::load(artifact.code);
    if (!object)
      return object.status().code() == StatusCode::InvalidArgument
                 ? Status(StatusCode::CompileFailed, object.status().message())
                 : object.status();
    auto kernel = std::make_unique<CpuKernel>();
    kernel->entry = reinterpret_cast<Entry>((*object)->find(artifact.launch.entry));
    if (!kernel->entry)
      return Status(StatusCode::CompileFailed, "the code does not define " + artifact.launch.entry);
    kernel->symbols = debug_.loaded(**object, artifact.code);
    kernel->object = std::move(*object);
    kernel->scratch = artifact.launch.scratch;
    return std::unique_ptr<LoadedKernel>(std::move(kernel));
  }

  Status launch(LoadedKernel &kernel, const void *params, const Geometry &geometry,
                std::span<const TensorLayout>, void *) override {
    auto &k = static_cast<CpuKernel &>(kernel);
    std::atomic<bool> out_of_memory{false};
    const size_t bytes = size_t(k.scratch + geometry.scratch) + 64;
    // What is too large to keep is the launch's, one a worker.
    std::vector<Scratch> large(bytes > kMostKept ? size_t(pool_.threads()) : 0);
    pool_.run(geometry.items, [&](int worker, int64_t item) {
      thread_local Scratch kept; // never shared, so a loop inside a loop is safe
      void *memory = (large.empty() ? kept : large[size_t(worker)]).get(bytes);
      if (!memory) {
        out_of_memory = true;
        return;
      }
      k.entry(params, item, memory);
    });
    if (out_of_memory)
      return {StatusCode::OutOfMemory,
              "no memory for " + std::to_string(bytes) + " bytes of scratch a thread"};
    return Status::ok();
  }

  Result<void *> allocate(size_t bytes) override {
    const size_t rounded = (std::max<size_t>(bytes, 1) + 255) / 256 * 256;
    void *memory = rounded >= bytes ? std::aligned_alloc(256, rounded) : nullptr;
    if (!memory)
      return Status(StatusCode::OutOfMemory, "no host memory for " + std::to_string(bytes) + " bytes");
    return memory;
  }
  Status release(void *memory) override {
    std::free(memory);
    return Status::ok();
  }
  Result<void *> allocateAsync(size_t bytes, void *) override { return allocate(bytes); }
  Status releaseAsync(void *memory, void *) override { return release(memory); }
  Status clearAsync(void *memory, size_t bytes, void *) override {
    std::memset(memory, 0, bytes);
    return Status::ok();
  }
  Status copyToDevice(void *dst, const void *src, size_t bytes) override {
    std::memcpy(dst, src, bytes);
    return Status::ok();
  }
  Status copyToHost(void *dst, const void *src, size_t bytes) override {
    return copyToDevice(dst, src, bytes);
  }
  Status synchronize(void *) override { return Status::ok(); }

private:
  ThreadPool &pool_;
  KernelDebug debug_;
  DeviceProfile profile_;
};

} // namespace

Result<std::unique_ptr<Device>> createCpuDevice(ThreadPool &pool, std::optional<Target> target,
                                                KernelDebug debug) {
  auto host = hostTarget();
  if (!host)
    return host.status();
  if (target && !includes(*host, *target))
    return Status(StatusCode::NoDevice,
                  "this processor lacks instructions of " + target->text() + "; it runs " + host->text());
  return std::unique_ptr<Device>(std::make_unique<CpuDevice>(pool, target.value_or(*host), std::move(debug)));
}

} // namespace flashplus
