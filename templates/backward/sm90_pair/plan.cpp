// SPDX-License-Identifier: BSD-3-Clause
#include "templates/backward/sm90_pair/layout.h"

namespace flashplus {

Status takesTma(const KernelSpec &spec, const Schedule &schedule) {
  if (spec.alignment == 16 && spec.head_dim_qk % 8 == 0 && spec.head_dim_v % 8 == 0)
    return Status::ok();
  return {
      StatusCode::Unsupported,
      "schedule '" + schedule.text() +
          "' copies with TMA, which needs rows aligned to 16 bytes and head dims that are multiples of 8; "
          "the spec has alignment " +
          std::to_string(spec.alignment) + " and head dims " + std::to_string(spec.head_dim_qk) + " and " +
          std::to_string(spec.head_dim_v)};
}

} // namespace flashplus
