// SPDX-License-Identifier: BSD-3-Clause
// The order in which a tile of keys meets the queries that see it: head after head of its group, and of each
// the tiles upwards. Sums over a group are thereby of one order, whatever else runs.
#pragma once

#include "ir/carried.h"
#include "templates/common/mask.h"

namespace flashplus {

struct QueryWalk {
  /// `rows` as Mask::queries gives them, in tiles of `tile_m`.
  QueryWalk(const Mask::Rows &rows, int tile_m, Val group) : tile_m(tile_m) {
    Ir &ir = *group.ir;
    begin = rows.begin / tile_m;
    end = ir.select(rows.begin < rows.end, ir.ceilDiv(rows.end, tile_m), begin);
    steps = (end - begin) * group;
  }

  int tile_m;
  Val begin, end; ///< Tiles of a head, i32.
  Val steps;      ///< Of all heads, i32.

  struct Place {
    Val head; ///< In the group.
    Val tile;
    void fields(auto &&each) { each(head, tile); }
  };
  Place first() const { return {begin.ir->i32(0), begin}; }
  Place next(const Place &p) const {
    Ir &ir = *begin.ir;
    Val ends = p.tile + 1 == end;
    return {ir.select(ends, p.head + 1, p.head), ir.select(ends, begin, p.tile + 1)};
  }
  Val query(const Place &p) const { return p.tile * tile_m; } ///< The tile's first query.
};

} // namespace flashplus
