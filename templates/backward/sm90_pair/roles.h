// SPDX-License-Identifier: BSD-3-Clause
// What the warps of sm90.backward_kv and sm90.backward_q do in the same way.
#pragma once

#include "ir/carried.h"
#include "ir/warpgroup.h"
#include "templates/backward/sm90_pair/layout.h"
#include "templates/common/work_feed.h"

namespace flashplus {

/// Turns of the math warpgroups on the tensor cores, by named barriers 1 and on, one a warpgroup: products of
/// one run while another works out its weights.
class Turns {
public:
  /// The first warpgroup begins. Without `taken` there are none. `warpgroup`: 0 to shares.math - 1.
  Turns(Ir &ir, bool taken, const WarpgroupShares &shares, Val warpgroup)
      : ir_(ir), taken_(taken), warpgroup_(warpgroup) {
    if (!taken_)
      return;
    Val last = warpgroup == shares.math - 1;
    next_ = ir.select(last, ir.i32(kFirst), warpgroup + (kFirst + 1));
    ir.ifThen(last, [&] { pass(); });
  }
  void take() {
    if (taken_)
      gpu::barrierSync(ir_, warpgroup_ + kFirst, 256);
  }
  void pass() {
    if (taken_)
      gpu::barrierArrive(ir_, next_, 256);
  }

private:
  static constexpr int kFirst = 1;
  Ir &ir_;
  bool taken_;
  Val warpgroup_, next_;
};

inline constexpr int kTailBarrier = 8; ///< Named barrier of all math warpgroups (PairRing::clearTail).

/// An item that has arrived, and where it was.
template <class P> struct ReceivedItem {
  P at;
  ItemSlots::Received item;
  void fields(auto &&each) { each(at, item); }
};

/// body(item, positions) -> positions for all items that arrive, by a whole warp. `P` has a member `item`,
/// its position in the slots. The next item is received while the present one's values are still needed by
/// none.
template <class P, class Body>
void forReceivedItems(Ir &ir, ItemSlots &items, const P &start, Val lane, Body &&body) {
  using State = ReceivedItem<P>;
  auto receive = [&](P at) {
    const ItemSlots::Received item = items.receive(at.item, lane);
    at.item = items.ring().next(at.item);
    return State{at, item};
  };
  carry::whileLoop(
      ir, receive(start), [](const State &now) { return now.item.valid != 0; },
      [&](const State &now) { return receive(body(now.item.work, now.at)); });
}

} // namespace flashplus
