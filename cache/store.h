// SPDX-License-Identifier: BSD-3-Clause
// KernelStore: compiled kernels on disk, one file each, shared by any number of threads and processes without
// a lock. A reader sees a whole, verified entry or none. Nothing that happens to the disk is an error of the
// caller's: whatever cannot be read is a miss, whatever cannot be written is a warning, and the kernel runs
// all the same. The folder is held open; it, the folder inside and the file are examined anew at every read
// and write (cache/trust.h), so that what others may have written is never used.
#pragma once

#include "cache/file_ops.h"
#include "cache/fork.h"
#include "cache/key.h"
#include "cache/source.h"
#include "cache/trust.h"
#include "cache/usage_counts.h"
#include "spec/artifact.h"
#include "spec/status.h"

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace flashplus {

/// What prune() leaves.
struct PruneLimits {
  std::optional<int64_t> most_bytes; ///< The entries that were used last, up to so many bytes.
  std::optional<int64_t> used_since; ///< Those that were used since (seconds since 1970).
  std::string build;                 ///< Those of this build, and what cannot be read; "": of all.
  bool only_count = false;           ///< Nothing is removed; what would be is counted.
};

/// What this object has done so far.
struct StoreCounters {
  int64_t hits = 0;
  int64_t absent = 0; ///< Misses by reason, as in Miss.
  int64_t damaged = 0;
  int64_t unreadable = 0;
  int64_t untrusted = 0;
  int64_t published = 0;     ///< Entries written, the next two not counted.
  int64_t replaced = 0;      ///< One that was worse, damaged or not to be trusted was there.
  int64_t already_there = 0; ///< Somebody else published the same key first.
  int64_t publish_failures = 0;
  int64_t discarded = 0;
  int64_t evicted = 0; ///< Removed because the store would be too large.
};

/// What lies on the disk.
struct StoreUsage {
  int64_t entries = 0;
  int64_t bytes = 0;    ///< Of the entries.
  int64_t refusals = 0; ///< That were removed.
};

class KernelStore final : public KernelSource {
public:
  using Log = SourceLog;

  /// No file that is larger is read or written.
  static constexpr int64_t kMaxEntryBytes = int64_t(1) << 30;
  /// Of all entries, where nobody says otherwise (setMostBytes()).
  static constexpr int64_t kDefaultMostBytes = int64_t(2) << 30;

  /// What read() does with an entry that is damaged or that discard() is called for. `Keep` is for those who
  /// can rebuild nothing.
  enum class Bad { Remove, Keep };

  /// Opens the store in `dir`, which is made if need be. Never fails: when the folder cannot be used or
  /// trusted (cache/trust.h) the store is memory-only, reason() says why, and the log gets that once. An
  /// empty `dir` asks for a memory-only store. `ops` is copied.
  static std::unique_ptr<KernelStore> open(const std::string &dir, Log log,
                                           const FileOps &ops = systemFileOps(), Bad bad = Bad::Remove);

  /// A store that is only read: it makes no folder, removes nothing and publishes nothing. That `dir` is not
  /// there yet is no fault.
  static std::unique_ptr<KernelStore> openReadOnly(const std::string &dir, Log log,
                                                   const FileOps &ops = systemFileOps());

  const std::string &dir() const override { return dir_; }       ///< Absolute; "" when none was asked for.
  const std::string &reason() const override { return reason_; } ///< Why it is memory-only.

  /// The verified artifact of `key`, or a miss. Damaged, Unreadable and Untrusted log one warning each; what
  /// is wrong with the store's own folder is logged once.
  ReadResult read(const KernelKey &key) override;

  /// Writes an entry unless the key has one that is as good (the first writer wins; the caller goes on with
  /// what it built and never reads it back). One that is worse (isBetter() of spec/artifact.h), damaged or
  /// not to be trusted is replaced. Ok as well when there was one, or the store is memory-only. On a failure
  /// (IoError, OutOfMemory) what the entry's name had is untouched; the caller is to treat it as a warning.
  /// Not logged here. A store that is only read fails with IoError.
  Status publish(const KernelKey &key, const Artifact &artifact);

  /// Writes `text` as the file `name` of `folder`, another folder in the store's, if there is none by that
  /// name. Says what became of it; failures are as publish()'s.
  enum class TextPlaced { New, SameThere, OtherThere };
  Result<TextPlaced> addText(const std::string &folder, const std::string &name, std::string_view text);

  /// Whether there is anything by the name of the entry of `key`; not read, and nothing is counted.
  bool has(const KernelKey &key) const { return !mark(key).empty(); }
  /// What another file by that name, or the same after a change or a noted use, does not have; "" for none.
  std::string mark(const KernelKey &key) const;
  /// False in a store that is only read, and once a publish found that this user may only read the folder, or
  /// its file system.
  bool canWrite() const { return !is_read_only_ && !may_only_read_; }
  /// Whether the folder is there and may be used.
  bool isThere() const override;
  /// What no other folder of this machine is called; "" for none.
  std::string identity() const;

  /// Removes the entry of `key`, which turned out to be useless (the driver refuses it), unless the store
  /// keeps what it has; logs `why`. `mark`: of the file that was read; one that has taken its place stays.
  /// "": whatever is there.
  void discard(const KernelKey &key, const std::string &why, const std::string &mark);
  void discard(const KernelKey &key, const std::string &why) override { discard(key, why, ""); }

  /// The files "*`suffix`" in `folder`, another folder in the store's, in the order of their names: regular
  /// files that are trusted as entries are and within the limits. The others, and a folder that is not to be
  /// trusted, are left out with a warning. None if the store is memory-only or there is no such folder.
  std::vector<TextFile> texts(const std::string &folder, std::string_view suffix,
                              const TextLimits &limits) const override;

  /// What noteRefusal() kept for `key`; it is read and trusted as an entry is, and what is not whole is none.
  std::optional<Refusal> refusal(const KernelKey &key) const override;
  /// Keeps that `key` was refused, in place of what was kept before. At most kMostRefusals are, the oldest
  /// go. Best effort: without it the next process finds out for itself.
  void noteRefusal(const KernelKey &key, const Refusal &refusal) const;
  static constexpr size_t kMostRefusals = 1024;
  std::vector<RefusalInfo> refusals() const override;

  /// All entries with good and bad contents, read and verified in full, sorted by name; a folder that can't
  /// be listed is one that is bad.
  std::vector<EntryInfo> list() const override;
  /// As it lies on the disk, verified and with the key that its name says; IoError if it is not.
  Result<std::vector<uint8_t>> entryBytes(const std::string &name) const override;
  /// Those of list() that are not good. Removes nothing.
  std::vector<EntryInfo> verify() const;
  StoreUsage usage() const;
  StoreCounters counters() const;

  /// What processes did with this store, as far as it was written; nothing if nothing was.
  std::optional<UsageCounts> counts() const;
  /// Adds to them. False if that could not be done now: another process is at it (unless `patient`), or
  /// nothing may be written.
  bool addCounts(const UsageCounts &more, bool patient);

  /// How large the store may become; 0: without a limit. A publish that finds it larger removes what was not
  /// used for longest, wherever it is, but never what it has published itself. Files of another user (root)
  /// neither count nor go. The whole store is looked through at most once in 1/256 of `bytes` that this
  /// object publishes, and only when the folder of the entry has half of its share: by so much for each
  /// process, and seldom by a little more, the store may be larger. The first removal is logged, with
  /// `name`. Set before any publish.
  void setMostBytes(int64_t bytes, std::string name = "");
  int64_t mostBytes() const { return most_bytes_; }
  /// Whether a read is noted as a use, once an hour at most, as the time of modification of the file; where
  /// that can't be done nothing is said. Not at first in a store that is only read. Set before any read.
  void setNotesUse(bool notes) { notes_use_ = notes; }

  /// Removes the entries that `limits` does not leave, what is kept of refusals by the same rules (it was
  /// used when it was noted), and what writers that died left behind more than an hour ago; nothing else.
  /// Returns what was removed; IoError when something could not be, or the store is only read.
  Result<StoreUsage> prune(const PruneLimits &limits);

  /// Removes every entry, what is kept of refusals, and what writers that died left behind more than an hour
  /// ago; nothing else. Returns which entries were removed; IoError when something could not be, or the store
  /// is only read.
  Result<StoreUsage> clear();

  KernelStore(const KernelStore &) = delete;
  KernelStore &operator=(const KernelStore &) = delete;

private:
  struct LoadedFile;
  struct Root;
  struct FileName;
  struct FileUse;
  enum class Placed { New, Replaced, AlreadyThere };
  static constexpr int64_t kNeverLooked = INT64_MAX / 2;

  KernelStore(std::string dir, Log log, const FileOps &ops, Bad bad, bool read_only)
      : dir_(std::move(dir)), log_(std::move(log)), ops_(ops), bad_(bad), is_read_only_(read_only),
        notes_use_(!read_only) {}

  static std::unique_ptr<KernelStore> open(const std::string &dir, Log log, const FileOps &ops, Bad bad,
                                           bool read_only);

  std::shared_ptr<const Root> root(bool make, OpenFolder &why) const;
  LoadedFile load(int folder, const std::string &name, int64_t most_bytes = kMaxEntryBytes) const;
  ReadResult missed(Miss miss, const std::string &what, const OpenFolder &why);
  std::vector<FileName> entryFiles(const Root &root, std::vector<EntryInfo> *problems) const;
  std::vector<FileUse> entryUses(const Root &root, std::vector<EntryInfo> *problems) const;
  std::vector<FileUse> usesOf(const Root &root, std::vector<FileName> files) const;
  void addFiles(const Root &root, const std::string &folder,
                bool (*takes)(std::string_view, std::string_view), std::vector<FileName> &files,
                std::vector<EntryInfo> *problems) const;
  std::vector<FileName> refusalFiles(const Root &root, std::vector<EntryInfo> *problems) const;
  int openTemporary(int folder, std::string &name, int &fd) const;
  int writeTemporary(int fd, std::span<const uint8_t> bytes) const;
  int place(int from, const std::string &temporary, int shard, const KernelKey &key, const Artifact &artifact,
            Placed &placed) const;
  bool mayReplace(int shard, const std::string &name, const KernelKey &key, const Artifact &artifact) const;
  std::string removeSame(int folder, const std::string &name, const LoadedFile &file) const;
  std::string moveAside(int folder, const std::string &name) const;
  OpenFolder openMade(int folder, const std::string &name) const;
  void warn(const std::string &message) const;
  void noteUse(int shard, const std::string &name, LoadedFile &file) const;
  int64_t ownBytes(int shard, const std::string &shard_name) const;
  void keepBounded(const Root &root, int shard, const FileName &published, int64_t bytes);
  int sweepTemporaries(const Root &root) const;
  std::optional<RefusalInfo> loadRefusal(int folder, const std::string &name) const;
  void dropRefusals(int folder, size_t most) const;
  bool replaceCounts(int folder, const UsageCounts &more) const;

  const std::string dir_;
  const Log log_;
  const FileOps ops_;
  const Bad bad_;
  const bool is_read_only_;
  std::atomic<bool> may_only_read_{false}; ///< As a publish has found.
  std::atomic<bool> notes_use_;
  std::string reason_; ///< Set by open() only.
  mutable ForkSafe<std::mutex> root_mutex_;
  mutable std::shared_ptr<const Root> root_; ///< Under root_mutex_.
  std::atomic<bool> folder_warned_{false};

  std::atomic<int64_t> hits_{0}, absent_{0}, damaged_{0}, unreadable_{0}, untrusted_{0};
  std::atomic<int64_t> published_{0}, replaced_{0}, already_there_{0}, publish_failures_{0};
  std::atomic<int64_t> discarded_{0}, evicted_{0};
  std::atomic<int64_t> most_bytes_{kDefaultMostBytes};
  std::string most_bytes_name_;
  std::atomic<int64_t> unlooked_{kNeverLooked}; ///< Bytes published since the store was looked through.
  std::atomic<bool> eviction_told_{false};
  std::atomic<bool> swept_{false};
};

} // namespace flashplus
