// SPDX-License-Identifier: BSD-3-Clause
// NumPy's .npy files (format 1.0, 2.0 and 3.0), little-endian, C order. bfloat16, which NumPy itself lacks,
// is read from the two-byte void type that ml_dtypes arrays are saved as ('<V2' or '|V2') and written as
// fp32.
#pragma once

#include "tools/io/tensor.h"

#include <span>

namespace flashplus::io {

inline constexpr uint64_t kMaxNpyHeaderBytes = 1u << 20;

struct NpyHeader {
  ElementType type = ElementType::F32;
  std::vector<int64_t> shape;
  uint64_t data_offset = 0;
  uint64_t data_bytes = 0;
};

/// Parses the header at the start of `bytes`, which is the whole file of `file_size` bytes or its beginning
/// (at least min(file_size, 12 + kMaxNpyHeaderBytes) bytes). Every promise of the header is checked against
/// `file_size`; InvalidArgument names `source` and the field. Never reads outside `bytes`.
Result<NpyHeader> parseNpyHeader(std::span<const std::byte> bytes, uint64_t file_size,
                                 std::string_view source);

/// Reads a file: IoError when it can't be read, InvalidArgument when its header lies.
Result<Tensor> readNpy(const std::string &path);

/// Writes atomically (tools/io/file.h).
Status writeNpy(const std::string &path, const Tensor &tensor);

} // namespace flashplus::io
