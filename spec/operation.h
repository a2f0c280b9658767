// SPDX-License-Identifier: BSD-3-Clause
// Operation: what a kernel is a step of. One row of FLASHPLUS_OPERATIONS makes an operation known to specs, keys, artifacts,
// the dialect and launches; nothing else asks "which operation is it" to find out what it has.
//
// To add one: a row here, its params (spec/params.h), an algorithm under templates/<operation>/, and, where the runtime
// launches it, how its params are bound (runtime/plans/bind.cpp).
#pragma once

#include "spec/operand.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

// X(enumerator, name, params struct, fields that its specs have, whether it has a score, operands of tensor maps ...)
//   Forward   o, lse = attention(q, k, v)
//   Combine   o, lse from the partial results of a forward that was split over the keys
#define FLASHPLUS_BUILTIN_OPERATIONS(X)                                                                      \
  X(Forward, "forward", ForwardParams, kAllFields, true, Operand::Q, Operand::K, Operand::V)                 \
  X(Combine, "combine", CombineParams,                                                                       \
    fieldSet({SpecField::dtype, SpecField::dtype_o, SpecField::head_dim_v, SpecField::alignment}), false)

// A test compiles these sources with rows of its own, to see that a row is all that it takes.
#ifndef FLASHPLUS_MORE_OPERATIONS
#define FLASHPLUS_MORE_OPERATIONS(X)
#endif
#define FLASHPLUS_OPERATIONS(X)                                                                              \
  FLASHPLUS_BUILTIN_OPERATIONS(X)                                                                            \
  FLASHPLUS_MORE_OPERATIONS(X)

namespace flashplus {

struct ParamInfo;

enum class Operation : uint8_t {
#define FLASHPLUS_OPERATION_ENUMERATOR(ENUMERATOR, ...) ENUMERATOR,
  FLASHPLUS_OPERATIONS(FLASHPLUS_OPERATION_ENUMERATOR)
#undef FLASHPLUS_OPERATION_ENUMERATOR
};

#define FLASHPLUS_OPERATION_COUNT(...) +1
inline constexpr int kNumOperations = 0 FLASHPLUS_OPERATIONS(FLASHPLUS_OPERATION_COUNT);
#undef FLASHPLUS_OPERATION_COUNT

/// A set of SpecField (spec/fields.h), a bit each.
using FieldSet = uint32_t;

/// What there is to know of an operation.
struct OperationInfo {
  Operation op;
  std::string_view name; ///< First word of a spec's text; op of the dialect, "attn.<name>"; part of kernels' names.
  std::span<const ParamInfo> params; ///< Of the struct that its kernels take.
  size_t params_size;                ///< sizeof that struct.
  FieldSet fields;                   ///< Which fields its specs have; the others stay at their default.
  bool has_score;                    ///< Its specs have a score expression.
  std::span<const Operand> mapped;   ///< Tensors that its kernels may want tensor maps of.
};

const OperationInfo &operationInfo(Operation op);
std::optional<Operation> parseOperation(std::string_view name);
/// "forward, combine": for messages.
std::string_view operationNames();

} // namespace flashplus
