// SPDX-License-Identifier: BSD-3-Clause
// The folder of the cache: making it, deciding whether to trust it, and the names inside it.
#pragma once

#include "cache/file_ops.h"
#include "cache/hash.h"
#include "spec/status.h"

#include <string>
#include <string_view>

namespace flashplus {

/// Makes `dir` with mode 0700 (missing parents with the default mode) unless it is there, and checks that it
/// is a directory and no symlink, that its owner is this process's effective user, and that neither its group
/// nor the world may write to it: who can write an entry can run code as whoever loads it. IoError that names
/// what is wrong.
Status preparePrivateDirectory(const FileOps &ops, const std::string &dir);

// Layout. Nothing else in the folder is ever listed, read or deleted.
//   DIR/ab/abcdef....fpk        entries: the hash of the key, in a folder named by its first two digits
//   DIR/tmp/PID-RANDOM.tmp      entries being written: process id, 16 hexadecimal digits

std::string shardPath(const std::string &dir, const Hash128 &hash);
std::string entryPath(const std::string &dir, const Hash128 &hash);
std::string temporaryFolder(const std::string &dir);
/// A fresh name in temporaryFolder(); unique by chance, which O_EXCL makes certain.
std::string temporaryPath(const std::string &dir);

bool isShardName(std::string_view name);
bool isEntryName(std::string_view shard, std::string_view name);
bool isTemporaryName(std::string_view name);

} // namespace flashplus
