// SPDX-License-Identifier: BSD-3-Clause
#include "cache/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace flashplus {

static Hash128 hashRaw(const void *data, size_t size) {
  const XXH128_hash_t hash = XXH3_128bits(data, size);
  return {hash.high64, hash.low64};
}

Hash128 hashBytes(std::span<const uint8_t> bytes) { return hashRaw(bytes.data(), bytes.size()); }
Hash128 hashText(std::string_view text) { return hashRaw(text.data(), text.size()); }

std::array<uint8_t, 16> Hash128::bytes() const {
  std::array<uint8_t, 16> out;
  for (int i = 0; i < 8; ++i) {
    out[i] = static_cast<uint8_t>(high >> (56 - 8 * i));
    out[8 + i] = static_cast<uint8_t>(low >> (56 - 8 * i));
  }
  return out;
}

std::string Hash128::hex() const {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(32);
  for (uint8_t byte : bytes()) {
    out += kDigits[byte >> 4];
    out += kDigits[byte & 15];
  }
  return out;
}

} // namespace flashplus
