// SPDX-License-Identifier: BSD-3-Clause
// From global to shared memory: K and V of the item, and tiles of Q, dO and their rows' values.
#pragma once

#include "templates/backward/sm80_backward_kv/kernel.h"
#include "templates/common/tile_load.h"

namespace flashplus::sm80_backward_kv {

class Copy {
public:
  /// After the thread is known.
  explicit Copy(ItemView &kernel);

  void keys() {
    loader_.load(keys_, k_.first, k_.last);
    loader_.load(values_, k_.first, k_.last);
  }
  /// Of a place in `walk`, into buffer `stage` (i32; none: the first).
  void queries(const QueryWalk &walk, const QueryWalk::Place &place, Val stage);

  void commit() { loader_.commit(); }
  void arrive() { loader_.arrive(); }

private:
  TileLoad tile(Operand operand, Val head, int dim, int dim_pad, int rows, int pitch, int shared, bool zeros);
  TileLoad ofHead(TileLoad t, Operand operand, Val head);
  void rowValues(Val head, Val query, Val last, Val stage);

  ItemView &k_;
  Ir &ir_;
  TileLoader loader_;
  TileLoad keys_, values_, q_, dout_;
};

} // namespace flashplus::sm80_backward_kv
