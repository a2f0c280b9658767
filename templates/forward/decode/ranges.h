// SPDX-License-Identifier: BSD-3-Clause
// Which keys a block has. All key tiles of the batch stand in one line: key head by key head, for each of
// them sequence by sequence, in a sequence item by item (tiles of packed rows), in an item tile by tile. So
// blocks a head's length apart read the same tokens at the same time, whose heads lie side by side. Block i
// has the tiles [i share, (i + 1) share) of that line. Lengths are read on the device, so that a plan, or a
// captured graph, is right for every length; a ragged batch is as balanced as an even one; and of the items
// of a block only the first and the last may have tiles of other blocks.
#pragma once

#include "ir/carried.h"
#include "templates/common/mask.h"
#include "templates/common/sequence.h"
#include "templates/common/work.h"
#include "templates/emit.h"
#include "templates/forward/decode/layout.h"

namespace flashplus::decode {

/// What a sequence has of a head's part of the line: `row_tiles` times `count`, both at least 1, so that
/// every row is somebody's, also one without keys.
struct SequenceTiles {
  Val begin, count; ///< Its visible key tiles; those of the line are at least 1.
  Val row_tiles;    ///< Items: tiles of packed rows.
};

/// A place in the line; i32, the same in all lanes.
struct Place {
  Val at;     ///< Tiles before it in the line,
  Val head;   ///< its key head and
  Val batch;  ///< sequence,
  Val inside; ///< and tiles before it in that.
  void fields(auto &&each) { each(at, head, batch, inside); }
};

/// The line of a launch, as a warp sees it.
class Line {
public:
  Line(EmitContext &c, const DecodeLayout &l);

  SequenceTiles tiles(const Sequence &sequence, const Mask &mask) const;

  /// Finds the block's range. By a whole warp.
  void find(Val lane);
  Place start() const { return start_; }
  Val end() const { return end_; }     ///< Of the range.
  Val share() const { return share_; } ///< Tiles of a block.
  Val block() const { return c_.work_item; }

private:
  struct Found {
    Val total, head, batch, before; ///< before: tiles of the heads and sequences before.
    void fields(auto &&each) { each(total, head, batch, before); }
  };
  Val weight(Val batch) const;
  void take(Val total);

  EmitContext &c_;
  Ir &ir_;
  const DecodeLayout &l_;
  Place start_;
  Val share_, end_;
};

/// The tiles of one item in a block's range.
struct Segment {
  Segment(EmitContext &c, const DecodeLayout &l, const Line &line, const Place &place);

  Place next() const { return next_; }

  const Sequence sequence;
  const Mask mask;
  WorkItem item;           ///< m, head (the group's first), head_k, batch, group.
  Val rows;                ///< Packed rows that the item has; 0 or less: none.
  Val first_row, last_row; ///< Query rows of the item.
  Val begin, end;          ///< Key tiles (i32) that this block computes; empty when begin >= end.
  Val first_key, end_key;  ///< Keys that are read: none outside is.
  Val first_block, blocks; ///< Blocks that share the item.

private:
  Place next_;
};

} // namespace flashplus::decode
