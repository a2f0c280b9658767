// SPDX-License-Identifier: BSD-3-Clause
// Any bytes as a .npy file: refused, or a header whose promises the bytes keep.
#include "tools/io/npy.h"

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  auto bytes = std::as_bytes(std::span(data, size));
  auto header = flashplus::io::parseNpyHeader(bytes, size, "fuzz");
  if (!header)
    return 0;
  if (header->data_offset + header->data_bytes != size)
    std::abort();
  auto needed = flashplus::io::tensorBytes(header->shape, flashplus::io::elementBytes(header->type));
  if (!needed || static_cast<uint64_t>(*needed) != header->data_bytes)
    std::abort();
  return 0;
}
