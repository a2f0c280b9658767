// SPDX-License-Identifier: BSD-3-Clause
// The layout of the cache's folder: the names inside it.
#pragma once

#include "cache/hash.h"

#include <string>
#include <string_view>

namespace flashplus {

// Nothing else in the folder is ever listed, read or deleted.
//   DIR/ab/abcdef....fpk        entries: the hash of the key, in a folder named by its first two digits
//   DIR/tmp/PID-RANDOM.tmp      entries being written: process id, 16 hexadecimal digits
//   DIR/refused/abcdef....txt   why a kernel cannot be compiled: the hash of the key
//   DIR/tuning/*.json           tuning records, read by the runtime
//   DIR/counts                  what processes did (cache/usage_counts.h)

inline constexpr const char *kTemporaryFolder = "tmp";
inline constexpr const char *kRefusedFolder = "refused";

std::string shardName(const Hash128 &hash);
std::string entryName(const Hash128 &hash);
std::string refusalName(const Hash128 &hash);
/// A fresh name in kTemporaryFolder; unique by chance, which O_EXCL makes certain.
std::string temporaryName();

/// The same as paths.
std::string shardPath(const std::string &dir, const Hash128 &hash);
std::string entryPath(const std::string &dir, const Hash128 &hash);

bool isShardName(std::string_view name);
bool isEntryName(std::string_view shard, std::string_view name);
bool isRefusalName(std::string_view name);
bool isTemporaryName(std::string_view name);

} // namespace flashplus
