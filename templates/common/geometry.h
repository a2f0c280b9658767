// SPDX-License-Identifier: BSD-3-Clause
// How a launch's work items cover a problem: one function for planning, which chooses by it, and for
// launching, which fills params with it.
#pragma once

#include "spec/key_run.h"
#include "spec/operand.h"

#include <algorithm>
#include <cstdint>
#include <limits>

namespace flashplus {

constexpr int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int roundUp(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

/// The largest problem that a plan serves.
struct Bounds {
  int64_t batch = 0;
  int64_t max_seqlen_q = 0; ///< Upper bound of one sequence's query rows.
  int64_t max_seqlen_k = 0;
  int64_t total_q = 0;      ///< Query rows of the whole batch: batch * seqlen_q, or the ragged total.
  int64_t heads_q = 0;
  int64_t heads_k = 0;
  int window_left = -1;     ///< -1 = unbounded; only used to guess how many keys a row sees.
  int window_right = -1;
  int64_t max_seqlen_new = 0; ///< Upper bound of one sequence's new keys.
  bool rotates_q = false;     ///< They, and q, get rotary embedding.
  int32_t key_run = kWholeRun; ///< Keys that are neighbours in a page: a lower bound (keyRun()).

  /// Whether sequences have fewer query rows than the longest one's.
  bool ragged() const { return total_q < batch * max_seqlen_q; }
  /// Query heads that share a key head; 1 where there are no heads.
  int64_t group() const { return std::max<int64_t>(1, heads_q / std::max<int64_t>(1, heads_k)); }
};

/// Rows of a tile that is a whole sequence, however long.
inline constexpr int32_t kWholeSequence = std::numeric_limits<int32_t>::max();

/// What one work item of a step has. Plain data: kept in launch records.
struct ItemShape {
  int32_t rows = 1;              ///< Rows of a tile: those of `side`, or pairs of a query row and a head
                                 ///< where heads are packed.
  int32_t key_heads = 1;         ///< Key heads of an item; more than 1 only with packed heads.
  int32_t num_splits = 1;        ///< Shares of the keys; an item has one of them.
  int32_t heads_per_section = 1; ///< Heads whose items are mixed, so that their keys stay in a cache
                                 ///< together.
  int32_t workers = 0;           ///< Not 0: so many items, which divide the work among themselves where they
                                 ///< run.
  bool packs_heads = false;      ///< An item has all query heads of a key head.
  int64_t row_scratch = 0; ///< Bytes that each query row of the longest sequence adds to a worker's scratch
                           ///< (CPU).
  Side side = Side::Query; ///< Whose rows the tiles are: queries of a query head, keys of a key head, or
                           ///< what an append moves.
};

struct Geometry {
  int64_t tiles = 0; ///< Tiles of rows of one sequence and item's heads: num_m_tiles. A whole sequence is
                     ///< one, even if empty, and so is what an append moves: it writes a length.
  int64_t items = 0; ///< num_work_items
  int64_t scratch = 0; ///< Bytes of a worker beyond LaunchSchema::scratch (CPU).
};

constexpr Geometry geometryOf(const ItemShape &shape, const Bounds &bounds) {
  int64_t rows = bounds.max_seqlen_q, heads = bounds.heads_q; // of a sequence; that have items of their own
  if (shape.side == Side::Append) {
    rows = 2 * bounds.heads_k * bounds.max_seqlen_new + (bounds.rotates_q ? heads * rows : 0);
    return {std::max<int64_t>(1, ceilDiv(rows, shape.rows)),
            bounds.batch * std::max<int64_t>(1, ceilDiv(rows, shape.rows)), 0};
  }
  if (shape.side == Side::Key) {
    rows = bounds.max_seqlen_k;
    heads = bounds.heads_k;
  } else if (shape.packs_heads) { // every launch comes here: no division without need
    rows *= bounds.group();
    heads = ceilDiv(bounds.heads_q / bounds.group(), shape.key_heads);
  }
  const int64_t tiles = shape.rows == kWholeSequence ? 1 : ceilDiv(rows, shape.rows);
  const int64_t items = bounds.batch * heads * tiles * shape.num_splits;
  return {tiles, shape.workers && items ? shape.workers : items, shape.row_scratch * bounds.max_seqlen_q};
}

} // namespace flashplus
