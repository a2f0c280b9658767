// SPDX-License-Identifier: BSD-3-Clause
// Operand: the tensors that kernels read and write by rows, and which side of the scores their rows are on.
// Params and tensor maps name an operand by its enumerator, never by text.
#pragma once

#include <cstdint>
#include <string_view>

namespace flashplus {

/// DX is the gradient of x. Numbers are written into artifacts: they never change meaning, and new ones are
/// added at the end.
enum class Operand : uint8_t { Q, K, V, O, DO, DQ, DK, DV };
inline constexpr int kNumOperands = 8;

/// What the rows of an operand are.
enum class Side : uint8_t {
  Query,  ///< Query rows of a query head: cu_seqlens_q, seqused_q, heads_q.
  Key,    ///< Keys of a key head: cu_seqlens_k, seqused_k, heads_k.
  Append, ///< Of no operand: the rows that an append moves (templates/append), of all heads.
};

struct OperandInfo {
  Operand operand;
  std::string_view name;     ///< "q": the params q, q_stride_b, ... are its.
  std::string_view stride_b; ///< Names of params, so that none is put together where a kernel is emitted.
  std::string_view stride_s;
  std::string_view stride_h;
  Side side;
};

constexpr OperandInfo kOperands[kNumOperands] = {
    {Operand::Q, "q", "q_stride_b", "q_stride_s", "q_stride_h", Side::Query},
    {Operand::K, "k", "k_stride_b", "k_stride_s", "k_stride_h", Side::Key},
    {Operand::V, "v", "v_stride_b", "v_stride_s", "v_stride_h", Side::Key},
    {Operand::O, "o", "o_stride_b", "o_stride_s", "o_stride_h", Side::Query},
    {Operand::DO, "dout", "dout_stride_b", "dout_stride_s", "dout_stride_h", Side::Query},
    {Operand::DQ, "dq", "dq_stride_b", "dq_stride_s", "dq_stride_h", Side::Query},
    {Operand::DK, "dk", "dk_stride_b", "dk_stride_s", "dk_stride_h", Side::Key},
    {Operand::DV, "dv", "dv_stride_b", "dv_stride_s", "dv_stride_h", Side::Key},
};

constexpr const OperandInfo &operandInfo(Operand operand) { return kOperands[int(operand)]; }

/// Its rows have head_dim_v elements; the others' head_dim_qk.
constexpr bool hasValueDim(Operand operand) {
  return operand == Operand::V || operand == Operand::O || operand == Operand::DV || operand == Operand::DO;
}

constexpr bool operandsInOrder() {
  for (int i = 0; i < kNumOperands; ++i)
    if (int(kOperands[i].operand) != i)
      return false;
  return true;
}
static_assert(operandsInOrder());

} // namespace flashplus
