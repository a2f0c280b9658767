// SPDX-License-Identifier: BSD-3-Clause
#include "cache/store_parts.h"

#include <cerrno>
#include <filesystem>

#include <unistd.h>

namespace flashplus {
namespace {

/// An absolute path without trailing slashes.
std::string cleanPath(const std::string &dir) {
  std::error_code error;
  std::filesystem::path path = std::filesystem::absolute(dir, error);
  std::string text = error ? dir : path.lexically_normal().string();
  while (text.size() > 1 && text.back() == '/')
    text.pop_back();
  return text;
}

/// What can be done about a folder that others can have written to.
std::string wayOut(const std::string &dir, const struct stat &info) {
  // A volume that all or a group may write to (mounted so by Kubernetes) can't be removed, and need not be.
  if (info.st_uid != ::geteuid() || (info.st_mode & S_ISGID))
    return "; name a folder inside it that is not there yet, such as '" + dir +
           "/flashplus', which is made for this user alone; if it should be this folder: what is in it may "
           "be somebody else's, so remove it with everything in it, and it is made again";
  return kEmptyIt;
}

} // namespace

std::unique_ptr<KernelStore> KernelStore::open(const std::string &dir, Log log, const FileOps &ops, Bad bad,
                                               bool read_only) {
  std::unique_ptr<KernelStore> store(
      new KernelStore(dir.empty() ? "" : cleanPath(dir), std::move(log), ops, bad, read_only));
  if (dir.empty()) {
    store->reason_ = "no cache directory was asked for";
    return store;
  }
  OpenFolder why;
  if (!store->root(/*make=*/!read_only, why) && !(read_only && why.error == ENOENT)) {
    store->reason_ = "cache directory '" + store->dir_ + "' " + why.problem;
    store->warn(store->reason_ + (read_only ? "; kernels in it are not used"
                                            : "; compiled kernels are kept in memory only"));
  }
  return store;
}

std::unique_ptr<KernelStore> KernelStore::open(const std::string &dir, Log log, const FileOps &ops, Bad bad) {
  return open(dir, std::move(log), ops, bad, /*read_only=*/false);
}

std::unique_ptr<KernelStore> KernelStore::openReadOnly(const std::string &dir, Log log, const FileOps &ops) {
  return open(dir, std::move(log), ops, Bad::Keep, /*read_only=*/true);
}

bool KernelStore::isThere() const {
  OpenFolder why;
  return onDisk() && root(/*make=*/false, why);
}

std::string KernelStore::identity() const {
  OpenFolder why;
  const std::shared_ptr<const Root> root = onDisk() ? this->root(/*make=*/false, why) : nullptr;
  return root ? std::to_string(root->device) + "-" + std::to_string(root->inode) : "";
}

std::string KernelStore::mark(const KernelKey &key) const {
  OpenFolder why;
  const std::shared_ptr<const Root> root = onDisk() ? this->root(/*make=*/false, why) : nullptr;
  if (!root)
    return "";
  const Hash128 hash = key.hash();
  const OpenFolder shard = openFolder(ops_, root->fd.get(), shardName(hash), /*make=*/false);
  struct stat info = {};
  return shard.isOk() && ops_.lstat(shard.fd.get(), entryName(hash).c_str(), &info) == 0 ? markOf(info) : "";
}

void KernelStore::warn(const std::string &message) const {
  if (log_)
    log_(message);
}

/// The store's folder as it is now. It is opened once and held, so that who can write to its parent cannot
/// put another one there; only when it was deleted, or its descriptor closed by somebody who closes all there
/// are, it is opened again by its path. Null, and `why`, if it is not to be used.
std::shared_ptr<const KernelStore::Root> KernelStore::root(bool make, OpenFolder &why) const {
  std::shared_ptr<const Root> held, old;
  {
    // Not while a disk is asked, which may not answer.
    std::lock_guard lock(root_mutex_);
    held = root_;
  }
  if (held) {
    struct stat info = {};
    const int error = ops_.fstat(held->fd.get(), &info) == 0 ? 0 : errno;
    if (error && error != EBADF) {
      why.error = error;
      why.problem = "cannot be examined: " + errnoText(error);
      return nullptr;
    }
    if (!error && held->is(info) && info.st_nlink > 0) {
      why.problem = distrust(info);
      if (!why.problem.empty())
        why.problem += wayOut(dir_, info);
      return why.problem.empty() ? held : nullptr;
    }
    std::lock_guard lock(root_mutex_);
    if (root_ == held)
      root_.swap(old);
  }
  why = openFolderAt(ops_, dir_, make);
  if (!why.isOk()) {
    if (!why.error && why.fd.get() >= 0)
      why.problem += wayOut(dir_, why.info);
    return nullptr;
  }
  auto opened = std::make_shared<const Root>(std::move(why.fd), why.info);
  std::shared_ptr<const Root> before = opened;
  std::lock_guard lock(root_mutex_);
  root_.swap(before); // another thread may have opened it, too
  return opened;
}

StoreCounters KernelStore::counters() const {
  return {.hits = hits_,
          .absent = absent_,
          .damaged = damaged_,
          .unreadable = unreadable_,
          .untrusted = untrusted_,
          .published = published_,
          .replaced = replaced_,
          .already_there = already_there_,
          .publish_failures = publish_failures_,
          .discarded = discarded_,
          .evicted = evicted_};
}

} // namespace flashplus
