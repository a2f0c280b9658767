// SPDX-License-Identifier: BSD-3-Clause
// What `flashplus run` found, for people and as JSON.
#pragma once

#include "reference/compare.h"
#include "reference/compare_backward.h"
#include "tools/flashplus/command.h"
#include "tools/flashplus/tensors.h"

namespace flashplus::tool {

/// One plan, forward or backward. Times in milliseconds, negative where there is none.
struct MeasuredPass {
  int64_t compiled = 0, from_disk = 0, from_memory = 0; ///< Kernels, by where they were found.
  double compile_ms = -1; ///< Cold: spec to resident kernels, the compiler included.
  double load_ms = -1;    ///< Warm: the same from the disk cache.
  double run_ms = -1;     ///< Median.
  int runs = 0;
  double gflops = -1;
  Json plan;
};

struct Measured {
  MeasuredPass forward;
  std::optional<MeasuredPass> backward;
  flashplus_counters counters = {}; ///< When all plans were made.
  std::optional<reference::Comparison> check;
  std::optional<reference::BackwardComparison> check_backward;
  std::optional<std::string> cache; ///< Of an append: where the cache is wrong, "" for nowhere.

  bool goodForward() const { return (!check || check->good()) && (!cache || cache->empty()); }
  bool good() const { return goodForward() && (!check_backward || check_backward->good()); }
};

/// `out`: the file that was written, or "".
void printRunText(const Problem &problem, const Measured &measured, const std::string &out);
void printRunJson(const Problem &problem, const Measured &measured, const std::string &out);

/// A check of a forward: good (with what an append left in the cache, if there was one), errors and bounds.
Json checkJson(const reference::Comparison &check, const std::optional<std::string> &cache);
/// Gradients of a check: good, and error and bound a part.
Json checkJson(const reference::BackwardComparison &check);

} // namespace flashplus::tool
