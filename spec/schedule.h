// SPDX-License-Identifier: BSD-3-Clause
// Schedule: *how* a spec is computed on a target. An algorithm id and named integers; which names an
// algorithm has and what they may be is its template's business (templates/<op>/).
#pragma once

#include "spec/status.h"

#include <functional>
#include <map>
#include <string>
#include <string_view>

namespace flashplus {

struct Schedule {
  std::string algorithm; ///< e.g. "cpu.flash", "sm80.flash"
  std::map<std::string, int, std::less<>> knobs;

  /// The knob's value; 0 when it is absent.
  int get(std::string_view name) const;

  /// "sm80.flash tile_m=64 tile_n=64 warps=4", knobs in alphabetical order.
  std::string text() const;
  static Result<Schedule> parse(std::string_view text);

  bool operator==(const Schedule &) const = default;
};

} // namespace flashplus
