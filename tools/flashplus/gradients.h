// SPDX-License-Identifier: BSD-3-Clause
// The backward of a problem on a device: what it takes and writes besides its forward.
#pragma once

#include "tools/flashplus/tensors.h"

namespace flashplus::tool {

/// dout and the gradients on a device, and the argument struct that points at them and at the forward's
/// tensors. Not movable: `args` points into it.
class DeviceGradients {
public:
  DeviceGradients() = default;
  DeviceGradients(const DeviceGradients &) = delete;
  /// `problem` has dout. `forward` is its problem, whose o and lse must be written before the backward runs;
  /// both must outlive this, as must the context. Gradients start as NaN.
  Status upload(flashplus_context *context, DLDevice device, const Problem &problem,
                const DeviceProblem &forward);
  const flashplus_backward_args &args() const { return args_; }
  Result<io::Tensor> dq() const { return dq_->download(); }
  Result<io::Tensor> dk() const { return dk_->download(); }
  Result<io::Tensor> dv() const { return dv_->download(); }

private:
  std::optional<DeviceTensor> dout_, dq_, dk_, dv_;
  flashplus_backward_args args_ = FLASHPLUS_BACKWARD_ARGS_INIT;
};

/// Of a backward with the fields of `forward`, its output and log-sum-exp included; dout and gradients are
/// null.
flashplus_backward_args backwardArgs(const flashplus_forward_args &forward);

/// The convention of the field for a backward: its floating point operations are 2.5 times those of its
/// forward, five products to two, whatever a kernel works out again.
inline constexpr double kBackwardFlops = 2.5;

} // namespace flashplus::tool
