// SPDX-License-Identifier: BSD-3-Clause
// How structs of callers are read and filled in, whatever header the caller was built with: the rules of
// flashplus.h ("Structs") in one place. Nothing on the good path allocates.
#pragma once

#include "flashplus/flashplus.h"
#include "spec/score.h"
#include "spec/status.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

namespace flashplus {

/// The size that a struct has up to and with `field`: that of a header in which it was the last.
#define FLASHPLUS_SIZE_WITH(type, field) (offsetof(type, field) + sizeof(type::field))

/// struct_size of a struct of this name: from `least`, the first header's, to what is plainly a mistake.
Status checkStructSize(const char *name, const char *type, size_t size, size_t least, size_t ours);
/// Refuses a field that is set beyond the `ours` bytes that this library knows.
Status checkUnknownFields(const char *name, const void *given, size_t size, size_t ours);
Status wrongFlag(const char *name, int32_t value);
/// A flag is 0 or 1.
inline Status checkFlag(const char *name, int32_t value) {
  return value == 0 || value == 1 ? Status::ok() : wrongFlag(name, value);
}

/// Copies *given into `out`; fields that the caller lacks are 0. `out.struct_size` stays the caller's.
template <class T>
Status readStruct(const char *name, const char *type, const T *given, size_t least, T &out) {
  const size_t size = given->struct_size;
  if (size == sizeof(T)) { // the caller was built with our header: nearly always, and every launch comes here
    out = *given;
    return Status::ok();
  }
  FLASHPLUS_RETURN_IF_ERROR(checkStructSize(name, type, size, least, sizeof(T)));
  if (size > sizeof(T))
    FLASHPLUS_RETURN_IF_ERROR(checkUnknownFields(name, given, size, sizeof(T)));
  const size_t known = std::min(size, sizeof(T));
  std::memcpy(static_cast<void *>(&out), given, known);
  std::memset(reinterpret_cast<char *>(&out) + known, 0, sizeof(T) - known);
  return Status::ok();
}

/// Fills in *out from `all`, as far as it has room.
template <class T> Status fillStruct(const char *name, const char *type, T *out, size_t least, T all) {
  const size_t size = out->struct_size;
  FLASHPLUS_RETURN_IF_ERROR(checkStructSize(name, type, size, least, sizeof(T)));
  all.struct_size = size;
  std::memcpy(static_cast<void *>(out), &all, std::min(size, sizeof(T)));
  if (size > sizeof(T))
    std::memset(reinterpret_cast<char *>(out) + sizeof(T), 0, size - sizeof(T));
  return Status::ok();
}

/// The arguments of a forward with what the caller's header left unsaid spelt out: has_window is 1 (the sides
/// are still to be checked), lse_empty is the number itself, causal and batch_invariant are 0 or 1,
/// max_seqlen_* bounds.
Status readForwardArgs(const flashplus_forward_args *given, flashplus_forward_args &out);

/// The arguments of a backward, with the same spelt out.
Status readBackwardArgs(const flashplus_backward_args *given, flashplus_backward_args &out);

/// The arguments of a merge.
Status readMergeArgs(const flashplus_merge_args *given, flashplus_merge_args &out);

/// What flashplus_dropout_mask is asked for.
Status readDropoutMaskArgs(const flashplus_dropout_mask_args *given, flashplus_dropout_mask_args &out);

/// Options with cache_optional and the flags as the caller's header had them; `given` may be null.
Status readContextOptions(const flashplus_context_options *given, flashplus_context_options &out);

/// Positions are int32, with room to add.
constexpr int64_t kMaxLength = kMaxScorePosition;

} // namespace flashplus
