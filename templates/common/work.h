// SPDX-License-Identifier: BSD-3-Clause
// Work items: what one unit of the grid is, and how its number says so.
#pragma once

#include "ir/ir.h"
#include "spec/kernel_spec.h"

namespace flashplus {

/// One unit of the grid. All i32.
struct WorkItem {
  Val m;      ///< Query tile; with HeadsOfItem::Keys the tile of keys.
  Val head;   ///< Query head; the first of its group where the item has all of them.
  Val head_k; ///< The first where the item has several key heads.
  Val split;  ///< Share of the keys; 0 unless the spec is split.
  Val batch;
  Val group;     ///< Query heads a key head; only decodeWorkItem sets it.
  Val key_heads; ///< Key heads of the item; only with HeadsOfItem::Groups.

  void fields(auto &&each) { each(m, head, head_k, split, batch, group, key_heads); }
};

/// The heads that a work item has: one query head, all query heads of a key head, or those of neighbouring
/// key heads. Keys: all query heads of a key head, and its rows are keys.
enum class HeadsOfItem { One, Packed, Groups, Keys };

/// Decodes a work item. Items are ordered by section of `heads_per_section` (batch, split, head) triples; in
/// a section first by tile, then by triple. The longest work must not start last: with a right-bounded mask
/// the last tile of queries sees the most keys and comes first; the first tile of keys is seen by the most
/// queries, and tiles of keys go upwards. In a packed item a query tile counts (row, head of the group)
/// pairs, the heads of a row side by side; `head` in the triple is the key head, or counts groups of key
/// heads: as many as num_work_items allows, of one size but for the last. `m_tiles`: query tiles of a triple,
/// if fewer than the launch's num_m_tiles.
WorkItem decodeWorkItem(Ir &ir, const ParamReader &params, const KernelSpec &spec, Val item,
                        HeadsOfItem heads_of_item = HeadsOfItem::One, Val m_tiles = {});

/// The same of one sequence: `item` of its `m_tiles` * (heads and shares of them) items, one query head each.
WorkItem decodeSequenceItem(Ir &ir, const ParamReader &params, const KernelSpec &spec, Val batch, Val m_tiles,
                            Val item);

/// Query heads, times shares of the keys: items of a query tile of a sequence, with one query head each.
Val itemsOfTile(const ParamReader &params, const KernelSpec &spec);

} // namespace flashplus
