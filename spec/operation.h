// SPDX-License-Identifier: BSD-3-Clause
// Operation: what a kernel is a step of. One row of FLASHPLUS_OPERATIONS makes an operation known to specs,
// keys, artifacts, the dialect and launches; nothing else asks "which operation is it" to find out what it
// has.
//
// To add one: a row here, its params (spec/params.h), an algorithm under templates/<operation>/, and, where
// the runtime launches it, how its params are bound (runtime/plans/bind.cpp).
#pragma once

#include "spec/operand.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

// X(enumerator, name, params struct, fields that its specs have, what its kernels want of a score, operands
//   of tensor maps ...)
//   Forward   o, lse = attention(q, k, v)
//   Combine   o, lse from the partial results of a forward that was split over the keys
//   Append    new keys and values into the cache that a forward then reads, with rotary embedding of the keys
//             and of q
//   Merge     o, lse from two results of the same queries over different keys
// The gradients of a forward, dq, dk, dv from q, k, v, o, lse and dout, are a plan of several steps
//   (templates/backward/):
//   BackwardDelta  what every row needs: delta = sum_d dout o - dlse, and lse in base 2
//   Backward       dk, dv and dq together; of a share of the keys (results = partial) its part of dq
//   BackwardSum    dq from the shares' parts
//   BackwardKV     dk and dv alone,
//   BackwardQ      and dq alone: two kernels that need no memory besides the rows' values, and add in a fixed
//                  order
//   BackwardScore  gradients of the score's own scalars and tensors (score_grads), if any are wanted
#define FLASHPLUS_BUILTIN_OPERATIONS(X)                                                                      \
  X(Forward, "forward", ForwardParams, kForwardFields, ScoreUse::Value, Operand::Q, Operand::K, Operand::V)  \
  X(Combine, "combine", CombineParams, kFinishedRowsOfV, ScoreUse::None)                                     \
  X(Append, "append", AppendParams, kRowsOfKV, ScoreUse::None)                                               \
  X(Merge, "merge", MergeParams, kRowsOfV, ScoreUse::None)                                                   \
  X(BackwardDelta, "backward_delta", BackwardParams, kRowsOfV, ScoreUse::None)                               \
  X(Backward, "backward", BackwardParams, kParameterFields, ScoreUse::Slope, Operand::Q, Operand::K,         \
    Operand::V, Operand::DO)                                                                                 \
  X(BackwardSum, "backward_sum", BackwardParams, kRowsOfQ, ScoreUse::None)                                   \
  X(BackwardKV, "backward_kv", BackwardParams, kBackwardFields, ScoreUse::Slope, Operand::Q, Operand::K,     \
    Operand::V, Operand::DO)                                                                                 \
  X(BackwardQ, "backward_q", BackwardParams, kBackwardFields, ScoreUse::Slope, Operand::Q, Operand::K,       \
    Operand::V, Operand::DO)                                                                                 \
  X(BackwardScore, "backward_score", BackwardParams, kParameterFields, ScoreUse::Parameters, Operand::Q,     \
    Operand::K, Operand::V, Operand::DO)

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

/// What the kernels of an operation compute of a score expression.
enum class ScoreUse : uint8_t {
  None,       ///< Its specs have no score.
  Value,      ///< The new score.
  Slope,      ///< The new score and its derivative with respect to s.
  Parameters, ///< The new score and its derivatives with respect to what is in score_grads.
};

/// A set of SpecField (spec/fields.h), a bit each.
using FieldSet = uint32_t;

/// What there is to know of an operation.
struct OperationInfo {
  Operation op;
  std::string_view name; ///< First word of a spec's text; op of the dialect, "attn.<name>"; part of kernels'
                         ///< names.
  std::span<const ParamInfo> params; ///< Of the struct that its kernels take.
  size_t params_size;                ///< sizeof that struct.
  FieldSet fields;                   ///< Which fields its specs have; the others stay at their default.
  ScoreUse score;
  std::span<const Operand> mapped;   ///< Tensors that its kernels may want tensor maps of.

  bool hasScore() const { return score != ScoreUse::None; }
};

const OperationInfo &operationInfo(Operation op);
std::optional<Operation> parseOperation(std::string_view name);
/// "forward, combine": for messages.
std::string_view operationNames();

} // namespace flashplus
