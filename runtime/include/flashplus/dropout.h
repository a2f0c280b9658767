/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * FlashAttention-Plus, C API: the mask of dropout. Included by flashplus.h, whose rules hold.
 */
#ifndef FLASHPLUS_DROPOUT_H
#define FLASHPLUS_DROPOUT_H

#include "flashplus.h"

#ifdef __cplusplus
extern "C" {
#endif

/** The mask that a forward and a backward of these arguments draw, for tests and for looking at it: 1 where a
 *  probability is kept, 0 where it is dropped, all 1 where nothing is. Computed on the calling thread. */
typedef struct flashplus_dropout_mask_args {
  size_t struct_size;
  uint64_t seed;
  uint64_t offset;
  int64_t batch; /**< Entries from first_batch on. */
  int64_t heads; /**< Query heads of the problem. */
  int64_t rows;  /**< Query rows and keys of each, from 0. */
  int64_t keys;
  int64_t first_batch;
  float dropout_p;
  int32_t reserved;
} flashplus_dropout_mask_args;
/** Fills `keep`, host memory of batch * heads * rows * keys bytes in this order. */
FLASHPLUS_API flashplus_status flashplus_dropout_mask(const flashplus_dropout_mask_args *args, uint8_t *keep);

#ifdef __cplusplus
}
#endif

#endif /* FLASHPLUS_DROPOUT_H */
