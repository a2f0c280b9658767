// SPDX-License-Identifier: BSD-3-Clause
// What the CPU's forward kernels share: the rows of a work item, which are (query row, head of the key head's
// group) pairs with the heads of a row side by side, and where their results go.
#pragma once

#include "templates/common/mask.h"
#include "templates/common/sequence.h"
#include "templates/common/work.h"
#include "templates/emit.h"

namespace flashplus {

class CpuTile {
public:
  /// Tile `item.m` of `tile_m` rows.
  CpuTile(EmitContext &c, const WorkItem &item, const Sequence &sequence, int tile_m);

  Val rows() const { return rows_; }     ///< Rows of this tile that exist (i64); meaningless unless exists().
  Val exists() const { return exists_; } ///< Whether the sequence has any of the tile's rows; i1.

  // Of row r (i64) of the tile; rows past the last are the last.
  Val queryRow(Val r) const;  ///< i32
  Val groupHead(Val r) const; ///< i64
  /// The row of the tile (i64) that is of this query row (i32) and head of the group (i64), or would be.
  Val rowOf(Val query, Val group_head) const;

  /// Stores the results of every row: its LSE, and by `write(row of the tile, dtype of the output, its row in
  /// memory, factor)` its values times the factor. `maximum` and `sum` give the softmax state of a row as
  /// scalars.
  void store(const std::function<Val(Val r)> &maximum, const std::function<Val(Val r)> &sum,
             const std::function<void(Val r, DType dtype, Val row, Val factor)> &write) const;

private:
  Val valid(Val r) const;

  EmitContext &c_;
  const WorkItem &item_;
  const Sequence &seq_;
  Val group_, first_, all_, exists_, rows_; // first_: number of the tile's first row
};

} // namespace flashplus
