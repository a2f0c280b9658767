// SPDX-License-Identifier: BSD-3-Clause
#include "cache/store_parts.h"

#include <algorithm>
#include <cerrno>
#include <functional>

#include <time.h>
#include <unistd.h>

namespace flashplus {
namespace {

constexpr int64_t kStaleTemporarySeconds = 3600;
constexpr int64_t kUseSeconds = 3600; ///< A use is noted once in so long.
constexpr int64_t kShards = 256;

/// Of what is kept in a file; nothing if it is damaged.
std::optional<std::string> buildOf(std::span<const uint8_t> bytes, bool is_refusal) {
  if (is_refusal) {
    const auto info = parseRefusal({reinterpret_cast<const char *>(bytes.data()), bytes.size()});
    return info ? std::optional(info->key.build) : std::nullopt;
  }
  Entry entry = parseEntry(bytes);
  return entry.isOk() ? std::optional(std::move(entry.key.build)) : std::nullopt;
}

} // namespace

void KernelStore::setMostBytes(int64_t bytes, std::string name) {
  most_bytes_ = bytes;
  most_bytes_name_ = std::move(name);
  unlooked_ = kNeverLooked;
}

void KernelStore::noteUse(int shard, const std::string &name, LoadedFile &file) const {
  // A file of root's and a read-only file system refuse it.
  if (notes_use_ && file.info.st_mtime + kUseSeconds < ::time(nullptr) &&
      ops_.touch(shard, name.c_str()) == 0)
    (void)ops_.lstat(shard, name.c_str(), &file.info);
}

/// What the entries of a folder have that are this user's.
int64_t KernelStore::ownBytes(int shard, const std::string &shard_name) const {
  std::vector<std::string> names;
  int64_t bytes = 0;
  if (ops_.list(shard, names) != 0)
    return 0;
  for (const std::string &name : names) {
    struct stat info = {};
    if (isEntryName(shard_name, name) && ops_.lstat(shard, name.c_str(), &info) == 0 &&
        info.st_uid == ::geteuid())
      bytes += info.st_size;
  }
  return bytes;
}

void KernelStore::keepBounded(const Root &root, int shard, const FileName &published, int64_t bytes) {
  const int64_t most = most_bytes_;
  if (most <= 0)
    return;
  // Names are hashes: a store that is full has about its share in each folder, and one folder is quickly
  // looked through.
  const int64_t share = most / kShards;
  if ((unlooked_ += bytes) < share || ownBytes(shard, published.shard) < share / 2)
    return;
  unlooked_ = 0;
  std::vector<FileUse> files = entryUses(root, nullptr);
  // Of another user's (root's, in a folder of this one's) no use can be noted, and no process of this user
  // can write it again.
  std::erase_if(files, [](const FileUse &file) { return file.owner != ::geteuid(); });
  int64_t left = 0, evicted = 0;
  for (const FileUse &file : files)
    left += file.bytes;
  if (left <= most)
    return;
  std::erase_if(files, [&](const FileUse &file) { return file.name.file == published.file; });
  std::ranges::sort(files, {}, &FileUse::order);
  for (const FileUse &file : files) {
    if (left <= most)
      break;
    const OpenFolder folder = openFolder(ops_, root.fd.get(), file.name.shard, /*make=*/false);
    // Who has it open or in memory keeps it.
    const bool removed = folder.isOk() && ops_.unlink(folder.fd.get(), file.name.file.c_str()) == 0;
    if (removed || (folder.isOk() && errno == ENOENT)) // by another process that finds the store too large
      left -= file.bytes;
    evicted += removed;
  }
  evicted_ += evicted;
  if (evicted && !eviction_told_.exchange(true))
    warn("the cache '" + dir_ + "' had more than " + std::to_string(most) + " bytes" +
         (most_bytes_name_.empty() ? "" : " (" + most_bytes_name_ + ")") +
         ", so kernels that were not used for longest were removed, " + std::to_string(evicted) +
         " this time; further ones are counted only");
}

/// Removes what writers that died left. Returns the errno value of the first that could not be removed.
int KernelStore::sweepTemporaries(const Root &root) const {
  const OpenFolder folder = openFolder(ops_, root.fd.get(), kTemporaryFolder, /*make=*/false);
  std::vector<std::string> names;
  int error = 0;
  if (folder.isOk())
    ops_.list(folder.fd.get(), names);
  for (const std::string &name : names) {
    struct stat info = {};
    if (!isTemporaryName(name) || ops_.lstat(folder.fd.get(), name.c_str(), &info) != 0 ||
        info.st_mtime > ::time(nullptr) - kStaleTemporarySeconds)
      continue;
    if (ops_.unlink(folder.fd.get(), name.c_str()) != 0 && errno != ENOENT && !error)
      error = errno;
  }
  return error;
}

Result<StoreUsage> KernelStore::clear() { return prune({.used_since = INT64_MAX}); }

Result<StoreUsage> KernelStore::prune(const PruneLimits &limits) {
  StoreUsage removed;
  if (is_read_only_)
    return Status(StatusCode::IoError, "cache directory '" + dir_ + "' is only read");
  OpenFolder why;
  const std::shared_ptr<const Root> root = onDisk() ? this->root(/*make=*/false, why) : nullptr;
  if (!root)
    return why.isOk() || why.error == ENOENT
               ? Result<StoreUsage>(removed)
               : Status(StatusCode::IoError, "cache directory '" + dir_ + "' " + why.problem);
  std::vector<EntryInfo> unlisted;
  std::string problem;
  std::vector<FileUse> items = entryUses(*root, &unlisted);
  std::ranges::move(usesOf(*root, refusalFiles(*root, &unlisted)), std::back_inserter(items));
  std::ranges::sort(items, std::greater<>(), &FileUse::order);
  int64_t left = 0;
  for (const FileUse &item : items) {
    const OpenFolder folder = openFolder(ops_, root->fd.get(), item.name.shard, /*make=*/false);
    if (!folder.isOk())
      continue;
    const bool is_refusal = item.name.shard == kRefusedFolder;
    bool stays = item.used.tv_sec >= limits.used_since.value_or(INT64_MIN) &&
                 left + item.bytes <= limits.most_bytes.value_or(INT64_MAX);
    if (stays && !limits.build.empty()) {
      const LoadedFile file = load(folder.fd.get(), item.name.file);
      const std::optional<std::string> build = file.isOk() ? buildOf(file.bytes, is_refusal) : std::nullopt;
      stays = !build || *build == limits.build;
    }
    if (stays) {
      left += item.bytes;
      continue;
    }
    if (limits.only_count || ops_.unlink(folder.fd.get(), item.name.file.c_str()) == 0) {
      ++(is_refusal ? removed.refusals : removed.entries);
      removed.bytes += is_refusal ? 0 : item.bytes;
    } else if (errno != ENOENT && problem.empty()) {
      problem = "'" + dir_ + "/" + item.name.shard + "/" + item.name.file +
                "' cannot be removed: " + errnoText(errno);
    }
  }
  if (int error = limits.only_count ? 0 : sweepTemporaries(*root); error && problem.empty())
    problem = "'" + dir_ + "/" + kTemporaryFolder + "' cannot be emptied: " + errnoText(error);
  if (problem.empty() && !unlisted.empty())
    problem = "'" + unlisted.front().path + "': " + unlisted.front().problem;
  if (!problem.empty())
    return Status(StatusCode::IoError, "cache: " + problem);
  return removed;
}

} // namespace flashplus
