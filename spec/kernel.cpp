// SPDX-License-Identifier: BSD-3-Clause
#include "spec/kernel.h"

namespace flashplus {

std::string kernelName(const KernelSpec &spec) {
  const OperationInfo &info = operationInfo(spec.op);
  auto has = [&](SpecField f) { return (info.fields & fieldSet({f})) != 0; };
  std::string name = "flashplus_" + std::string(info.name) + "_" + std::string(dtypeName(spec.dtype));
  if (has(SpecField::head_dim_qk))
    name += "_d" + std::to_string(spec.head_dim_qk);
  if (has(SpecField::head_dim_v) && (!has(SpecField::head_dim_qk) || spec.head_dim_v != spec.head_dim_qk))
    name += "_dv" + std::to_string(spec.head_dim_v);
  if (spec.bounded_left)
    name += "_left";
  if (spec.bounded_right)
    name += "_right";
  if (spec.pagedKeys())
    name += "_paged";
  if (spec.dropout)
    name += "_dropout";
  if (spec.hasSinks())
    name += "_sinks";
  if (spec.isPartial())
    name += "_split";
  return name;
}

} // namespace flashplus
