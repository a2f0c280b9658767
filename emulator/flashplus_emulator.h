/* SPDX-License-Identifier: BSD-3-Clause */
/* What libflashplus-emulator.so has beside the runtime's device table: settings and reports for tools. The
 * settings hold for every emulator device of the process. Thread-safe. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum flashplus_emulator_async {
  FLASHPLUS_EMULATOR_LATE = 0,  /* asynchronous copies land when something waits for them */
  FLASHPLUS_EMULATOR_EAGER = 1, /* at once */
  FLASHPLUS_EMULATOR_RANDOM = 2 /* either, by the seed; turns of warps are shuffled too */
} flashplus_emulator_async;

typedef struct flashplus_emulator_options {
  size_t struct_size; /* sizeof(flashplus_emulator_options) */
  int async;          /* flashplus_emulator_async */
  int record;         /* keep statistics of launches for flashplus_emulator_report */
  uint64_t seed;
  uint64_t step_limit; /* warp instructions of one block; 0: the default */
} flashplus_emulator_options;

/* 0, or -1 when a value is not allowed (then nothing changes). */
int flashplus_emulator_configure(const flashplus_emulator_options *options);

/* The launches recorded since the last call, as a JSON array (docs/emulator.md). The text lives until the
 * next call. */
const char *flashplus_emulator_report(void);

#ifdef __cplusplus
}
#endif
