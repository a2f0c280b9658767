// SPDX-License-Identifier: BSD-3-Clause
// Tiles of paged keys as boxes of a tensor map over the pool: {column, slot, head, page}, each box inside one
// page.
#pragma once

#include "templates/common/sequence.h"

namespace flashplus {

/// The boxes of a tile, in order. They hold keys from a multiple of their rows on. A box without a key that
/// somebody sees arrives as zeros, from a page before the pool: neither memory nor the table is read for it.
class PageBoxes {
public:
  /// Tiles of `tile_rows` keys; `least`: as KeyRows::least.
  PageBoxes(Ir &ir, const Sequence &sequence, int tile_rows, Val least);

  /// Of a box, i32: boxRows() of spec/key_run.h, which the map's boxes have.
  Val rows() const { return rows_; }

  struct Box {
    Val key;   ///< Its first one.
    Val entry; ///< Of the sequence's table.
    Val slot;  ///< In the page.
    Val page;  ///< -1 where it is not read.
    void fields(auto &&each) { each(key, entry, slot, page); }
  };
  /// The one that starts at `key`. Reads its page's number, and so does next().
  Box first(Val key) const;
  Box next(const Box &box) const;

  /// Coordinates of the part of `box` that starts at `column`.
  Vals at(Val column, Val head, const Box &box) const;

private:
  Val isSeen(Val key) const;
  Val page(Val key, Val entry) const;

  Ir &ir_;
  const Sequence &sequence_;
  const Val page_size_, least_;
  Val rows_;
};

} // namespace flashplus
