// SPDX-License-Identifier: BSD-3-Clause
// What the copying thread of sm90.flash does for one item.
#pragma once

#include "ir/tma.h"
#include "templates/forward/sm90_flash/kernel.h"

namespace flashplus::sm90_flash {

/// One operand's way into its ring.
struct TileCopy {
  Operand operand;
  int map; ///< Of the launch's tensor maps.
  int slabs, rows;
  gpu::Keep keep;
};

class Copy {
public:
  explicit Copy(Rings &rings);

  /// K of the first tile, Q, then each next K before the V that its predecessor waits for; all but the last
  /// V. Positions behind them.
  Positions begin(const Item &item, Positions at);
  /// That one.
  Positions end(const Item &item, Positions at);

private:
  void copyK(const Item &item, Val tile, Positions &at);
  void copyV(const Item &item, Val tile, Positions &at);
  void copyTile(const TileCopy &t, gpu::Pipeline &ring, gpu::Position at, Val tile, const Item &item, Val row,
                Val head);
  void copyPages(const TileCopy &t, gpu::Pipeline &ring, gpu::Position at, Val tile, const Item &item,
                 Val key, Val head);
  Val map(const TileCopy &t);

  Rings &r_;
  Ir &ir_;
  const Sm90FlashLayout &l_;
  const TileCopy q_, k_, v_;
};

} // namespace flashplus::sm90_flash
