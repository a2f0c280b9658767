// SPDX-License-Identifier: BSD-3-Clause
// Results: where rows of o and lse, or of partial_o and partial_lse, lie, who stores an LSE, and the count of
// tiles.
#pragma once

#include "ir/ir.h"
#include "spec/kernel_spec.h"
#include "templates/common/mask.h"
#include "templates/common/sequence.h"
#include "templates/common/work.h"

namespace flashplus {

/// fp32 results of every share of the keys: partial_o [split][row][head][dv], partial_lse [split][head][row].
/// A row is one of all rows_q rows of the batch (Sequence::firstRow() and on). All numbers are i64.
class PartialRows {
public:
  PartialRows(Ir &ir, const ParamReader &params, int head_dim_v);

  Val o(Val split, Val row, Val head) const;   ///< Pointer to the row's first element.
  Val lse(Val split, Val row, Val head) const; ///< Pointer to the row's LSE.
  Val rowStride() const;                       ///< Bytes from a row of partial_o to the next.

private:
  Ir &ir_;
  const ParamReader &params_;
  int row_bytes_;
  Val heads_, rows_;
};

/// Where the results of a work item's (batch, head) go: to o and lse, or where the item has a share of the
/// keys to its partial results. Rows are numbered inside the sequence. Every function emits what it returns
/// where it is called: addresses that are asked for late hold no registers before.
class ResultRows {
public:
  ResultRows(Ir &ir, const ParamReader &params, const KernelSpec &spec, const Sequence &sequence,
             const WorkItem &item)
      : ir_(ir), params_(params), spec_(spec), sequence_(sequence), item_(item) {}

  DType dtype() const { return spec_.isPartial() ? DType::F32 : spec_.dtype; }

  Val values() const;     ///< Pointer to row 0 of o or partial_o.
  Val rowStride() const;  ///< Bytes (i64) from a row to the next.
  Val headStride() const; ///< Bytes (i64) from a head's row to that of the next head.

  Val lse() const;           ///< Pointer to row 0's LSE.
  Val lseHeadStride() const; ///< Bytes (i64) to that of the next head.
  Val lseEmpty() const;      ///< LSE of a row that sees no key.
  /// Whether to store an LSE (i1), of those for which `among` (i1) holds.
  Val storesLse(Val among) const;

private:
  Ir &ir_;
  const ParamReader &params_;
  const KernelSpec &spec_;
  const Sequence &sequence_;
  const WorkItem &item_;
};

/// Adds tiles() (i32) to tile_counter where `when` of "there is one" (i1) holds, in which it is asked for; if
/// absent, wherever.
void countTiles(Ir &ir, const ParamReader &params, llvm::function_ref<Val()> tiles,
                llvm::function_ref<Val(Val counting)> when = nullptr);

} // namespace flashplus
