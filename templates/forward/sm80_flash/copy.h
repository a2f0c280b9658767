// SPDX-License-Identifier: BSD-3-Clause
// From global to shared memory: tiles of Q, K and V of sm80.flash.
#pragma once

#include "templates/common/tile_load.h"
#include "templates/forward/sm80_flash/kernel.h"

namespace flashplus::sm80_flash {

class Copy {
public:
  /// After the thread is known.
  explicit Copy(ItemView &kernel);

  void queries() { loader_.load(q_, k_.first, k_.last); }
  /// Of tile `tile`, into the buffer `stage` bytes (none: 0) after the first.
  void keys(Val tile, Val stage) { loader_.load(keys_, keyOf(tile), lastKey(), stage); }
  void values(Val tile, Val stage) { loader_.load(values_, keyOf(tile), lastKey(), stage); }

  void commit() { loader_.commit(); }
  void arrive() { loader_.arrive(); }

private:
  TileLoad tile(Operand operand, Val head, int dim, int dim_pad, int rows, int pitch, int shared, bool zeros);
  Val keyOf(Val tile) { return tile * k_.l.tile_n; }
  Val lastKey() { return k_.seq.k_len - 1; }

  ItemView &k_;
  TileLoader loader_;
  TileLoad q_, keys_, values_;
};

} // namespace flashplus::sm80_flash
