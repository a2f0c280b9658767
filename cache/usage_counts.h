// SPDX-License-Identifier: BSD-3-Clause
// What processes did with a cache, summed over all of them: the file "counts" in its folder. It is for
// people: it may lack what a process that was killed did last, or what two did at once where there are no
// locks, and it starts again from nothing if it is damaged.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace flashplus {

/// Members, text and parser are made from these lists. What contexts do, by the names of flashplus_counters
/// (times in microseconds); and how many there were that looked for a kernel on disk.
#define FLASHPLUS_WORK_COUNTS(X)                                                                             \
  X(memory_hits)                                                                                             \
  X(disk_hits)                                                                                               \
  X(compiles)                                                                                                \
  X(compile_us)                                                                                              \
  X(compile_failures)                                                                                        \
  X(miss_absent)                                                                                             \
  X(miss_damaged)                                                                                            \
  X(miss_unreadable)                                                                                         \
  X(miss_refused)                                                                                            \
  X(publish_failures)                                                                                        \
  X(late_compiles)
#define FLASHPLUS_USAGE_COUNTS(X) X(contexts) FLASHPLUS_WORK_COUNTS(X)

inline constexpr const char *kCountsName = "counts";

struct UsageCounts {
#define FLASHPLUS_COUNT(NAME) int64_t NAME = 0;
  FLASHPLUS_USAGE_COUNTS(FLASHPLUS_COUNT)
#undef FLASHPLUS_COUNT
  int64_t since = 0; ///< When counting began, in seconds since 1970; not a sum.

  /// Saturates: a count is never negative.
  void add(const UsageCounts &other);
  UsageCounts minus(const UsageCounts &other) const;
  bool isNothing() const;

  /// Of the same length, whatever the values.
  std::string text() const;
  /// Nothing if it is not exactly what text() prints.
  static std::optional<UsageCounts> parse(std::string_view text);

  bool operator==(const UsageCounts &) const = default;
};

} // namespace flashplus
