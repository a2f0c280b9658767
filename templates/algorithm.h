// SPDX-License-Identifier: BSD-3-Clause
// An algorithm is one way to compute an operation on a family of targets: a plan half (this struct, no LLVM)
// and an emit half (templates/emit.h) under the same name. Adding one is a folder
// templates/<operation>/<name>/ and a row in each of the two tables (registry.cpp, emit.cpp).
#pragma once

#include "spec/artifact.h"
#include "spec/kernel.h"
#include "spec/params.h"
#include "templates/common/geometry.h"

#include <limits>
#include <span>
#include <string_view>
#include <vector>

namespace flashplus {

/// A knob of an algorithm's schedules.
struct Knob {
  std::string_view name;
  int standard;                ///< What a schedule that does not name it means: records and tables outlive
                               ///< new knobs.
  std::span<const int> values; ///< What tuning tries; `launch` may allow more, and sorts out combinations.
};

/// What a work item of a schedule is, for planners, which know nothing of knobs. What an operation does not
/// have stays 0.
struct ItemTraits {
  int rows = 0;             ///< Rows of a tile.
  int keys = 0;             ///< Keys of a tile.
  int key_run = 1;          ///< Keys that must be neighbours in a page (Bounds::key_run), at least.
  int key_heads = 1;        ///< Neighbouring key heads that an item may have, at most.
  int share_keys = 0;       ///< Not 0: items have shares of the keys, of at least so many where there is a
                            ///< choice.
  int short_tiles = 1;      ///< So many tiles of rows are still faster than one, mostly empty, of another
                            ///< algorithm; of two that merge the first in the registry is taken.
  bool packs_heads = false; ///< An item has all query heads of a key head: its rows are (query row, head)
                            ///< pairs.
  bool adds_dq = false;     ///< Of a backward: adds its part of dq to dq_parts, which the step before has
                            ///< cleared, in no fixed order (templates/backward/rows/dq_sums.h).
  bool by_lengths = false;  ///< For sequences of their own lengths: no item is empty (Bounds::ragged()).
  bool merges = false;      ///< Can merge shares itself (Results::Merged).
  Side side = Side::Query;  ///< Whose rows an item has a tile of; `rows` counts them (kWholeSequence: all of
                            ///< a sequence).

  int64_t packedHeads(const Bounds &bounds) const { return packs_heads ? bounds.group() : 1; }
};

/// A schedule of a target's table and the problems that it is for.
struct Candidate {
  Schedule schedule;
  int64_t most_keys = std::numeric_limits<int64_t>::max(); ///< Keys that a query row sees, at most.
  int64_t mean_queries = 0; ///< Not 0: only for sequences of no more query rows than this on average.
  ItemTraits item;                                         ///< Of the schedule; set by feasibleCandidates().
};

struct Algorithm {
  std::string_view name; ///< Schedule::algorithm, "<target family>.<what>".
  Operation op;
  TargetKind kind; ///< Of the targets that it runs on,
  uint32_t needs;  ///< with all of these features (spec/target.h).

  /// Schedules worth having for `spec` within `shared_memory` bytes a block. Of those whose most_keys
  /// suffices the first is taken, or a later one with a shorter tile that still covers the queries.
  std::vector<Candidate> (*candidates)(const KernelSpec &spec, const Target &target, int shared_memory);

  /// Checks every knob and returns how to launch. The failure names the knob, its value and what is allowed.
  Result<LaunchSchema> (*launch)(const KernelSpec &spec, const Schedule &schedule, const Target &target);

  /// What an item of a schedule that launch() accepts is.
  ItemTraits (*traits)(const Schedule &schedule);

  /// Every knob there is.
  std::span<const Knob> knobs;

  /// Whether tuning should spend time on a feasible schedule; null = on every one.
  bool (*worth_trying)(const KernelSpec &spec, const Schedule &schedule, const Target &target) = nullptr;

  bool pages = false; ///< Reads keys that a table of pages names (KeyAddressing::Paged).
  bool fp32 = false;  ///< Of a GPU: takes fp32, too; the products of tensor cores take 16-bit inputs.

  bool runsOn(Isa isa) const {
    const IsaInfo &info = isaInfo(isa);
    return info.kind == kind && (info.features & needs) == needs;
  }
};

/// `value` of knob `name` is not one of the allowed ones; `allowed` finishes the sentence.
Status badKnob(const Schedule &schedule, std::string_view name, std::string_view allowed);

/// Unsupported, if a block of the schedule needs more shared memory than the target has.
Status fitsSharedMemory(const Schedule &schedule, int64_t bytes, const Target &target);

/// Unsupported, if a thread of the schedule needs more than `most` registers for its accumulators, `needed`.
Status fitsRegisters(const Schedule &schedule, int needed, int most);

extern const Algorithm kCpuFlash;   // templates/forward/cpu_flash/plan.cpp
extern const Algorithm kCpuStream;  // templates/forward/cpu_stream/plan.cpp
extern const Algorithm kSm80Decode; // templates/forward/decode/plan.cpp
extern const Algorithm kSm90Decode;
extern const Algorithm kSm80Flash;  // templates/forward/sm80_flash/plan.cpp
extern const Algorithm kSm90Flash;  // templates/forward/sm90_flash/plan.cpp
extern const Algorithm kCpuCombine; // templates/combine/plan.cpp
extern const Algorithm kGpuCombine;
extern const Algorithm kCpuAppend; // templates/append/plan.cpp
extern const Algorithm kGpuAppend;
extern const Algorithm kCpuMerge; // templates/merge/plan.cpp
extern const Algorithm kGpuMerge;
extern const Algorithm kCpuBackward; // templates/backward/cpu_backward/plan.cpp
extern const Algorithm kCpuBackwardScore;
extern const Algorithm kCpuBackwardDelta; // templates/backward/cpu_rows/plan.cpp
extern const Algorithm kGpuBackwardDelta;
extern const Algorithm kCpuBackwardSum;
extern const Algorithm kGpuBackwardSum;
extern const Algorithm kSm80BackwardKV; // templates/backward/sm80_backward_kv/plan.cpp
extern const Algorithm kSm80BackwardQ;  // templates/backward/sm80_backward_q/plan.cpp
extern const Algorithm kSm80BackwardScore;
extern const Algorithm kSm90BackwardKV; // templates/backward/sm90_backward_kv/plan.cpp
extern const Algorithm kSm90Backward;
extern const Algorithm kSm90BackwardQ; // templates/backward/sm90_backward_q/plan.cpp

} // namespace flashplus
