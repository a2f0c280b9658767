// SPDX-License-Identifier: BSD-3-Clause
// KernelKey: the identity of a compiled kernel. Content only: no path, time, environment, host or device
// ordinal, so that two machines with the same library make the same key for the same kernel.
#pragma once

#include "cache/hash.h"
#include "spec/status.h"

#include <string>
#include <string_view>

namespace flashplus {

/// The fields, in the order of the text. Members, text, parser and tests are all made from this list: a field
/// that is added here cannot be forgotten in the key.
///
///   spec      KernelSpec::text()
///   schedule  Schedule::text()
///   target    Target::text()
///   params    paramLayoutText(): the layout that the host fills
///   build     FLASHPLUS_BUILD_ID: the code generator
///   driver    "" unless the driver itself made the code; then what identifies the driver
#define FLASHPLUS_KEY_FIELDS(X)                                                                              \
  X(spec)                                                                                                    \
  X(schedule)                                                                                                \
  X(target)                                                                                                  \
  X(params)                                                                                                  \
  X(build)                                                                                                   \
  X(driver)

struct KernelKey {
#define FLASHPLUS_KEY_MEMBER(NAME) std::string NAME;
  FLASHPLUS_KEY_FIELDS(FLASHPLUS_KEY_MEMBER)
#undef FLASHPLUS_KEY_MEMBER

  /// The canonical byte string:
  ///   flashplus-key 3
  ///   spec: forward dtype=bf16 ...
  ///   schedule: ...
  /// one line a field; a field that is empty has no line. A backslash or newline inside a value is written
  /// \\ or \n, so that different keys have different text whatever the values are.
  std::string text() const;
  /// Parses exactly what text() prints; InvalidArgument otherwise.
  static Result<KernelKey> parse(std::string_view text);

  /// XXH3-128 of text(). Two keys with one hash do no harm: an entry repeats the text and the reader compares
  /// it.
  Hash128 hash() const { return hashText(text()); }
  /// hash() as 32 hexadecimal digits: the name of the entry.
  std::string hex() const { return hash().hex(); }

  bool operator==(const KernelKey &) const = default;
};

} // namespace flashplus
