// SPDX-License-Identifier: BSD-3-Clause
#include "cache/directory.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>

#include <sys/random.h>
#include <time.h>
#include <unistd.h>

namespace flashplus {
namespace {

constexpr std::string_view kEntrySuffix = ".fpk";
constexpr std::string_view kTemporarySuffix = ".tmp";

bool isHex(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool isDecimal(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

/// mkdir -p. Returns 0 or an errno value.
int makeDirectories(const FileOps &ops, const std::string &dir, mode_t mode) {
  if (ops.mkdir(dir.c_str(), mode) == 0 || errno == EEXIST)
    return 0;
  if (errno != ENOENT)
    return errno;
  const size_t slash = dir.find_last_of('/');
  if (slash == std::string::npos || slash == 0)
    return ENOENT;
  if (int error = makeDirectories(ops, dir.substr(0, slash), 0777))
    return error;
  return ops.mkdir(dir.c_str(), mode) == 0 || errno == EEXIST ? 0 : errno;
}

uint64_t randomNumber() {
  uint64_t value = 0;
  if (::getrandom(&value, sizeof(value), GRND_NONBLOCK) == sizeof(value))
    return value;
  // Only early in boot or in odd sandboxes. Collisions are caught by O_EXCL, this just makes them rare.
  static std::atomic<uint64_t> counter{0};
  timespec now = {};
  ::clock_gettime(CLOCK_REALTIME, &now);
  const uint64_t parts[] = {static_cast<uint64_t>(now.tv_sec), static_cast<uint64_t>(now.tv_nsec), ++counter};
  return hashBytes({reinterpret_cast<const uint8_t *>(parts), sizeof(parts)}).low;
}

} // namespace

Status preparePrivateDirectory(const FileOps &ops, const std::string &dir) {
  const auto refused = [&](const std::string &why) {
    return Status(StatusCode::IoError, "cache directory '" + dir + "' " + why);
  };
  struct stat info = {};
  if (ops.lstat(dir.c_str(), &info) != 0) {
    if (errno != ENOENT)
      return refused("cannot be examined: " + errnoText(errno));
    if (int error = makeDirectories(ops, dir, 0700))
      return refused("cannot be created: " + errnoText(error));
    if (ops.lstat(dir.c_str(), &info) != 0)
      return refused("cannot be examined: " + errnoText(errno));
  }
  if (S_ISLNK(info.st_mode))
    return refused("is a symbolic link; give the path it stands for");
  if (!S_ISDIR(info.st_mode))
    return refused("is not a directory");
  if (info.st_uid != ::geteuid())
    return refused("belongs to user " + std::to_string(info.st_uid) + ", not to user " +
                   std::to_string(::geteuid()) + " who runs this");
  if (info.st_mode & (S_IWGRP | S_IWOTH)) {
    char mode[8];
    std::snprintf(mode, sizeof(mode), "%04o", static_cast<unsigned>(info.st_mode & 07777));
    return refused("has mode " + std::string(mode) +
                   ": only its owner may be able to write to it (chmod go-w)");
  }
  return Status::ok();
}

std::string shardPath(const std::string &dir, const Hash128 &hash) {
  return dir + "/" + hash.hex().substr(0, 2);
}

std::string entryPath(const std::string &dir, const Hash128 &hash) {
  return shardPath(dir, hash) + "/" + hash.hex() + std::string(kEntrySuffix);
}

std::string temporaryFolder(const std::string &dir) { return dir + "/tmp"; }

std::string temporaryPath(const std::string &dir) {
  const std::string digits = Hash128{randomNumber(), 0}.hex().substr(0, 16);
  return temporaryFolder(dir) + "/" + std::to_string(::getpid()) + "-" + digits +
         std::string(kTemporarySuffix);
}

bool isShardName(std::string_view name) { return name.size() == 2 && isHex(name); }

bool isEntryName(std::string_view shard, std::string_view name) {
  return name.size() == 32 + kEntrySuffix.size() && name.ends_with(kEntrySuffix) &&
         isHex(name.substr(0, 32)) && name.starts_with(shard);
}

bool isTemporaryName(std::string_view name) {
  if (!name.ends_with(kTemporarySuffix))
    return false;
  name.remove_suffix(kTemporarySuffix.size());
  const size_t dash = name.find('-');
  return dash != std::string_view::npos && isDecimal(name.substr(0, dash)) && name.size() - dash - 1 == 16 &&
         isHex(name.substr(dash + 1));
}

} // namespace flashplus
