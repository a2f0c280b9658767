// SPDX-License-Identifier: BSD-3-Clause
// From global to shared memory: Q and dO of the item, and tiles of K and V.
#pragma once

#include "templates/backward/sm80_backward_q/kernel.h"
#include "templates/common/tile_load.h"

namespace flashplus::sm80_backward_q {

class Copy {
public:
  /// After the thread is known.
  explicit Copy(ItemView &kernel);

  void queries() {
    loader_.load(q_, k_.first, k_.last);
    loader_.load(dout_, k_.first, k_.last);
  }
  /// Keys and values of the tile that begins at `key`, into buffer `stage` (i32; none: the first).
  void keys(Val key, Val stage) {
    Val last = k_.seq.k_len - 1;
    loader_.load(keys_, key, last, stage ? stage * k_.l.kStage() : Val{});
    loader_.load(values_, key, last, stage ? stage * k_.l.vStage() : Val{});
  }

  void commit() { loader_.commit(); }
  void arrive() { loader_.arrive(); }

private:
  TileLoad tile(Operand operand, Val head, int dim, int dim_pad, int rows, int pitch, int shared, bool zeros);

  ItemView &k_;
  TileLoader loader_;
  TileLoad q_, dout_, keys_, values_;
};

} // namespace flashplus::sm80_backward_q
