// SPDX-License-Identifier: BSD-3-Clause
#include "cache/store_parts.h"

#include <algorithm>
#include <cerrno>
#include <new>

#include <fcntl.h>

namespace flashplus {
namespace {

/// Errors by which a file system says that it has no hard links.
bool meansNoHardLinks(int error) {
  return error == EPERM || error == EACCES || error == EOPNOTSUPP || error == ENOSYS || error == EMLINK ||
         error == EXDEV;
}

/// By which the system says that it cannot rename without overwriting: the file system, an old kernel, a
/// filter of system calls.
bool meansNoRenameNew(int error) {
  return error == EINVAL || error == ENOSYS || error == EPERM || error == EOPNOTSUPP;
}

} // namespace

/// Creates a file that no other process has. Returns 0 or an errno value.
int KernelStore::openTemporary(int folder, std::string &name, int &fd) const {
  int error = 0;
  for (int attempt = 0; attempt < 8; ++attempt) {
    name = temporaryName();
    error = openRetrying(ops_, folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600, fd);
    if (error != EEXIST)
      return error;
  }
  return error;
}

/// Writes and closes. Returns 0 or an errno value.
int KernelStore::writeTemporary(int fd, std::span<const uint8_t> bytes) const {
  int error = writeAll(ops_, fd, bytes);
  if (!error) {
    error = fsyncRetrying(ops_, fd);
    if (error == EINVAL)
      error = 0; // A file system without fsync.
  }
  // A network file system may report only here that it is full.
  if (ops_.close(fd) != 0 && errno != EINTR && !error)
    error = errno;
  return error;
}

/// Whether what has the name of an entry is worth less than the new one.
bool KernelStore::mayReplace(int shard, const std::string &name, const KernelKey &key,
                             const Artifact &artifact) const {
  const LoadedFile file = load(shard, name);
  // gone meanwhile; else it may be good, but PTX it is better than for certain
  if (file.error && file.damage.empty())
    return file.error == ENOENT || artifact.kind != CodeKind::Ptx;
  if (!file.isOk())
    return true;
  try {
    const Entry entry = decodeEntry(file.bytes, key);
    return !entry.isOk() || isBetter(artifact, entry.artifact);
  } catch (const std::bad_alloc &) {
    return false;
  }
}

/// Gives a finished file the name of the entry, unless what has that name is as good. Returns 0 or an errno
/// value.
int KernelStore::place(int from, const std::string &temporary, int shard, const KernelKey &key,
                       const Artifact &artifact, Placed &placed) const {
  const std::string name = entryName(key.hash());
  placed = Placed::New;
  int error = ops_.rename_new(from, temporary.c_str(), shard, name.c_str()) == 0 ? 0 : errno;
  if (!error)
    return 0;
  if (error != EEXIST) {
    if (!meansNoRenameNew(error))
      return error;
    error = ops_.link(from, temporary.c_str(), shard, name.c_str()) == 0 ? 0 : errno;
    if (!error)
      return 0; // the temporary name goes with the caller's cleaning up
    if (error != EEXIST) {
      if (!meansNoHardLinks(error))
        return error;
      // rename() replaces what is there, so look first. Two writers in the gap both rename a whole entry of
      // the same key, and readers see one or the other.
      struct stat info = {};
      if (ops_.lstat(shard, name.c_str(), &info) != 0)
        return ops_.rename(from, temporary.c_str(), shard, name.c_str()) == 0 ? 0 : errno;
    }
  }
  placed = Placed::AlreadyThere;
  if (!mayReplace(shard, name, key, artifact))
    return 0;
  placed = Placed::Replaced;
  const auto rename = [&] {
    return ops_.rename(from, temporary.c_str(), shard, name.c_str()) == 0 ? 0 : errno;
  };
  error = rename();
  struct stat info = {};
  if (error == EISDIR && ops_.lstat(shard, name.c_str(), &info) == 0 && S_ISDIR(info.st_mode) &&
      !moveAside(shard, name).empty())
    error = rename();
  return error;
}

/// A folder of ours in `folder`, which is made if need be; what has its name and is no folder makes room.
OpenFolder KernelStore::openMade(int folder, const std::string &name) const {
  OpenFolder made = openFolder(ops_, folder, name, /*make=*/true);
  struct stat info = {};
  if (made.error == ENOTDIR && ops_.lstat(folder, name.c_str(), &info) == 0 && !S_ISDIR(info.st_mode) &&
      !moveAside(folder, name).empty())
    made = openFolder(ops_, folder, name, /*make=*/true);
  return made;
}

Status KernelStore::publish(const KernelKey &key, const Artifact &artifact) {
  if (!onDisk())
    return Status::ok();
  const Hash128 hash = key.hash();
  const auto failed = [&](StatusCode code, const std::string &why) {
    ++publish_failures_;
    return Status(code, "cache entry '" + entryPath(dir_, hash) + "' cannot be written: " + why);
  };
  const auto unusable = [&](const std::string &path, const OpenFolder &why) {
    if (why.error == EACCES || why.error == EROFS || why.error == EPERM)
      may_only_read_ = true;
    return failed(StatusCode::IoError, "'" + path + "' " + why.problem);
  };
  if (is_read_only_)
    return failed(StatusCode::IoError, "the store is only read");

  std::vector<uint8_t> bytes;
  try {
    bytes = encodeEntry(key, artifact);
  } catch (const std::bad_alloc &) {
    return failed(StatusCode::OutOfMemory, "out of memory");
  }
  if (static_cast<int64_t>(bytes.size()) > kMaxEntryBytes)
    return failed(StatusCode::IoError, "it has " + std::to_string(bytes.size()) + " bytes, at most " +
                                           std::to_string(kMaxEntryBytes) + " are allowed");

  OpenFolder why;
  const std::shared_ptr<const Root> root = this->root(/*make=*/true, why);
  if (!root)
    return unusable(dir_, why);
  const OpenFolder folder = openMade(root->fd.get(), kTemporaryFolder);
  if (!folder.isOk())
    return unusable(dir_ + "/" + kTemporaryFolder, folder);
  std::string temporary;
  int fd = -1;
  if (int error = openTemporary(folder.fd.get(), temporary, fd)) {
    if (error == EACCES || error == EROFS || error == EPERM)
      may_only_read_ = true;
    return failed(StatusCode::IoError, errnoText(error));
  }
  int error = writeTemporary(fd, bytes);
  OpenFolder shard;
  Placed placed = Placed::New;
  if (!error) {
    shard = openMade(root->fd.get(), shardName(hash));
    if (shard.isOk())
      error = place(folder.fd.get(), temporary, shard.fd.get(), key, artifact, placed);
  }
  // After a rename it is gone already; that, like any failure to clean up, does not matter.
  ops_.unlink(folder.fd.get(), temporary.c_str());
  if (!shard.isOk())
    return unusable(shardPath(dir_, hash), shard);
  if (error)
    return failed(StatusCode::IoError, errnoText(error));
  if (placed == Placed::AlreadyThere) {
    ++already_there_;
  } else {
    ++(placed == Placed::New ? published_ : replaced_);
    // Makes the name durable. Best effort: without it a crash of the machine costs a compilation.
    (void)fsyncRetrying(ops_, shard.fd.get());
    keepBounded(*root, shard.fd.get(), {shardName(hash), entryName(hash)}, int64_t(bytes.size()));
  }
  if (!swept_.exchange(true)) {
    (void)sweepTemporaries(*root);
  }
  return Status::ok();
}

Result<KernelStore::TextPlaced> KernelStore::addText(const std::string &folder, const std::string &name,
                                                     std::string_view text) {
  const std::string path = dir_ + "/" + folder + "/" + name;
  const auto failed = [&](const std::string &why) {
    return Status(StatusCode::IoError, "'" + path + "' cannot be written: " + why);
  };
  if (is_read_only_)
    return failed("the store is only read");
  OpenFolder why;
  const std::shared_ptr<const Root> root = onDisk() ? this->root(/*make=*/true, why) : nullptr;
  if (!root)
    return failed(onDisk() ? why.problem : reason_);
  const OpenFolder to = openFolder(ops_, root->fd.get(), folder, /*make=*/true);
  const OpenFolder from = openFolder(ops_, root->fd.get(), kTemporaryFolder, /*make=*/true);
  for (const OpenFolder *opened : {&to, &from})
    if (!opened->isOk())
      return failed("its folder, or '" + std::string(kTemporaryFolder) + "', " + opened->problem);
  const std::span bytes(reinterpret_cast<const uint8_t *>(text.data()), text.size());
  const auto compare = [&]() -> Result<TextPlaced> {
    const LoadedFile there = load(to.fd.get(), name);
    return there.isOk() && std::ranges::equal(there.bytes, bytes) ? TextPlaced::SameThere
                                                                  : TextPlaced::OtherThere;
  };
  struct stat info = {};
  if (ops_.lstat(to.fd.get(), name.c_str(), &info) == 0)
    return compare();
  std::string temporary;
  int fd = -1;
  int error = openTemporary(from.fd.get(), temporary, fd);
  if (error)
    return failed(errnoText(error));
  error = writeTemporary(fd, bytes);
  if (!error && ops_.rename_new(from.fd.get(), temporary.c_str(), to.fd.get(), name.c_str()) != 0) {
    error = errno;
    // Records are added by people, one at a time: where the system has no such rename, looking will do.
    if (meansNoRenameNew(error))
      error = ops_.rename(from.fd.get(), temporary.c_str(), to.fd.get(), name.c_str()) == 0 ? 0 : errno;
  }
  if (error)
    ops_.unlink(from.fd.get(), temporary.c_str());
  if (error == EEXIST)
    return compare();
  return error ? Result<TextPlaced>(failed(errnoText(error))) : TextPlaced::New;
}

} // namespace flashplus
