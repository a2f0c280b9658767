// SPDX-License-Identifier: BSD-3-Clause
#include "cache/store.h"

#include "cache/directory.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <new>

#include <fcntl.h>
#include <time.h>

namespace flashplus {
namespace {

constexpr int64_t kStaleTemporarySeconds = 3600;

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

/// Said of a folder that others can have written to. Taking the right away does not take away what they
/// wrote.
constexpr const char *kEmptyIt =
    "; what is in it may be somebody else's, so remove it with everything in it, and it is made again";

/// An absolute path without trailing slashes.
std::string cleanPath(const std::string &dir) {
  std::error_code error;
  std::filesystem::path path = std::filesystem::absolute(dir, error);
  std::string text = error ? dir : path.lexically_normal().string();
  while (text.size() > 1 && text.back() == '/')
    text.pop_back();
  return text;
}

} // namespace

/// A file as it was read: its bytes, or why not.
struct KernelStore::LoadedFile {
  int error = 0;         ///< An errno value: the system refused.
  std::string damage;    ///< Not empty: whatever the system says, this cannot be an entry.
  std::string distrust;  ///< Not empty: somebody else can have written it; it was not read.
  struct stat info = {}; ///< Of the file, when it could be opened.
  std::vector<uint8_t> bytes;

  bool isOk() const { return !error && damage.empty() && distrust.empty(); }
};

/// The store's folder, held open.
struct KernelStore::Root {
  Root(Descriptor descriptor, const struct stat &info)
      : fd(std::move(descriptor)), device(info.st_dev), inode(info.st_ino) {}

  ~Root() { // a process that closes all its descriptors has given the number to somebody else
    struct stat info = {};
    if (fd.get() >= 0 && (::fstat(fd.get(), &info) != 0 || !is(info)))
      fd.release();
  }

  bool is(const struct stat &info) const { return info.st_dev == device && info.st_ino == inode; }

