// SPDX-License-Identifier: BSD-3-Clause
// The dropout of a call: its rate, and where seed and offset come from.
#pragma once

#include "runtime/arguments/operands.h"
#include "spec/dropout.h"

namespace flashplus {

struct DropoutArgs {
  float p;
  const DLTensor *rng_state;
  uint64_t seed, offset;

  bool any() const { return p != 0 || rng_state; }
};
template <class Args> DropoutArgs dropoutArgs(const Args &a) {
  return {a.dropout_p, a.rng_state, a.dropout_seed, a.dropout_offset};
}

/// The dropout of a call, as the params of its kernels have it.
struct DropoutValues {
  Dropout dropout;
  void *rng_state = nullptr; ///< Null: seed and offset.
  uint64_t seed = 0, offset = 0;
};

/// Of arguments that say something: sets whether kernels of `spec` drop. A rate at which nothing is dropped
/// is none.
Status checkDropout(TensorReader &reader, const DropoutArgs &args, SpecFields &spec, DropoutValues &out);

template <class Params> void setDropout(const DropoutValues &values, Params &p) {
  for (size_t i = 0; i < values.dropout.thresholds.size(); ++i)
    p.drop_thresholds[i] = int32_t(values.dropout.thresholds[i]);
  p.drop_scale = values.dropout.scale;
  p.rng_state = values.rng_state;
  p.rng_seed = int64_t(values.seed);
  p.rng_offset = int64_t(values.offset);
}

/// Both.
template <class Params>
Status bindDropout(TensorReader &reader, const DropoutArgs &args, SpecFields &spec, Params &p) {
  DropoutValues values;
  FLASHPLUS_RETURN_IF_ERROR(checkDropout(reader, args, spec, values));
  if (spec.dropout)
    setDropout(values, p);
  return Status::ok();
}

} // namespace flashplus
