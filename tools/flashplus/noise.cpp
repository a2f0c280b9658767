// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/noise.h"

#include "tools/flashplus/machine.h"
#include "tools/flashplus/table.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace flashplus::tool {

MedianInterval medianInterval(std::vector<double> values) {
  MedianInterval out;
  if (values.empty())
    return out;
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  // Each value lies below the true median with probability 1/2, so how many do is binomial, B: without the k
  // least and the k greatest, the interval misses the median with probability 2 P(B <= k). In logarithms:
  // 1/2^n alone is 0 in a double from n = 1075 on.
  const auto logFactorial = [](size_t i) { return std::lgamma(static_cast<double>(i) + 1); };
  const auto chance = [&](size_t i) {
    return std::exp(logFactorial(n) - logFactorial(i) - logFactorial(n - i) -
                    static_cast<double>(n) * std::numbers::ln2);
  };
  double lost = chance(0);
  size_t k = 0;
  while (k + 1 <= (n - 1) / 2 && 1 - 2 * (lost + chance(k + 1)) >= 0.95)
    lost += chance(++k);
  out.confidence = n == 1 ? 0 : 1 - 2 * lost;
  out.low = values[k], out.high = values[n - 1 - k];
  out.median = median(values);
  return out;
}

std::string knownTo(const MedianInterval &interval) {
  return interval.confidence > 0 ? "+-" + numberText(100 * interval.relative(), 2) + " %" : "-";
}

NoiseVerdict noiseVerdict(const std::vector<MedianInterval> &intervals) {
  std::vector<double> widths;
  double confidence = 1;
  for (const MedianInterval &one : intervals)
    if (one.confidence > 0) {
      widths.push_back(one.relative());
      confidence = std::min(confidence, one.confidence);
    }
  if (intervals.empty())
    return {false, "No time of a round is known: nothing can be said of the noise."};
  if (widths.empty())
    return {false, "Each time was measured once: nothing can be said of its noise."};
  const size_t once = intervals.size() - widths.size();
  const double typical = 100 * median(widths), worst = 100 * *std::max_element(widths.begin(), widths.end());
  std::string numbers = "The medians are known to " + numberText(typical, 2) + " % typically and " +
                        numberText(worst, 2) + " % at worst (intervals of at least " +
                        numberText(100 * confidence) + " %).";
  if (once)
    numbers += " Of " + std::to_string(once) + " of " + std::to_string(intervals.size()) +
               " times, measured once, nothing can be said.";
  if (typical > 2 || worst > 10)
    return {false, "Noisy. " + numbers + " Differences below " +
                       numberText(2 * std::max(typical, worst / 2), 2) +
                       " % mean nothing; a machine without other work, or more --rounds, helps."};
  if (once || confidence < kQuietConfidence)
    return {false, "Too few rounds. " + numbers + " From 5 rounds of each on, it can be said."};
  return {true, "Quiet. " + numbers};
}

} // namespace flashplus::tool
