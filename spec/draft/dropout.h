// SPDX-License-Identifier: BSD-3-Clause
// Draft: dropout on probabilities. See README.md here.
#pragma once

#include <cstdint>

namespace flashplus::draft {

/// Specialised on whether there is any; the probability and the stream are run-time.
struct DropoutSpec {
  bool dropout = false;
};

/// Philox 4x32-7 with the counter (key block, query row, batch and head): a mask value depends on the position and the
/// seed alone, never on tile sizes, so that forward and backward agree whatever their schedules.
struct DropoutParams {
  float keep_probability; ///< In (0, 1]; kept probabilities are divided by it after normalisation.
  uint64_t rng_seed;
  uint64_t rng_offset; ///< Advanced by the caller for every forward.
};

} // namespace flashplus::draft
