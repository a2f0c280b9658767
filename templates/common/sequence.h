// SPDX-License-Identifier: BSD-3-Clause
// Shared by every template: which work item this is, where its sequence lies, which keys its rows see.
#pragma once

#include "ir/ir.h"
#include "spec/kernel_spec.h"

namespace flashplus {

/// One unit of the grid. All i32.
struct WorkItem {
  Val m;     ///< Query tile.
  Val head;  ///< Query head; the first of its group where the item has all of them.
  Val head_k; ///< The first where the item has several key heads.
  Val split; ///< Share of the keys; 0 unless the spec is split.
  Val batch;
  Val group; ///< Query heads a key head; only decodeWorkItem sets it.
  Val key_heads; ///< Key heads of the item; only with HeadsOfItem::Groups.
};

/// The heads that a work item has: one query head, all query heads of a key head, or those of neighbouring key heads.
enum class HeadsOfItem { One, Packed, Groups };

/// Decodes a forward's work item. Items are ordered by section of `heads_per_section` (batch, split, head) triples; in a
/// section first by query tile, the last one first (with a right-bounded mask it sees the most keys, and the longest work
/// must not start last), then by triple. In a packed item a query tile counts (row, head of the group) pairs, the heads of a
/// row side by side; `head` in the triple is the key head, or counts groups of key heads: as many as num_work_items allows, of
/// one size but for the last.
/// `m_tiles`: query tiles of a triple, if fewer than the launch's num_m_tiles.
WorkItem decodeWorkItem(Ir &ir, const ParamReader &params, const KernelSpec &spec, Val item,
                        HeadsOfItem heads_of_item = HeadsOfItem::One, Val m_tiles = {});

/// Addressing: where the rows of one batch entry lie. Dense and ragged batches and seqused are one implementation,
/// told apart by null pointers at run time: the tests are uniform and outside all loops, and a serving process then
/// warms one kernel instead of four (docs/rationale/addressing.md).
class Sequence {
public:
  Sequence(Ir &ir, const ParamReader &params, Val batch, bool with_keys = true);

  Val q_len, k_len; ///< i32, valid rows.

  /// First row of `tensor` ("q", "k", "v", "o") for `head`, as a pointer to elements of `bytes` bytes.
  Val rows(std::string_view tensor, Val head, int bytes) const;
  /// Where row 0 of `tensor` lies in its tensor map: {row, batch}, i32.
  std::pair<Val, Val> mapCoordinates(std::string_view tensor) const;
  /// Whether rows of `tensor` past its valid ones may be somebody else's data and not outside the tensor; i1.
  Val hasRowsBehind(std::string_view tensor) const;
  /// Pointer to the LSE of query row 0.
  Val lse(Val head) const;
  /// Number of query row 0 among all rows_q rows of the batch (i64); for partial results.
  Val firstRow() const { return first_row_; }

private:
  Ir &ir_;
  const ParamReader &params_;
  Val batch_, ragged_q_, ragged_k_; // i64, i1, i1
  Val start_q_, start_k_;           // i64, first row when ragged, else 0
  Val first_row_;
};

/// The interval of visible keys of a query row, and what follows for tiles.
class Mask {
public:
  Mask(Ir &ir, const ParamReader &params, const KernelSpec &spec, const Sequence &sequence);

  Val lo(Val row) const; ///< First visible key (i32), cut to [0, k_len].
  Val hi(Val row) const; ///< One past the last visible key, cut to [0, k_len].

  struct Tiles {
    Val begin, end; ///< Key tiles with a visible key for some row; empty when begin >= end.
  };
  /// Of rows [first, last], both valid rows. `split` takes its share of the tiles.
  Tiles tiles(Val first, Val last, int tile_n, Val split, Val num_splits) const;

  /// Whether some row of [first, last] does not see some key of the tile that starts at `key`.
  Val needsMask(Val first, Val last, Val key, int tile_n) const;

private:
  Ir &ir_;
  bool bounded_left_, bounded_right_;
  Val k_len_, diagonal_;  // diagonal = k_len - q_len: key position of query row 0
  Val left_, right_;      // first and one past the last visible key of query row 0, not cut
};

} // namespace flashplus
