/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * FlashAttention-Plus for C, for tools: single kernels and their stages as text, what a warm-up compiles,
 * memory on any device. Part of flashplus.h, which has the rules; include that.
 */
#ifndef FLASHPLUS_KERNELS_H
#define FLASHPLUS_KERNELS_H

#include "flashplus.h"

#ifdef __cplusplus
extern "C" {
#endif

/* --------------------------------------------------------------------------------------------- kernels -- */

typedef struct flashplus_kernel flashplus_kernel;

typedef struct flashplus_kernel_info {
  size_t struct_size;
  const char *key;       /**< Hexadecimal cache key. */
  const char *key_text;  /**< What the key is the hash of. */
  const char *spec;      /**< Canonical text of each part. */
  const char *schedule;
  const char *target;
  const char *kind;      /**< "x86-object", "ptx" or "cubin" */
  const void *code;
  size_t code_size;
  const char *entry;     /**< Launch schema, as spec/artifact.h. */
  int32_t threads;
  int64_t shared_memory;
  int64_t scratch;
  int64_t params_size;
  int32_t registers;     /**< -1: not known */
  int32_t spill_bytes;
  int32_t stack_bytes;
  const char *source;    /**< "memory", "disk" or "compiled": where this call found it. */
  const char *provenance;
  double compile_ms;     /**< 0 unless compiled by this call. */
  double load_ms;        /**< Reading and verifying the disk entry. */
} flashplus_kernel_info;

/** The code of one kernel, from the cache or compiled; needs no device. `spec` and `target` are canonical
 *  text, `schedule` too or null for the default of the target. */
FLASHPLUS_API flashplus_status flashplus_get_kernel(flashplus_context *context, const char *spec,
                                                    const char *schedule, const char *target,
                                                    flashplus_kernel **out);
FLASHPLUS_API void flashplus_kernel_destroy(flashplus_kernel *kernel);
/** Pointers inside *out belong to `kernel`. */
FLASHPLUS_API flashplus_status flashplus_kernel_get_info(const flashplus_kernel *kernel,
                                                         flashplus_kernel_info *out);

/** One stage of a kernel as text: "spec", "attn", "loops", "llvm", "ptx" (GPU) or "asm" (CPU), "resources".
 *  Always compiles. *text is freed with flashplus_free_text. */
FLASHPLUS_API flashplus_status flashplus_print_stage(flashplus_context *context, const char *spec,
                                                     const char *schedule, const char *target,
                                                     const char *stage, char **text);
FLASHPLUS_API void flashplus_free_text(char *text);

/** Called once per kernel that any plan of `spec` on `target` can use (what warm-up compiles), whatever its
 *  sizes and lengths. So a program learns which kernels it will meet: flashplus_spec_of of one call of each
 *  kind that it makes (data pointers null; rows or pages, with new keys or without, each mask and score),
 * this of each spec, and flashplus_get_kernel of what it visits; then flashplus_mark_ready says if one was
 *  forgotten. `flashplus warmup --model config.json` lists and makes them for a model of transformers. */
typedef void (*flashplus_kernel_visitor)(void *visitor_context, const char *spec, const char *schedule);
FLASHPLUS_API flashplus_status flashplus_reachable_kernels(flashplus_context *context, const char *spec,
                                                           const char *target, flashplus_kernel_visitor visit,
                                                           void *visitor_context);

/** The canonical spec text of a forward with these arguments (data pointers may be null). Freed with
 *  flashplus_free_text. */
FLASHPLUS_API flashplus_status flashplus_spec_of(const flashplus_forward_args *args, char **text);
/** The same of a backward. */
FLASHPLUS_API flashplus_status flashplus_backward_spec_of(const flashplus_backward_args *args, char **text);

/* --------------------------------------------------------------------------------------- device memory -- */

/** What tools and tests need to put tensors on any device with one code path; an embedder has its own
 *  allocator. `device` is {kDLCPU, 0} or {kDLCUDA, ordinal}. Memory is 256-byte aligned. */
FLASHPLUS_API flashplus_status flashplus_device_malloc(flashplus_context *context, DLDevice device,
                                                       size_t bytes, void **out);
FLASHPLUS_API flashplus_status flashplus_device_free(flashplus_context *context, DLDevice device,
                                                     void *memory);
/** Blocking copies between host memory and `device`. */
FLASHPLUS_API flashplus_status flashplus_copy_to_device(flashplus_context *context, DLDevice device,
                                                        void *dst, const void *host_src, size_t bytes);
FLASHPLUS_API flashplus_status flashplus_copy_to_host(flashplus_context *context, DLDevice device,
                                                      void *host_dst, const void *src, size_t bytes);
/** Waits for everything enqueued on `stream` (null: the default stream) of `device`. */
FLASHPLUS_API flashplus_status flashplus_synchronize(flashplus_context *context, DLDevice device,
                                                     void *stream);

/** Frees the kernels that were neither made nor launched since this was last called for the context: called
 * every quarter of an hour, it frees what has been idle for so long. They come back, from the disk cache or
 * compiled, when they are next wanted; where that would need a compilation that is not allowed (offline,
 * after flashplus_mark_ready) they stay. Kernels of a flashplus_plan stay, too, so whoever replays captured
 * graphs keeps a plan of what is in them. Waits for calls in flight in other threads, of any context; not to
 * be called by a callback. `dropped` (null: not told) gets how many. FLASHPLUS_UNSUPPORTED where the system
 * lacks membarrier(2). */
FLASHPLUS_API flashplus_status flashplus_drop_idle_kernels(flashplus_context *context, int64_t *dropped);

#ifdef __cplusplus
}
#endif

#endif
