// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/arguments/mask_args.h"

#include "runtime/arguments/public_structs.h"

#include <algorithm>
#include <utility>

namespace flashplus {

Status checkMask(const MaskArgs &args, AttentionProblem &problem) {
  for (auto [name, value] : {std::pair{"window_left", args.window_left}, {"window_right", args.window_right}})
    if (value < -1)
      return invalidArgument(std::string(name) + " is " + std::to_string(value) +
                             "; it must be -1 (unbounded) or more");
  const int32_t right = args.causal ? 0 : args.window_right;
  problem.spec.bounded_left = args.window_left >= 0;
  problem.spec.bounded_right = right >= 0;
  problem.bounds.window_left = int(std::min<int64_t>(args.window_left, kMaxLength));
  problem.bounds.window_right = int(std::min<int64_t>(right, kMaxLength));
  return Status::ok();
}

} // namespace flashplus
