// SPDX-License-Identifier: BSD-3-Clause
// Products and softmax of sm80.flash. A warp has 16 m_frags query rows and all keys of a tile.
#pragma once

#include "templates/common/softmax.h"
#include "templates/common/tile_dropout.h"
#include "templates/forward/sm80_flash/kernel.h"

#include <optional>

namespace flashplus::sm80_flash {

class Math {
public:
  /// After the thread is known.
  explicit Math(ItemView &kernel);

  /// S = Q K^T of the tile whose keys lie `stage` bytes (none: 0) after the first buffer.
  Fragment multiplyQK(Val stage);
  /// Products -> softmax -> O += P V, of the tile that begins at `key` and whose values lie `stage` bytes
  /// further on.
  softmax::State update(Fragment products, Val key, const softmax::State &state, Val stage);

private:
  void accumulate(Fragment &f, int block, const Vals &a, const Vals &b);
  Val firstRowAnew(Val thread);
  TileScores scores(Vals products, Val key);
  Fragment masked(Fragment s, Val key, const TileExponents &exponents);
  struct Row;
  std::vector<Row> raiseMaxima(const Fragment &s, const TileExponents &exponents, softmax::State &state);
  using Kept = std::optional<KeptElements>;
  Kept kept(Val key);
  Vals probabilities(const Fragment &s, Val scale, std::vector<Row> &rows, const Kept &kept, int row_block,
                     int step);
  softmax::State multiplyPV(const Fragment &s, const TileExponents &exponents, const Kept &kept,
                            softmax::State state, Val stage);

  ItemView &k_;
  Ir &ir_;
  Val q_address_, k_address_, v_address_;
  std::optional<TileDropout> dropout_; // of a spec with dropout
};

} // namespace flashplus::sm80_flash
