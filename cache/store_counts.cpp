// SPDX-License-Identifier: BSD-3-Clause
#include "cache/store_parts.h"

#include <cerrno>
#include <new>

#include <fcntl.h>
#include <sys/file.h>
#include <time.h>

namespace flashplus {
namespace {

constexpr int64_t kMostCountsBytes = 4096;
constexpr std::string_view kCountsStart = "flashplus-counts ";
constexpr int kTries = 10;
constexpr timespec kPause = {0, 2'000'000};

} // namespace

std::optional<UsageCounts> KernelStore::counts() const {
  OpenFolder why;
  const std::shared_ptr<const Root> root = onDisk() ? this->root(/*make=*/false, why) : nullptr;
  // Again, if somebody was writing it.
  for (int tries = 0; root && tries < kTries; ++tries) {
    if (tries)
      ::nanosleep(&kPause, nullptr);
    const LoadedFile file = load(root->fd.get(), kCountsName, kMostCountsBytes);
    if (!file.isOk())
      break;
    if (const auto counts =
            UsageCounts::parse({reinterpret_cast<const char *>(file.bytes.data()), file.bytes.size()}))
      return counts;
  }
  return std::nullopt;
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
    return replaceCounts(root->fd.get(), more);
  } catch (const std::bad_alloc &) {
    return false;
  }
}

/// Written over what is there, which has the same length, and not renamed into its place: that would make
/// the file system wait for the disk.
bool KernelStore::replaceCounts(int folder, const UsageCounts &more) const {
  const LoadedFile there = load(folder, kCountsName, kMostCountsBytes);
  // What can't be read may be good, and what others can write to is left; only what is damaged is not kept.
  if ((there.error && there.error != ENOENT && there.damage.empty()) || !there.distrust.empty())
    return false;
  const std::string_view before(reinterpret_cast<const char *>(there.bytes.data()), there.bytes.size());
  if (!there.error && !before.empty() && !before.starts_with(kCountsStart))
    return false; // somebody's own file, of this name
  UsageCounts sum = (there.isOk() ? UsageCounts::parse(before) : std::nullopt)
                        .value_or(UsageCounts{.since = ::time(nullptr)});
  sum.add(more);
  const std::string text = sum.text();
  if (there.error != ENOENT && before.size() != text.size() && ops_.unlink(folder, kCountsName) != 0)
    return false;
  int fd = -1;
  if (openRetrying(ops_, folder, kCountsName,
                   O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600, fd))
    return false;
  struct stat info = {};
  const bool is_ours = ops_.fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && distrust(info).empty();
  const auto write = [&](std::string_view bytes) {
    return writeAll(ops_, fd, {reinterpret_cast<const uint8_t *>(bytes.data()), bytes.size()});
  };
  int error = is_ours ? write(text) : EPERM;
  ops_.close(fd);
  if (!error)
    return true;
  // As it was; what is neither counts as nothing.
  if (is_ours && before.size() == text.size() &&
      openRetrying(ops_, folder, kCountsName, O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0, fd) == 0) {
    (void)write(before);
    ops_.close(fd);
  }
  return false;
}

} // namespace flashplus
