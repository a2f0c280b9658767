// SPDX-License-Identifier: BSD-3-Clause
#include "cache/file_ops.h"

#include "cache/held_signal.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <string_view>
#include <system_error>

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

namespace flashplus {
namespace {

int systemOpen(int dir, const char *name, int flags, mode_t mode) { return ::openat(dir, name, flags, mode); }
int systemFstat(int fd, struct stat *out) { return ::fstat(fd, out); }
int systemLstat(int dir, const char *name, struct stat *out) {
  return ::fstatat(dir, name, out, AT_SYMLINK_NOFOLLOW);
}
int systemLink(int from_dir, const char *from, int to_dir, const char *to) {
  return ::linkat(from_dir, from, to_dir, to, 0);
}
int systemRenameNew(int from_dir, const char *from, int to_dir, const char *to) {
  return ::renameat2(from_dir, from, to_dir, to, RENAME_NOREPLACE);
}
int systemTouch(int dir, const char *name) { return ::utimensat(dir, name, nullptr, AT_SYMLINK_NOFOLLOW); }
int systemUnlink(int dir, const char *name) { return ::unlinkat(dir, name, 0); }

int systemList(int dir, std::vector<std::string> &names) {
  // A descriptor of its own: reading moves the position, which duplicates share.
  const int fd = ::openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return -1;
  DIR *stream = ::fdopendir(fd);
  if (!stream) {
    const int error = errno;
    ::close(fd);
    errno = error;
    return -1;
  }
  int error = 0;
  for (;;) {
    errno = 0;
    const dirent *item = ::readdir(stream);
    if (!item) {
      error = errno;
      break;
    }
    const std::string_view name = item->d_name;
    if (name != "." && name != "..")
      names.emplace_back(name);
  }
  ::closedir(stream);
  errno = error;
  return error == 0 ? 0 : -1;
}

} // namespace

const FileOps &systemFileOps() {
  static constexpr FileOps ops = {
      .open = systemOpen,
      .read = ::read,
      .pread = ::pread,
      .write = ::write,
      .fsync = ::fsync,
      .close = ::close,
      .fstat = systemFstat,
      .lstat = systemLstat,
      .readlink = ::readlinkat,
      .link = systemLink,
      .rename = ::renameat,
      .rename_new = systemRenameNew,
      .unlink = systemUnlink,
      .mkdir = ::mkdirat,
      .flock = ::flock,
      .touch = systemTouch,
      .list = systemList,
  };
  return ops;
}

int openRetrying(const FileOps &ops, int dir, const std::string &name, int flags, mode_t mode, int &fd) {
  do
    fd = ops.open(dir, name.c_str(), flags, mode);
  while (fd < 0 && errno == EINTR);
  return fd < 0 ? errno : 0;
}

int writeAll(const FileOps &ops, int fd, std::span<const uint8_t> bytes) {
  const HeldSignal beyond_the_limit(SIGXFSZ); // EFBIG instead
  while (!bytes.empty()) {
    const ssize_t written = ops.write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR)
      continue;
    if (written < 0)
      return errno;
    if (written == 0)
      return EIO; // POSIX forbids it for a regular file; without this line a broken one would hang us.
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return 0;
}

namespace {

template <class Read> int readUpTo(Read read, size_t size, std::vector<uint8_t> &bytes) {
  bytes.resize(size);
  size_t filled = 0;
  int error = 0;
  while (filled < size) {
    const ssize_t count = read(bytes.data() + filled, size - filled, filled);
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      error = errno;
    if (count <= 0)
      break;
    filled += static_cast<size_t>(count);
  }
  bytes.resize(filled);
  return error;
}

} // namespace

int readUpTo(const FileOps &ops, int fd, size_t size, std::vector<uint8_t> &bytes) {
  return readUpTo([&](uint8_t *to, size_t most, size_t) { return ops.read(fd, to, most); }, size, bytes);
}

int readUpToAt(const FileOps &ops, int fd, uint64_t offset, size_t size, std::vector<uint8_t> &bytes) {
  return readUpTo([&](uint8_t *to, size_t most,
                      size_t done) { return ops.pread(fd, to, most, static_cast<off_t>(offset + done)); },
                  size, bytes);
}

int fsyncRetrying(const FileOps &ops, int fd) {
  int result;
  do
    result = ops.fsync(fd);
  while (result < 0 && errno == EINTR);
  return result < 0 ? errno : 0;
}

std::string errnoText(int error) { return std::generic_category().message(error); }

} // namespace flashplus
