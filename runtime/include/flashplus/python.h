/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * FlashAttention-Plus for bindings to Python that have no C code of their own: calls with a framework's
 * tensors, which the library reads itself. Part of flashplus.h, which has the rules; include that.
 */
#ifndef FLASHPLUS_PYTHON_H
#define FLASHPLUS_PYTHON_H

#include "flashplus.h"

#ifdef __cplusplus
extern "C" {
#endif

/** What flashplus_forward_python needs besides the tensors. Not changed by a call, so that threads may share
 * one. */
typedef struct flashplus_python_call {
  size_t struct_size;
  flashplus_context *context;
  const flashplus_forward_args *args; /**< All but q, k, v and o, which are ignored. */
  const void *exchange_api;           /**< const DLPackExchangeAPI * of DLPack 1.x: what the capsule that the
                                           tensors' type has as __dlpack_c_exchange_api__ points to. */
  void *(*save_thread)(void);         /**< PyEval_SaveThread */
  void (*restore_thread)(void *);     /**< PyEval_RestoreThread */
  /* For calls with a tuple only: */
  const size_t *fields; /**< Item i of the tuple is the tensor of the arguments at this offset. */
  int64_t num_fields;
  void *(*tuple_item)(void *tuple, ptrdiff_t i); /**< PyTuple_GetItem */
  void *none;                                    /**< Py_None: the tensor is not given. */
  /* For flashplus_backward_python_tuple only, which has no use for `args`: */
  const flashplus_backward_args *backward_args; /**< All but tensors and max_seqlen_*, which are ignored. */
} flashplus_python_call;

/** flashplus_forward of Python tensors (borrowed PyObject * of the type that `exchange_api` is of), on the
 *  stream that their framework has as the current one of q's device: what a binding would do in several
 *  calls, without a copy. Called with the interpreter's lock (ctypes.PyDLL), which is released while the
 *  forward runs. Where the framework refuses a tensor, its Python exception is set and the status is
 *  FLASHPLUS_INVALID_ARGUMENT. */
FLASHPLUS_API flashplus_status flashplus_forward_python(const flashplus_python_call *call, void *q, void *k,
                                                        void *v, void *o);

/** flashplus_forward_python of attention on a cache (k and v have 4 dimensions), with any of its tensors:
 *  `tensors` is a tuple (borrowed PyObject *) of num_fields tensors and None. `args` has the rest, but
 *  max_seqlen_*; rotary_interleaved counts with rotary_cos only, and a side of the window that bounds no row
 *  is taken for -1. What flash_attn refuses and flashplus_forward would take (a cache of more rows than the
 *  batch, tensors without elements, cos and sin that are shorter than the cache or not a multiple of 8 wide)
 *  is FLASHPLUS_UNSUPPORTED: the caller finds the words. */
FLASHPLUS_API flashplus_status flashplus_forward_python_tuple(const flashplus_python_call *call,
                                                              void *tensors, int64_t max_seqlen_q,
                                                              int64_t max_seqlen_k);

/** flashplus_backward, in the same way; `tensors` has what `fields` says of flashplus_backward_args. A side
 *  of the window that bounds no row is taken for -1; without a batch the status is FLASHPLUS_UNSUPPORTED. */
FLASHPLUS_API flashplus_status flashplus_backward_python_tuple(const flashplus_python_call *call,
                                                               void *tensors, int64_t max_seqlen_q,
                                                               int64_t max_seqlen_k);

#ifdef __cplusplus
}
#endif

#endif /* FLASHPLUS_PYTHON_H */
