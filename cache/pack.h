// SPDX-License-Identifier: BSD-3-Clause
// KernelPack: a pack of kernels (cache/pack_format.h), used where it lies. It is only read, and trusted as a
// folder is (cache/trust.h): the file belongs to the user or to root and nobody else can write to it.
//
// Its head is read once and kept, 32 bytes a kernel; an entry is read when it is asked for, and verified as
// one in a folder is. It is not mapped: who truncates a mapped file kills the processes that read it.
#pragma once

#include "cache/file_ops.h"
#include "cache/fork.h"
#include "cache/pack_format.h"
#include "cache/source.h"
#include "cache/trust.h"

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

namespace flashplus {

class KernelPack final : public KernelSource {
public:
  /// Opens the pack at `path`, for a library whose kernels have this `build` ("" for any, to look at it).
  /// Never fails: where it can't be used nothing is read from it, reason() says why in one clause, and the
  /// log gets that once. That it is not there yet is no fault. `ops` is copied.
  static std::unique_ptr<KernelPack> open(const std::string &path, const std::string &build, SourceLog log,
                                          const FileOps &ops = systemFileOps());

  const std::string &dir() const override { return path_; }
  const std::string &reason() const override { return reason_; }
  bool isThere() const override;

  /// As KernelStore::read(). A pack that was replaced by another one is opened again; if that one can't be
  /// used, the old one, which we hold, goes on to be read.
  ReadResult read(const KernelKey &key) override;
  void discard(const KernelKey &key, const std::string &why) override;

  std::vector<EntryInfo> list() const override;
  Result<std::vector<uint8_t>> entryBytes(const std::string &name) const override;
  /// The records in it; `folder` and `suffix` are those that they had.
  std::vector<TextFile> texts(const std::string &folder, std::string_view suffix,
                              const TextLimits &limits) const override;
  std::optional<std::vector<std::string>> onlyTargets() const override;
  /// Of its kernels; "" if it can't be used.
  std::string build() const;
  /// How many kernels it has.
  size_t size() const;

private:
  struct File;

  KernelPack(std::string path, std::string build, SourceLog log, const FileOps &ops)
      : path_(std::move(path)), build_(std::move(build)), log_(std::move(log)), ops_(ops) {}

  std::shared_ptr<const File> open(OpenFolder &why) const;
  std::shared_ptr<const File> file(OpenFolder &why) const;
  int readRow(const File &file, const PackRow &row, std::vector<uint8_t> &bytes) const;
  std::string unreadable(const OpenFolder &why) const;
  void warn(const std::string &message) const;

  const std::string path_, build_;
  const SourceLog log_;
  const FileOps ops_;
  std::string reason_; ///< Set by open() only.
  mutable ForkSafe<std::mutex> mutex_;
  mutable std::shared_ptr<const File> file_; ///< Under mutex_.
  mutable std::string refused_;              ///< Under mutex_: what was said last of the file that is there.
  mutable std::atomic<bool> warned_{false};
};

/// What of $FLASHPLUS_CACHE_PATH is a pack: a file, or what is not there and has the suffix of one.
bool namesPack(const std::string &path);

/// The source at `path`: a pack, or a folder.
std::unique_ptr<KernelSource> openSource(const std::string &path, const std::string &build, SourceLog log,
                                         const FileOps &ops = systemFileOps());

} // namespace flashplus
