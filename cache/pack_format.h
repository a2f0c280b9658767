// SPDX-License-Identifier: BSD-3-Clause
// A pack: many cache entries, and tuning records, as one file that is used where it lies. Its head says where
// each entry is and carries a checksum; each entry carries its own. The format is in docs/file-formats.md.
#pragma once

#include "cache/entry.h"
#include "cache/hash.h"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace flashplus {

/// What a pack has at most; a head that says more is none.
inline constexpr uint64_t kMaxPackEntries = uint64_t(1) << 20, kMaxPackTexts = 64, kMaxPackBuild = 256,
                          kMaxPackTargets = 65536;

/// The bytes at the start of a pack whose size is the same for all.
inline constexpr size_t kPackPrefixBytes = 36;

/// One entry, or one text, and where in the file it is.
struct PackRow {
  Hash128 hash; ///< Of an entry its key's, of a text that of its bytes.
  uint64_t offset = 0, bytes = 0;
};

/// All of a pack but what its rows point to.
struct PackHead {
  std::string build;                ///< Of all entries.
  std::vector<std::string> targets; ///< Of the entries: each once, sorted.
  std::vector<PackRow> entries;     ///< By their hashes, ascending; each once.
  std::vector<PackRow> texts;       ///< In the order of their names.

  /// Null if there is none.
  const PackRow *find(const Hash128 &hash) const;
};

/// A head, or why there is none, in the terms of an entry's errors.
struct ParsedPackHead {
  EntryError error = EntryError::None;
  std::string detail; ///< One clause for people.
  PackHead head;
  bool isOk() const { return error == EntryError::None; }
};

/// A record of a pack: the name that its file had, and what is in it.
struct PackText {
  std::string name, text;
  bool operator==(const PackText &) const = default;
};

/// Gives the rows their offsets, in order and without gaps, and the bytes that the file starts with.
std::vector<uint8_t> encodePackHead(PackHead &head);
std::vector<uint8_t> encodePackText(const PackText &text);

/// How many bytes the head has, of a file that starts with `prefix` (kPackPrefixBytes, fewer if the file has
/// fewer) and has `file_bytes`. `detail` is what parsePackHead() would say if there is none.
struct PackHeadSize {
  EntryError error = EntryError::None;
  std::string detail;
  uint64_t bytes = 0;
};
PackHeadSize packHeadSize(std::span<const uint8_t> prefix, uint64_t file_bytes);

/// Reads the head out of the first bytes of a file of `file_bytes`. `bytes` may be anything. What it accepts,
/// encodePackHead() writes again as the same bytes, and its rows fill the file exactly.
ParsedPackHead parsePackHead(std::span<const uint8_t> bytes, uint64_t file_bytes);

/// Nothing if it is no text with a name that a file may have.
std::optional<PackText> parsePackText(std::span<const uint8_t> bytes);

} // namespace flashplus
