// SPDX-License-Identifier: BSD-3-Clause
// Memories with their shadow state.
#pragma once

#include "emulator/core/clocks.h"
#include "emulator/core/fault.h"

#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <utility>

#ifndef __has_feature
#define __has_feature(feature) 0
#endif

namespace flashplus::emu {

/// Host addresses of an allocation and of the gap behind it, which holds nothing.
class Reservation {
public:
  Reservation() = default;
  /// `bytes` to read and write, then as much gap as GlobalMemory::kGap says, or as there are addresses for.
  /// Null data() when there is no memory.
  explicit Reservation(size_t bytes);
  Reservation(Reservation &&other) noexcept { *this = std::move(other); }
  Reservation &operator=(Reservation &&other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Reservation();
  uint8_t *data() const { return data_; }

private:
  uint8_t *data_ = nullptr;
  size_t size_ = 0;
};

/// Device memory: allocations in host memory, whose addresses are the device addresses, with one "written"
/// byte beside each byte. Thread-safe as far as the host's calls go; kernels must not run while memory is
/// released.
class GlobalMemory {
public:
  /// Between two allocations: what a 32-bit index of 4-byte elements reaches, so that no wrong one ends up in
  /// a neighbour.
// resets its shadow of every address that is mapped
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
  static constexpr uint64_t kGap = 1 << 16;
#else
  static constexpr uint64_t kGap = uint64_t(1) << 33;
#endif

  struct Allocation {
    uint64_t base = 0, size = 0;
    Reservation memory; ///< `base` points into it, aligned to 256 and no more.
    std::unique_ptr<uint8_t[]> written;
    uint8_t *data(uint64_t address) const { return reinterpret_cast<uint8_t *>(address); }
    uint8_t *shadow(uint64_t address) const { return written.get() + (address - base); }
  };

  ~GlobalMemory();
  /// Null when there is not enough memory.
  void *allocate(size_t bytes);
  /// False if `memory` is no allocation.
  bool release(void *memory);
  /// The allocation that holds [address, address + bytes) wholly; null if none does.
  const Allocation *find(uint64_t address, uint64_t bytes) const;
  /// For messages: the allocation before or around `address`.
  std::string describe(uint64_t address) const;
  /// Host copies. False if the range is in no allocation.
  bool write(uint64_t address, const void *from, size_t bytes);
  bool read(uint64_t address, void *to, size_t bytes) const;

private:
  mutable std::shared_mutex mutex_;
  std::map<uint64_t, Allocation> allocations_; ///< By base.
};

/// A thread and the instruction it executes, for shared-memory bookkeeping.
struct Accessor {
  int thread = 0; ///< In the cluster.
  uint32_t pc = 0;
};

/// What a check found; the caller adds where.
struct SharedProblem {
  FaultKind kind = FaultKind::Race;
  const char *message = nullptr; ///< Null: no problem.
  const char *verb = "written";  ///< What the other party did.
  int thread = -1;               ///< The other party; past the threads: an asynchronous operation.
  uint32_t pc = 0;
  uint32_t address = 0; ///< Word.
};

/// Shared memory of a CTA with, per 4 bytes: which bytes were written, the last write, the last reads of each
/// warp, and whether an asynchronous copy is under way. Bounds and alignment are the caller's.
class SharedMemory {
public:
  /// Of the CTA whose warps are `warps` from `first_warp` on, in the cluster that `clocks` counts.
  void reset(uint32_t bytes, int first_warp, int warps, const Clocks &clocks);
  uint32_t bytes() const { return uint32_t(data_.size()); }
  uint8_t *data(uint32_t offset) { return data_.data() + offset; }

