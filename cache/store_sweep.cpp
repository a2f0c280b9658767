// SPDX-License-Identifier: BSD-3-Clause
#include "cache/store_parts.h"

#include <algorithm>
#include <cerrno>

#include <time.h>

namespace flashplus {
namespace {

constexpr int64_t kStaleTemporarySeconds = 3600;
constexpr int64_t kUseSeconds = 3600; ///< A use is noted once in so long.
constexpr int64_t kShards = 256;

} // namespace

void KernelStore::noteUse(int shard, const std::string &name, const LoadedFile &file) const {
  // Where it can't be noted (a file of root's, a read-only file system) nothing is evicted either.
  if (bad_ == Bad::Remove && file.info.st_mtime + kUseSeconds < ::time(nullptr))
    (void)ops_.touch(shard, name.c_str());
}

void KernelStore::keepBounded(int shard, const std::string &shard_name, const std::string &published) {
  const int64_t most = most_bytes_ / kShards;
  if (most <= 0)
    return;
  struct Item {
    std::string name;
    int64_t bytes;
    timespec used;
  };
  std::vector<Item> items;
  std::vector<std::string> names;
  int64_t bytes = 0;
  if (ops_.list(shard, names) != 0)
    return;
  for (std::string &name : names) {
    struct stat info = {};
    if (!isEntryName(shard_name, name) || ops_.lstat(shard, name.c_str(), &info) != 0)
      continue;
    bytes += info.st_size;
    if (name != published)
      items.push_back({std::move(name), info.st_size, info.st_mtim});
  }
  std::ranges::sort(items, [](const Item &a, const Item &b) {
    return std::pair(a.used.tv_sec, a.used.tv_nsec) < std::pair(b.used.tv_sec, b.used.tv_nsec);
  });
  for (const Item &item : items) {
    if (bytes <= most)
      return;
    // Who has it open or in memory keeps it.
    if (ops_.unlink(shard, item.name.c_str()) == 0)
      ++evicted_;
    bytes -= item.bytes;
  }
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

Result<StoreUsage> KernelStore::clear() {
  OpenFolder why;
  if (const std::shared_ptr<const Root> root = onDisk() ? this->root(/*make=*/false, why) : nullptr)
    if (const OpenFolder folder = openFolder(ops_, root->fd.get(), kRefusedFolder, /*make=*/false);
        folder.isOk())
      dropRefusals(folder.fd.get(), 0);
  return prune({.used_since = INT64_MAX});
}

Result<StoreUsage> KernelStore::prune(const PruneLimits &limits) {
  StoreUsage removed;
  OpenFolder why;
  const std::shared_ptr<const Root> root = onDisk() ? this->root(/*make=*/false, why) : nullptr;
  if (!root)
    return why.isOk() || why.error == ENOENT
               ? Result<StoreUsage>(removed)
               : Status(StatusCode::IoError, "cache directory '" + dir_ + "' " + why.problem);
  struct Item {
    FileName name;
    int64_t bytes;
    int64_t used;
  };
  std::vector<Item> items;
  std::vector<EntryInfo> unlisted;
  std::string problem;
  for (FileName &name : entryFiles(*root, &unlisted)) {
    const OpenFolder folder = openFolder(ops_, root->fd.get(), name.shard, /*make=*/false);
    struct stat info = {};
    if (folder.isOk() && ops_.lstat(folder.fd.get(), name.file.c_str(), &info) == 0)
      items.push_back({std::move(name), info.st_size, info.st_mtime});
  }
  std::ranges::stable_sort(items, std::greater<>(), &Item::used);
  int64_t left = 0;
  for (const Item &item : items) {
    const OpenFolder folder = openFolder(ops_, root->fd.get(), item.name.shard, /*make=*/false);
    if (!folder.isOk())
      continue;
    bool stays = item.used >= limits.used_since.value_or(INT64_MIN) &&
                 left + item.bytes <= limits.most_bytes.value_or(INT64_MAX);
    if (stays && !limits.build.empty()) {
      const LoadedFile file = load(folder.fd.get(), item.name.file);
      const Entry entry = file.isOk() ? parseEntry(file.bytes) : Entry{.error = EntryError::Truncated};
      stays = !entry.isOk() || entry.key.build == limits.build;
    }
    if (stays) {
      left += item.bytes;
      continue;
    }
    if (ops_.unlink(folder.fd.get(), item.name.file.c_str()) == 0) {
      ++removed.entries;
      removed.bytes += item.bytes;
    } else if (errno != ENOENT && problem.empty()) {
      problem = "'" + dir_ + "/" + item.name.shard + "/" + item.name.file +
                "' cannot be removed: " + errnoText(errno);
    }
  }
  if (int error = sweepTemporaries(*root); error && problem.empty())
    problem = "'" + dir_ + "/" + kTemporaryFolder + "' cannot be emptied: " + errnoText(error);
  if (problem.empty() && !unlisted.empty())
    problem = "'" + unlisted.front().path + "': " + unlisted.front().problem;
  if (!problem.empty())
    return Status(StatusCode::IoError, "cache: " + problem);
  return removed;
}

} // namespace flashplus
