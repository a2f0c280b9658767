// SPDX-License-Identifier: BSD-3-Clause
#include "cache/trust.h"

#include <cerrno>
#include <climits>
#include <cstdio>

#include <fcntl.h>
#include <unistd.h>

namespace flashplus {
namespace {

constexpr int kMaxLinks = 40; ///< As the kernel's own limit.

bool isTrustedUser(uid_t user) { return user == 0 || user == ::geteuid(); }

std::string ownerText(uid_t user) {
  const std::string me = ::geteuid() == 0 ? "root, who runs this" : "user " + std::to_string(::geteuid()) +
                                                                       ", who runs this, or to root";
  return "belongs to user " + std::to_string(user) + ", not to " + me;
}

OpenFolder failed(int error, const char *what) {
  OpenFolder folder;
  folder.error = error;
  folder.problem = std::string(what) + ": " + errnoText(error);
  return folder;
}

OpenFolder refused(std::string why) {
  OpenFolder folder;
  folder.problem = std::move(why);
  return folder;
}

/// What is in the way where a folder could not be opened: O_NOFOLLOW says ELOOP or ENOTDIR of a link.
bool isLink(const FileOps &ops, int dir, const std::string &name, struct stat &info) {
  return ops.lstat(dir, name.c_str(), &info) == 0 && S_ISLNK(info.st_mode);
}

} // namespace

std::string distrust(const struct stat &info) {
  if (!isTrustedUser(info.st_uid))
    return ownerText(info.st_uid);
  if (info.st_mode & (S_IWGRP | S_IWOTH)) {
    char mode[8];
    std::snprintf(mode, sizeof(mode), "%04o", static_cast<unsigned>(info.st_mode & 07777));
    return "has mode " + std::string(mode) + ": others than its owner can write to it";
  }
  if (S_ISREG(info.st_mode) && info.st_nlink > 1 && info.st_uid == ::geteuid())
    return "has " + std::to_string(info.st_nlink) +
           " names (hard links), so it can have been written elsewhere";
  return {};
}

OpenFolder openFolder(const FileOps &ops, int dir, const std::string &name, bool make) {
  if (make && ops.mkdir(dir, name.c_str(), 0700) != 0 && errno != EEXIST)
    return failed(errno, "cannot be created");
  OpenFolder folder;
  int fd = -1;
  if (int error = openRetrying(ops, dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0, fd)) {
    if (error == ELOOP || error == ENOTDIR)
      if (struct stat info = {}; isLink(ops, dir, name, info))
        return refused("is a symbolic link; give the path it stands for");
    struct stat info = {};
    if (error == EACCES && ops.lstat(dir, name.c_str(), &info) == 0 && info.st_uid == 0 && ::geteuid() != 0) {
      OpenFolder roots = failed(error, "cannot be opened");
      roots.problem += "; it is root's, who can let others read it: chmod -R a+rX";
      return roots;
    }
    return failed(error, error == ENOTDIR ? "is not a directory" : "cannot be opened");
  }
  folder.fd = Descriptor(ops, fd);
  if (ops.fstat(fd, &folder.info) != 0)
    return failed(errno, "cannot be examined");
  folder.problem = distrust(folder.info);
  return folder;
}

namespace {

/// The folder that the last part of a path is in, and that part in `rest`: "" for "/" itself.
OpenFolder openParent(const FileOps &ops, const std::string &path, bool make, std::string &rest) {
  Descriptor at;
  rest = path;
  const auto open = [&](int dir, const std::string &name, int flags) {
    int fd = -1;
    const int error = openRetrying(ops, dir, name, O_DIRECTORY | O_CLOEXEC | flags, 0, fd);
    if (!error)
      at = Descriptor(ops, fd);
    return error;
  };
  for (int links = 0;;) {
    if (rest.starts_with('/') || at.get() < 0)
      if (int error = open(AT_FDCWD, rest.starts_with('/') ? "/" : ".", O_PATH))
        return failed(error, "cannot be opened");
    rest.erase(0, rest.find_first_not_of('/'));
    const size_t slash = rest.find('/');
    if (slash == std::string::npos || rest.find_first_not_of('/', slash) == std::string::npos)
      break;
    const std::string name = rest.substr(0, slash);
    int error = open(at.get(), name, O_PATH | O_NOFOLLOW);
    if (error == ENOENT && make) {
      if (ops.mkdir(at.get(), name.c_str(), 0777) != 0 && errno != EEXIST)
        return failed(errno, "cannot be created");
      error = open(at.get(), name, O_PATH | O_NOFOLLOW);
    }
    rest.erase(0, slash);
    if (!error) {
      rest.erase(0, rest.find_first_not_of('/'));
      continue;
    }
    struct stat info = {};
    if ((error != ELOOP && error != ENOTDIR) || !isLink(ops, at.get(), name, info))
      return failed(error, "cannot be opened");
    if (!isTrustedUser(info.st_uid))
      return refused("is reached through the symbolic link '" + name + "', which " + ownerText(info.st_uid));
    if (++links > kMaxLinks)
      return failed(ELOOP, "cannot be opened");
    char target[PATH_MAX];
    const ssize_t size = ops.readlink(at.get(), name.c_str(), target, sizeof(target));
    if (size < 0)
      return failed(errno, "cannot be opened");
    rest.insert(0, target, static_cast<size_t>(size));
  }
  while (rest.ends_with('/'))
    rest.pop_back();
  OpenFolder parent;
  parent.fd = std::move(at);
  return parent;
}

} // namespace

OpenFolder openFolderAt(const FileOps &ops, const std::string &path, bool make) {
  std::string name;
  OpenFolder parent = openParent(ops, path, make, name);
  if (!parent.isOk())
    return parent;
  return openFolder(ops, parent.fd.get(), name.empty() ? "." : name, make && !name.empty());
}

OpenFolder openFileAt(const FileOps &ops, const std::string &path) {
  std::string name;
  OpenFolder parent = openParent(ops, path, /*make=*/false, name);
  if (!parent.isOk())
    return parent;
  int fd = -1;
  // O_NONBLOCK: opening a FIFO that was put there must not wait for a writer.
  if (int error = openRetrying(ops, parent.fd.get(), name.empty() ? "." : name,
                               O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0, fd))
    return error == ELOOP ? refused("is a symbolic link; give the path it stands for")
                          : failed(error, "cannot be opened");
  OpenFolder file;
  file.fd = Descriptor(ops, fd);
  if (ops.fstat(fd, &file.info) != 0)
    return failed(errno, "cannot be examined");
  file.problem = S_ISREG(file.info.st_mode) ? distrust(file.info) : "is not a regular file";
  return file;
}

} // namespace flashplus
