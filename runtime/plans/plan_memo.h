// SPDX-License-Identifier: BSD-3-Clause
// Plans that flashplus_forward made before, found again without a lock, an allocation or text. A table of
// fixed size: what does not fit replaces something older, and is planned again when it is next wanted (some
// microseconds; kernels stay).
#pragma once

#include "cache/fork.h"
#include "runtime/arguments/problem.h"
#include "runtime/plans/launch_record.h"

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

namespace flashplus {

/// Everything that a plan depends on, as plain words: two problems with equal keys have one plan.
struct PlanKey {
  static constexpr size_t kSpecWords = 2 + SpecFields::kPackedWords; ///< Device, fields, score.
  static constexpr size_t kWords = kSpecWords + 6;
  std::array<uint64_t, kWords> words;

  explicit PlanKey(const AttentionProblem &problem);
  /// The words of device and spec: what the plans of all lengths share.
  std::array<uint64_t, kSpecWords> specWords() const;
  uint64_t hash() const;
  bool operator==(const PlanKey &) const = default;
};

/// Thread-safe; find() is wait-free.
class PlanMemo {
public:
  PlanMemo();
  ~PlanMemo();
  /// Fills `out` in, which must be as constructed: what the record has no use for is not written.
  bool find(const PlanKey &key, LaunchRecord &out) const;
  void put(const PlanKey &key, const LaunchRecord &record);
  void clear();

private:
  struct Slot;
  static constexpr size_t kWays = 4, kSets = 256;
  /// Calls `write`, which stores into the slot, so that no reader takes what it saw meanwhile. Under
  /// writing_.
  template <class Write> static void change(Slot &slot, Write write);
  const std::unique_ptr<Slot[]> slots_;
  ForkSafe<std::mutex> writing_;
  size_t next_way_ = 0;
};

} // namespace flashplus
