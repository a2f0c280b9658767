// SPDX-License-Identifier: BSD-3-Clause
// The table that every device implements: the CPU, CUDA, the emulator. The rest of the runtime knows only
// this.
#pragma once

#include "spec/artifact.h"
#include "templates/plan.h"

#include <dlpack/dlpack.h>
#include <span>
#include <memory>
#include <optional>
#include <string>

namespace flashplus {

/// Code made executable on one device; unloaded when destroyed.
class LoadedKernel {
public:
  virtual ~LoadedKernel() = default;
};

/// Where a tensor lies, as (head dim, row, head, batch); a ragged batch is one entry of all its rows, and a
/// page is an entry.
struct TensorLayout {
  void *data = nullptr;
  int64_t extent[4] = {};
  int64_t stride[3] = {}; ///< Bytes, of rows, heads and batch entries.
  DType dtype = DType::BF16;
  /// Of keys in pages, which are the batch entries: rows that are copied together (keyRun()). Boxes have
  /// boxRows() of it and of what a kernel's map says.
  int32_t run = kWholeRun;
  bool operator==(const TensorLayout &) const = default;
};

/// What tells streams apart, also those that were given a destroyed one's handle, and captures on them.
struct StreamKey {
  uint64_t stream = 0;
  uint64_t capture = 0; ///< 0: the stream is not being captured.
};

/// Thread-safe. Streams are the device's own handles (CUstream); the CPU has none and runs at once.
class Device {
public:
  virtual ~Device() = default;

  virtual DLDevice id() const = 0;
  virtual std::string name() const = 0; ///< "cpu", "cuda:0"
  virtual std::string detail() const = 0; ///< For people: the processor, threads, memory.
  virtual std::string model() const { return name(); } ///< Of the hardware: "NVIDIA H200". Tuning records are
                                                       ///< of one model.
  virtual const DeviceProfile &profile() const = 0;

  /// Makes an artifact executable and touches it, so that the first launch loads nothing. CompileFailed means
  /// that the device refuses this code (a cached entry is then rebuilt once); other codes are failures of the
  /// device.
  virtual Result<std::unique_ptr<LoadedKernel>> load(const Artifact &artifact) = 0;

  /// Enqueues one kernel for the items of `geometry`. `params` is the operation's params struct; it is copied
  /// before the call returns. `tensors` are indexed by Operand, for a kernel that wants tensor maps; for
  /// others there need be none.
  virtual Status launch(LoadedKernel &kernel, const void *params, const Geometry &geometry,
                        std::span<const TensorLayout> tensors, void *stream) = 0;

  /// What turns PTX into code when the compiler could not, as a key field; empty if nothing does.
  virtual std::string assemblerId() const { return {}; }
  virtual Result<Artifact> assemble(const Artifact &ptx);

  /// Whether the device runs PTX text itself: its kernels are then not assembled, and kept under keys of
  /// their own.
  virtual bool takesPtx() const { return false; }

  /// Whether `stream` is being captured into a graph: then nothing may be loaded or allocated.
  virtual Result<bool> capturing(void *stream);

  /// Null where the device has no streams or cannot tell.
  virtual std::optional<StreamKey> streamKey(void *stream);

  // 256-byte aligned memory. The Async pair is in stream order.
  virtual Result<void *> allocate(size_t bytes) = 0;
  virtual Status release(void *memory) = 0;
  virtual Result<void *> allocateAsync(size_t bytes, void *stream) = 0;
  virtual Status releaseAsync(void *memory, void *stream) = 0;
  /// Done when it returns, whatever is being captured; no part of a graph.
  virtual Result<void *> allocateZeroed(size_t bytes);
  virtual Status clearAsync(void *memory, size_t bytes, void *stream) = 0; ///< To zero bytes.
  virtual Status copyToDevice(void *dst, const void *host_src, size_t bytes) = 0;
  virtual Status copyToHost(void *host_dst, const void *src, size_t bytes) = 0;
  virtual Status synchronize(void *stream) = 0;
};

inline Result<Artifact> Device::assemble(const Artifact &) {
  return Status(StatusCode::Unsupported, "device " + name() + " does not assemble code");
}
inline Result<bool> Device::capturing(void *) { return false; }
inline std::optional<StreamKey> Device::streamKey(void *) { return std::nullopt; }
inline Result<void *> Device::allocateZeroed(size_t) {
  return Status(StatusCode::Unsupported, "device " + name() + " keeps no memory for streams");
}

} // namespace flashplus
