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

/// An absolute path without trailing slashes, which would make lstat() follow a symlink.
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
  struct stat info = {}; ///< Of the file, when it could be opened.
  std::vector<uint8_t> bytes;
};

struct KernelStore::FileName {
  std::string path;
  std::string name; ///< Without folder and suffix.
};

std::unique_ptr<KernelStore> KernelStore::open(const std::string &dir, Log log, const FileOps &ops) {
  std::unique_ptr<KernelStore> store(new KernelStore(dir.empty() ? "" : cleanPath(dir), std::move(log), ops));
  if (dir.empty()) {
    store->reason_ = "no cache directory was asked for";
  } else if (Status status = preparePrivateDirectory(ops, store->dir_); !status) {
    store->reason_ = status.message();
    store->warn(status.message() + "; compiled kernels are kept in memory only");
  }
  return store;
}

void KernelStore::warn(const std::string &message) const {
  if (log_)
    log_(message);
}

// -------------------------------------------------------------------------------------------------------
// reading

KernelStore::LoadedFile KernelStore::load(const std::string &path) const {
  LoadedFile file;
  int fd = -1;
  // O_NONBLOCK: opening a FIFO that was put there must not wait for a writer.
  file.error = openRetrying(ops_, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0, fd);
  if (file.error) {
    if (file.error == ELOOP)
      file.damage = "it is a symbolic link";
    return file;
  }
  if (ops_.fstat(fd, &file.info) != 0)
    file.error = errno;
  else if (!S_ISREG(file.info.st_mode))
    file.damage = "it is not a regular file";
  else if (file.info.st_size > kMaxEntryBytes)
    file.damage = "it has " + std::to_string(file.info.st_size) + " bytes, at most " +
                  std::to_string(kMaxEntryBytes) + " are allowed";
  else {
    try {
      file.error = readUpTo(ops_, fd, static_cast<size_t>(file.info.st_size), file.bytes);
    } catch (const std::bad_alloc &) {
      file.error = ENOMEM;
    }
    if (file.error == EIO)
      file.damage = errnoText(EIO); // Bad blocks stay bad: make room for a rebuild.
  }
  ops_.close(fd);
  return file;
}

/// Removes a file that is no entry, unless another process has put a good one in its place meanwhile.
void KernelStore::removeSame(const std::string &path, const LoadedFile &file) const {
  struct stat now = {};
  if (ops_.lstat(path.c_str(), &now) != 0)
    return;
  const bool is_same = now.st_dev == file.info.st_dev && now.st_ino == file.info.st_ino;
  if (is_same || S_ISLNK(now.st_mode))
    ops_.unlink(path.c_str());
}

