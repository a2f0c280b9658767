// SPDX-License-Identifier: BSD-3-Clause
// KernelStore: compiled kernels on disk, one file each, shared by any number of threads and processes without
// a lock. A reader sees a whole, verified entry or none. Nothing that happens to the disk is an error of the
// caller's: whatever cannot be read is a miss, whatever cannot be written is a warning, and the kernel runs
// all the same.
#pragma once

#include "cache/entry.h"
#include "cache/file_ops.h"
#include "cache/key.h"
#include "spec/artifact.h"
#include "spec/status.h"

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace flashplus {

/// Why a read found nothing.
enum class Miss {
  None,       ///< It is a hit.
  Absent,     ///< No such entry; the usual miss.
  Damaged,    ///< A file was there and is not the entry; it was removed so that a rebuild can take its place.
  Unreadable, ///< The system would not read it (permissions, no file handles, stale handle, ...); it was
              ///< left.
  MemoryOnly, ///< The store has no folder.
};

struct ReadResult {
  std::optional<Artifact> artifact; ///< The hit.
  Miss miss = Miss::None;
  EntryError entry_error = EntryError::None; ///< More on Damaged, when the contents gave it away.

  bool isHit() const { return artifact.has_value(); }
};

/// A file that has the name of an entry.
struct EntryInfo {
  std::string path;
  std::string name;     ///< 32 hexadecimal digits: the hash that its key must have.
  int64_t bytes = 0;    ///< Size of the file.
  int64_t modified = 0; ///< Seconds since 1970.
  EntryError error = EntryError::None;
  std::string problem; ///< One clause; empty when the entry is good. Set without `error`: not readable.
  KernelKey key;       ///< These three only of a good entry.
  CodeKind kind = CodeKind::X86Object;
  std::string provenance;

  bool isGood() const { return problem.empty(); }
};

/// What this object has done so far.
struct StoreCounters {
  int64_t hits = 0;
  int64_t absent = 0; ///< Misses by reason, as in Miss.
  int64_t damaged = 0;
  int64_t unreadable = 0;
  int64_t published = 0;
  int64_t already_there = 0; ///< Somebody else published the same key first.
  int64_t publish_failures = 0;
  int64_t discarded = 0;
};

/// What lies on the disk.
struct StoreUsage {
  int64_t entries = 0;
  int64_t bytes = 0;
};

class KernelStore {
public:
  /// Receives one-line warnings. Called from whichever thread calls the store, so it must be thread-safe.
  using Log = std::function<void(const std::string &)>;

  /// No file that is larger is read or written.
  static constexpr int64_t kMaxEntryBytes = int64_t(1) << 30;

  /// Opens the store in `dir`, which is made if need be. Never fails: when the folder cannot be used or
  /// trusted (cache/directory.h) the store is memory-only, reason() says why, and the log gets that once. An
  /// empty `dir` asks for a memory-only store. `ops` is copied.
  static std::unique_ptr<KernelStore> open(const std::string &dir, Log log,
                                           const FileOps &ops = systemFileOps());

  bool onDisk() const { return reason_.empty(); }
  const std::string &dir() const { return dir_; }       ///< Absolute; "" when none was asked for.
  const std::string &reason() const { return reason_; } ///< Why it is memory-only; empty when on disk.

  /// The verified artifact of `key`, or a miss. Damaged and Unreadable log one warning each.
  ReadResult read(const KernelKey &key);

  /// Writes an entry unless the key has one (the first writer wins; the caller goes on with what it built and
  /// never reads it back). Ok as well when there was one, or the store is memory-only. On a failure (IoError,
  /// OutOfMemory) nothing is left under the entry's name; the caller is to treat it as a warning. Not logged
  /// here.
  Status publish(const KernelKey &key, const Artifact &artifact);

  /// Removes the entry of `key`, which turned out to be useless (the driver refuses it); logs `why`.
  void discard(const KernelKey &key, const std::string &why);

  /// All entries with good and bad contents, read and verified in full, sorted by name.
  std::vector<EntryInfo> list() const;
  /// Those of list() that are not good. Removes nothing.
  std::vector<EntryInfo> verify() const;
  StoreUsage usage() const;
  StoreCounters counters() const;

  /// Removes every entry, and what writers that died left behind more than an hour ago; nothing else. Returns
  /// what was removed; IoError when something could not be.
  Result<StoreUsage> clear();

  KernelStore(const KernelStore &) = delete;
  KernelStore &operator=(const KernelStore &) = delete;

private:
  struct LoadedFile;
  struct FileName;

  KernelStore(std::string dir, Log log, const FileOps &ops)
      : dir_(std::move(dir)), log_(std::move(log)), ops_(ops) {}

  LoadedFile load(const std::string &path) const;
  std::vector<FileName> entryFiles() const;
  int makeFolder(const std::string &path) const;
  int openTemporary(std::string &path, int &fd) const;
  int writeTemporary(int fd, std::span<const uint8_t> bytes) const;
  int renameNew(const std::string &temporary, const std::string &path) const;
  void syncFolder(const std::string &path) const;
  void removeSame(const std::string &path, const LoadedFile &file) const;
  void warn(const std::string &message) const;

  const std::string dir_;
  const Log log_;
  const FileOps ops_;
  std::string reason_; ///< Set by open() only.

  std::atomic<int64_t> hits_{0}, absent_{0}, damaged_{0}, unreadable_{0};
  std::atomic<int64_t> published_{0}, already_there_{0}, publish_failures_{0}, discarded_{0};
};

} // namespace flashplus
