// SPDX-License-Identifier: BSD-3-Clause
#include "spec/dropout.h"

#include <cmath>
#include <cstdio>

namespace flashplus {
namespace {

/// In which order the places of a granule get the higher threshold: by diagonals, so that four of them are
/// one of each row and of each key, and no row and no key is kept more often than another by more than
/// 1/1024.
constexpr int orderOf(int word, int byte) {
  constexpr int kSpread[4] = {0, 2, 1, 3};
  return 4 * kSpread[(byte - word) & 3] + kSpread[word];
}

constexpr int kPlaces = 16, kLevels = 256;

} // namespace

Result<Dropout> Dropout::make(double p) {
  char value[32];
  std::snprintf(value, sizeof value, "%.9g", p);
  if (!(p >= 0 && p < 1)) // NaN too
    return invalidArgument(std::string("dropout probability is ") + value +
                           "; it must be at least 0 and below 1");
  // Sixteen places of 256 levels: kept levels over all places.
  const int kept = int(std::lround((1 - p) * kPlaces * kLevels));
  if (kept == kPlaces * kLevels)
    return Dropout();
  if (kept < kPlaces)
    return invalidArgument(std::string("dropout probability is ") + value +
                           "; above 255/256 = 0.99609375 a mask of 8 bits cannot keep that few");
  Dropout dropout;
  dropout.scale = float(1 / (1 - p));
  for (int word = 0; word < 4; ++word) {
    dropout.thresholds[size_t(word)] = 0;
    for (int byte = 0; byte < 4; ++byte) {
      const int levels = kept / kPlaces + (orderOf(word, byte) < kept % kPlaces);
      dropout.thresholds[size_t(word)] |= uint32_t(levels - 1) << 8 * byte;
    }
  }
  return dropout;
}

double Dropout::keepProbability() const {
  int kept = 0;
  for (uint32_t word : thresholds)
    for (int byte = 0; byte < 4; ++byte)
      kept += int(word >> 8 * byte & 0xff) + 1;
  return double(kept) / (kPlaces * kLevels);
}

} // namespace flashplus
