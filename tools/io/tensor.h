// SPDX-License-Identifier: BSD-3-Clause
// A tensor in host memory, as the file readers give it and the writers take it: compact, row-major,
// little-endian. Plain values: copy and share as any std::vector.
#pragma once

#include "spec/status.h"

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace flashplus::io {

enum class ElementType { F16, BF16, F32, F64, I32, I64 };

size_t elementBytes(ElementType type);
/// "fp16", "bf16", "fp32", "fp64", "int32", "int64"
std::string_view elementName(ElementType type);

inline constexpr int kMaxRank = 8;

struct Tensor {
  ElementType type = ElementType::F32;
  std::vector<int64_t> shape;
  std::vector<std::byte> data; ///< elements() * elementBytes(type) bytes.

  int64_t elements() const;
};

using TensorMap = std::map<std::string, Tensor>;

/// "(1, 236, 12, 32)"
std::string shapeText(const std::vector<int64_t> &shape);

/// Number of bytes of a tensor; nothing when a dimension is negative or the product does not fit int64.
std::optional<int64_t> tensorBytes(const std::vector<int64_t> &shape, size_t element_bytes);

/// A tensor of zeros. InvalidArgument for a bad shape, OutOfMemory when it can't be had.
Result<Tensor> makeTensor(ElementType type, std::vector<int64_t> shape);

} // namespace flashplus::io
