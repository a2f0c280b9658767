// SPDX-License-Identifier: BSD-3-Clause
// How sure a median over rounds is.
#pragma once

#include <string>
#include <vector>

namespace flashplus::tool {

/// An interval for the median of what was measured that assumes nothing of its distribution: between two of
/// the sorted values, as narrow as 95 % allows. Fewer than 6 values give all they have, with less.
struct MedianInterval {
  double low = 0, median = 0, high = 0;
  double confidence = 0; ///< 0 for one value, 0.9375 for 5, at least 0.95 from 6 on.
  /// Half of its width, as a share of the median.
  double relative() const { return median > 0 ? (high - low) / 2 / median : 0; }
};
MedianInterval medianInterval(std::vector<double> values);

/// "+-1.2 %"; "-" for what was measured once.
std::string knownTo(const MedianInterval &interval);

/// What an interval must have to be called quiet: that of 5 rounds has it.
inline constexpr double kQuietConfidence = 0.9;

/// Of several intervals: a sentence, and whether differences of a few percent mean anything. Those of one
/// value are counted, and nothing else is said of them.
struct NoiseVerdict {
  bool quiet;
  std::string text;
};
NoiseVerdict noiseVerdict(const std::vector<MedianInterval> &intervals);

} // namespace flashplus::tool
