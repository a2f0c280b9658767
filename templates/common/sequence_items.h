// SPDX-License-Identifier: BSD-3-Clause
// Work items of a batch by the lengths that its sequences have where the kernel runs.
#pragma once

#include "ir/ir.h"
#include "spec/kernel_spec.h"
#include "templates/common/work.h"

namespace flashplus {

/// A line of items without an empty one: sequence by sequence, those with the most keys first (by powers of
/// two, in one by number), in a sequence as decodeSequenceItem() has them. A warp finds an item with 32
/// sequences in its lanes; finding later and later ones it passes each of them once for every power of two
/// that occurs (docs/rationale/packed-items.md).
///
/// Where no array says how long sequences are, items are those of decodeWorkItem(), without a search. One
/// query head an item.
class SequenceItems {
public:
  /// By a whole warp; `lane` is the thread's. Reads all lengths.
  SequenceItems(Ir &ir, const ParamReader &params, const KernelSpec &spec, Val lane, int tile_m);

  /// Where the warp is in the line; all i32.
  struct Cursor {
    Val classes; ///< Powers of two that are left, as bits; the highest is that of the lanes' sequences.
    Val first;   ///< The first lane's sequence.
    Val before;  ///< Query tiles in the line before it,
    Val up_to;   ///< and those from there up to and with the lane's own; a sequence of another power of two
                 ///< has none.
    void fields(auto &&each) { each(classes, first, before, up_to); }
  };
  Cursor start() const;

  struct Found {
    WorkItem item; ///< The same in all lanes.
    Cursor cursor;
    Val present; ///< The line has it; i1.
    void fields(auto &&each) { each(item, cursor, present); }
  };
  /// `item`: not below one that `cursor` was moved to.
  Found find(const Cursor &cursor, Val item) const;

private:
  struct Lengths {
    Val tiles, power; ///< Query tiles of a sequence; exponent of its keys' power of two (of none: 0).
    void fields(auto &&each) { each(tiles, power); }
  };
  Lengths lengths(Val batch) const;
  Cursor at(Val classes, Val first, Val before) const;

  Ir &ir_;
  const ParamReader &params_;
  const KernelSpec &spec_;
  Val lane_;
  int tile_m_;
  Val differ_; ///< Lengths do; i1.
  Val classes_;
};

} // namespace flashplus
