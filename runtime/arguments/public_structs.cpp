// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/arguments/public_structs.h"

#include <cmath>

namespace flashplus {
namespace {

std::string number(int64_t v) { return std::to_string(v); }

[[gnu::noinline]] Status wrongReserved(const char *name, const char *field, int32_t value) {
  return invalidArgument(std::string(name) + "." + field + " is " + number(value) + "; it must be 0");
}

Status checkReserved(const char *name, const char *field, int32_t value) {
  return value == 0 ? Status::ok() : wrongReserved(name, field, value);
}

} // namespace

Status checkStructSize(const char *name, const char *type, size_t size, size_t least, size_t ours) {
  if (size >= least && size <= 16 * ours)
    return Status::ok();
  return invalidArgument(std::string(name) + ".struct_size is " + std::to_string(size) +
                         "; it must be sizeof(" + type + "), " + std::to_string(ours));
}

Status checkUnknownFields(const char *name, const void *given, size_t size, size_t ours) {
  const auto *bytes = static_cast<const unsigned char *>(given);
  for (size_t i = ours; i < size; ++i)
    if (bytes[i])
      return {StatusCode::Unsupported,
              std::string(name) + " has a field at byte " + std::to_string(i) + " of its " +
                  std::to_string(size) + " that is not 0, and this library (" + flashplus_version() +
                  ") knows only " + std::to_string(ours) +
                  " bytes; leave what is newer at 0, or use the library of that header"};
  return Status::ok();
}

Status wrongFlag(const char *name, int32_t value) {
  return invalidArgument(std::string(name) + " is " + number(value) + "; it must be 0 or 1");
}

namespace {

/// What the fields mask and max_seqlen_* leave unsaid.
template <class Args> Status readMaskAndBounds(Args &out) {
  FLASHPLUS_RETURN_IF_ERROR(checkFlag("causal", out.causal));
  FLASHPLUS_RETURN_IF_ERROR(checkFlag("has_window", out.has_window));
  FLASHPLUS_RETURN_IF_ERROR(checkReserved("args", "reserved", out.reserved));
  FLASHPLUS_RETURN_IF_ERROR(checkReserved("args", "reserved2", out.reserved2));
  if (!out.has_window) {
    const int32_t side = out.window_left;
    if (side != out.window_right || (side != 0 && side != -1))
      return invalidArgument("window_left is " + number(side) + " and window_right " +
                             number(out.window_right) +
                             " while has_window is 0; set has_window to 1, or leave both at 0");
    out.window_left = out.window_right = -1;
    out.has_window = 1;
  }
  for (int64_t *bound : {&out.max_seqlen_q, &out.max_seqlen_k})
    if (*bound == 0)
      *bound = kMaxLength;
  return Status::ok();
}

} // namespace

Status readForwardArgs(const flashplus_forward_args *given, flashplus_forward_args &out) {
  if (!given)
    return invalidArgument("args is null");
  FLASHPLUS_RETURN_IF_ERROR(readStruct("args", "flashplus_forward_args", given,
                                       FLASHPLUS_SIZE_WITH(flashplus_forward_args, tile_counter), out));
  // 0.1: every number means itself, and so does a window side of 0.
  if (out.struct_size < FLASHPLUS_SIZE_WITH(flashplus_forward_args, reserved)) {
    out.has_window = 1;
    out.causal = out.causal != 0;
    out.batch_invariant = out.batch_invariant != 0;
    return Status::ok();
  }
  FLASHPLUS_RETURN_IF_ERROR(checkFlag("batch_invariant", out.batch_invariant));
  FLASHPLUS_RETURN_IF_ERROR(checkFlag("rotary_interleaved", out.rotary_interleaved));
  FLASHPLUS_RETURN_IF_ERROR(checkFlag("lse_without_sinks", out.lse_without_sinks));
  FLASHPLUS_RETURN_IF_ERROR(checkReserved("args", "reserved3", out.reserved3));
  if (out.lse_empty == 0)
    out.lse_empty = INFINITY;
  return readMaskAndBounds(out);
}

Status readBackwardArgs(const flashplus_backward_args *given, flashplus_backward_args &out) {
  if (!given)
    return invalidArgument("args is null");
  FLASHPLUS_RETURN_IF_ERROR(readStruct("args", "flashplus_backward_args", given,
                                       FLASHPLUS_SIZE_WITH(flashplus_backward_args, reserved), out));
  FLASHPLUS_RETURN_IF_ERROR(checkFlag("any_order", out.any_order));
  return readMaskAndBounds(out);
}

Status readMergeArgs(const flashplus_merge_args *given, flashplus_merge_args &out) {
  if (!given)
    return invalidArgument("args is null");
  return readStruct("args", "flashplus_merge_args", given, FLASHPLUS_SIZE_WITH(flashplus_merge_args, lse),
                    out);
}

Status readDropoutMaskArgs(const flashplus_dropout_mask_args *given, flashplus_dropout_mask_args &out) {
  if (!given)
    return invalidArgument("args is null");
  FLASHPLUS_RETURN_IF_ERROR(readStruct("args", "flashplus_dropout_mask_args", given,
                                       FLASHPLUS_SIZE_WITH(flashplus_dropout_mask_args, reserved), out));
  return checkReserved("args", "reserved", out.reserved);
}

Status readContextOptions(const flashplus_context_options *given, flashplus_context_options &out) {
  if (!given) {
    out = {};
    return Status::ok();
  }
  FLASHPLUS_RETURN_IF_ERROR(readStruct("options", "flashplus_context_options", given,
                                       FLASHPLUS_SIZE_WITH(flashplus_context_options, log_context), out));
  if (out.struct_size < FLASHPLUS_SIZE_WITH(flashplus_context_options, compile_in_process)) { // 0.1
    out.offline = out.offline != 0;
    out.cache_optional = 1;
    return Status::ok();
  }
  FLASHPLUS_RETURN_IF_ERROR(checkFlag("options.offline", out.offline));
  FLASHPLUS_RETURN_IF_ERROR(checkFlag("options.cache_optional", out.cache_optional));
  FLASHPLUS_RETURN_IF_ERROR(checkFlag("options.compile_in_process", out.compile_in_process));
  return checkReserved("options", "reserved", out.reserved);
}

} // namespace flashplus