  mutable Descriptor fd;
  dev_t device;
  ino_t inode;
};

struct KernelStore::FileName {
  std::string shard;
  std::string file;
  std::string name() const { return file.substr(0, 32); }
};

std::unique_ptr<KernelStore> KernelStore::open(const std::string &dir, Log log, const FileOps &ops, Bad bad) {
  std::unique_ptr<KernelStore> store(
      new KernelStore(dir.empty() ? "" : cleanPath(dir), std::move(log), ops, bad));
  if (dir.empty()) {
    store->reason_ = "no cache directory was asked for";
    return store;
  }
  OpenFolder why;
  if (!store->root(/*make=*/true, why)) {
    store->reason_ = "cache directory '" + store->dir_ + "' " + why.problem;
    store->warn(store->reason_ + "; compiled kernels are kept in memory only");
  }
  return store;
}

void KernelStore::warn(const std::string &message) const {
  if (log_)
    log_(message);
}

/// The store's folder as it is now. It is opened once and held, so that who can write to its parent cannot
/// put another one there; only when it was deleted, or its descriptor closed by somebody who closes all there
/// are, it is opened again by its path. Null, and `why`, if it is not to be used.
std::shared_ptr<const KernelStore::Root> KernelStore::root(bool make, OpenFolder &why) const {
  std::lock_guard lock(root_mutex_);
  struct stat info = {};
  if (root_) {
    const int error = ops_.fstat(root_->fd.get(), &info) == 0 ? 0 : errno;
    const bool is_ours = !error && root_->is(info);
    if (error && error != EBADF) {
      why.error = error;
      why.problem = "cannot be examined: " + errnoText(error);
      return nullptr;
    }
    if (is_ours && info.st_nlink > 0) {
      why.problem = distrust(info);
      if (!why.problem.empty())
        why.problem += kEmptyIt;
      return why.problem.empty() ? root_ : nullptr;
    }
    if (!is_ours)
      root_->fd.release(); // somebody else's number by now
    root_.reset();
  }
  why = openFolderAt(ops_, dir_, make);
  if (!why.isOk()) {
    if (!why.error && why.fd.get() >= 0)
      why.problem += kEmptyIt;
    return nullptr;
  }
  root_ = std::make_shared<const Root>(std::move(why.fd), why.info);
  return root_;
}

// -------------------------------------------------------------------------------------------------------
// reading

KernelStore::LoadedFile KernelStore::load(int folder, const std::string &name, int64_t most_bytes) const {
  LoadedFile file;
  int fd = -1;
  // O_NONBLOCK: opening a FIFO that was put there must not wait for a writer.
  file.error =
      openRetrying(ops_, folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0, fd);
  if (file.error) {
    if (file.error == ELOOP)
      file.damage = "it is a symbolic link";
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

/// Removes a file that is no entry, unless another process has put a good one in its place meanwhile.
bool KernelStore::removeSame(int folder, const std::string &name, const LoadedFile &file) const {
  struct stat now = {};
  if (ops_.lstat(folder, name.c_str(), &now) != 0)
    return false;
  const bool is_same = now.st_dev == file.info.st_dev && now.st_ino == file.info.st_ino;
  return (is_same || S_ISLNK(now.st_mode)) && ops_.unlink(folder, name.c_str()) == 0;
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
        result.artifact = std::move(entry.artifact);
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
  const bool removed = removeSame(shard.fd.get(), name, file);
  warn("cache entry '" + path + "' is damaged (" + file.damage + "); " +
       (removed ? "it is removed and the kernel compiled again" : "the kernel is compiled again"));
  return result;
}

void KernelStore::discard(const KernelKey &key, const std::string &why) {
  if (!onDisk())
    return;
  const Hash128 hash = key.hash();
  const std::string message = "cache entry '" + entryPath(dir_, hash) + "' is of no use (" + why + ")";
  if (bad_ == Bad::Keep)
    return warn(message);
  ++discarded_;
  OpenFolder ignored;
  if (const std::shared_ptr<const Root> root = this->root(/*make=*/false, ignored)) {
    const OpenFolder shard = openFolder(ops_, root->fd.get(), shardName(hash), /*make=*/false);
    if (shard.isOk())
      ops_.unlink(shard.fd.get(), entryName(hash).c_str());
  }
  warn(message + "; it is removed and the kernel compiled again");
}

// -------------------------------------------------------------------------------------------------------
// writing

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
  return ops_.rename(from, temporary.c_str(), shard, name.c_str()) == 0 ? 0 : errno;
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
    return failed(StatusCode::IoError, "'" + path + "' " + why.problem);
  };

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
  const OpenFolder folder = openFolder(ops_, root->fd.get(), kTemporaryFolder, /*make=*/true);
  if (!folder.isOk())
    return unusable(dir_ + "/" + kTemporaryFolder, folder);
  std::string temporary;
  int fd = -1;
  if (int error = openTemporary(folder.fd.get(), temporary, fd))
    return failed(StatusCode::IoError, errnoText(error));
  int error = writeTemporary(fd, bytes);
  OpenFolder shard;
  Placed placed = Placed::New;
  if (!error) {
    shard = openFolder(ops_, root->fd.get(), shardName(hash), /*make=*/true);
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
  }
  return Status::ok();
}

// ----------------------------------------------------------------------------------------------------
// housekeeping

/// Entries by name; folders that can't be listed go to `problems`.
std::vector<KernelStore::FileName> KernelStore::entryFiles(const Root &root,
                                                           std::vector<EntryInfo> *problems) const {
  std::vector<FileName> files;
  const auto problem = [&](const std::string &path, const std::string &what) {
    if (problems)
      problems->push_back({.path = path, .problem = what});
  };
  std::vector<std::string> shards;
  if (ops_.list(root.fd.get(), shards) != 0)
    problem(dir_, "it cannot be listed: " + errnoText(errno));
  std::ranges::sort(shards);
  for (const std::string &shard : shards) {
    if (!isShardName(shard))
      continue;
    // No symbolic link is followed: what lies elsewhere is not ours.
    const OpenFolder folder = openFolder(ops_, root.fd.get(), shard, /*make=*/false);
    std::vector<std::string> names;
    if (!folder.isOk()) {
      if (folder.error ? folder.error != ENOENT && folder.error != ENOTDIR : folder.fd.get() >= 0)
        problem(dir_ + "/" + shard, "it " + folder.problem);
      continue;
    }
    if (ops_.list(folder.fd.get(), names) != 0)
      problem(dir_ + "/" + shard, "it cannot be listed: " + errnoText(errno));
    std::ranges::sort(names);
    for (const std::string &name : names)
      if (isEntryName(shard, name))
        files.push_back({shard, name});
  }
  return files;
}

std::vector<EntryInfo> KernelStore::list() const {
  std::vector<EntryInfo> entries;
  OpenFolder why;
  const std::shared_ptr<const Root> root = onDisk() ? this->root(/*make=*/false, why) : nullptr;
  if (!root) {
    if (!why.isOk() && why.error != ENOENT)
      entries.push_back({.path = dir_, .problem = "it " + why.problem});
    return entries;
  }
  for (const FileName &name : entryFiles(*root, &entries)) {
    const OpenFolder shard = openFolder(ops_, root->fd.get(), name.shard, /*make=*/false);
    if (!shard.isOk())
      continue; // Told or removed meanwhile.
    LoadedFile file = load(shard.fd.get(), name.file);
    if (file.error == ENOENT)
      continue; // Removed meanwhile.
    EntryInfo info;
    info.path = dir_ + "/" + name.shard + "/" + name.file;
    info.name = name.name();
    info.bytes = file.info.st_size;
    info.modified = file.info.st_mtime;
    if (!file.isOk()) {
      info.problem = !file.distrust.empty() ? file.distrust
                     : file.damage.empty()  ? "it cannot be read: " + errnoText(file.error)
                                            : file.damage;
    } else {
      Entry entry = parseEntry(file.bytes);
      if (entry.isOk() && entry.key.hex() != info.name) {
        entry.error = EntryError::OtherKey;
        entry.detail = "its key has the hash " + entry.key.hex() + ", not that of its name";
      }
      info.error = entry.error;
      info.problem = entry.detail;
      if (entry.isOk()) {
        info.key = std::move(entry.key);
        info.kind = entry.artifact.kind;
        info.provenance = std::move(entry.artifact.provenance);
      }
    }
    entries.push_back(std::move(info));
  }
  return entries;
}

std::vector<EntryInfo> KernelStore::verify() const {
  std::vector<EntryInfo> entries = list();
  std::erase_if(entries, [](const EntryInfo &entry) { return entry.isGood(); });
  return entries;
}

std::vector<TextFile> KernelStore::texts(const std::string &folder, std::string_view suffix,
                                         const TextLimits &limits) const {
  std::vector<TextFile> files;
  OpenFolder why;
  const std::shared_ptr<const Root> root = onDisk() ? this->root(/*make=*/false, why) : nullptr;
  if (!root)
    return files;
  const std::string path = dir_ + "/" + folder;
  const OpenFolder opened = openFolder(ops_, root->fd.get(), folder, /*make=*/false);
  std::vector<std::string> names;
  if (!opened.isOk()) {
    if (opened.error != ENOENT)
      warn("'" + path + "' " + opened.problem + (opened.error ? "" : kEmptyIt));
    return files;
  }
  if (ops_.list(opened.fd.get(), names) != 0)
    warn("'" + path + "' cannot be listed: " + errnoText(errno));
  std::erase_if(names, [&](const std::string &name) { return !name.ends_with(suffix); });
  std::ranges::sort(names);
  int64_t bytes = 0;
  for (const std::string &name : names) {
    std::string problem;
    if (static_cast<int64_t>(files.size()) >= limits.files) {
      warn("'" + path + "' has more than " + std::to_string(limits.files) + " files; '" + name +
           "' and what follows it are left out");
      break;
    }
    LoadedFile file = load(opened.fd.get(), name, limits.file_bytes);
    if (file.error == ENOENT)
      continue;
    bytes += static_cast<int64_t>(file.bytes.size());
    if (!file.isOk())
      problem = !file.distrust.empty() ? file.distrust
                : file.damage.empty()  ? "it cannot be read: " + errnoText(file.error)
                                       : file.damage;
    else if (bytes > limits.all_bytes)
      problem = "with it there are more than " + std::to_string(limits.all_bytes) + " bytes";
    if (problem.empty())
      files.push_back({path + "/" + name, std::string(file.bytes.begin(), file.bytes.end())});
    else
      warn("'" + path + "/" + name + "' is left out: " + problem);
  }
  return files;
}

StoreUsage KernelStore::usage() const {
  StoreUsage usage;
  OpenFolder why;
  const std::shared_ptr<const Root> root = onDisk() ? this->root(/*make=*/false, why) : nullptr;
  if (!root)
    return usage;
  for (const FileName &name : entryFiles(*root, nullptr)) {
    const OpenFolder shard = openFolder(ops_, root->fd.get(), name.shard, /*make=*/false);
    struct stat info = {};
    if (!shard.isOk() || ops_.lstat(shard.fd.get(), name.file.c_str(), &info) != 0)
      continue;
    ++usage.entries;
    usage.bytes += info.st_size;
  }
  return usage;
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
          .discarded = discarded_};
}

