// SPDX-License-Identifier: BSD-3-Clause
// How much of a long test runs. What is repeated to meet a rare event (kills, faults, races, random inputs),
// and lists too long for every run (mutants, emulated cases, kernels to assemble), run as a share in CI and
// whole in `make soak` and `make release-check`, which set FLASHPLUS_SOAK=1. A test that uses this has the
// CTest label `soak` (or `assemble`).
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace flashplus::test {

/// Whether the environment asks for everything.
inline bool soak() {
  const char *value = std::getenv("FLASHPLUS_SOAK");
  return value && *value && std::string_view(value) != "0";
}

/// How often to repeat: `whole` times in a soak, else a twentieth of it, rounded up and `least` at least.
constexpr int soakCount(bool everything, int whole, int least = 1) {
  const int share = (whole + 19) / 20;
  return everything || whole < least ? whole : share < least ? least : share;
}
inline int soakCount(int whole, int least = 1) { return soakCount(soak(), whole, least); }

/// Which part of a list that is run in rotation comes in this run: FLASHPLUS_TEST_TURN, which scripts/test.sh
/// sets by the commit, else 0. The same checkout always runs the same part, and different ones run different
/// parts.
inline uint64_t turn() {
  const char *value = std::getenv("FLASHPLUS_TEST_TURN");
  return value ? std::strtoull(value, nullptr, 10) : 0;
}

/// Whether a text (a kernel, a name) is in the share of one in `shares` that a run without soak takes: always
/// the same. FNV-1a, because the choice must not change with the standard library.
constexpr bool inShare(std::string_view text, uint64_t shares, uint64_t turn = 0) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text)
    hash = (hash ^ uint8_t(c)) * 0x100000001b3;
  hash ^= hash >> 32; // the low bits of FNV depend on the low bits of the text only
  return hash % shares == turn % shares;
}

} // namespace flashplus::test
