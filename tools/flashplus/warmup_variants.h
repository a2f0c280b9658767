// SPDX-License-Identifier: BSD-3-Clause
// Which kernels a warm-up is about: its flags, and the variants and kernels that they stand for.
#pragma once

#include "tools/flashplus/command.h"

#include <optional>

namespace flashplus::tool {

struct WarmupFlags {
  CommonFlags common;
  std::vector<std::string> targets, archs, gpus, score_gradients, dtypes, alibi = {"none"},
                                                                          alignment = {"auto"};
  std::vector<std::string> spec_texts, spec_files;
  std::vector<int> head_dims, head_dims_v;
  std::string causal = "both", window = "no", softcap = "no", dropout = "no", score, model;
  bool list = false, dry_run = false, backward = false, paged = false, append = false,
       has_variant_flags = false, has_causal = false;
  std::optional<bool> require_cubin; ///< Unset: for targets that need one.
  int jobs = 0;

  bool namesSpecs() const { return !spec_texts.empty() || !spec_files.empty(); }
};

/// A kernel to have in the cache.
struct Kernel {
  std::string spec, schedule, target;
  auto operator<=>(const Kernel &) const = default;
};

/// A spec for a target.
struct Variant {
  std::string spec, target;
  std::string purpose; ///< What of a model meets it; "" without one.
};

struct Variants {
  std::vector<Variant> specs;  ///< In the order asked for.
  std::vector<Kernel> kernels; ///< Every kernel that they can use, once.
  std::string model;           ///< Of --model.
};

/// Every variant that `flags` ask for, with every kernel that it can use. Failures name the flag. What of
/// files is left out, for it is for other targets, is said on stderr; if that is all of it, it is a failure.
Result<Variants> enumerate(const WarmupFlags &flags, flashplus_context *context);

inline bool gpuTarget(const std::string &target) { return target.starts_with("sm_"); }

} // namespace flashplus::tool
