// SPDX-License-Identifier: BSD-3-Clause
// PTX texts with one synchronising instruction less.
#pragma once

#include <string>
#include <vector>

namespace flashplus::emu::test {

struct Mutant {
  std::string name; ///< "bar.sync 2": the third one of its kind.
  int line = 0;
  std::string ptx;
};

/// One for every barrier, arrival, wait, fence and commit in `ptx`. A wait loop on an mbarrier becomes one
/// that succeeds at once.
std::vector<Mutant> mutants(const std::string &ptx);

} // namespace flashplus::emu::test
