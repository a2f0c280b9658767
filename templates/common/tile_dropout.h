// SPDX-License-Identifier: BSD-3-Clause
// The mask of dropout (spec/dropout.h) on a fragment, with queries along either axis. A granule of the mask
// is what a lane and its neighbour lane ^ 4 hold of a block of 16 x 16: one of them draws it for both.
#pragma once

#include "templates/common/fragment.h"
#include "templates/common/rng_state.h"

namespace flashplus {

/// Which of a thread's elements are kept: of every block of 16 x 16 two words with a byte an element, whose
/// highest bit says so.
class KeptElements {
public:
  KeptElements(FragmentLayout layout, bool by_rows, Vals words)
      : layout_(layout), by_rows_(by_rows), words_(std::move(words)) {}

  /// `x`, element `at` of the fragment, or 0 if it is dropped.
  Val keep(int at, Val x) const;
  void apply(Fragment &f) const;
  /// For elements `pair` of one row, neighbours, packed in 16 bits each: all ones where they are kept, else
  /// 0.
  Val ofPair(const std::array<int, 2> &pair) const;
  /// operandA(f, ...) with 0 for what is dropped.
  Vals operandA(const Fragment &f, DType dtype, int row_block, int step) const;

  /// All of it is drawn before the waits that follow (sm_90a), under the products that they wait for.
  void computeBeforeWait() const;

private:
  struct Place {
    size_t word;
    int byte;
  };
  Place place(int at) const;

  FragmentLayout layout_;
  bool by_rows_; ///< Queries are in rows.
  Vals words_;   ///< [row block][pair of column blocks][2]
};

class TileDropout {
public:
  /// `lane`: the thread's number, of the block or of the warp.
  TileDropout(Ir &ir, const ParamReader &params, Val lane, Axis queries);

  /// The mask of a warp's fragment that begins at `query` and `key`, both multiples of 16, of query head
  /// `head` of batch entry `batch`. The whole warp is here.
  KeptElements draw(FragmentLayout layout, Val batch, Val head, Val query, Val key) const;
  /// 1 / (1 - p)
  Val scale() const { return params_.get("drop_scale"); }

private:
  using Words = std::array<Val, 4>;
  using Half = std::array<Val, 2>;
  struct Block {
    Val query, key; ///< In blocks of 16.
  };
  /// What the mask wants to know of a lane.
  struct Lane {
    Val granule; ///< Its granule's number in a block.
    Val odd;     ///< i1: it has the second half of its granules.
    Half thresholds;
  };
  Lane laneAnew() const;
  Words random(const Lane &lane, const Block &at, Val head) const;
  Half half(const Words &words, int which) const;
  Half kept(const Lane &lane, const Half &random) const;

  Ir &ir_;
  const ParamReader &params_;
  const Axis queries_;
  const RngState rng_;
  Val lane_;
};

} // namespace flashplus
