// SPDX-License-Identifier: BSD-3-Clause
// A cache entry: one kernel as one byte string, which repeats its key and carries a checksum over everything,
// so that a reader accepts exactly what was written for the key it asks for. The format is in
// docs/file-formats.md.
#pragma once

#include "cache/key.h"
#include "spec/artifact.h"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace flashplus {

/// Why bytes are not the entry that was asked for.
enum class EntryError {
  None,
  Truncated,    ///< Shorter than its header says.
  BadMagic,     ///< Not an entry.
  OtherVersion, ///< An entry of another format version.
  BadChecksum,  ///< Damaged.
  OtherKey,     ///< Intact, but of another kernel.
  Malformed,    ///< The checksum holds, yet the contents make no sense.
};

/// Short stable name, e.g. "bad_checksum".
const char *entryErrorName(EntryError error);

/// An entry, or why there is none. `key` and `artifact` mean something only when `error` is None.
struct Entry {
  EntryError error = EntryError::None;
  std::string detail; ///< One clause for people; empty when `error` is None.
  KernelKey key;
  Artifact artifact;

  bool isOk() const { return error == EntryError::None; }
};

/// Equal arguments give equal bytes.
std::vector<uint8_t> encodeEntry(const KernelKey &key, const Artifact &artifact);

/// Reads an entry of whatever key. `bytes` may be anything.
Entry parseEntry(std::span<const uint8_t> bytes);

/// Reads the entry of `expected`: parseEntry(), and OtherKey for an intact entry of another key.
Entry decodeEntry(std::span<const uint8_t> bytes, const KernelKey &expected);

} // namespace flashplus
