// SPDX-License-Identifier: BSD-3-Clause
// Plans that flashplus_forward made before, found again without a lock, an allocation or text. A table of fixed size: what
// does not fit replaces something older, and is planned again when it is next wanted (some microseconds; kernels stay).
#pragma once

#include "runtime/arguments/forward_args.h"

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <type_traits>

namespace flashplus {

struct ResidentKernel;

/// A plan as far as a launch needs it. Kernels live as long as their context's table, which forgets none.
struct PlanRecord {
  const ResidentKernel *forward = nullptr;
  const ResidentKernel *combine = nullptr; ///< Null unless split.
  int32_t num_splits = 1;
  int32_t tile_m = 0;
  int32_t combine_rows = 0;
  int32_t heads_per_section = 1;
  int64_t workspace_bytes = 0;
  int64_t work_counter_bytes = 0;
  int64_t partial_o_offset = 0;
  int64_t partial_lse_offset = 0;
  int32_t packs_heads = 0; ///< 0 or 1
  int32_t key_heads = 1;
};
static_assert(std::is_trivially_copyable_v<PlanRecord>);

/// Everything that a plan depends on, as plain words: two problems with equal keys have one plan.
struct PlanKey {
  static constexpr size_t kWords = 9;
  std::array<uint64_t, kWords> words;

  explicit PlanKey(const ForwardProblem &problem);
  /// The words of device and spec: what the plans of all lengths share.
  std::array<uint64_t, 3> specWords() const { return {words[0], words[1], words[2]}; }
  uint64_t hash() const;
  bool operator==(const PlanKey &) const = default;
};

/// Thread-safe; find() is wait-free.
class PlanMemo {
public:
  PlanMemo();
  ~PlanMemo();
  bool find(const PlanKey &key, PlanRecord &out) const;
  void put(const PlanKey &key, const PlanRecord &record);

private:
  struct Slot;
  static constexpr size_t kWays = 4, kSets = 256;
  const std::unique_ptr<Slot[]> slots_;
  std::mutex writing_;
  size_t next_way_ = 0;
};

} // namespace flashplus
