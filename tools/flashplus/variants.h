// SPDX-License-Identifier: BSD-3-Clause
// Which kernels somebody means who chooses variants by flags: what `warmup` makes, and `cache export` packs.
#pragma once

#include "spec/status.h"

#include <flashplus/flashplus.h>
#include <string>
#include <vector>

namespace flashplus::tool {

struct VariantFlags {
  std::vector<std::string> targets, archs, gpus, score_gradients, dtypes, alibi = {"none"},
                                                                          alignment = {"auto"},
                                                                          sinks = {"none"};
  std::vector<std::string> spec_texts, spec_files;
  std::vector<int> head_dims, head_dims_v;
  std::string causal = "both", window = "no", softcap = "no", dropout = "no", score, model;
  bool backward = false, paged = false, append = false, has_variant_flags = false, has_causal = false;

  bool namesSpecs() const { return !spec_texts.empty() || !spec_files.empty(); }
};

/// A kernel to have in the cache.
struct Kernel {
  std::string spec, schedule, target;
  auto operator<=>(const Kernel &) const = default;
};

inline bool gpuTarget(const std::string &target) { return target.starts_with("sm_"); }

struct Variant {
  std::string spec, target;
  std::string purpose; ///< What of a model meets it; "" without one.
};

struct Variants {
  std::vector<Variant> specs;  ///< In the order asked for.
  std::vector<Kernel> kernels; ///< Every kernel that they can use, once.
  std::string model;           ///< Of --model.
};

/// All kernels that any shape of the variants can use. Failures name the flag. What of files is left out, for
/// it is for other targets, is said on stderr; if that is all of it, it is a failure.
Result<Variants> enumerateVariants(const VariantFlags &flags, flashplus_context *context);

} // namespace flashplus::tool
