// SPDX-License-Identifier: BSD-3-Clause
// An algorithm is one way to compute an operation on a family of targets: a plan half (this struct, no LLVM)
// and an emit half (templates/emit.h) under the same name. Adding one is a folder or a file pair under
// templates/<operation>/ and a row in each of the two tables (plan.cpp, emit.cpp).
#pragma once

#include "spec/kernel.h"
#include "templates/plan.h"

#include <span>
#include <string_view>
#include <vector>

namespace flashplus {

/// A knob of an algorithm's schedules.
struct Knob {
  std::string_view name;
  int standard;                ///< What a schedule that does not name it means: records and tables outlive new knobs.
  std::span<const int> values; ///< What tuning tries; `launch` may allow more, and sorts out combinations.
};

struct Algorithm {
  std::string_view name; ///< Schedule::algorithm, "<target family>.<what>".
  Operation op;
  bool (*runs_on)(Isa isa);

  /// Schedules worth having for `spec` within `shared_memory` bytes a block. Of those whose most_keys suffices the first is
  /// taken, or a later one with a shorter tile that still covers the queries.
  std::vector<Candidate> (*candidates)(const KernelSpec &spec, const Target &target, int shared_memory);

  /// Checks every knob and returns how to launch. The failure names the knob, its value and what is allowed.
  Result<LaunchSchema> (*launch)(const KernelSpec &spec, const Schedule &schedule, const Target &target);

  /// Every knob there is.
  std::span<const Knob> knobs;

  /// Whether tuning should spend time on a feasible schedule; null = on every one.
  bool (*worth_trying)(const KernelSpec &spec, const Schedule &schedule, const Target &target) = nullptr;

  /// A work item has all query heads of a key head: its rows are (query row, head of the group) pairs.
  bool packs_heads = false;

  /// So many of its tiles of rows are still faster than one, mostly empty, of another algorithm.
  int short_tiles = 1;

  /// Not 0: a work item has up to knob `heads` neighbouring key heads (with packs_heads) and a share of the keys, of at least
  /// so many where there is a choice.
  int share_keys = 0;
};

/// Rows of one sequence that a work item of `schedule` covers: tile_m (forward) or rows (combine).
int rowsPerWorkItem(const Schedule &schedule);

/// `value` of knob `name` is not one of the allowed ones; `allowed` finishes the sentence.
Status badKnob(const Schedule &schedule, std::string_view name, std::string_view allowed);

constexpr int roundUp(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }
constexpr int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

extern const Algorithm kCpuFlash;     // templates/forward/cpu_flash/plan.cpp
extern const Algorithm kCpuStream;    // templates/forward/cpu_stream/plan.cpp
extern const Algorithm kSm80Flash;    // templates/forward/sm80_flash/plan.cpp
extern const Algorithm kSm90Flash;    // templates/forward/sm90_flash/plan.cpp
extern const Algorithm kCpuCombine;   // templates/combine/plan.cpp
extern const Algorithm kGpuCombine;

} // namespace flashplus
