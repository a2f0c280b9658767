// SPDX-License-Identifier: BSD-3-Clause
// The order in which the key tiles of an item are visited, the same for whoever copies and whoever computes:
// upwards. Blocks that run at the same time then read the same tiles at the same time, whatever query rows
// they have.
#pragma once

#include "ir/carried.h"
#include "templates/common/mask.h"

namespace flashplus {

struct KeyWalk {
  Mask::Tiles tiles;
  int tile_n; ///< Keys of a tile.

  Val first() const { return tiles.begin; }
  Val last() const { return tiles.end - 1; }
  Val hasNext(Val tile) const { return tile + 1 < tiles.end; }
  Val next(Val tile) const { return tile + 1; }
  Val previous(Val tile) const { return tile - 1; }
  Val key(Val tile) const { return tile * tile_n; } ///< The tile's first key.

  /// body(tile, state) -> state for all tiles, or all but the first.
  template <class T, class Body> T forAll(Ir &ir, const T &start, Body &&body) const {
    return carry::forLoop(ir, tiles.begin, tiles.end, ir.i32(1), start, body);
  }
  template <class T, class Body> T forOthers(Ir &ir, const T &start, Body &&body) const {
    return carry::forLoop(ir, tiles.begin + 1, tiles.end, ir.i32(1), start, body);
  }
};

} // namespace flashplus
