// SPDX-License-Identifier: BSD-3-Clause
// From global to shared memory: tiles of rows by cp.async, 16 bytes a thread, or element by element where
// rows are aligned to an element only. For blocks all of whose threads copy and compute.
#pragma once

#include "ir/ir.h"
#include "templates/common/key_rows.h"

#include <functional>

namespace flashplus {

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
  /// Of keys in pages, which have no `from`: pointer to a row of the sequence.
  std::function<Val(Val row)> paged_row;

  /// The thread's chunk of row `row`, which is found through pages.
  Val pagedChunk(Ir &ir, Val row) const { return ir.offset(paged_row(row), ir.toI64(column) * 16); }
};

class TileLoader {
public:
  /// Of a block of `threads` threads, of which `thread` is one (i32); elements have `bytes` bytes and rows
  /// are aligned to `alignment`. Tiles lie in `memory` (shared). `others`: the kernel has other asynchronous
  /// copies in its groups.
  TileLoader(Ir &ir, int alignment, int bytes, int threads, Val thread, Val memory, bool others = false)
      : ir_(ir), alignment_(alignment), bytes_(bytes), threads_(threads), groups_(alignment == 16 || others),
        thread_(thread), memory_(memory) {}

  /// What a tile of rows is: where they come from, elements (i64) from a row to the next, and where the tile
  /// goes, `shared` bytes into the memory.
  struct Rows {
    KeyRows source;
    Val stride;
    int dim, dim_pad, rows, pitch, shared;
    bool zeros;
  };
  TileLoad tile(const Rows &rows);

  /// Starts loading rows [row, row + rows) into the buffer `stage` bytes (none: 0) after the first. Nothing
  /// past `last` is read. Rows past it may be anything finite where a mask hides their scores; where weights
  /// of 0 are all that hides them they must be zeros, since 0 does not hide an infinity.
  void load(const TileLoad &t, Val row, Val last, Val stage = {});

  /// Ends a group of asynchronous copies; rows that are aligned to an element only are copied at once.
  void commit();
  /// All copies of this thread so far are done; then those of the block, and every warp is done with what it
  /// read.
  void arrive();

private:
  void loadPaged(const TileLoad &t, Val row, Val last, Val to);
  void loadWhole(const TileLoad &t, Val row, Val to);
  Val placeAnew(TileLoad &t);
  void loadEdge(TileLoad t, Val row, Val last, Val to);
  void loadRow(const TileLoad &t, Val from, Val to, Val valid);
  void loadElements(TileLoad t, Val row, Val last, Val to);

  Ir &ir_;
  const int alignment_, bytes_, threads_;
  const bool groups_; ///< There are asynchronous copies.
  const Val thread_, memory_;
};

} // namespace flashplus
