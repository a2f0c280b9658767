// SPDX-License-Identifier: BSD-3-Clause
// --append: the last keys of every sequence are new, and written into the cache by the forward itself.
#pragma once

#include "tools/flashplus/problem_flags.h"
#include "tools/flashplus/tensors.h"

namespace flashplus::tool {

/// The cache, what is new, and the tables of positions on a device. Must not outlive the context.
class DeviceAppend {
public:
  /// `args`, of the whole problem, become those of one whose last keys are new; `problem` becomes what
  /// attention then works on: q, and the new keys, turned. Failures name the flag.
  Status upload(flashplus_context *context, DLDevice device, const AppendFlags &flags, Problem &problem,
                flashplus_forward_args &args);
  /// "" if the cache is bit by bit the problem's k and v, else where it is not.
  Result<std::string> checkCache(const Problem &problem) const;

private:
  Result<DLTensor *> put(flashplus_context *context, DLDevice device, const io::Tensor &host);

  std::vector<DeviceTensor> tensors_; ///< The cache's k and v first.
};

} // namespace flashplus::tool
