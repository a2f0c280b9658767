// SPDX-License-Identifier: BSD-3-Clause
// Draft: attention sinks. See README.md here.
#pragma once

namespace flashplus::draft {

/// The denominator of head h gains exp(sink[h]); no value row belongs to it, and the LSE includes it. In the
/// online softmax it is the initial state m = sink[h] log2(e), l = 1, in exactly one share of a split.
struct SinkSpec {
  bool sink = false;
};

struct SinkParams {
  const float *sink; ///< fp32 (heads_q)
};

} // namespace flashplus::draft
