// SPDX-License-Identifier: BSD-3-Clause
#include "cache/store_parts.h"

#include <cerrno>
#include <new>

#include <fcntl.h>

namespace flashplus {

KernelStore::LoadedFile KernelStore::load(int folder, const std::string &name, int64_t most_bytes) const {
  LoadedFile file;
  int fd = -1;
  // O_NONBLOCK: opening a FIFO that was put there must not wait for a writer.
  file.error =
      openRetrying(ops_, folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0, fd);
  if (file.error) {
    // What can't even be opened because it is no file: a link, a socket, a folder without rights.
    if (file.error != ENOENT && ops_.lstat(folder, name.c_str(), &file.info) == 0 &&
        !S_ISREG(file.info.st_mode))
      file.damage = S_ISLNK(file.info.st_mode) ? "it is a symbolic link" : "it is not a regular file";
    return file;
  }
  const Descriptor closes(ops_, fd);
  if (ops_.fstat(fd, &file.info) != 0)
    file.error = errno;
  else if (!S_ISREG(file.info.st_mode))
    file.damage = "it is not a regular file";
  else if (file.distrust = distrust(file.info); !file.distrust.empty())
    file.distrust = "it " + file.distrust;
  else if (file.info.st_size > most_bytes)
    file.damage = "it has " + std::to_string(file.info.st_size) + " bytes, at most " +
                  std::to_string(most_bytes) + " are allowed";
  else {
    try {
      const auto size = static_cast<size_t>(file.info.st_size);
      file.error = readUpTo(ops_, fd, size, file.bytes);
      if (!file.error && file.bytes.size() < size)
        file.error = EIO; // Its end came too early: what there is was not all read.
    } catch (const std::bad_alloc &) {
      file.error = ENOMEM;
    }
  }
  return file;
}

/// Gives what has the name of an entry, or of a folder of ours, and is something else another name beside it:
/// a folder may hold what somebody wants to keep. Returns that name; "" if it could not be done.
std::string KernelStore::moveAside(int folder, const std::string &name) const {
  const std::string aside = name + ".aside-" + temporaryName();
  // Nothing is called so, and what is there by chance is replaced at most if it is an empty folder.
  return ops_.rename(folder, name.c_str(), folder, aside.c_str()) == 0 ? aside : "";
}

/// Removes what is no entry, unless another process has put a good one in its place meanwhile. Returns what
/// became of it, as the end of a sentence.
std::string KernelStore::removeSame(int folder, const std::string &name, const LoadedFile &file) const {
  struct stat now = {};
  if (ops_.lstat(folder, name.c_str(), &now) == 0) {
    const bool is_same = now.st_dev == file.info.st_dev && now.st_ino == file.info.st_ino;
    if (is_same && S_ISDIR(now.st_mode)) {
      if (const std::string aside = moveAside(folder, name); !aside.empty())
        return "it is called '" + aside + "' from now on and the kernel compiled again";
    } else if ((is_same || S_ISLNK(now.st_mode)) && ops_.unlink(folder, name.c_str()) == 0) {
      return "it is removed and the kernel compiled again";
    }
  }
  return "the kernel is compiled again";
}

/// A miss that is about a folder.
ReadResult KernelStore::missed(Miss miss, const std::string &what, const OpenFolder &why) {
  ReadResult result;
  if (why.error == ENOENT) {
    ++absent_;
    result.miss = Miss::Absent;
    return result;
  }
  result.miss = why.error ? Miss::Unreadable : miss;
  ++(why.error ? unreadable_ : untrusted_);
  if (what != dir_ || !folder_warned_.exchange(true))
    warn("cache folder '" + what + "' " + why.problem + "; kernels in it are not used");
  return result;
}

ReadResult KernelStore::read(const KernelKey &key) {
  ReadResult result;
  if (!onDisk()) {
    result.miss = Miss::MemoryOnly;
    return result;
  }
  const Hash128 hash = key.hash();
  OpenFolder why;
  const std::shared_ptr<const Root> root = this->root(/*make=*/false, why);
  if (!root)
    return missed(Miss::Untrusted, dir_, why);
  OpenFolder shard = openFolder(ops_, root->fd.get(), shardName(hash), /*make=*/false);
  if (!shard.isOk())
    return missed(Miss::Untrusted, shardPath(dir_, hash), shard);
  const std::string path = entryPath(dir_, hash), name = entryName(hash);
  LoadedFile file = load(shard.fd.get(), name);
  if (file.error == ENOENT) {
    ++absent_;
    result.miss = Miss::Absent;
    return result;
  }
  if (!file.distrust.empty()) {
    ++untrusted_;
    result.miss = Miss::Untrusted;
    warn("cache entry '" + path + "' is not used: " + file.distrust + "; the kernel is compiled instead");
    return result;
  }
  if (file.error && file.damage.empty()) {
    ++unreadable_;
    result.miss = Miss::Unreadable;
    warn("cache entry '" + path + "' cannot be read: " + errnoText(file.error) +
         "; the kernel is compiled instead");
    return result;
  }
  if (file.damage.empty()) {
    try {
      Entry entry = decodeEntry(file.bytes, key);
      if (entry.isOk()) {
        ++hits_;
        noteUse(shard.fd.get(), name, file);
        result.artifact = std::move(entry.artifact);
        result.mark = markOf(file.info);
        return result;
      }
      result.entry_error = entry.error;
      file.damage = entry.detail;
    } catch (const std::bad_alloc &) {
      ++unreadable_;
      result.miss = Miss::Unreadable;
      warn("cache entry '" + path + "' cannot be read: out of memory");
      return result;
    }
  }
  ++damaged_;
  result.miss = Miss::Damaged;
  if (bad_ == Bad::Keep) {
    warn("cache entry '" + path + "' is damaged (" + file.damage + ")");
    return result;
  }
  warn("cache entry '" + path + "' is damaged (" + file.damage + "); " +
       removeSame(shard.fd.get(), name, file));
  return result;
}

void KernelStore::discard(const KernelKey &key, const std::string &why, const std::string &mark) {
  if (!onDisk())
    return;
  const Hash128 hash = key.hash();
  const std::string message = "cache entry '" + entryPath(dir_, hash) + "' is of no use (" + why + ")";
  if (bad_ == Bad::Keep)
    return warn(message);
  ++discarded_;
  if (!mark.empty() && this->mark(key) != mark)
    return warn(message + "; another one has taken its place");
  OpenFolder ignored;
  if (const std::shared_ptr<const Root> root = this->root(/*make=*/false, ignored)) {
    const OpenFolder shard = openFolder(ops_, root->fd.get(), shardName(hash), /*make=*/false);
    if (shard.isOk())
      ops_.unlink(shard.fd.get(), entryName(hash).c_str());
  }
  warn(message + "; it is removed and the kernel compiled again");
}

} // namespace flashplus
