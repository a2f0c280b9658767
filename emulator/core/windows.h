// SPDX-License-Identifier: BSD-3-Clause
// Where the spaces lie in the generic address space: above every address of a host process, so that a generic
// address tells its space.
#pragma once

#include "emulator/ptx/ast.h"

namespace flashplus::emu {

inline constexpr uint64_t kWindowShift = 60;

constexpr uint64_t windowOf(Space space) {
  switch (space) {
  case Space::Shared:
  case Space::SharedCluster:
    return uint64_t(1) << kWindowShift;
  case Space::Local:
    return uint64_t(2) << kWindowShift;
  case Space::Param:
    return uint64_t(3) << kWindowShift;
  case Space::Const:
    return uint64_t(4) << kWindowShift;
  default:
    return 0;
  }
}

constexpr Space spaceOfGeneric(uint64_t address) {
  switch (address >> kWindowShift) {
  case 0:
    return Space::Global;
  case 1:
    return Space::Shared;
  case 2:
    return Space::Local;
  case 3:
    return Space::Param;
  case 4:
    return Space::Const;
  default:
    return Space::Generic;
  }
}

// Where the shared memory of a cluster's CTAs lies in .shared::cluster. An address with no rank in it is the
// executing CTA's own, as in .shared::cta; mapa puts one in.
inline constexpr int kRankShift = 24;

constexpr uint64_t clusterAddress(uint64_t own, uint64_t rank) {
  return (own & ((uint64_t(1) << kRankShift) - 1)) | (rank + 1) << kRankShift;
}

} // namespace flashplus::emu
