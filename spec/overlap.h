// SPDX-License-Identifier: BSD-3-Clause
// How compiled code tells a launcher that it may be launched while the kernel before it in the stream still
// runs.
#pragma once

namespace flashplus {

/// A variable of the module, in global memory: there is one, so every block of the kernel waits for the
/// grid before it, ahead of all that depends on it (ir/grid.h). In the code and not beside it, so that the
/// two cannot disagree. (In constant memory the launch was not early: one key head of 1k keys took 0.6 us
/// more.)
inline constexpr const char *kOverlapSymbol = "flashplus_overlaps";

} // namespace flashplus
