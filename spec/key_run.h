// SPDX-License-Identifier: BSD-3-Clause
// How many keys of a sequence lie side by side in its pages: what planners, who encodes tensor maps and
// kernels that copy several rows at once must agree on.
#pragma once

#include <algorithm>
#include <cstdint>

namespace flashplus {

/// Of keys that are not cut into pages.
inline constexpr int32_t kWholeRun = int32_t(1) << 30;

/// A power of two: keys that are sure to be neighbours in one page where the first one's number is a multiple
/// of it. `room`: slots that a sequence has at most. One page a sequence cuts nothing, whatever its size and
/// wherever the keys begin in it.
constexpr int32_t keyRun(int32_t page_size, int32_t room, bool leftpad) {
  return room <= page_size ? kWholeRun : leftpad ? 1 : page_size & -page_size;
}

/// Rows of the boxes that a tile of `tile_rows` keys is copied in. Kernels work it out again (PageBoxes).
constexpr int32_t boxRows(int32_t tile_rows, int32_t run) {
  return run == kWholeRun ? tile_rows : std::min(run, tile_rows & -tile_rows);
}

} // namespace flashplus