ReadResult KernelStore::read(const KernelKey &key) {
  ReadResult result;
  if (!onDisk()) {
    result.miss = Miss::MemoryOnly;
    return result;
  }
  const std::string path = entryPath(dir_, key.hash());
  LoadedFile file = load(path);
  if (file.error == ENOENT) {
    ++absent_;
    result.miss = Miss::Absent;
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
  removeSame(path, file);
  warn("cache entry '" + path + "' is damaged (" + file.damage +
       "); it is removed and the kernel compiled again");
  return result;
}

void KernelStore::discard(const KernelKey &key, const std::string &why) {
  if (!onDisk())
    return;
  const std::string path = entryPath(dir_, key.hash());
  ++discarded_;
  ops_.unlink(path.c_str());
  warn("cache entry '" + path + "' is of no use (" + why + "); it is removed and the kernel compiled again");
}

// -------------------------------------------------------------------------------------------------------
// writing

/// Makes one folder of the layout; and the root, should somebody have deleted it under us. Returns 0 or an
/// errno value.
int KernelStore::makeFolder(const std::string &path) const {
  const auto makeOne = [&](const std::string &folder) {
    return ops_.mkdir(folder.c_str(), 0700) == 0 || errno == EEXIST ? 0 : errno;
  };
  const int error = makeOne(path);
  if (error != ENOENT)
    return error;
  if (int root_error = makeOne(dir_))
    return root_error;
  return makeOne(path);
}

/// Creates a file that no other process has. Returns 0 or an errno value.
int KernelStore::openTemporary(std::string &path, int &fd) const {
  int error = 0;
  for (int attempt = 0; attempt < 8; ++attempt) {
    path = temporaryPath(dir_);
    error = openRetrying(ops_, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600, fd);
    if (error == ENOENT) {
      if (int folder_error = makeFolder(temporaryFolder(dir_)))
        return folder_error;
    } else if (error != EEXIST) {
      return error;
    }
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

/// Gives a finished file the name `path` unless that is taken (EEXIST). Returns 0 or an errno value.
int KernelStore::renameNew(const std::string &temporary, const std::string &path) const {
  if (ops_.link(temporary.c_str(), path.c_str()) == 0)
    return 0;
  if (!meansNoHardLinks(errno))
    return errno;
  // rename() replaces what is there, so look first. Two writers in the gap both rename a whole entry of the
  // same key, and readers see one or the other.
  struct stat info = {};
  if (ops_.lstat(path.c_str(), &info) == 0)
    return EEXIST;
  return ops_.rename(temporary.c_str(), path.c_str()) == 0 ? 0 : errno;
}

/// Makes a new name durable. Best effort: without it a crash of the machine costs a compilation.
void KernelStore::syncFolder(const std::string &path) const {
  int fd = -1;
  if (openRetrying(ops_, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, fd) != 0)
    return;
  (void)fsyncRetrying(ops_, fd);
  ops_.close(fd);
}

Status KernelStore::publish(const KernelKey &key, const Artifact &artifact) {
  if (!onDisk())
    return Status::ok();
  const Hash128 hash = key.hash();
  const auto failed = [&](StatusCode code, const std::string &why) {
    ++publish_failures_;
    return Status(code, "cache entry '" + entryPath(dir_, hash) + "' cannot be written: " + why);
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

  std::string temporary;
  int fd = -1;
  if (int error = openTemporary(temporary, fd))
    return failed(StatusCode::IoError, errnoText(error));
  const std::string path = entryPath(dir_, hash);
  int error = writeTemporary(fd, bytes);
  if (!error) {
    error = renameNew(temporary, path);
    if (error == ENOENT) {
      error = makeFolder(shardPath(dir_, hash));
      if (!error)
        error = renameNew(temporary, path);
    }
  }
  const bool already_there = error == EEXIST;
  // After a rename it is gone already; that, like any failure to clean up, does not matter.
  ops_.unlink(temporary.c_str());
  if (error && !already_there)
    return failed(StatusCode::IoError, errnoText(error));
  if (already_there) {
    ++already_there_;
  } else {
    ++published_;
    syncFolder(shardPath(dir_, hash));
  }
  return Status::ok();
}

// ----------------------------------------------------------------------------------------------------
// housekeeping

std::vector<KernelStore::FileName> KernelStore::entryFiles() const {
  std::vector<FileName> files;
  if (!onDisk())
    return files;
  std::vector<std::string> shards;
  ops_.list(dir_.c_str(), shards);
  std::ranges::sort(shards);
  for (const std::string &shard : shards) {
    if (!isShardName(shard))
      continue;
    const std::string folder = dir_ + "/" + shard;
    std::vector<std::string> names; // list() follows no symlink: what lies elsewhere is not ours.
    ops_.list(folder.c_str(), names);
    std::ranges::sort(names);
    for (const std::string &name : names)
      if (isEntryName(shard, name))
        files.push_back({folder + "/" + name, name.substr(0, 32)});
  }
  return files;
}

std::vector<EntryInfo> KernelStore::list() const {
  std::vector<EntryInfo> entries;
  for (const FileName &name : entryFiles()) {
    LoadedFile file = load(name.path);
    if (file.error == ENOENT)
      continue; // Removed meanwhile.
    EntryInfo info;
    info.path = name.path;
    info.name = name.name;
    info.bytes = file.info.st_size;
    info.modified = file.info.st_mtime;
    if (!file.damage.empty() || file.error) {
      info.problem = file.damage.empty() ? "it cannot be read: " + errnoText(file.error) : file.damage;
    } else {
      Entry entry = parseEntry(file.bytes);
      if (entry.isOk() && entry.key.hex() != name.name) {
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

StoreUsage KernelStore::usage() const {
  StoreUsage usage;
  for (const FileName &name : entryFiles()) {
    struct stat info = {};
    if (ops_.lstat(name.path.c_str(), &info) != 0)
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
          .published = published_,
          .already_there = already_there_,
          .publish_failures = publish_failures_,
          .discarded = discarded_};
}

Result<StoreUsage> KernelStore::clear() {
  StoreUsage removed;
  std::string problem;
  const auto remove = [&](const std::string &path, bool is_entry) {
    struct stat info = {};
    if (ops_.lstat(path.c_str(), &info) != 0)
      return;
    if (!is_entry && info.st_mtime > ::time(nullptr) - kStaleTemporarySeconds)
      return;
    if (ops_.unlink(path.c_str()) != 0) {
      if (errno != ENOENT && problem.empty())
        problem = "'" + path + "' cannot be removed: " + errnoText(errno);
    } else if (is_entry) {
      ++removed.entries;
      removed.bytes += info.st_size;
    }
  };
  for (const FileName &name : entryFiles())
    remove(name.path, true);
  if (onDisk()) {
    std::vector<std::string> names;
    ops_.list(temporaryFolder(dir_).c_str(), names);
    for (const std::string &name : names)
      if (isTemporaryName(name))
        remove(temporaryFolder(dir_) + "/" + name, false);
  }
  if (!problem.empty())
    return Status(StatusCode::IoError, "cache: " + problem);
  return removed;
}

} // namespace flashplus
