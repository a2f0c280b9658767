// SPDX-License-Identifier: BSD-3-Clause
// Included before every source of the test: one row of FLASHPLUS_OPERATIONS with its params, and one of
// FLASHPLUS_SPEC_FIELDS. That is all that a new operation or field takes in what specs, keys, plans and
// artifacts share.
#pragma once

#define FLASHPLUS_MORE_OPERATIONS(X)                                                                         \
  X(Probe, "probe", ProbeParams, fieldSet({SpecField::dtype, SpecField::head_dim_v, SpecField::colour}),     \
    ScoreUse::Value, Operand::V)

#define FLASHPLUS_MORE_FIELDS(X) X(int, colour, 3, "colour", 10, false)

#include "spec/params.h"

#define FLASHPLUS_PROBE_PARAMS(X)                                                                            \
  X(Ptr, v, 1)                                                                                               \
  X(I32, beats, 1)

namespace flashplus {
FLASHPLUS_PARAMS(ProbeParams, FLASHPLUS_PROBE_PARAMS);
}
