// SPDX-License-Identifier: BSD-3-Clause
// Which files and folders may be believed. Code that is read from the cache runs as whoever reads it, so it
// must have been written by someone who could run code as that user anyway: the user or root.
// docs/security.md has the whole of it.
#pragma once

#include "cache/file_ops.h"
#include "spec/status.h"

#include <string>

namespace flashplus {

/// Why what `info` describes may have been written by somebody else, as a clause ("belongs to user 7, ...");
/// empty if only this process's effective user or root can have. A regular file of the user's own must have
/// one name only: where the system lets anyone link any file (fs.protected_hardlinks = 0), a second one may
/// be elsewhere.
std::string distrust(const struct stat &info);

/// A descriptor that is closed when it goes away.
class Descriptor {
public:
  Descriptor() = default;
  Descriptor(const FileOps &ops, int fd) : ops_(&ops), fd_(fd) {}
  Descriptor(Descriptor &&other) noexcept : ops_(other.ops_), fd_(other.fd_) { other.fd_ = -1; }
  Descriptor &operator=(Descriptor &&other) noexcept {
    std::swap(ops_, other.ops_);
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0)
      ops_->close(fd_);
  }
  int get() const { return fd_; }
  int release() {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }

private:
  const FileOps *ops_ = nullptr;
  int fd_ = -1;
};

/// A folder that is held open, or why it is not.
struct OpenFolder {
  Descriptor fd;
  struct stat info = {};
  int error = 0;       ///< An errno value: the system refused.
  std::string problem; ///< A clause; not empty when the folder is not to be used, for whatever reason.

  bool isOk() const { return problem.empty(); }
};

/// The folder `name` in the open folder `dir`; no symbolic link. With `make` it is made with mode 0700 if it
/// is not there.
OpenFolder openFolder(const FileOps &ops, int dir, const std::string &name, bool make);

/// The folder with an absolute path. With `make` it is made with mode 0700, and its parents with the default
/// mode, if they are not there. Its parents may belong to anyone and may be links, but a link must be the
/// user's own or root's: who can write to a parent can then keep us from our folder, but not lead us to
/// another one.
OpenFolder openFolderAt(const FileOps &ops, const std::string &path, bool make);

/// A regular file with an absolute path, held open to be read: as a folder, neither its parents nor the links
/// among them can make us read what others wrote, and it is no link itself. `info` is the file's.
OpenFolder openFileAt(const FileOps &ops, const std::string &path);

} // namespace flashplus
