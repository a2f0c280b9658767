/* SPDX-License-Identifier: BSD-3-Clause */
/* The smallest use from C: causal attention of one short sequence on the CPU, and what the library says
 * when the arguments are wrong. The first run compiles the kernel; later runs read it from the cache. */
#include <flashplus/flashplus.h>

#include <stdio.h>

enum { SEQLEN = 4, HEADS = 1, HEAD_DIM = 8 };

static DLTensor tensor(float *data, int64_t *shape) {
  DLTensor t = {.data = data, .device = {kDLCPU, 0}, .ndim = 4, .dtype = {kDLFloat, 32, 1}, .shape = shape};
  return t; /* strides are null: compact, row-major */
}

int main(void) {
  float q[SEQLEN * HEAD_DIM] = {0}, k[SEQLEN * HEAD_DIM] = {0}, v[SEQLEN * HEAD_DIM], o[SEQLEN * HEAD_DIM];
  for (int i = 0; i < SEQLEN * HEAD_DIM; ++i)
    v[i] = (float)(i / HEAD_DIM); /* row j of v holds the number j */
  int64_t shape[4] = {1, SEQLEN, HEADS, HEAD_DIM};
  DLTensor tq = tensor(q, shape), tk = tensor(k, shape), tv = tensor(v, shape), to = tensor(o, shape);

  flashplus_context *context = NULL;
  if (flashplus_context_create(NULL, &context) != FLASHPLUS_OK) {
    fprintf(stderr, "%s\n", flashplus_last_error());
    return 1;
  }
  flashplus_forward_args args = FLASHPLUS_FORWARD_ARGS_INIT;
  args.q = &tq;
  args.k = &tk;
  args.v = &tv;
  args.o = &to;
  args.causal = 1;
  int failed = flashplus_forward(context, &args, NULL) != FLASHPLUS_OK;
  if (failed)
    fprintf(stderr, "%s\n", flashplus_last_error());
  /* All scores are 0, so that row i is the mean of the rows 0..i of v: i / 2. */
  for (int i = 0; i < SEQLEN && !failed; ++i) {
    const float difference = o[i * HEAD_DIM] - (float)i / 2;
    printf("row %d: %.3f\n", i, o[i * HEAD_DIM]);
    failed = !(difference < 1e-6f && difference > -1e-6f);
  }

  shape[3] = 1000;
  if (flashplus_forward(context, &args, NULL) != FLASHPLUS_INVALID_ARGUMENT)
    failed = 1;
  printf("refused, as it should be: %s\n", flashplus_last_error());
  flashplus_context_destroy(context);
  return failed;
}
