// SPDX-License-Identifier: BSD-3-Clause
// Any bytes as a .safetensors file, and as the JSON of one: refused, or tensors that lie side by side in the
// data.
#include "tools/io/safetensors.h"
#include "tests/fuzz/seeds.h"

#include <cstdlib>

namespace {

void check(const flashplus::Result<flashplus::io::SafetensorsHeader> &header, uint64_t data_bytes) {
  if (!header)
    return;
  uint64_t at = 0;
  for (const auto &entry : (*header).entries) {
    if (entry.begin != at || entry.end < entry.begin || entry.end > data_bytes)
      std::abort();
    at = entry.end;
    if (!entry.type)
      continue;
    auto needed = flashplus::io::tensorBytes(entry.shape, flashplus::io::elementBytes(*entry.type));
    if (!needed || static_cast<uint64_t>(*needed) != entry.end - entry.begin)
      std::abort();
  }
  if (at != data_bytes)
    std::abort();
}

} // namespace

std::vector<std::string> seeds() {
  const std::string header =
      R"({"__metadata__":{"a":"b"},"q":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]},)"
      R"("k":{"dtype":"F32","shape":[],"data_offsets":[8,12]}})";
  std::string file(8, '\0');
  file[0] = char(header.size());
  return {file + header + std::string(12, 'x'), header + char(12)};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  auto file = flashplus::io::parseSafetensors(std::as_bytes(std::span(data, size)), "fuzz");
  if (file) {
    uint64_t length = 0;
    for (int i = 7; i >= 0; --i)
      length = length << 8 | data[i];
    check(file, size - 8 - length);
  }
  // Without the length in front, which random bytes hardly ever get right. The last byte is the size of the
  // data.
  if (size > 0)
    check(flashplus::io::parseSafetensorsHeader({reinterpret_cast<const char *>(data), size - 1},
                                                data[size - 1], "fuzz"),
          data[size - 1]);
  return 0;
}
