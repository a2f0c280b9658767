// SPDX-License-Identifier: BSD-3-Clause
// From flags to specs and targets, without tensors: what `warmup` and `inspect` share.
#pragma once

#include "spec/kernel_spec.h"
#include "tools/flashplus/command.h"
#include "tools/flashplus/release_variants.h"

#include <string>
#include <vector>

namespace flashplus::tool {

/// The score of a forward with these options, as the library composes it for a run: `expression` (or ""),
/// then softcap, then ALiBi. Failures name the flag.
Result<ScoreExpr> composeScore(const std::string &expression, ScoreMode mode);
/// As above for flags that may both be given: `softcap`, and `alibi` one of "none", "heads", "batch".
Result<ScoreExpr> composeScore(const std::string &expression, bool softcap, const std::string &alibi);

/// "cpu" and "cuda" become this machine's; a chip alone ("sm_89") its instructions at that chip; a GPU of the
/// table (gpu_names.h) its target; a GPU target without "@" is combined with every one of `archs` (or its own
/// chip); anything else is canonicalised. InvalidArgument names the flag and what is allowed, or the line to
/// type.
Result<std::vector<std::string>> expandTargets(flashplus_context *context,
                                               const std::vector<std::string> &targets,
                                               const std::vector<std::string> &archs);

/// The bits of score_grads (spec/fields.h) for the score's own scalars and tensors of these names, or for
/// "all" of them. InvalidArgument names `flag` and those that there are.
Result<int> scoreGradients(const std::string &flag, const ScoreExpr &score,
                           const std::vector<std::string> &names);

/// 16 when rows of q, k, v and o are multiples of 16 bytes, else the element size: what compact tensors have.
int naturalAlignment(const KernelSpec &spec);

} // namespace flashplus::tool
