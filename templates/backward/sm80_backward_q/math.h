// SPDX-License-Identifier: BSD-3-Clause
// Products and weights of sm80.backward_q. A warp has 16 m_frags query rows and all keys of a tile.
#pragma once

#include "templates/backward/sm80_backward_q/kernel.h"
#include "templates/common/score_gradient.h"
#include "templates/common/tile_dropout.h"
#include "templates/common/tile_product.h"

#include <optional>

namespace flashplus::sm80_backward_q {

class Math {
public:
  /// After the thread is known. Reads the thread's row values.
  explicit Math(ItemView &kernel);

  /// Adds the tile that begins at `key` and lies in buffer `stage` (i32; none: the first).
  void add(Fragment &dq, Val key, Val stage);
  /// What that tile gives to the gradients of the score's own inputs.
  void addScoreTerms(ScoreSums &sums, Val key, Val stage);

private:
  /// S = Q K^T and dP = dO V^T.
  struct Products {
    Fragment s, dp;
  };
  Products products(Val stage);
  Fragment masked(Fragment p, Val key);

  ItemView &k_;
  Ir &ir_;
  TileOperand q_, dout_;              // left operands
  TileOperand k_columns_, v_columns_; // right ones of S and dP
  TileOperand k_rows_;                // right one of dQ
  Vals rows_;                         // query rows, cut to the last one
  Vals lse_, delta_;
  std::optional<TileDropout> dropout_; // of a spec with dropout
};

} // namespace flashplus::sm80_backward_q
