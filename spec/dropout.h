// SPDX-License-Identifier: BSD-3-Clause
// Dropout of probabilities: the mask that every target and every operation draws (docs/rationale/dropout.md).
//
// Probability (i, j) of query row i and key j, of query head h of batch entry b, is kept or dropped by its
// position in its sequence and by (seed, offset) alone: not by tiles, warps or which of forward and backward
// asks. With r = 1 / (1 - p) and Z = 1 where kept, else 0:
//   o = sum_j P[i, j] Z[i, j] r v[j]
// where P is normalised over all visible keys, dropped or not. The LSE does not know of Z.
//
// Positions are drawn in blocks of 16 x 16. A granule (a, c), a and c in 0..3, is 16 positions of a block,
// for which one call of Philox 4x32-7 gives 16 bytes: rows {2a, 2a+1, 2a+8, 2a+9} and keys {2c, 2c+1, 2c+8,
// 2c+9}, which is what two lanes of a warp hold of an accumulator of mma.sync or wgmma, whether its rows are
// queries or keys.
//   counter   ((j / 16) * 16 + 4 a + c,  i / 16,  b * heads_q + h,  low half of offset)
//   key       (low half of seed,  high half of seed xor high half of offset)
//   position  byte `key number` (little-endian) of word `row number`, numbers 0..3 in the order above
// A position is kept if its byte is at most the threshold of its place in the granule.
#pragma once

#include "spec/philox.h"
#include "spec/status.h"

namespace flashplus {

/// Rows and keys of a block of positions.
inline constexpr int kDropoutBlock = 16;
/// By how much a forward moves the offset on; PyTorch's generators count in fours.
inline constexpr uint64_t kDropoutOffsetStep = 4;

/// What kernels take at run time. The seed and the offset are no part of it: kernels read both from memory,
/// so that a replayed graph draws anew.
struct Dropout {
  /// Byte c of word w is the threshold of row w and key c of every granule, as in Philox's words. All 0xff
  /// keeps everything.
  std::array<uint32_t, 4> thresholds = {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff};
  float scale = 1; ///< 1 / (1 - p); 1 if nothing is dropped.

  /// Whether anything is dropped; if not, a kernel without dropout computes the same.
  bool drops() const { return thresholds != Dropout().thresholds; }

  /// For dropout probability `p`. InvalidArgument for NaN and outside of [0, 1), and between 255/256 and 1,
  /// of which 8 bits know nothing. The mean of the mask is 1 - p rounded to a multiple of 1/4096; below
  /// 1/8192 that is 1 and nothing drops.
  static Result<Dropout> make(double p);
  /// The mean of the mask.
  double keepProbability() const;
};

/// Where in the counter and in Philox's words the position (i, j) of head `head` (b * heads_q + h) is.
struct DropoutPosition {
  PhiloxCounter counter;
  int word, byte;
};
constexpr DropoutPosition dropoutPosition(uint64_t offset, uint32_t head, int64_t i, int64_t j) {
  const uint32_t row = uint32_t(i % kDropoutBlock), key = uint32_t(j % kDropoutBlock);
  const uint32_t granule = 4 * (row >> 1 & 3) + (key >> 1 & 3);
  return {{uint32_t(j / kDropoutBlock) * 16 + granule, uint32_t(i / kDropoutBlock), head, uint32_t(offset)},
          int((row & 1) + 2 * (row >> 3)),
          int((key & 1) + 2 * (key >> 3))};
}
constexpr PhiloxKey dropoutKey(uint64_t seed, uint64_t offset) {
  return {uint32_t(seed), uint32_t(seed >> 32) ^ uint32_t(offset >> 32)};
}

/// Z of the position (i, j). Rows and keys are below 2^30 (kMaxScorePosition).
constexpr bool dropoutKeeps(const Dropout &dropout, uint64_t seed, uint64_t offset, uint32_t head, int64_t i,
                            int64_t j) {
  const DropoutPosition at = dropoutPosition(offset, head, i, j);
  const uint32_t random =
      philox4x32(at.counter, dropoutKey(seed, offset))[size_t(at.word)] >> 8 * at.byte & 0xff;
  return random <= (dropout.thresholds[size_t(at.word)] >> 8 * at.byte & 0xff);
}

} // namespace flashplus
