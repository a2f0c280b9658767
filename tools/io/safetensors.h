// SPDX-License-Identifier: BSD-3-Clause
// .safetensors files: an 8-byte little-endian length, that many bytes of JSON, then the data of the tensors
// without gaps. The header is not trusted: every size, range and type is checked before anything is
// allocated.
#pragma once

#include "tools/io/tensor.h"

#include <span>

namespace flashplus::io {

inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;

struct SafetensorsEntry {
  std::string name;
  std::string dtype;               ///< As the file writes it: "F16", "U8", ...
  std::optional<ElementType> type; ///< Nothing for a type that Tensor does not have.
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0; ///< Bytes from the start of the data.
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries; ///< In the order of their data.
  std::map<std::string, std::string> metadata;
};

/// Parses the JSON of a file whose data part has `data_bytes` bytes. InvalidArgument names `source` and the
/// tensor or field: not JSON, duplicate key, missing or unknown field, wrong type, shape and range that
/// disagree, ranges that overlap, leave a gap or do not end at `data_bytes`.
Result<SafetensorsHeader> parseSafetensorsHeader(std::string_view json, uint64_t data_bytes,
                                                 std::string_view source);

/// Splits a whole file in memory into its header and its data. For tests and fuzzing.
Result<SafetensorsHeader> parseSafetensors(std::span<const std::byte> bytes, std::string_view source);

/// Reads the tensors of `names`, all of which must be there with a type that Tensor has; other tensors are
/// not read.
Result<TensorMap> readSafetensors(const std::string &path, std::span<const std::string> names);

/// Writes atomically (tools/io/file.h); tensors in the order of their names.
Status writeSafetensors(const std::string &path, const TensorMap &tensors,
                        const std::map<std::string, std::string> &metadata = {});

} // namespace flashplus::io