Result<StoreUsage> KernelStore::clear() {
  StoreUsage removed;
  OpenFolder why;
  const std::shared_ptr<const Root> root = onDisk() ? this->root(/*make=*/false, why) : nullptr;
  if (!root)
    return why.isOk() || why.error == ENOENT
               ? Result<StoreUsage>(removed)
               : Status(StatusCode::IoError, "cache directory '" + dir_ + "' " + why.problem);
  std::string problem;
  const auto remove = [&](const std::string &shard, const std::string &name, bool is_entry) {
    const OpenFolder folder = openFolder(ops_, root->fd.get(), shard, /*make=*/false);
    struct stat info = {};
    if (!folder.isOk() || ops_.lstat(folder.fd.get(), name.c_str(), &info) != 0)
      return;
    if (!is_entry && info.st_mtime > ::time(nullptr) - kStaleTemporarySeconds)
      return;
    if (ops_.unlink(folder.fd.get(), name.c_str()) != 0) {
      if (errno != ENOENT && problem.empty())
        problem = "'" + dir_ + "/" + shard + "/" + name + "' cannot be removed: " + errnoText(errno);
    } else if (is_entry) {
      ++removed.entries;
      removed.bytes += info.st_size;
    }
  };
  std::vector<EntryInfo> unlisted;
  for (const FileName &name : entryFiles(*root, &unlisted))
    remove(name.shard, name.file, true);
  const OpenFolder temporaries = openFolder(ops_, root->fd.get(), kTemporaryFolder, /*make=*/false);
  std::vector<std::string> names;
  if (temporaries.isOk())
    ops_.list(temporaries.fd.get(), names);
  for (const std::string &name : names)
    if (isTemporaryName(name))
      remove(kTemporaryFolder, name, false);
  if (problem.empty() && !unlisted.empty())
    problem = "'" + unlisted.front().path + "': " + unlisted.front().problem;
  if (!problem.empty())
    return Status(StatusCode::IoError, "cache: " + problem);
  return removed;
}

} // namespace flashplus
