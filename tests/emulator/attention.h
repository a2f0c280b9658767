// SPDX-License-Identifier: BSD-3-Clause
// One attention problem, run as the runtime would run it (plan, kernels, parameters), but straight on the
// emulator, so that a test can change the PTX and see the memory.
#pragma once

#include "emulator/core/machine.h"
#include "reference/compare.h"
#include "templates/forward/planner.h"

#include <functional>
#include <string>
#include <vector>

namespace flashplus::emu::test {

struct Shape {
  std::string name;
  DType dtype = DType::BF16;
  int64_t batch = 1, seqlen_q = 64, seqlen_k = 64, heads_q = 1, heads_k = 1;
  int dqk = 64, dv = 64;
  int window_left = -1, window_right = -1; ///< Causal: right = 0.
  int num_splits = 1;
  std::vector<int32_t> lengths_q, lengths_k; ///< Packed sequences, if not empty.
  std::vector<int32_t> used_q, used_k;       ///< seqused, if not empty.
  bool unaligned = false;                    ///< Tensors start off a 16-byte boundary.
  int64_t page_size = 0;                     ///< Not 0: keys are paged; a divisor of seqlen_k.
  const char *score = "s";
  Isa isa = Isa::Sm80;  ///< Or Sm90a.
  std::string schedule; ///< Of the forward kernel; empty: the plan's.
  int multiprocessors = 1;

  friend bool operator==(const Shape &, const Shape &) = default;
};

// What a shape says, as the runtime would put it.
Target targetOf(const Shape &shape);
KernelSpec specOf(const Shape &shape);
Bounds boundsOf(const Shape &shape);
/// Where each packed sequence begins, and the end of the last.
std::vector<int32_t> cumulative(const std::vector<int32_t> &lengths);

/// The PTX of every step of a shape's plan, forward first.
struct Compiled {
  Plan plan;
  std::vector<std::string> ptx;
  std::string error;
};
Compiled compile(const Shape &shape);

struct Outcome {
  std::string error; ///< A failure to decode, or a fault.
  std::optional<Fault> fault;
  reference::Comparison comparison; ///< If there was no error.
  std::string stray;                ///< Something outside the results was written, or a result was not.
  double emulated_ms = 0;
  bool good() const { return error.empty() && stray.empty() && comparison.good(); }
  std::string text() const;
};

/// Runs it with the given texts. Rows that are in no sequence, or past its used length, are left unwritten,
/// so that a read of one is a fault; each tensor is an allocation of exactly its size.
Outcome runAttention(const Shape &shape, const Compiled &compiled, const Options &options);

} // namespace flashplus::emu::test
