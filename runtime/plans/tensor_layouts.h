// SPDX-License-Identifier: BSD-3-Clause
// Where the operands of a kernel lie, read off its params by the names that spec/params.h gives every
// operation's: q, q_stride_b, rows_q, cu_seqlens_q, ... The names are looked up while this is compiled.
#pragma once

#include "runtime/devices/device.h"
#include "spec/fields.h"
#include "spec/params.h"

#include <array>
#include <cstring>

namespace flashplus {

namespace detail {

/// Where a param is; one that the table has not does not compile.
template <class Params> consteval size_t paramOffset(std::string_view name) {
  for (const ParamInfo &field : paramTable<Params>())
    if (field.name == name)
      return field.offset;
  throw "the params have no field of this name";
}

template <class T, class Params> T paramAt(const Params &params, size_t offset) {
  T value;
  std::memcpy(&value, reinterpret_cast<const char *>(&params) + offset, sizeof value);
  return value;
}

} // namespace detail

template <Operand O, class Params> TensorLayout tensorLayout(const Params &p, const SpecFields &spec) {
  using detail::paramAt, detail::paramOffset;
  constexpr const OperandInfo &info = kOperands[int(O)];
  constexpr bool query = info.side == Side::Query;
  const DType dtype = spec.dtypeOf(O);
  const int64_t bytes = dtypeBytes(dtype);
  if constexpr (info.side == Side::Key && requires { p.page_size; })
    if (spec.pagedKeys())
      return {paramAt<void *>(p, paramOffset<Params>(info.name)),
              {hasValueDim(O) ? spec.head_dim_v : spec.head_dim_qk, p.page_size, p.heads_k,
               p.rows_k / p.page_size},
              {paramAt<int64_t>(p, paramOffset<Params>(info.stride_s)) * bytes,
               paramAt<int64_t>(p, paramOffset<Params>(info.stride_h)) * bytes,
               paramAt<int64_t>(p, paramOffset<Params>(info.stride_b)) * bytes},
              dtype,
              keyRun(p.page_size, p.seqlen_k, p.leftpad_k != nullptr)};
  const bool ragged =
      paramAt<void *>(p, paramOffset<Params>(query ? "cu_seqlens_q" : "cu_seqlens_k")) != nullptr;
  const int64_t rows = ragged ? paramAt<int64_t>(p, paramOffset<Params>(query ? "rows_q" : "rows_k"))
                              : paramAt<int32_t>(p, paramOffset<Params>(query ? "seqlen_q" : "seqlen_k"));
  return {paramAt<void *>(p, paramOffset<Params>(info.name)),
          {hasValueDim(O) ? spec.head_dim_v : spec.head_dim_qk, rows,
           paramAt<int32_t>(p, paramOffset<Params>(query ? "heads_q" : "heads_k")), ragged ? 1 : p.batch},
          {paramAt<int64_t>(p, paramOffset<Params>(info.stride_s)) * bytes,
           paramAt<int64_t>(p, paramOffset<Params>(info.stride_h)) * bytes,
           paramAt<int64_t>(p, paramOffset<Params>(info.stride_b)) * bytes},
          dtype};
}

/// Of `Os`, indexed by Operand; the others are empty.
template <Operand... Os, class Params>
std::array<TensorLayout, kNumOperands> tensorLayouts(const Params &params, const SpecFields &spec) {
  std::array<TensorLayout, kNumOperands> layouts{};
  ((layouts[size_t(Os)] = tensorLayout<Os>(params, spec)), ...);
  return layouts;
}

} // namespace flashplus
