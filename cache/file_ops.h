// SPDX-License-Identifier: BSD-3-Clause
// The file operations of the store, as a table, so that tests can make any one of them fail. Each behaves as
// the system call of its name: -1 and errno on failure. Everything that touches the disk in cache/ goes
// through here. A name is looked up in a folder that is held open by its descriptor, so that nobody can put
// another folder in its place between a check and a use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <sys/stat.h>
#include <sys/types.h>

namespace flashplus {

/// `dir` is the descriptor of an open folder, or AT_FDCWD.
struct FileOps {
  int (*open)(int dir, const char *name, int flags, mode_t mode);
  ssize_t (*read)(int fd, void *buffer, size_t size);
  ssize_t (*pread)(int fd, void *buffer, size_t size, off_t offset);
  ssize_t (*write)(int fd, const void *buffer, size_t size);
  int (*fsync)(int fd);
  int (*close)(int fd);
  int (*fstat)(int fd, struct stat *out);
  int (*lstat)(int dir, const char *name, struct stat *out); ///< Of a symbolic link itself.
  ssize_t (*readlink)(int dir, const char *name, char *out, size_t size);
  int (*link)(int from_dir, const char *from, int to_dir, const char *to); ///< Never overwrites `to`.
  int (*rename)(int from_dir, const char *from, int to_dir, const char *to); ///< Overwrites `to`.
  /// Never overwrites `to`; EINVAL or ENOSYS where the file system or the kernel can't.
  int (*rename_new)(int from_dir, const char *from, int to_dir, const char *to);
  int (*unlink)(int dir, const char *name);
  int (*mkdir)(int dir, const char *name, mode_t mode);
  int (*flock)(int fd, int operation);
  int (*touch)(int dir, const char *name); ///< Sets the time of modification to now.
  int (*list)(int dir, std::vector<std::string> &names); ///< Appends all names but "." and "..".
};

const FileOps &systemFileOps();

// Steps made of these operations. They retry what a signal interrupted and return 0 or an errno value.

int openRetrying(const FileOps &ops, int dir, const std::string &name, int flags, mode_t mode, int &fd);
int writeAll(const FileOps &ops, int fd, std::span<const uint8_t> bytes);
/// Reads up to `size` bytes into `bytes`, which is shorter afterwards when the file is.
int readUpTo(const FileOps &ops, int fd, size_t size, std::vector<uint8_t> &bytes);
/// The same from `offset` on, whatever the position of the descriptor, which threads share.
int readUpToAt(const FileOps &ops, int fd, uint64_t offset, size_t size, std::vector<uint8_t> &bytes);
int fsyncRetrying(const FileOps &ops, int fd);

/// The text of an errno value; unlike strerror, safe from many threads.
std::string errnoText(int error);

} // namespace flashplus
