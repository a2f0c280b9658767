// SPDX-License-Identifier: BSD-3-Clause
// New keys and values that a forward writes into its cache first (docs/rationale/append.md): the arguments of
// flashplus_forward_args from k_new on.
#pragma once

#include "runtime/arguments/forward_args.h"
#include "runtime/arguments/operands.h"

#include <span>

namespace flashplus {

/// There is a field of an append.
inline bool usesAppend(const flashplus_forward_args &a) {
  return a.k_new || a.v_new || a.cu_seqlens_k_new || a.slot_mapping || a.rotary_cos || a.rotary_sin ||
         a.rotary_seqlens || a.max_seqlen_k_new;
}

/// After the lengths, the mask, and where keys are found: reads the new tensors, sets out.append but for what
/// the plan decides, and what plans need to know of it. `operands` are q, k, v and o, as checked.
Status checkAppend(TensorReader &reader, const flashplus_forward_args &a,
                   std::span<const OperandArg> operands, const TensorSizes &sizes, ForwardProblem &out);

/// New keys that count as keys of sequence `b`, as the kernel finds it: none where the first is dropped. The
/// arrays of `p` are in host memory.
int64_t countedNewKeys(const AppendParams &p, int64_t b);

/// Whether the new rows have slots; the arrays of `p` are in host memory. `a` has the names.
Status checkNewSlots(const flashplus_forward_args &a, const AppendParams &p);

} // namespace flashplus
