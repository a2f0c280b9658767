// SPDX-License-Identifier: BSD-3-Clause
// The file operations of the store, as a table, so that tests can make any one of them fail. Each behaves as
// the system call of its name: -1 and errno on failure. Everything that touches the disk in cache/ goes
// through here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <sys/stat.h>
#include <sys/types.h>

namespace flashplus {

struct FileOps {
  int (*open)(const char *path, int flags, mode_t mode);
  ssize_t (*read)(int fd, void *buffer, size_t size);
  ssize_t (*write)(int fd, const void *buffer, size_t size);
  int (*fsync)(int fd);
  int (*close)(int fd);
  int (*fstat)(int fd, struct stat *out);
  int (*lstat)(const char *path, struct stat *out);
  int (*link)(const char *from, const char *to); ///< Never overwrites `to`.
  int (*rename)(const char *from, const char *to);
  int (*unlink)(const char *path);
  int (*mkdir)(const char *path, mode_t mode);
  int (*list)(const char *dir, std::vector<std::string> &names); ///< Appends all names but "." and "..".
};

const FileOps &systemFileOps();

// Steps made of these operations. They retry what a signal interrupted and return 0 or an errno value.

int openRetrying(const FileOps &ops, const std::string &path, int flags, mode_t mode, int &fd);
int writeAll(const FileOps &ops, int fd, std::span<const uint8_t> bytes);
/// Reads up to `size` bytes into `bytes`, which is shorter afterwards when the file is.
int readUpTo(const FileOps &ops, int fd, size_t size, std::vector<uint8_t> &bytes);
int fsyncRetrying(const FileOps &ops, int fd);

/// The text of an errno value; unlike strerror, safe from many threads.
std::string errnoText(int error);

} // namespace flashplus
