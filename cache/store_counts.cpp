// SPDX-License-Identifier: BSD-3-Clause
#include "cache/store_parts.h"

#include <cerrno>
#include <new>

#include <sys/file.h>
#include <time.h>

namespace flashplus {
namespace {

constexpr int64_t kMostCountsBytes = 4096;
constexpr int kTries = 10;
constexpr timespec kPause = {0, 2'000'000};

} // namespace

std::optional<UsageCounts> KernelStore::counts() const {
  OpenFolder why;
  const std::shared_ptr<const Root> root = onDisk() ? this->root(/*make=*/false, why) : nullptr;
  if (!root)
    return std::nullopt;
  const LoadedFile file = load(root->fd.get(), kCountsName, kMostCountsBytes);
  return file.isOk()
             ? UsageCounts::parse({reinterpret_cast<const char *>(file.bytes.data()), file.bytes.size()})
             : std::nullopt;
}

bool KernelStore::addCounts(const UsageCounts &more, bool patient) {
  OpenFolder why;
  const std::shared_ptr<const Root> root =
      onDisk() && canWrite() && bad_ == Bad::Remove ? this->root(/*make=*/false, why) : nullptr;
  if (!root)
    return false;
  const OpenFolder folder = openFolder(ops_, root->fd.get(), kTemporaryFolder, /*make=*/true);
  if (!folder.isOk())
    return false;
  // Held by the descriptor of the folder, which is closed in a moment. A file system without locks: a sum of
  // two processes may be lost.
  for (int tries = kTries; ops_.flock(folder.fd.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;) {
    if (--tries == 0 && !patient)
      return false;
    if (tries <= -kTries)
      break;
    ::nanosleep(&kPause, nullptr);
  }
  try {
    const LoadedFile there = load(root->fd.get(), kCountsName, kMostCountsBytes);
    // What can't be read may be good, and what others can write to is left; only what is damaged is not kept.
    if ((there.error && there.error != ENOENT && there.damage.empty()) || !there.distrust.empty())
      return false;
    const std::string_view before(reinterpret_cast<const char *>(there.bytes.data()), there.bytes.size());
    UsageCounts sum = (there.isOk() ? UsageCounts::parse(before) : std::nullopt)
                          .value_or(UsageCounts{.since = ::time(nullptr)});
    sum.add(more);
    const std::string text = sum.text();
    std::string temporary;
    int fd = -1;
    if (openTemporary(folder.fd.get(), temporary, fd))
      return false;
    // Not synced: it is not worth waiting for.
    int error = writeAll(ops_, fd, {reinterpret_cast<const uint8_t *>(text.data()), text.size()});
    if (ops_.close(fd) != 0 && errno != EINTR && !error)
      error = errno;
    if (!error && ops_.rename(folder.fd.get(), temporary.c_str(), root->fd.get(), kCountsName) != 0)
      error = errno;
    if (error)
      ops_.unlink(folder.fd.get(), temporary.c_str());
    return !error;
  } catch (const std::bad_alloc &) {
    return false;
  }
}

} // namespace flashplus
