// SPDX-License-Identifier: BSD-3-Clause
// Draft: fp8 inputs. See README.md here.
#pragma once

#include "spec/dtype.h"

#include <cstdint>

namespace flashplus::draft {

/// Storage types of a kernel once inputs and output may differ.
struct MixedTypes {
  bool e4m3_inputs = false;      ///< q, k and v are e4m3; else `output`.
  DType output = DType::BF16;
};

/// Multiplicative, fp32 (batch, heads_k); null = 1. q_descale is indexed by the key head too.
struct DescaleParams {
  const float *q_descale, *k_descale, *v_descale;
  int64_t stride_b;
};

} // namespace flashplus::draft
