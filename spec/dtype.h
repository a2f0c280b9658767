// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <optional>
#include <string_view>

namespace flashplus {

/// Storage type of q, k, v and o (one for all four). Arithmetic accumulates in fp32 whatever this is.
enum class DType { F16, BF16, F32 };

constexpr int dtypeBytes(DType dtype) { return dtype == DType::F32 ? 4 : 2; }

constexpr std::string_view dtypeName(DType dtype) {
  return dtype == DType::F16 ? "fp16" : dtype == DType::BF16 ? "bf16" : "fp32";
}

/// The attention sinks of a kernel (docs/rationale/sinks.md): none, or of which dtype they are.
enum class Sinks : unsigned char { None, F16, BF16, F32 };

constexpr Sinks sinksOf(DType dtype) { return Sinks(1 + int(dtype)); }
/// Of sinks that there are.
constexpr DType dtypeOf(Sinks sinks) { return DType(int(sinks) - 1); }

constexpr std::optional<DType> parseDType(std::string_view text) {
  for (DType d : {DType::F16, DType::BF16, DType::F32})
    if (text == dtypeName(d))
      return d;
  return std::nullopt;
}

} // namespace flashplus
