// SPDX-License-Identifier: BSD-3-Clause
// One backward problem, run as the runtime would run it (delta, then the gradients' kernels), but straight on
// the emulator.
#pragma once

#include "spec/params.h"
#include "tests/emulator/gradients.h"

namespace flashplus::emu::test {

struct BackwardShape {
  Shape shape;                 ///< Its splits and schedule play no part.
  std::string kv = {}, q = {}; ///< Schedules of the two kernels; empty: the plan's.
  bool dlse = false;           ///< A gradient reaches lse, too.
  std::string whole = {};      ///< Of the one kernel that replaces the two, if not empty.
  double steep = 0;            ///< Not 0: scores are about -steep times the root of the head dim.

  friend bool operator==(const BackwardShape &, const BackwardShape &) = default;
};

/// PTX of every step, delta first.
Compiled compileBackward(const BackwardShape &shape);

struct BackwardOutcome {
  std::string error; ///< A failure to decode, or a fault.
  std::string stray; ///< Something outside the gradients of valid rows was written, or one of them was not.
  Deviation dq, dk, dv;
  std::vector<uint16_t> bits; ///< dq, dk and dv, as they lie in memory.
  int64_t tiles = 0;          ///< tile_counter
  bool good() const { return error.empty() && stray.empty() && dq.good() && dk.good() && dv.good(); }
  std::string text() const;
};

/// Rows that are in no sequence, or past its used length, are left unwritten, so that a read of one is a
/// fault; each tensor is an allocation of exactly its size. dout, dq, dk and dv lie (batch, heads, seqlen,
/// dim), the others (batch, seqlen, heads, dim). Scalars of the score are 1.5, 2.5, ...; tensors are smaller
/// than the problem, so that indices are clamped, and every fifth of their elements is 0. Rows that see no
/// key have any LSE. `plant` may spoil the params of step `step`.
BackwardOutcome runBackward(const BackwardShape &shape, const Compiled &compiled, const Options &options,
                            const std::function<void(int step, BackwardParams &)> &plant = nullptr);

} // namespace flashplus::emu::test
