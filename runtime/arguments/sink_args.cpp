// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/arguments/sink_args.h"

namespace flashplus {

Status checkSinks(TensorReader &reader, const SinkArgs &args, const TensorSizes &sizes, SpecFields &spec,
                  ForwardParams &p) {
  if (!args.sinks)
    return invalidArgument("lse_without_sinks is 1 and sinks is null; it goes with sinks");
  TensorView sinks;
  DType dtype;
  FLASHPLUS_RETURN_IF_ERROR(reader.read("sinks", args.sinks, sinks));
  FLASHPLUS_RETURN_IF_ERROR(readDType(sinks, dtype));
  FLASHPLUS_RETURN_IF_ERROR(sinks.wantShape({sizes.heads_q}, "(heads_q)"));
  FLASHPLUS_RETURN_IF_ERROR(sinks.wantUnitStride());
  spec.sinks = sinksOf(dtype);
  p.sinks = sinks.data;
  p.sink_in_lse = !args.lse_without_sinks;
  return Status::ok();
}

} // namespace flashplus
