// SPDX-License-Identifier: BSD-3-Clause
// Products and weights of sm80.backward_kv.
#pragma once

#include "templates/backward/sm80_backward_kv/kernel.h"
#include "templates/backward/tile_weights.h"
#include "templates/common/tile_product.h"

#include <optional>

namespace flashplus::sm80_backward_kv {

class Math {
public:
  /// After the thread is known.
  explicit Math(ItemView &kernel);

  /// Adds the tile that begins at `query`, of the group's head `head`, and lies in buffer `stage` (i32; none:
  /// the first).
  void add(Sums &sums, Val head, Val query, Val stage);

private:
  struct Weights {
    Fragment p, ds; ///< Transposed: keys in rows.
  };
  Weights weights(Val head, Val query, Val stage);
  TileWeights masked(TileWeights w, Val query);
  void exchange(int at, const Fragment &weights);
  LeftOperands exchanged(int at, int step);

  ItemView &k_;
  Ir &ir_;
  TileOperand keys_, values_;            // left operands
  TileOperand q_columns_, dout_columns_; // right ones of S and dP, of this part's queries
  TileOperand q_rows_, dout_rows_;       // right ones of dK and dV, of this part's columns
  Val row_values_, weights_at_;
  std::optional<TileDropout> dropout_; // of a spec with dropout
};

} // namespace flashplus::sm80_backward_kv
