// SPDX-License-Identifier: BSD-3-Clause
// Masks as intervals: which keys a query row sees, and what follows for tiles of keys.
#pragma once

#include "ir/ir.h"
#include "spec/kernel_spec.h"
#include "templates/common/sequence.h"

namespace flashplus {

/// The interval of visible keys of a query row, and what follows for tiles.
class Mask {
public:
  Mask(Ir &ir, const ParamReader &params, const KernelSpec &spec, const Sequence &sequence);

  Val lo(Val row) const; ///< First visible key (i32), cut to [0, k_len].
  /// lo(row), absent where it is always 0.
  Val leastKey(Val row) const { return bounded_left_ ? lo(row) : Val{}; }
  Val hi(Val row) const; ///< One past the last visible key, cut to [0, k_len].

  struct Tiles {
    Val begin, end; ///< Key tiles with a visible key for some row; empty when begin >= end.
    Val count() const { return end.ir->max(end.ir->i32(0), end - begin); }
  };
  /// Of rows [first, last], both valid rows. `split` takes its share of the tiles.
  Tiles tiles(Val first, Val last, int tile_n, Val split, Val num_splits) const;

  struct Rows {
    Val begin, end; ///< i32; empty when begin >= end.
  };
  /// The inverse: the query rows that see some key of [first, last], cut to [0, q_len]. Both are valid keys,
  /// or last lies past them.
  Rows queries(Val first, Val last) const;

  /// Whether some row of [first, last] does not see some key of the tile that starts at `key`.
  Val needsMask(Val first, Val last, Val key, int tile_n) const;

private:
  Ir &ir_;
  bool bounded_left_, bounded_right_;
  Val q_len_, k_len_, diagonal_; // diagonal = k_len - q_len: key position of query row 0
  Val left_, right_;     // first and one past the last visible key of query row 0, not cut
};

} // namespace flashplus