  // `offset` counts from the start of the block. All return false and fill `problem` when something is wrong.
  bool onRead(uint32_t offset, uint32_t bytes, Accessor who, SharedProblem &problem);
  bool onWrite(uint32_t offset, uint32_t bytes, Accessor who, bool atomic, SharedProblem &problem);
  /// An asynchronous copy into the range begins: nobody may touch it before onAsyncEnd.
  bool onAsyncBegin(uint32_t offset, uint32_t bytes, Accessor who, SharedProblem &problem);
  /// As above for the asynchronous proxy (cp.async.bulk): writes of the generic proxy must have been fenced.
  bool onBulkBegin(uint32_t offset, uint32_t bytes, Accessor who, SharedProblem &problem);
  /// The copy has landed and `who` has waited for it: as if `who` wrote now.
  void onAsyncEnd(uint32_t offset, uint32_t bytes, Accessor who);
  /// The copy has landed; who sees `component` at `clock` may touch it.
  void onBulkEnd(uint32_t offset, uint32_t bytes, size_t component, uint32_t clock, uint32_t pc);
  /// A wgmma of warp `who.thread / 32` reads it through the asynchronous proxy, as part of the group `group`.
  bool onGroupRead(uint32_t offset, uint32_t bytes, Accessor who, uint32_t group, SharedProblem &problem);

  /// A bulk store of `who` reads it through the asynchronous proxy: nobody may write it before onStoreEnd.
  bool onStoreBegin(uint32_t offset, uint32_t bytes, Accessor who, SharedProblem &problem);
  /// `who` has waited for the read: as if it read now.
  void onStoreEnd(uint32_t offset, uint32_t bytes, Accessor who);
  bool isStored() const { return !stored_.empty(); } ///< By something that has not been waited for.

private:
  struct Stored {
    uint32_t offset = 0, bytes = 0, pc = 0;
    int thread = 0;
  };
  struct Write {
    uint32_t clock = 0, pc = 0;
    uint16_t thread = 0; ///< A component of Clocks.
    uint8_t bytes = 0;   ///< Of the last write: a bit a byte.
    uint8_t written : 4 = 0, pending : 1 = 0, atomic : 1 = 0, bulk : 1 = 0, remote : 1 = 0;
    uint32_t readers =
        0; ///< Warps with a row in reads_ since, a bit each; `remote`: or one in remote_reads_.
    bool sameLabel(const Write &o) const {
      return clock == o.clock && thread == o.thread && written == o.written && pending == o.pending &&
             bulk == o.bulk;
    }
  };
  struct Read {
    uint32_t clock = 0; ///< 0: none.
    uint32_t pc : 27 = 0, lane : 5 = 0;
  };
  struct RemoteRead {
    uint32_t word = 0, clock = 0, pc = 0;
    int thread = 0;
  };
  Read *readsToNote(uint32_t word, int warp);
  void noteRead(uint32_t word, Accessor who);
  static uint8_t byteMask(uint32_t offset, uint32_t word, uint32_t bytes);
  static constexpr int kReads = 3;
  static constexpr size_t kChunk = 256;
  Read *readsOf(uint32_t word, int warp) { return &reads_[(size_t(warp) * writes_.size() + word) * kReads]; }
  bool checkProxyRead(uint32_t word, uint8_t mask, int thread, SharedProblem &problem) const;
  bool checkWrite(uint32_t word, uint8_t mask, Accessor who, bool atomic, SharedProblem &problem);
  SharedProblem other(const Write &w, uint32_t word, FaultKind kind, const char *message,
                      const char *verb) const;

  std::vector<uint8_t> data_;
  std::vector<Write> writes_;
  std::vector<uint8_t> touched_; ///< Per kChunk words: one was written.
  /// [warp][word][3]: the last, the last of another lane, the last of a wgmma (clock: group). Means something
  /// only where the word's `readers` say so.
  std::vector<Read> reads_;
  std::vector<Stored> stored_;
  std::vector<RemoteRead> remote_reads_; ///< By threads of other CTAs: rare.
  int first_warp_ = 0, warps_ = 0;
  const Clocks *clocks_ = nullptr;
};

} // namespace flashplus::emu
