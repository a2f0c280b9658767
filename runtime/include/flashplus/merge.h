/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * FlashAttention-Plus for C: results of attention over different keys become one, as ring attention, cascade
 * attention and context parallelism need it. Part of flashplus.h, which has the rules; include that.
 */
#ifndef FLASHPLUS_MERGE_H
#define FLASHPLUS_MERGE_H

#include "flashplus.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Arguments of a merge. Side a and side b are what forwards of the same queries gave over different keys:
 *   lse = ln(exp(lse_a) + exp(lse_b))
 *   o   = exp(lse_a - lse) o_a + exp(lse_b - lse) o_b
 * computed in fp32 and rounded once. In a row where the lse of a side is +inf or -inf, what the forwards of
 * this and other libraries say of a row without a key, that side has no share, whatever lies in its o (NaN,
 * memory that nobody wrote): o and lse are the other side's, bit for bit. Where both are, o is 0 and lse is
 * lse_a. (A share of +inf is no share, then: no forward over finite scores has it.) A NaN gives NaN.
 *
 * In place: o may be o_a or o_b, and lse may be lse_a or lse_b, with the same strides; else what is written
 * shares no memory with another tensor. To merge more than two, merge into one of them again and again.
 */
typedef struct flashplus_merge_args {
  size_t struct_size;
  const DLTensor *o_a;   /**< (batch, seqlen, heads, d), or (total, heads, d); d 1 to 256. fp16, bf16 or fp32,
                              on GPUs, too. Last stride 1, the others any. */
  const DLTensor *lse_a; /**< fp32 (batch, heads, seqlen), or (heads, total). Natural logarithm, as a forward
                              writes it. Last stride 1. */
  const DLTensor *o_b;   /**< As o_a, with strides of its own; so are all the others. */
  const DLTensor *lse_b; /**< As lse_a. */
  DLTensor *o;           /**< As o_a. */
  DLTensor *lse;         /**< As lse_a, or null. */
} flashplus_merge_args;

/** One launch without a workspace, on `stream` as flashplus_forward. What is compiled for is the dtype and d;
 *  under stream capture that must have been met before. */
FLASHPLUS_API flashplus_status flashplus_merge_states(flashplus_context *context,
                                                      const flashplus_merge_args *args, void *stream);

#ifdef __cplusplus
}
#endif

#endif /* FLASHPLUS_MERGE_H */
