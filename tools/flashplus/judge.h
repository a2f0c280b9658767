// SPDX-License-Identifier: BSD-3-Clause
// Whether a schedule computes what it should: nothing that is wrong is timed, however quick.
#pragma once

#include "tools/flashplus/bench_case.h"
#include "tools/flashplus/tensors.h"

#include <memory>
#include <optional>

namespace flashplus::tool {

/// A smaller problem of the same spec, whose blocks still have several work items and whose lengths no tile
/// divides.
BenchCase reducedCase(const BenchCase &c, int multiprocessors, bool gpu);

/// Runs every schedule on one problem with outputs of NaN. The first that is right against fp64 becomes the
/// measure of the others, which may be as far from it as two right answers can be: that costs one reference a
/// spec. Not thread-safe; must not outlive the context.
class Judge {
public:
  /// `threads` are those of the reference, 0 = all.
  static Result<std::unique_ptr<Judge>> make(flashplus_context *context, DLDevice device, const BenchCase &c,
                                             int threads);

  /// "" if the schedule's result is right, else what is wrong. A failure is the library's: nothing was
  /// computed.
  Result<std::string> judge(const std::string &schedule);

private:
  Judge() = default;
  Result<std::string> judgeGradients(const std::string &schedule);

  flashplus_context *context_ = nullptr;
  DLDevice device_ = {};
  int threads_ = 0;
  Problem problem_;
  std::optional<io::Tensor> right_, right_lse_;
  double allowed_ = 0, allowed_lse_ = 0;
  /// Of a backward: dq, dk and dv. They are judged by what rows are made of, not by how large they came out,
  /// so that each schedule is held against fp64 itself.
  bool any_order_ = false;
};

} // namespace flashplus::tool
