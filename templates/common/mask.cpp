// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/mask.h"

namespace flashplus {

Mask::Mask(Ir &ir, const ParamReader &params, const KernelSpec &spec, const Sequence &sequence)
    : ir_(ir), bounded_left_(spec.bounded_left), bounded_right_(spec.bounded_right), q_len_(sequence.q_len),
      k_len_(sequence.k_len), diagonal_(sequence.k_len - sequence.q_len) {
  if (bounded_left_)
    left_ = diagonal_ - params.get("window_left");
  if (bounded_right_)
    right_ = diagonal_ + params.get("window_right") + 1;
}

Val Mask::lo(Val row) const {
  if (!bounded_left_)
    return ir_.i32(0);
  return ir_.max(ir_.i32(0), ir_.min(k_len_, row + left_));
}

Val Mask::hi(Val row) const {
  if (!bounded_right_)
    return k_len_;
  return ir_.max(ir_.i32(0), ir_.min(k_len_, row + right_));
}

Mask::Tiles Mask::tiles(Val first, Val last, int tile_n, Val split, Val num_splits) const {
  // Both ends move up with the row, by at most one key a row, so the union over the rows has no gap.
  Val begin_key = lo(first), end_key = hi(last);
  Val begin = begin_key / tile_n;
  Val end = ir_.select(begin_key < end_key, ir_.ceilDiv(end_key, tile_n), begin);
  if (num_splits.absent())
    return {begin, end};
  Val share = (end - begin + num_splits - 1) / num_splits;
  Val share_begin = ir_.min(begin + split * share, end);
  return {share_begin, ir_.min(share_begin + share, end)};
}

Mask::Rows Mask::queries(Val first, Val last) const {
  // Row i sees the keys [i + left, i + right): some of [first, last] if i + right > first and i + left <=
  // last.
  Val begin = ir_.i32(0), end = q_len_;
  if (bounded_right_)
    begin = ir_.max(begin, first - right_ + 1);
  if (bounded_left_)
    end = ir_.min(end, last - left_ + 1);
  return {begin, end};
}

Val Mask::needsMask(Val first, Val last, Val key, int tile_n) const {
  return (key < lo(last)) | (key + tile_n > hi(first));
}

} // namespace flashplus
