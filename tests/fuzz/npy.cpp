// SPDX-License-Identifier: BSD-3-Clause
// Any bytes as a .npy file: refused, or a header whose promises the bytes keep.
#include "tools/io/npy.h"
#include "tests/fuzz/seeds.h"

#include <cstdlib>

std::vector<std::string> seeds() {
  auto file = [](std::string_view header, size_t data) {
    std::string text("\x93NUMPY\x01\x00", 8);
    text += char(header.size() + 1);
    text += '\0';
    return text + std::string(header) + "\n" + std::string(data, 'x');
  };
  return {file("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 24),
          file("{'descr': '<f2', 'fortran_order': False, 'shape': (4,), }", 8),
          file("{'descr': '<i8', 'fortran_order': False, 'shape': (), }", 8)};
}

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
