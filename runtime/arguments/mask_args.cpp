// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/arguments/mask_args.h"

#include "runtime/arguments/public_structs.h"

#include <algorithm>

namespace flashplus {

namespace {

[[gnu::noinline]] Status wrongSide(const char *name, int32_t value) {
  return invalidArgument(std::string(name) + " is " + std::to_string(value) +
                         "; it must be -1 (unbounded) or more");
}

} // namespace

Status checkMask(const MaskArgs &args, AttentionProblem &problem) {
  if (args.window_left < -1)
    return wrongSide("window_left", args.window_left);
  if (args.window_right < -1)
    return wrongSide("window_right", args.window_right);
  const int32_t right = args.causal ? 0 : args.window_right;
  problem.spec.bounded_left = args.window_left >= 0;
  problem.spec.bounded_right = right >= 0;
  problem.bounds.window_left = int(std::min<int64_t>(args.window_left, kMaxLength));
  problem.bounds.window_right = int(std::min<int64_t>(right, kMaxLength));
  return Status::ok();
}

} // namespace flashplus
