// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/plans/plan_memo.h"

#include "runtime/arguments/public_structs.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>

namespace flashplus {
namespace {

/// A LaunchRecord as words. A plan of one step without a workspace, which most are, is in the first of them.
constexpr size_t kHeadWords = offsetof(LaunchRecord, steps) / sizeof(uint64_t);
constexpr size_t kStepWords = sizeof(StepRecord) / sizeof(uint64_t);
constexpr size_t kFirstWords = kHeadWords + kStepWords; ///< Head and first step.
constexpr size_t kRecordWords = sizeof(LaunchRecord) / sizeof(uint64_t);
static_assert(offsetof(LaunchRecord, num_steps) == 0 &&
              offsetof(LaunchRecord, workspace_bytes) == sizeof(uint64_t));
static_assert(kHeadWords == 2 && sizeof(StepRecord) % sizeof(uint64_t) == 0 &&
              sizeof(LaunchRecord) % sizeof(uint64_t) == 0);

constexpr uint64_t pair(int64_t high, int64_t low) { return uint64_t(high) << 32 | uint32_t(low); }

} // namespace

PlanKey::PlanKey(const AttentionProblem &p) {
  const auto fields = p.spec.pack();
  size_t next = 0;
  words[next++] = pair(p.device.device_type, p.device.device_id);
  for (uint64_t word : fields)
    words[next++] = word;
  words[next++] = reinterpret_cast<uintptr_t>(p.spec.score->shared);
  // A power of two and a flag beside what has 48 bits.
  words[next++] = uint64_t(p.bounds.batch) | uint64_t(std::countr_zero(uint32_t(p.bounds.key_run))) << 56 |
                  uint64_t(p.any_order) << 63;
  // The checks of arguments (lengths.cpp, mask_args.cpp) keep these in 32 bits.
  words[next++] = pair(p.bounds.max_seqlen_q, p.bounds.max_seqlen_k);
  words[next++] = uint64_t(p.bounds.total_q);
  words[next++] = pair(p.bounds.heads_q, p.bounds.heads_k);
  words[next++] = pair(p.bounds.window_left, p.bounds.window_right);
  static_assert(kMaxLength < int64_t(1) << 30); // of new keys
  words[next++] = pair(p.num_splits, p.bounds.max_seqlen_new << 2 | int64_t(p.bounds.rotates_q) << 1 |
                                         int64_t(p.batch_invariant));
}

std::array<uint64_t, PlanKey::kSpecWords> PlanKey::specWords() const {
  std::array<uint64_t, kSpecWords> first;
  std::copy_n(words.begin(), kSpecWords, first.begin());
  return first;
}

uint64_t PlanKey::hash() const {
  // Products of pairs of words, folded (the mixing step of wyhash): they do not wait for each other. The key
  // is ours, so no attacker chooses it.
  constexpr uint64_t kOdd = 0x9e3779b97f4a7c15, kOther = 0xd6e8feb86659fd93;
  const auto fold = [](uint64_t a, uint64_t b) {
    const auto product = static_cast<unsigned __int128>(a) * b;
    return uint64_t(product) ^ uint64_t(product >> 64);
  };
  uint64_t h = 0;
  // each pair by numbers of its own, so that equal words do not cancel out
  for (size_t i = 0; i < kWords; i += 2)
    h ^= fold(words[i] ^ kOdd * (i + 1), (i + 1 < kWords ? words[i + 1] : 0) ^ kOther * (i + 1));
  return fold(h ^ kOdd, kOther);
}

/// A sequence lock: `version` is odd while a writer is in it, and a reader that saw it change has read
/// nothing.
struct alignas(64) PlanMemo::Slot {
  std::atomic<uint32_t> version{0};
  std::atomic<uint64_t> key[PlanKey::kWords] = {};
  std::atomic<uint64_t> record[kRecordWords] = {};

  bool holds(const PlanKey &wanted) const {
    for (size_t i = 0; i < PlanKey::kWords; ++i)
      if (key[i].load(std::memory_order_relaxed) != wanted.words[i])
        return false;
    return true;
  }
};

PlanMemo::PlanMemo() : slots_(new Slot[kWays * kSets]) {}
PlanMemo::~PlanMemo() = default;

bool PlanMemo::find(const PlanKey &key, LaunchRecord &out) const {
  const Slot *set = &slots_[key.hash() % kSets * kWays];
  for (size_t way = 0; way < kWays; ++way) {
    const Slot &slot = set[way];
    const uint32_t before = slot.version.load(std::memory_order_acquire);
    if (before == 0 || before % 2)
      continue;
    if (!slot.holds(key))
      continue;
    uint64_t first[kFirstWords], rest[kRecordWords - kFirstWords];
    const auto unchanged = [&] {
      std::atomic_thread_fence(std::memory_order_acquire);
      return slot.version.load(std::memory_order_relaxed) == before;
    };
    for (size_t i = 0; i < kFirstWords; ++i)
      first[i] = slot.record[i].load(std::memory_order_relaxed);
    // steps, workspace; anything while a writer is in the slot
    const bool more = first[0] > 1 || first[1] != 0;
    if (more)
      for (size_t i = kFirstWords; i < kRecordWords; ++i)
        rest[i - kFirstWords] = slot.record[i].load(std::memory_order_relaxed);
    if (!unchanged())
      continue;
    for (size_t i = 0; i < kFirstWords; ++i) // word by word, so that they stay in registers
      std::memcpy(reinterpret_cast<char *>(&out) + i * sizeof(uint64_t), &first[i], sizeof(uint64_t));
    if (more)
      std::memcpy(reinterpret_cast<char *>(&out) + sizeof first, rest, sizeof rest);
    return true;
  }
  return false;
}

void PlanMemo::put(const PlanKey &key, const LaunchRecord &record) {
  const auto words = std::bit_cast<std::array<uint64_t, kRecordWords>>(record);
  std::lock_guard lock(writing_);
  Slot *set = &slots_[key.hash() % kSets * kWays];
  Slot *slot = nullptr;
  for (size_t way = 0; way < kWays && !slot; ++way) { // the key's own slot, else an unused one
    if (set[way].version.load(std::memory_order_relaxed) != 0 && set[way].holds(key))
      slot = &set[way];
  }
  for (size_t way = 0; way < kWays && !slot; ++way)
    if (set[way].version.load(std::memory_order_relaxed) == 0)
      slot = &set[way];
  if (!slot)
    slot = &set[next_way_++ % kWays];
  change(*slot, [&] {
    for (size_t i = 0; i < PlanKey::kWords; ++i)
      slot->key[i].store(key.words[i], std::memory_order_relaxed);
    for (size_t i = 0; i < kRecordWords; ++i)
      slot->record[i].store(words[i], std::memory_order_relaxed);
  });
}

template <class Write> void PlanMemo::change(Slot &slot, Write write) {
  // Skips 0 when it wraps around: 0 means that the slot was never written.
  uint32_t version = slot.version.load(std::memory_order_relaxed);
  slot.version.store(version + 1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  write();
  version += 2;
  slot.version.store(version ? version : 2, std::memory_order_release);
}

void PlanMemo::clear() {
  std::lock_guard lock(writing_);
  for (size_t i = 0; i < kWays * kSets; ++i)
    if (slots_[i].version.load(std::memory_order_relaxed) != 0)
      change(slots_[i], [&] { // no device has this number, so it is no problem's key
        slots_[i].key[0].store(~uint64_t(0), std::memory_order_relaxed);
      });
}

} // namespace flashplus
