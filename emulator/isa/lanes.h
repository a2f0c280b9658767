// SPDX-License-Identifier: BSD-3-Clause
// Handlers that do one thing to every lane.
#pragma once

#include "emulator/core/cta.h"

namespace flashplus::emu {

/// R dst = Op(A0 src0, A1 src1, ...). `Op` is a captureless lambda; it is evaluated for inactive lanes too,
/// whose registers may hold anything, so it must be defined for all values.
template <auto Op, class R, class... A> void lanewise(Warp &w, const Instruction &in, uint32_t mask) {
  [&]<size_t... I>(std::index_sequence<I...>) {
    const auto sources = std::make_tuple(w.lanes<A>(in.src(int(I)))...);
    LaneOf<R> out[kLanes];
    for (uint32_t lane = 0; lane < kLanes; ++lane)
      out[lane] = toLane<R>(Op(fromLane<A>(std::get<I>(sources)[lane])...));
    w.store<R>(in.dst(), mask, out);
  }
  (std::index_sequence_for<A...>{});
}

/// Calls `f.template operator()<T>()` with the C++ type of an integer (or bits) type; false if it is none of
/// 16 to 64 bits.
template <class F> bool withInteger(Type type, F f) {
  switch (type) {
  case Type::B16:
  case Type::U16:
    return f.template operator()<uint16_t>(), true;
  case Type::S16:
    return f.template operator()<int16_t>(), true;
  case Type::B32:
  case Type::U32:
    return f.template operator()<uint32_t>(), true;
  case Type::S32:
    return f.template operator()<int32_t>(), true;
  case Type::B64:
  case Type::U64:
    return f.template operator()<uint64_t>(), true;
  case Type::S64:
    return f.template operator()<int64_t>(), true;
  default:
    return false;
  }
}

} // namespace flashplus::emu
