// SPDX-License-Identifier: BSD-3-Clause
// What the runtime and flashplus-compile-helper say to each other over a socket: messages of a header and
// bytes. Both are of one build, which the first message proves, so numbers cross as they lie in memory.
#pragma once

#include "compiler/entry.h"

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace flashplus::helper {

inline constexpr const char *kProgram = "flashplus-compile-helper";
inline constexpr int kSocket = 3;              ///< The helper's end.
inline constexpr uint32_t kMagic = 0x48504c46; // "FLPH"
inline constexpr uint64_t kMostBytes = uint64_t(1) << 30;

enum class Kind : uint32_t {
  // from the helper
  Hello = 1,  ///< First: fields pid, build id, why the compiler library cannot be used ("" if it can), its
              ///< description.
  Result,     ///< ResultHead and bytes.
  LastResult, ///< The same, and the helper ends: it is in no state to go on (out of memory, a fatal error).
  Crash,      ///< int32_t: the signal that it dies of.
  Bye,        ///< It was idle for long and ends.
  // to the helper: fields spec, schedule, target, nvjitlink, ptxas, stage
  Compile,
  Print,
  Describe, ///< Of the fields only the assemblers; the result is the fields of Description.
};

struct Header {
  uint32_t magic = kMagic;
  Kind kind = Kind::Bye;
  uint64_t bytes = 0;
};

struct ResultHead {
  int32_t status = 0; ///< flashplus::StatusCode
  int32_t reserved = 0;
  flashplus_compile_times times{};
};

/// Fields of text, each with its length before it.
inline void put(std::string &to, std::string_view field) {
  const auto size = uint32_t(field.size());
  to.append(reinterpret_cast<const char *>(&size), sizeof size);
  to.append(field);
}

/// False if `bytes` are not exactly so many fields.
inline bool take(std::string_view bytes, std::vector<std::string> &fields, size_t count) {
  fields.clear();
  while (fields.size() < count) {
    uint32_t size = 0;
    if (bytes.size() < sizeof size)
      return false;
    std::memcpy(&size, bytes.data(), sizeof size);
    bytes.remove_prefix(sizeof size);
    if (bytes.size() < size)
      return false;
    fields.emplace_back(bytes.substr(0, size));
    bytes.remove_prefix(size);
  }
  return bytes.empty();
}

inline constexpr size_t kHelloFields = 4, kRequestFields = 6, kDescriptionFields = 5;

} // namespace flashplus::helper
