/* SPDX-License-Identifier: BSD-3-Clause */
/* The declarations of flashplus.h as version 0.1 had them, frozen: what a binary that was built then was built with.
 * Never changed, and never included beside flashplus.h. */
#ifndef FLASHPLUS_TESTS_API_FROZEN_0_1_H
#define FLASHPLUS_TESTS_API_FROZEN_0_1_H

#include <dlpack/dlpack.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

typedef enum flashplus_status {
  FLASHPLUS_OK = 0,
  FLASHPLUS_INVALID_ARGUMENT = 1,
  FLASHPLUS_UNSUPPORTED = 2,
  FLASHPLUS_NO_DEVICE = 3,
  FLASHPLUS_OUT_OF_MEMORY = 4,
  FLASHPLUS_COMPILE_FAILED = 5,
  FLASHPLUS_NOT_RESIDENT = 6,
  FLASHPLUS_DEVICE_ERROR = 7,
  FLASHPLUS_IO_ERROR = 8,
  FLASHPLUS_INTERNAL = 9,
} flashplus_status;

typedef struct flashplus_context flashplus_context;
typedef struct flashplus_plan flashplus_plan;
typedef struct flashplus_kernel flashplus_kernel;

typedef void (*flashplus_parallel_for)(void *pool, int64_t count, void (*body)(void *body_context, int64_t i),
                                       void *body_context);

typedef void (*flashplus_log)(void *log_context, const char *message);

typedef enum flashplus_event_kind {
  FLASHPLUS_EVENT_DISK_HIT = 1,
  FLASHPLUS_EVENT_COMPILED = 2,
  FLASHPLUS_EVENT_COMPILE_FAILED = 3,
  FLASHPLUS_EVENT_DAMAGED = 4,
  FLASHPLUS_EVENT_REFUSED = 5,
  FLASHPLUS_EVENT_PUBLISH_FAILED = 6,
  FLASHPLUS_EVENT_FALLBACK = 7,
} flashplus_event_kind;

typedef struct flashplus_event {
  size_t struct_size;
  flashplus_event_kind kind;
  const char *key;
  const char *spec;
  const char *schedule;
  const char *target;
  const char *detail;
  double ms;
  double build_ms;
  double passes_ms;
  double optimize_ms;
  double emit_ms;
  double assemble_ms;
  int64_t code_bytes;
} flashplus_event;

typedef void (*flashplus_listener)(void *listener_context, const flashplus_event *event);

typedef struct flashplus_context_options {
  size_t struct_size;
  const char *cache_dir;
  const char *compiler_path;
  int32_t num_threads;
  int32_t offline;
  flashplus_parallel_for parallel_for;
  void *pool;
  int32_t pool_threads;
  flashplus_log log;
  void *log_context;
  flashplus_listener listener;
  void *listener_context;
} flashplus_context_options;

typedef struct flashplus_counters {
  size_t struct_size;
  int64_t memory_hits;
  int64_t disk_hits;
  int64_t compiles;
  int64_t corrupt;
  int64_t publish_failures;
  double compile_ms;
  double load_ms;
  int64_t miss_absent;
  int64_t miss_damaged;
  int64_t miss_unreadable;
  int64_t miss_refused;
  int64_t compile_failures;
  int64_t fallbacks;
  double build_ms;
  double passes_ms;
  double optimize_ms;
  double emit_ms;
  double assemble_ms;
  int64_t resident_kernels;
  int64_t resident_bytes;
} flashplus_counters;

typedef struct flashplus_score_tensor {
  const char *name;
  const DLTensor *tensor;
} flashplus_score_tensor;

typedef struct flashplus_score_scalar {
  const char *name;
  float value;
} flashplus_score_scalar;

typedef struct flashplus_forward_args {
  size_t struct_size;
  const DLTensor *q;
  const DLTensor *k;
  const DLTensor *v;
  DLTensor *o;
  DLTensor *lse;
  const DLTensor *cu_seqlens_q;
  const DLTensor *cu_seqlens_k;
  const DLTensor *seqused_q;
  const DLTensor *seqused_k;
  int64_t max_seqlen_q;
  int64_t max_seqlen_k;
  const float *softmax_scale;
  int32_t causal;
  int32_t window_left;
  int32_t window_right;
  float lse_empty;
  float softcap;
  const DLTensor *alibi_slopes;
  const char *score;
  const flashplus_score_tensor *score_tensors;
  int32_t num_score_tensors;
  const flashplus_score_scalar *score_scalars;
  int32_t num_score_scalars;
  int32_t num_splits;
  int32_t batch_invariant;
  int64_t *tile_counter;
  const char *schedule;
} flashplus_forward_args;

#define FLASHPLUS_FORWARD_ARGS_INIT \
  {.struct_size = sizeof(flashplus_forward_args), .window_left = -1, .window_right = -1, .lse_empty = INFINITY}

typedef struct flashplus_python_call {
  size_t struct_size;
  flashplus_context *context;
  const flashplus_forward_args *args;
  const void *exchange_api;
  void *(*save_thread)(void);
  void (*restore_thread)(void *);
} flashplus_python_call;

typedef struct flashplus_kernel_info {
  size_t struct_size;
  const char *key;
  const char *key_text;
  const char *spec;
  const char *schedule;
  const char *target;
  const char *kind;
  const void *code;
  size_t code_size;
  const char *entry;
  int32_t threads;
  int64_t shared_memory;
  int64_t scratch;
  int64_t params_size;
  int32_t registers;
  int32_t spill_bytes;
  int32_t stack_bytes;
  const char *source;
  const char *provenance;
  double compile_ms;
  double load_ms;
} flashplus_kernel_info;

const char *flashplus_last_error(void);
flashplus_status flashplus_context_create(const flashplus_context_options *options,
                                          flashplus_context **out);
void flashplus_context_destroy(flashplus_context *context);
flashplus_status flashplus_get_counters(flashplus_context *context, flashplus_counters *out);
flashplus_status flashplus_forward(flashplus_context *context, const flashplus_forward_args *args,
                                   void *stream);
flashplus_status flashplus_plan_create(flashplus_context *context, const flashplus_forward_args *args,
                                       flashplus_plan **out);
void flashplus_plan_destroy(flashplus_plan *plan);
flashplus_status flashplus_plan_run(flashplus_plan *plan, const flashplus_forward_args *args,
                                    void *workspace, size_t workspace_bytes, void *stream);
flashplus_status flashplus_get_kernel(flashplus_context *context, const char *spec,
                                      const char *schedule, const char *target, flashplus_kernel **out);
void flashplus_kernel_destroy(flashplus_kernel *kernel);
flashplus_status flashplus_kernel_get_info(const flashplus_kernel *kernel, flashplus_kernel_info *out);
void flashplus_free_text(char *text);
flashplus_status flashplus_spec_of(const flashplus_forward_args *args, char **text);

_Static_assert(sizeof(flashplus_context_options) == 88, "as 0.1 had it");
_Static_assert(sizeof(flashplus_counters) == 168, "as 0.1 had it");
_Static_assert(sizeof(flashplus_forward_args) == 200, "as 0.1 had it");
_Static_assert(sizeof(flashplus_python_call) == 48, "as 0.1 had it");
_Static_assert(sizeof(flashplus_kernel_info) == 160, "as 0.1 had it");

#endif
