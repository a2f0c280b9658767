// SPDX-License-Identifier: BSD-3-Clause
// A roofline as a picture: speed against operations a byte, under what memory and arithmetic allow.
#pragma once

#include "tools/flashplus/plot.h"

namespace flashplus::tool {

struct RooflinePoint {
  std::string series, says; ///< `says`: shown when one points at it.
  double intensity, flops;  ///< Operations a byte, and a second.
};

/// SVG text; both axes are logarithmic. A roof that is not known is left out. `points`: at least one, all of
/// the one machine that `roofs` are of. `colours` has every series of them.
std::string drawRoofline(const std::vector<RooflinePoint> &points, const Roofs &roofs,
                         const Colours &colours);

} // namespace flashplus::tool
