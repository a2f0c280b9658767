// SPDX-License-Identifier: BSD-3-Clause
#include "emulator/core/memory.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>
#include <sys/mman.h>

namespace flashplus::emu {

Reservation::Reservation(size_t bytes) {
  constexpr size_t kPage = 4096, kLeastGap = 1 << 16;
  const size_t used = (bytes + kPage - 1) / kPage * kPage;
  // Addresses may be limited (ulimit -v); a smaller gap is better than no memory.
  for (size_t gap = GlobalMemory::kGap; gap >= kLeastGap; gap /= 2) {
    void *at = mmap(nullptr, used + gap, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
      continue;
    data_ = static_cast<uint8_t *>(at);
    size_ = used + gap;
    if (mprotect(at, used, PROT_READ | PROT_WRITE) != 0)
      *this = Reservation();
    return;
  }
}

Reservation::~Reservation() {
  if (data_)
    munmap(data_, size_);
}

GlobalMemory::~GlobalMemory() = default;

void *GlobalMemory::allocate(size_t bytes) {
  constexpr size_t kAlign = 256;
  Allocation a;
  a.size = std::max<size_t>(bytes, 1);
  if (bytes > SIZE_MAX / 2)
    return nullptr;
  a.memory = Reservation(a.size + kAlign);
  a.written.reset(new (std::nothrow) uint8_t[a.size]());
  if (!a.memory.data() || !a.written)
    return nullptr;
  a.base = reinterpret_cast<uint64_t>(a.memory.data()) + kAlign;
  // Not zero: a kernel that reads it unchecked should not get a harmless value. 0xff.. is a NaN in every
  // format.
  std::memset(a.data(a.base), 0xff, a.size);
  void *pointer = a.data(a.base);
  std::unique_lock lock(mutex_);
  allocations_.emplace(a.base, std::move(a));
  return pointer;
}

bool GlobalMemory::release(void *memory) {
  std::unique_lock lock(mutex_);
  return allocations_.erase(reinterpret_cast<uint64_t>(memory)) != 0;
}

const GlobalMemory::Allocation *GlobalMemory::find(uint64_t address, uint64_t bytes) const {
  std::shared_lock lock(mutex_);
  auto it = allocations_.upper_bound(address);
  if (it == allocations_.begin())
    return nullptr;
  const Allocation &a = std::prev(it)->second;
  const uint64_t offset = address - a.base;
  return offset <= a.size && bytes <= a.size - offset ? &a : nullptr;
}

std::string GlobalMemory::describe(uint64_t address) const {
  std::shared_lock lock(mutex_);
  auto it = allocations_.upper_bound(address);
  if (it == allocations_.begin())
    return allocations_.empty() ? "there is no device memory" : "it is below all device memory";
  const Allocation &a = std::prev(it)->second;
  if (address - a.base < a.size)
    return "it is " + std::to_string(a.size - (address - a.base)) +
           " bytes before the end of an allocation of " + std::to_string(a.size) + " bytes";
  const uint64_t past = address - a.base - a.size;
  if (past > (uint64_t(1) << 32))
    return "it is near no device memory";
  return "it is " + std::to_string(past) + " bytes past the end of an allocation of " +
         std::to_string(a.size) + " bytes";
}

bool GlobalMemory::write(uint64_t address, const void *from, size_t bytes) {
  const Allocation *a = find(address, bytes);
  if (!a)
    return false;
  std::memcpy(a->data(address), from, bytes);
  std::memset(a->shadow(address), 1, bytes);
  return true;
}

bool GlobalMemory::read(uint64_t address, void *to, size_t bytes) const {
  const Allocation *a = find(address, bytes);
  if (!a)
    return false;
  std::memcpy(to, a->data(address), bytes);
  return true;
}

// --- shared memory
// -----------------------------------------------------------------------------------------------

void SharedMemory::reset(uint32_t bytes, int first_warp, int warps, const Clocks &clocks) {
  first_warp_ = first_warp;
  warps_ = warps;
  remote_reads_.clear();
  stored_.clear();
  clocks_ = &clocks;
  const size_t words = (bytes + 3) / 4, chunks = (words + kChunk - 1) / kChunk;
  if (data_.size() != bytes) {
    data_.assign(bytes, 0xff);
    writes_.assign(words, {});
    touched_.assign(chunks, 0);
  }
  // A block mostly touches a part of what it has, and many leave at once: only that part is made anew.
  for (size_t chunk = 0; chunk < chunks; ++chunk) {
    if (!touched_[chunk])
      continue;
    touched_[chunk] = 0;
    const size_t begin = chunk * kChunk, end = std::min(begin + kChunk, words);
    std::fill(writes_.begin() + ptrdiff_t(begin), writes_.begin() + ptrdiff_t(end), Write{});
    std::memset(data_.data() + begin * 4, 0xff, std::min(end * 4, size_t(bytes)) - begin * 4);
  }
  reads_.resize(words * size_t(warps) * kReads); // a word's are made anew at its first read
}

/// The reads of a word by a warp since the word's last write, to note one more.
SharedMemory::Read *SharedMemory::readsToNote(uint32_t word, int warp) {
  Read *reads = readsOf(word, warp);
  uint32_t &readers = writes_[word].readers;
  if (!(readers >> warp & 1))
    std::fill(reads, reads + kReads, Read{});
  readers |= 1u << warp;
  return reads;
}

uint8_t SharedMemory::byteMask(uint32_t offset, uint32_t word, uint32_t bytes) {
  const uint32_t begin = std::max(offset, word * 4), end = std::min(offset + bytes, word * 4 + 4);
  return uint8_t(((1u << (end - word * 4)) - 1) & ~((1u << (begin - word * 4)) - 1));
}

SharedProblem SharedMemory::other(const Write &w, uint32_t word, FaultKind kind, const char *message,
                                  const char *verb) const {
  return {kind, message, verb, w.clock ? int(w.thread) : -1, w.pc, word * 4};
}

bool SharedMemory::onRead(uint32_t offset, uint32_t bytes, Accessor who, SharedProblem &problem) {
  for (uint32_t word = offset / 4; word * 4 < offset + bytes; ++word) {
    Write &w = writes_[word];
    const uint8_t mask = byteMask(offset, word, bytes);
    if (w.pending) {
      problem = other(w, word, FaultKind::AsyncPending,
                      "reads what an asynchronous copy has not been waited for", "copied");
      return false;
    }
    if ((w.written & mask) != mask) {
      problem = other(w, word, FaultKind::UninitialisedMemory, "reads shared memory that nothing has written",
                      "written");
      problem.thread = -1;
      return false;
    }
    if ((w.bytes & mask) && !clocks_->seen(who.thread, w.thread, w.clock)) {
      problem = other(w, word, FaultKind::Race,
                      "reads what another thread wrote, with nothing to order the two", "written");
      return false;
    }
    noteRead(word, who);
  }
  return true;
}

void SharedMemory::noteRead(uint32_t word, Accessor who) {
  const int warp = who.thread / 32 - first_warp_;
  if (warp < 0 || warp >= warps_) {
    writes_[word].remote = 1;
    remote_reads_.push_back({word, clocks_->own(who.thread), who.pc, who.thread});
    return;
  }
  Read *reads = readsToNote(word, warp);
  const uint32_t lane = uint32_t(who.thread % 32);
  if (reads[0].clock && reads[0].lane != lane)
    reads[1] = reads[0];
  reads[0].clock = clocks_->own(who.thread);
  reads[0].pc = who.pc;
  reads[0].lane = lane;
}

bool SharedMemory::checkWrite(uint32_t word, uint8_t mask, Accessor who, bool atomic,
                              SharedProblem &problem) {
  Write &w = writes_[word];
  if (w.pending) {
    problem = other(w, word, FaultKind::AsyncPending,
                    "overwrites the destination of an asynchronous copy that has not "
                    "been waited for",
                    "copied");
    return false;
  }
  if (atomic && (w.written & mask) != mask) {
    problem = other(w, word, FaultKind::UninitialisedMemory, "reads shared memory that nothing has written",
                    "written");
    problem.thread = -1;
    return false;
  }
  if ((w.bytes & mask) && !(atomic && w.atomic) && !clocks_->seen(who.thread, w.thread, w.clock)) {
    problem = other(w, word, FaultKind::Race,
                    "overwrites what another thread wrote, with nothing to order the two", "written");
    return false;
  }
  for (const Stored &r : stored_)
    if (word * 4 < r.offset + r.bytes && r.offset < word * 4 + 4) {
      problem = {FaultKind::AsyncPending,
                 "overwrites what a bulk store reads that has not been waited for",
                 "issued",
                 r.thread,
                 r.pc,
                 word * 4};
      return false;
    }
  for (uint32_t readers = w.readers; readers; readers &= readers - 1) {
    const int own = std::countr_zero(readers), warp = first_warp_ + own;
    const Read *reads = readsOf(word, own);
    for (int i = 0; i < kReads; ++i) {
      const bool group = i == 2;
      const size_t component = group ? clocks_->group(warp) : size_t(warp * 32 + int(reads[i].lane));
      if (reads[i].clock && !clocks_->seen(who.thread, component, reads[i].clock)) {
        problem = {FaultKind::Race,
                   group ? "overwrites what a wgmma reads that has not been waited for"
                         : "overwrites what another thread reads, with nothing to order the two",
                   "read",
                   group ? warp * 32 : int(component),
                   reads[i].pc,
                   word * 4};
        return false;
      }
    }
  }
  w.readers = 0; // all before this write: whoever sees it has seen them
  if (!w.remote)
    return true;
  for (const RemoteRead &r : remote_reads_)
    if (r.word == word && !clocks_->seen(who.thread, size_t(r.thread), r.clock)) {
      problem = {FaultKind::Race,
                 "overwrites what another thread reads, with nothing to order the two",
                 "read",
                 r.thread,
                 r.pc,
                 word * 4};
      return false;
    }
  std::erase_if(remote_reads_, [word](const RemoteRead &r) { return r.word == word; });
  w.remote = 0;
  return true;
}

bool SharedMemory::onWrite(uint32_t offset, uint32_t bytes, Accessor who, bool atomic,
                           SharedProblem &problem) {
  for (uint32_t word = offset / 4; word * 4 < offset + bytes; ++word) {
    const uint8_t mask = byteMask(offset, word, bytes);
    if (!checkWrite(word, mask, who, atomic, problem))
      return false;
    Write &w = writes_[word];
    touched_[word / kChunk] = 1;
    const bool same = w.thread == who.thread && w.clock == clocks_->own(who.thread);
    const bool was_written = w.bytes != 0;
    w.bytes = same ? w.bytes | mask : mask;
    w.written |= mask;
    w.thread = uint16_t(who.thread);
    w.clock = clocks_->own(who.thread);
    w.bulk = 0;
    // After a plain store of its own, a thread's atomic still counts as that store: others race with it.
    if (atomic && same && was_written && !w.atomic)
      continue;
    w.pc = who.pc;
    w.atomic = atomic;
  }
  return true;
}

bool SharedMemory::onAsyncBegin(uint32_t offset, uint32_t bytes, Accessor who, SharedProblem &problem) {
  if (!onWrite(offset, bytes, who, false, problem))
    return false;
  for (uint32_t word = offset / 4; word * 4 < offset + bytes; ++word)
    writes_[word].pending = 1;
  return true;
}

void SharedMemory::onAsyncEnd(uint32_t offset, uint32_t bytes, Accessor who) {
  for (uint32_t word = offset / 4; word * 4 < offset + bytes; ++word) {
    Write &w = writes_[word];
    w.pending = 0;
    w.clock = clocks_->own(who.thread);
    w.thread = uint16_t(who.thread);
    w.pc = who.pc;
  }
}

bool SharedMemory::onBulkBegin(uint32_t offset, uint32_t bytes, Accessor who, SharedProblem &problem) {
  for (uint32_t word = offset / 4; word * 4 < offset + bytes; ++word) {
    const Write &w = writes_[word];
    if (w.clock && !w.bulk && !w.pending && int(w.thread) < clocks_->threads() &&
        !clocks_->seenByProxy(who.thread, w.thread, w.clock)) {
      problem = other(w, word, FaultKind::Race, "copies over what was stored without a fence.proxy.async",
                      "written");
      return false;
    }
  }
  return onAsyncBegin(offset, bytes, who, problem);
}

void SharedMemory::onBulkEnd(uint32_t offset, uint32_t bytes, size_t component, uint32_t clock, uint32_t pc) {
  for (uint32_t word = offset / 4; word * 4 < offset + bytes; ++word) {
    Write &w = writes_[word];
    w.pending = 0;
    w.bulk = 1;
    w.thread = uint16_t(component);
    w.clock = clock;
    w.pc = pc;
  }
}

/// A word that the asynchronous proxy reads for `thread`.
bool SharedMemory::checkProxyRead(uint32_t word, uint8_t mask, int thread, SharedProblem &problem) const {
  const Write &w = writes_[word];
  if (w.pending) {
    problem = other(w, word, FaultKind::AsyncPending,
                    "reads what an asynchronous copy has not been waited for", "copied");
    return false;
  }
  if ((w.written & mask) != mask) {
    problem = other(w, word, FaultKind::UninitialisedMemory, "reads shared memory that nothing has written",
                    "written");
    problem.thread = -1;
    return false;
  }
  if (!clocks_->seen(thread, w.thread, w.clock)) {
    problem = other(w, word, FaultKind::Race,
                    "reads what another thread wrote, with nothing to order the two", "written");
    return false;
  }
  if (!w.bulk && int(w.thread) < clocks_->threads() && !clocks_->seenByProxy(thread, w.thread, w.clock)) {
    problem = other(w, word, FaultKind::Race,
                    "reads through the asynchronous proxy what was stored without a "
                    "fence.proxy.async",
                    "written");
    return false;
  }
  return true;
}

bool SharedMemory::onGroupRead(uint32_t offset, uint32_t bytes, Accessor who, uint32_t group,
                               SharedProblem &problem) {
  const int warp = who.thread / 32 - first_warp_;
  const Write *good = nullptr; // neighbours mostly were written together
  for (uint32_t word = offset / 4; word * 4 < offset + bytes; ++word) {
    if (!(good && good->written == 15 && good->sameLabel(writes_[word])) &&
        !checkProxyRead(word, byteMask(offset, word, bytes), who.thread, problem))
      return false;
    good = &writes_[word];
    Read &read = readsToNote(word, warp)[2];
    read.clock = group;
    read.pc = who.pc;
  }
  return true;
}

bool SharedMemory::onStoreBegin(uint32_t offset, uint32_t bytes, Accessor who, SharedProblem &problem) {
  for (uint32_t word = offset / 4; word * 4 < offset + bytes; ++word)
    if (!checkProxyRead(word, byteMask(offset, word, bytes), who.thread, problem))
      return false;
  stored_.push_back({offset, bytes, who.pc, who.thread});
  return true;
}

void SharedMemory::onStoreEnd(uint32_t offset, uint32_t bytes, Accessor who) {
  const auto it = std::find_if(stored_.begin(), stored_.end(), [&](const Stored &s) {
    return s.offset == offset && s.bytes == bytes && s.pc == who.pc && s.thread == who.thread;
  });
  if (it != stored_.end())
    stored_.erase(it);
  for (uint32_t word = offset / 4; word * 4 < offset + bytes; ++word)
    noteRead(word, who);
}

} // namespace flashplus::emu
