// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/noise.h"

#include "tools/flashplus/machine.h"
#include "tools/flashplus/table.h"

#include <algorithm>
#include <cmath>

namespace flashplus::tool {

MedianInterval medianInterval(std::vector<double> values) {
  MedianInterval out;
  if (values.empty())
    return out;
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  // Each value lies below the true median with probability 1/2, so how many do is binomial, B: without the k
  // least and the k greatest, the interval misses the median with probability 2 P(B <= k).
  double chance = std::pow(0.5, static_cast<double>(n)), lost = chance;
  size_t k = 0;
  out.confidence = 1 - 2 * lost;
  while (k + 1 <= (n - 1) / 2) {
    chance *= static_cast<double>(n - k) / static_cast<double>(k + 1);
    if (1 - 2 * (lost + chance) < 0.95)
      break;
    lost += chance;
    ++k;
    out.confidence = 1 - 2 * lost;
  }
  out.low = values[k], out.high = values[n - 1 - k];
  out.median = median(values);
  return out;
}

NoiseVerdict noiseVerdict(const std::vector<MedianInterval> &intervals) {
  std::vector<double> widths;
  double confidence = 1;
  for (const MedianInterval &one : intervals) {
    widths.push_back(one.relative());
    confidence = std::min(confidence, one.confidence);
  }
  if (widths.empty() || confidence <= 0)
    return {false, "Each time was measured once: nothing can be said of its noise."};
  const double typical = 100 * median(widths), worst = 100 * *std::max_element(widths.begin(), widths.end());
  const std::string numbers = "The medians are known to " + numberText(typical, 2) + " % typically and " +
                              numberText(worst, 2) + " % at worst (intervals of at least " +
                              numberText(100 * confidence) + " %).";
  if (typical <= 2 && worst <= 10)
    return {true, "Quiet. " + numbers};
  return {false, "Noisy. " + numbers + " Differences below " +
                     numberText(2 * std::max(typical, worst / 2), 2) +
                     " % mean nothing; a machine without other work, or more --rounds, helps."};
}

} // namespace flashplus::tool
