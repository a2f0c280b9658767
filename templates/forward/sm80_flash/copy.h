// SPDX-License-Identifier: BSD-3-Clause
// From global to shared memory: tiles of Q, K and V of sm80.flash.
#pragma once

#include "templates/forward/sm80_flash/kernel.h"

namespace flashplus::sm80_flash {

/// A tile on its way from global to shared memory: rows of `dim` elements, padded to `dim_pad` with zeros.
struct TileLoad {
  Val stride; ///< Elements between rows, i64.
  int dim, dim_pad, rows, pitch;
  bool zeros; ///< Rows past the last valid one are zeros, else they repeat it.
  // A whole tile in passes: the block covers `rows_a_pass` rows, neighbouring lanes `columns` chunks of 16
  // bytes of one.
  int columns, rows_a_pass;
  Val row, column; ///< Where the thread stands in a pass.
  Val from, to;    ///< Its chunk in row 0 of the sequence, and in the tile.
};

class Copy {
public:
  /// After the thread is known.
  explicit Copy(ItemView &kernel);

  void queries() { load(q_, k_.first, k_.last); }
  /// Of tile `tile`, into the buffer `stage` bytes (none: 0) after the first.
  void keys(Val tile, Val stage) { load(keys_, keyOf(tile), lastKey(), stage); }
  void values(Val tile, Val stage) { load(values_, keyOf(tile), lastKey(), stage); }

  /// Ends a group of asynchronous copies; rows that are aligned to an element only are copied at once.
  void commit();
  /// All copies of this thread so far are done; then those of the block, and every warp is done with what it
  /// read.
  void arrive();

private:
  TileLoad tile(Operand operand, Val head, int dim, int dim_pad, int rows, int pitch, int shared, bool zeros);
  Val keyOf(Val tile) { return tile * k_.l.tile_n; }
  Val lastKey() { return k_.seq.k_len - 1; }
  void load(const TileLoad &t, Val row, Val last, Val stage = {});
  void loadWhole(const TileLoad &t, Val row, Val to);
  Val placeAnew(TileLoad &t);
  void loadEdge(TileLoad t, Val row, Val last, Val to);
  void loadRow(const TileLoad &t, Val from, Val to, Val valid);
  void loadElements(TileLoad t, Val row, Val last, Val to);

  ItemView &k_;
  Ir &ir_;
  TileLoad q_, keys_, values_;
};

} // namespace flashplus::sm80_flash
