// SPDX-License-Identifier: BSD-3-Clause
#include "cache/directory.h"

#include <algorithm>
#include <atomic>

#include <sys/random.h>
#include <time.h>
#include <unistd.h>

namespace flashplus {
namespace {

constexpr std::string_view kEntrySuffix = ".fpk";
constexpr std::string_view kRefusalSuffix = ".txt";
constexpr std::string_view kTemporarySuffix = ".tmp";

bool isHex(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool isDecimal(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
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

std::string shardName(const Hash128 &hash) { return hash.hex().substr(0, 2); }

std::string entryName(const Hash128 &hash) { return hash.hex() + std::string(kEntrySuffix); }

std::string refusalName(const Hash128 &hash) { return hash.hex() + std::string(kRefusalSuffix); }

std::string temporaryName() {
  const std::string digits = Hash128{randomNumber(), 0}.hex().substr(0, 16);
  return std::to_string(::getpid()) + "-" + digits + std::string(kTemporarySuffix);
}

std::string shardPath(const std::string &dir, const Hash128 &hash) { return dir + "/" + shardName(hash); }

std::string entryPath(const std::string &dir, const Hash128 &hash) {
  return shardPath(dir, hash) + "/" + entryName(hash);
}

bool isShardName(std::string_view name) { return name.size() == 2 && isHex(name); }

bool isEntryName(std::string_view shard, std::string_view name) {
  return name.size() == 32 + kEntrySuffix.size() && name.ends_with(kEntrySuffix) &&
         isHex(name.substr(0, 32)) && name.starts_with(shard);
}

bool isRefusalName(std::string_view name) {
  return name.size() == 32 + kRefusalSuffix.size() && name.ends_with(kRefusalSuffix) &&
         isHex(name.substr(0, 32));
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
