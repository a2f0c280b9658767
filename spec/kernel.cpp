// SPDX-License-Identifier: BSD-3-Clause
#include "spec/kernel.h"

namespace flashplus {

std::string kernelName(const KernelSpec &spec) {
  std::string name = spec.op == Operation::Forward ? "flashplus_forward_" : "flashplus_combine_";
  name += dtypeName(spec.dtype);
  if (spec.op == Operation::Forward)
    name += "_d" + std::to_string(spec.head_dim_qk);
  if (spec.op == Operation::Combine || spec.head_dim_v != spec.head_dim_qk)
    name += "_dv" + std::to_string(spec.head_dim_v);
  if (spec.bounded_left)
    name += "_left";
  if (spec.bounded_right)
    name += "_right";
  if (spec.split)
    name += "_split";
  return name;
}

} // namespace flashplus
