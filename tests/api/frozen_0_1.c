/* SPDX-License-Identifier: BSD-3-Clause */
/* A program that was built with the header of 0.1, linked to the library of today: all that it relied on must hold. */
#include "tests/api/frozen_0_1.h"

#include <stdio.h>
#include <string.h>

enum { QUERIES = 6, KEYS = 4, HEAD_DIM = 8 };

static char failure[512];

static const char *fail(const char *what) {
  snprintf(failure, sizeof failure, "%s (%s)", what, flashplus_last_error());
  return failure;
}

/** Scores are all 0 and row j of v holds the number j, so that an output row is the mean of the keys that it sees. */
typedef struct problem {
  float q[QUERIES * HEAD_DIM], k[KEYS * HEAD_DIM], v[KEYS * HEAD_DIM], o[QUERIES * HEAD_DIM], lse[QUERIES];
  int64_t q_shape[4], k_shape[4], lse_shape[3];
  DLTensor tq, tk, tv, to, tl;
} problem;

static DLTensor tensor(float *data, int64_t *shape, int rank) {
  DLTensor t = {.data = data, .device = {kDLCPU, 0}, .ndim = rank, .dtype = {kDLFloat, 32, 1}, .shape = shape};
  return t;
}

static void lay_out(problem *p, flashplus_forward_args *args) {
  memset(p, 0, sizeof *p);
  for (int i = 0; i < KEYS * HEAD_DIM; ++i)
    p->v[i] = (float)(i / HEAD_DIM);
  p->q_shape[0] = p->k_shape[0] = p->lse_shape[0] = 1;
  p->q_shape[1] = p->lse_shape[2] = QUERIES, p->k_shape[1] = KEYS;
  p->q_shape[2] = p->k_shape[2] = p->lse_shape[1] = 1;
  p->q_shape[3] = p->k_shape[3] = HEAD_DIM;
  p->tq = tensor(p->q, p->q_shape, 4), p->tk = tensor(p->k, p->k_shape, 4), p->tv = tensor(p->v, p->k_shape, 4);
  p->to = tensor(p->o, p->q_shape, 4), p->tl = tensor(p->lse, p->lse_shape, 3);
  args->q = &p->tq, args->k = &p->tk, args->v = &p->tv, args->o = &p->to, args->lse = &p->tl;
}

/** Whether row i is the mean of keys i + KEYS - QUERIES - left to i + KEYS - QUERIES + right, and `empty` the LSE of none. */
static int right_rows(const problem *p, int left, int right, float empty) {
  for (int i = 0; i < QUERIES; ++i) {
    float sum = 0, count = 0;
    for (int j = 0; j < KEYS; ++j) {
      const int at = j - (i + KEYS - QUERIES);
      if (-left <= at && at <= right)
        sum += (float)j, count += 1;
    }
    const float mean = count > 0 ? sum / count : 0, o = p->o[i * HEAD_DIM];
    if (!(o > mean - 1e-6f && o < mean + 1e-6f) || (count == 0 && p->lse[i] != empty))
      return 0;
  }
  return 1;
}

static const char *masks(flashplus_context *context) {
  problem p;
  flashplus_forward_args args = FLASHPLUS_FORWARD_ARGS_INIT;
  lay_out(&p, &args);
  if (flashplus_forward(context, &args, NULL) != FLASHPLUS_OK || !right_rows(&p, 99, 99, 0))
    return fail("INIT is full attention");
  args.causal = -2;
  if (flashplus_forward(context, &args, NULL) != FLASHPLUS_OK || !right_rows(&p, 99, 0, INFINITY))
    return fail("any causal but 0 is on");
  args.causal = 0, args.window_left = 1, args.batch_invariant = 7;
  if (flashplus_forward(context, &args, NULL) != FLASHPLUS_OK || !right_rows(&p, 1, 99, 0))
    return fail("a window on the left");
  flashplus_forward_args zero = {0};
  zero.struct_size = sizeof zero;
  lay_out(&p, &zero);
  if (flashplus_forward(context, &zero, NULL) != FLASHPLUS_OK || !right_rows(&p, 0, 0, 0))
    return fail("all zero is the window (0, 0), and an LSE of 0 for rows that see no key");
  /* Older still, as our Python package was: without `schedule`. */
  args.struct_size = offsetof(flashplus_forward_args, schedule);
  args.schedule = (const char *)1;
  args.lse_empty = -3;
  lay_out(&p, &args);
  args.window_left = -1, args.window_right = 0;
  if (flashplus_forward(context, &args, NULL) != FLASHPLUS_OK || !right_rows(&p, 99, 0, -3))
    return fail("a struct without a schedule");
  return "";
}

