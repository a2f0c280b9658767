// SPDX-License-Identifier: BSD-3-Clause
// What happens when a block is done with an item: its warps' O become one, and that is the result, or, where
// other blocks have keys of the item too, a share in the workspace. The block that brings an item's last
// share merges them all; nobody waits for anybody.
//
//   partial_o     fp32 (2 blocks, tile_m, head_dim_v): O of a share, not divided by its sum
//   partial_lse   fp32 (2 blocks, tile_m, 2): base-2 maximum and sum of a share; without a key -inf and 0,
//                 and O is zeros
//   work_counter  a byte a block, zero before and after a launch: shares that an item has so far, of which
//                 the block is the first one. Bytes, for those of all blocks then fit into what every
//                 workspace has zeroed (kWorkspaceZeroed)
//
// An item of very many shares is merged in two levels, where DecodeLayout::mergesGroups() says so.
//
// A block has at most two shares: the end of an item that began in another block, in place 2 i, and the
// beginning of one that ends in another, in place 2 i + 1.
#pragma once

#include "templates/common/softmax.h"
#include "templates/forward/decode/kernel.h"

namespace flashplus::decode {

class Merge {
public:
  Merge(KernelView &kernel, const Line &line) : k_(kernel), ir_(kernel.ir), line_(line) {}

  /// By the whole block, with every warp's state of the segment. Other warps may be in it still on return,
  /// but not before its last barrier.
  void finish(const Segment &segment, softmax::State state);

private:
  struct Statistics {
    Val max, sum;
  };
  Statistics statistics(Val at) const;
  std::optional<softmax::Sink> sinkOf(const Segment &segment, Val row) const;
  Val warpStatistics(Val warp, Val row) const;
  Statistics ofWarps(Val row) const;
  void storeStatistics(const Segment &segment, Val row, const Statistics &s);
  void section(const Segment &segment, const Fragment &o, int first);
  void storePair(const Segment &segment, Val row, Val column, Val low, Val high,
                 const std::optional<softmax::Sink> &sink);
  void mergeShares(const Segment &segment);
  /// Shares that are merged together: those from `first` on of the shares of a level.
  struct Shares {
    Val counter; ///< Whose byte counts them.
    Val first, count;
    Val place;         ///< Of share 0; that of share i is 2 i places further,
    Val first_shifted; ///< and of share 0 one more where this is 1 and not 0.
  };
  Val isLast(const Shares &shares);
  void merge(const Segment &segment, const Shares &all, Val final, Val to);
  /// Four columns of a row: of one share (`there`, i1: it is one, and else zeros; none: it is),
  struct Share {
    Statistics statistics;
    Vals o;
    Val there;
  };
  struct Sum { ///< and of several.
    Val max, sum;
    Vals o;
    void fields(auto &&each) { each(max, sum, o); }
  };
  Sum nothing() const;
  Sum plus(Sum sum, std::vector<Share> shares) const;
  Sum sumOf(const Shares &all, Val row, Val column, Val first, Val step) const;
  void storeRow(const Segment &segment, Val row, Val column, const Sum &sum);
  void storeShare(Val to, Val row, Val column, const Sum &sum);
  Val place(const Segment &segment, Val share) const;
  void storeLse(const Segment &segment, Val row, Val lse);

  KernelView &k_;
  Ir &ir_;
  const Line &line_;
};

} // namespace flashplus::decode
