// SPDX-License-Identifier: BSD-3-Clause
// Philox 4x32 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011): 128
// random bits that are a function of a 128-bit counter and a 64-bit key. On the host; code generators take
// the constants from here.
#pragma once

#include <array>
#include <cstdint>

namespace flashplus {

/// A round multiplies words 0 and 2 of the counter by these.
inline constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53, kPhiloxMultiplier2 = 0xCD9E8D57;
/// Added to the two words of the key before every round but the first.
inline constexpr uint32_t kPhiloxKeyStep0 = 0x9E3779B9, kPhiloxKeyStep1 = 0xBB67AE85;
/// 7 rounds are the fewest that pass BigCrush (section 5 of the paper); 10 is what general libraries take.
inline constexpr int kPhiloxRounds = 7;

using PhiloxCounter = std::array<uint32_t, 4>;
using PhiloxKey = std::array<uint32_t, 2>;

constexpr PhiloxCounter philox4x32(PhiloxCounter counter, PhiloxKey key, int rounds = kPhiloxRounds) {
  for (int round = 0; round < rounds; ++round) {
    const uint64_t product0 = uint64_t(kPhiloxMultiplier0) * counter[0];
    const uint64_t product2 = uint64_t(kPhiloxMultiplier2) * counter[2];
    counter = {uint32_t(product2 >> 32) ^ counter[1] ^ key[0], uint32_t(product2),
               uint32_t(product0 >> 32) ^ counter[3] ^ key[1], uint32_t(product0)};
    key[0] += kPhiloxKeyStep0;
    key[1] += kPhiloxKeyStep1;
  }
  return counter;
}

} // namespace flashplus
