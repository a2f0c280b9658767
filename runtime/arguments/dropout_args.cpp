// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/arguments/dropout_args.h"

#include <cstdio>

namespace flashplus {

Status checkDropout(TensorReader &reader, const DropoutArgs &args, SpecFields &spec, DropoutValues &out) {
  TensorView state;
  if (args.rng_state) {
    FLASHPLUS_RETURN_IF_ERROR(reader.read("rng_state", args.rng_state, state));
    if (!state.hasType(kDLInt, 64) && !state.hasType(kDLUInt, 64))
      return invalidArgument("rng_state has dtype " + state.dtypeText() + "; it must be int64 or uint64");
    FLASHPLUS_RETURN_IF_ERROR(state.wantShape({2}, "(2), a seed and an offset"));
    FLASHPLUS_RETURN_IF_ERROR(state.wantUnitStride());
  }
  if (args.p == 0)
    return Status::ok();
  auto dropout = Dropout::make(double(args.p));
  if (!dropout) {
    char value[32];
    std::snprintf(value, sizeof value, "%.9g", double(args.p));
    if (!(args.p >= 0 && args.p < 1))
      return invalidArgument(std::string("dropout_p is ") + value + "; it must be at least 0 and below 1");
    return invalidArgument("dropout_p: " + dropout.status().message());
  }
  if (!dropout->drops())
    return Status::ok();
  spec.dropout = true;
  out.dropout = *dropout;
  out.rng_state = args.rng_state ? state.data : nullptr;
  out.seed = args.seed;
  out.offset = args.offset;
  return Status::ok();
}

} // namespace flashplus
