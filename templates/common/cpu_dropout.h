// SPDX-License-Identifier: BSD-3-Clause
// The mask of dropout (spec/dropout.h) on a CPU's vectors.
#pragma once

#include "ir/ir.h"
#include "templates/common/rng_state.h"

#include <array>

namespace flashplus {

class CpuDropout {
public:
  CpuDropout(Ir &ir, const ParamReader &params);

  /// Keys that keepRow has at a time: a multiple of 16, and two vectors.
  int width() const { return 2 * ir_.lanes; }
  /// Whether the keys [key, key + width()) of row `row` of head `head` are kept, one i1 vector of `lanes`
  /// keys after the other; `key` is a multiple of width(). All i32.
  Vals keepRow(Val batch, Val head, Val row, Val key) const;
  /// The same of a vector of rows, keys and heads, one a lane: i32 in, an i1 vector out.
  Val keepLanes(Val batch, Val heads, Val rows, Val keys) const;
  /// 1 / (1 - p)
  Val scale() const { return params_.get("drop_scale"); }

private:
  using Words = std::array<Val, 4>;
  Words random(Words counter) const;
  Val number(Val batch, Val head) const { return batch * params_.get("heads_q") + head; }

  Ir &ir_;
  const ParamReader &params_;
  const RngState rng_;
};

} // namespace flashplus
