// SPDX-License-Identifier: BSD-3-Clause
#include "cache/key_lock.h"

#include "cache/trust.h"

#include <algorithm>
#include <cerrno>
#include <thread>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

namespace flashplus {
namespace {

constexpr int kOpenFlags = O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;

/// Who has the lock, as it wrote itself; "" if that can't be read.
std::string holderOf(const FileOps &ops, int fd) {
  std::vector<uint8_t> bytes;
  if (readUpTo(ops, fd, 20, bytes) != 0 || !std::ranges::all_of(bytes, [](uint8_t c) { return isdigit(c); }))
    return {};
  return {bytes.begin(), bytes.end()};
}

} // namespace

KeyLock::KeyLock(const FileOps &ops, int folder, std::string name, int fd, bool waited)
    : ops_(&ops), folder_(folder), name_(std::move(name)), fd_(fd), waited_(waited) {
  enlist();
}

KeyLock::~KeyLock() {
  leave();
  if (fd_ >= 0) {
    // Before it is free: who waits for a name that is gone looks again (KeyLocks::take).
    ops_->unlink(folder_, name_.c_str());
    ops_->close(fd_);
  }
  ops_->close(folder_);
}

void KeyLock::inChild(bool) {
  // The lock is the parent's: it ends when the parent says so, which needs that nobody else has it open.
  if (fd_ >= 0)
    ops_->close(fd_);
  fd_ = -1;
}

std::unique_ptr<KeyLock> KeyLocks::take(const std::string &name, const std::string &what) const {
  if (folder_.empty())
    return nullptr;
  OpenFolder folder = openFolderAt(ops_, folder_, /*make=*/true);
  if (!folder.isOk())
    return nullptr;
  const auto start = std::chrono::steady_clock::now();
  bool told = false, waited_for = false;
  for (auto pause = std::chrono::milliseconds(1);;
       pause = std::min(2 * pause, std::chrono::milliseconds(16))) {
    int fd = -1;
    if (openRetrying(ops_, folder.fd.get(), name, kOpenFlags | O_CREAT, 0600, fd))
      return nullptr;
    Descriptor lock(ops_, fd);
    struct stat here = {}, there = {};
    if (ops_.fstat(fd, &here) != 0 || !S_ISREG(here.st_mode) || !distrust(here).empty())
      return nullptr;
    if (ops_.flock(fd, LOCK_EX | LOCK_NB) == 0) {
      if (ops_.lstat(folder.fd.get(), name.c_str(), &there) != 0 || there.st_ino != here.st_ino ||
          there.st_dev != here.st_dev)
        continue; // it was let go of, and the name is another file by now
      const std::string me = std::to_string(::getpid());
      (void)writeAll(ops_, fd, {reinterpret_cast<const uint8_t *>(me.data()), me.size()});
      lock.release();
      return std::make_unique<KeyLock>(ops_, folder.fd.release(), name, fd, waited_for);
    }
    if (errno != EWOULDBLOCK && errno != EINTR)
      return nullptr;
    waited_for = true;
    const auto waited = std::chrono::steady_clock::now() - start;
    if (waited >= patience_.most || (waited >= patience_.until_told && !told)) {
      told = true;
      const std::string holder = holderOf(ops_, fd);
      log_("waiting for " + (holder.empty() ? "another process" : "process " + holder) + " to make " + what +
           (waited >= patience_.most
                ? ", for too long: it is made here as well"
                : "; after " + std::to_string(patience_.most.count() / 1000) + " s it is made here"));
      if (waited >= patience_.most)
        return nullptr;
    }
    std::this_thread::sleep_for(pause);
  }
}

bool KeyLocks::isTaken(const std::string &name) const {
  if (folder_.empty())
    return false;
  const OpenFolder folder = openFolderAt(ops_, folder_, /*make=*/false);
  int fd = -1;
  if (!folder.isOk() || openRetrying(ops_, folder.fd.get(), name, kOpenFlags, 0, fd))
    return false;
  const Descriptor lock(ops_, fd);
  return ops_.flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

} // namespace flashplus
