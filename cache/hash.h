// SPDX-License-Identifier: BSD-3-Clause
// XXH3-128: names entries and detects damage. It does not resist an attacker, and need not: an entry repeats
// its whole key, which the reader compares, and who can write the folder can run code as its owner anyway
// (store.h).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace flashplus {

struct Hash128 {
  uint64_t high = 0;
  uint64_t low = 0;

  /// 32 lower-case hexadecimal digits, most significant first.
  std::string hex() const;
  /// The same order as bytes.
  std::array<uint8_t, 16> bytes() const;

  bool operator==(const Hash128 &) const = default;
};

Hash128 hashBytes(std::span<const uint8_t> bytes);
Hash128 hashText(std::string_view text);

} // namespace flashplus

/// For unordered containers: the bits are uniform already.
template <> struct std::hash<flashplus::Hash128> {
  size_t operator()(const flashplus::Hash128 &hash) const noexcept { return static_cast<size_t>(hash.low); }
};