static const char *lengths(flashplus_context *context) {
  problem p;
  flashplus_forward_args args = FLASHPLUS_FORWARD_ARGS_INIT;
  lay_out(&p, &args);
  int32_t ends[2] = {0, QUERIES}, ends_k[2] = {0, KEYS};
  int64_t two = 2;
  DLTensor cu_q = {.data = ends, .device = {kDLCPU, 0}, .ndim = 1, .dtype = {kDLInt, 32, 1}, .shape = &two};
  DLTensor cu_k = cu_q;
  cu_k.data = ends_k;
  DLTensor *rows[4] = {&p.tq, &p.tk, &p.tv, &p.to};
  for (int i = 0; i < 4; ++i)
    rows[i]->ndim = 3, rows[i]->shape += 1;
  args.lse = NULL, args.cu_seqlens_q = &cu_q, args.cu_seqlens_k = &cu_k, args.max_seqlen_k = KEYS;
  if (flashplus_forward(context, &args, NULL) != FLASHPLUS_INVALID_ARGUMENT ||
      strncmp(flashplus_last_error(), "max_seqlen_q is 0", 17) != 0)
    return fail("a max_seqlen of 0 was 0 rows");
  return "";
}

static const char *outputs(flashplus_context *context) {
  struct { flashplus_counters counters; unsigned char after[64]; } c;
  memset(&c, 0x5a, sizeof c);
  c.counters.struct_size = sizeof c.counters;
  if (flashplus_get_counters(context, &c.counters) != FLASHPLUS_OK || c.counters.compiles < 3)
    return fail("counters");
  struct { flashplus_kernel_info info; unsigned char after[64]; } k;
  memset(&k, 0x5a, sizeof k);
  k.info.struct_size = sizeof k.info;
  flashplus_kernel *kernel = NULL;
  if (flashplus_get_kernel(context, "forward dtype=fp32 dqk=8 dv=8 left=0 right=0 split=0 align=16 score={s}", NULL,
                           "x86-64-v3", &kernel) != FLASHPLUS_OK ||
      flashplus_kernel_get_info(kernel, &k.info) != FLASHPLUS_OK || k.info.code_size == 0 ||
      k.info.struct_size != sizeof k.info)
    return fail("kernel info");
  flashplus_kernel_destroy(kernel);
  for (size_t i = 0; i < sizeof c.after; ++i)
    if (c.after[i] != 0x5a || k.after[i] != 0x5a)
      return fail("nothing is written beyond a struct");
  return "";
}

/** "" or what failed. `unusable` is a path that can be no folder. */
const char *check_frozen_0_1(const char *unusable) {
  flashplus_context_options options = {.struct_size = sizeof options, .cache_dir = unusable, .num_threads = 2};
  flashplus_context *context = NULL;
  if (flashplus_context_create(&options, &context) != FLASHPLUS_OK)
    return fail("a cache that cannot be used stops nobody");
  const char *result = masks(context);
  if (!*result)
    result = lengths(context);
  if (!*result)
    result = outputs(context);
  flashplus_context_destroy(context);
  options.offline = -1; /* "non-zero" */
  if (!*result && flashplus_context_create(&options, &context) == FLASHPLUS_OK) {
    problem p;
    flashplus_forward_args args = FLASHPLUS_FORWARD_ARGS_INIT;
    lay_out(&p, &args);
    if (flashplus_forward(context, &args, NULL) != FLASHPLUS_NOT_RESIDENT)
      result = fail("any offline but 0 is on");
    flashplus_context_destroy(context);
  }
  return result;
}
