/* SPDX-License-Identifier: BSD-3-Clause */
/* The C header as strict C11, and a call through it. */
#include <flashplus/flashplus.h>

#include <stddef.h>

const char *version_from_c(void) { return flashplus_version(); }

int refused_from_c(void) {
  flashplus_forward_args args = FLASHPLUS_FORWARD_ARGS_INIT;
  char *text = NULL;
  flashplus_status status = flashplus_spec_of(&args, &text); /* q is null */
  return status == FLASHPLUS_INVALID_ARGUMENT && flashplus_last_error()[0] == 'q' && args.window_left == -1 &&
         !text;
}
