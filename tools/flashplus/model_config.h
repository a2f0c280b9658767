// SPDX-License-Identifier: BSD-3-Clause
// What attention a model of transformers asks for, from its config.json.
#pragma once

#include "spec/kernel_spec.h"

#include <string>
#include <vector>

namespace flashplus::tool {

/// One kind of attention layer.
struct ModelVariant {
  KernelSpec spec;     ///< Of a forward over rows, without alignment.
  std::string purpose; ///< For people: "full attention", "sliding window".
};

struct ModelAttention {
  std::string name; ///< "llama, D 128, 32 heads over 8, bf16", for people.
  std::vector<ModelVariant> variants;
  bool drops = false;             ///< Training drops probabilities (attention_dropout).
  std::vector<std::string> notes; ///< What was left out or assumed, a sentence each.
};

/// Reads `path`. `dtypes` (of --dtype) instead of the file's where there are any; `causal`: yes, no, both or
/// "" for a decoder's. Failures name the file, the field, its value and what is allowed.
Result<ModelAttention> readModelConfig(const std::string &path, const std::vector<std::string> &dtypes,
                                       const std::string &causal);

} // namespace flashplus::tool
