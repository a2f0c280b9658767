// SPDX-License-Identifier: BSD-3-Clause
#include "flashplus/flashplus.h"
#include "runtime/api/error.h"
#include "runtime/arguments/public_structs.h"
#include "spec/dropout.h"

#include <utility>

namespace flashplus {
namespace {

Status fillMask(const flashplus_dropout_mask_args *args, uint8_t *keep) {
  flashplus_dropout_mask_args a;
  FLASHPLUS_RETURN_IF_ERROR(readDropoutMaskArgs(args, a));
  const auto dropout = Dropout::make(double(a.dropout_p));
  if (!dropout)
    return dropout.status();
  int64_t bytes = 1;
  for (auto [name, value] : {std::pair{"batch", a.batch},
                             {"heads", a.heads},
                             {"rows", a.rows},
                             {"keys", a.keys},
                             {"first_batch", a.first_batch}}) {
    if (value < 0 || value > kMaxLength)
      return invalidArgument("args." + std::string(name) + " is " + std::to_string(value) +
                             "; it must be 0 to " + std::to_string(kMaxLength));
    if (name != std::string_view("first_batch") && __builtin_mul_overflow(bytes, value, &bytes))
      return invalidArgument("args: batch * heads * rows * keys is too large; at most 2^63 - 1 bytes");
  }
  if (bytes && !keep)
    return invalidArgument("keep is null");
  for (int64_t head = a.first_batch * a.heads; head < (a.first_batch + a.batch) * a.heads; ++head)
    for (int64_t i = 0; i < a.rows; ++i)
      for (int64_t j = 0; j < a.keys; ++j)
        *keep++ = !dropout->drops() || dropoutKeeps(*dropout, a.seed, a.offset, uint32_t(head), i, j);
  return Status::ok();
}

} // namespace
} // namespace flashplus

flashplus_status flashplus_dropout_mask(const flashplus_dropout_mask_args *args, uint8_t *keep) {
  return flashplus::guarded([&] { return flashplus::fillMask(args, keep); });
}
