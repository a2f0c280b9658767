// SPDX-License-Identifier: BSD-3-Clause
// KernelSource: where compiled kernels are read from. A folder (cache/store.h) or a pack (cache/pack.h).
#pragma once

#include "cache/entry.h"
#include "cache/key.h"
#include "spec/artifact.h"
#include "spec/status.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace flashplus {

/// Receives one-line warnings. Called from whichever thread calls the source, so it must be thread-safe.
using SourceLog = std::function<void(const std::string &)>;

/// Why a read found nothing.
enum class Miss {
  None,       ///< It is a hit.
  Absent,     ///< No such entry; the usual miss.
  Damaged,    ///< A file was read and is not the entry; it was removed so that a rebuild can take its place,
              ///< unless the store keeps what it has.
  Unreadable, ///< The system would not read it (an I/O error, permissions, no file handles, stale handle,
              ///< ...); it was left: what could not be read may be good.
  Untrusted,  ///< Somebody else can have written it, or a folder that it is in. It was not read, and left.
  MemoryOnly, ///< The store has no folder.
};

struct ReadResult {
  std::optional<Artifact> artifact; ///< The hit.
  Miss miss = Miss::None;
  EntryError entry_error = EntryError::None; ///< More on Damaged, when the contents gave it away.
  int tier = -1;    ///< Which of several stores (cache/tiers.h); -1: the one that is written.
  std::string mark; ///< Of a hit in a folder, KernelStore::mark() of the file that was read.

  bool isHit() const { return artifact.has_value(); }
};

/// A file that has the name of an entry.
struct EntryInfo {
  std::string path;
  std::string name;     ///< 32 hexadecimal digits: the hash that its key must have.
  int64_t bytes = 0;    ///< Size of the file.
  int64_t modified = 0; ///< Seconds since 1970; to the hour when it was used last (KernelStore).
  EntryError error = EntryError::None;
  std::string problem; ///< One clause; empty when the entry is good. Set without `error`: not readable.
  KernelKey key;       ///< These three only of a good entry.
  CodeKind kind = CodeKind::X86Object;
  std::string provenance;

  bool isGood() const { return problem.empty(); }
  /// What an entry that was read says of itself, or what is wrong with it.
  void take(Entry &&entry) {
    error = entry.error;
    problem = std::move(entry.detail);
    if (!entry.isOk())
      return;
    key = std::move(entry.key);
    kind = entry.artifact.kind;
    provenance = std::move(entry.artifact.provenance);
  }
};

/// Why a kernel cannot be compiled, by what refused it.
struct Refusal {
  std::string toolchain; ///< What makes code besides the build in the key, such as "ptxas 13.0"; one line.
  std::string reason;
};

/// The file in which that is kept.
struct RefusalInfo {
  std::string path;
  int64_t bytes = 0;
  int64_t noted = 0; ///< Seconds since 1970.
  KernelKey key;
  Refusal refusal;
};

/// A file of another folder inside the store's.
struct TextFile {
  std::string path;
  std::string text;
};
struct TextLimits {
  int64_t file_bytes = 0, files = 0, all_bytes = 0;
};

/// Thread-safe. Nothing that happens to the disk is an error of the caller's: it is a miss.
class KernelSource {
public:
  virtual ~KernelSource() = default;

  virtual const std::string &dir() const = 0;    ///< Its path, absolute; "" for none.
  virtual const std::string &reason() const = 0; ///< Why nothing is read from it; empty if it may be.
  bool onDisk() const { return reason().empty(); }
  virtual bool isThere() const = 0; ///< Whether it exists and may be used.

  virtual ReadResult read(const KernelKey &key) = 0;
  /// What read() gave is of no use; `why` is logged.
  virtual void discard(const KernelKey &key, const std::string &why) = 0;

  virtual std::vector<EntryInfo> list() const = 0;
  /// What is kept of kernels that cannot be compiled, as far as it is whole; sorted by name.
  virtual std::vector<RefusalInfo> refusals() const { return {}; }
  /// That of `key`.
  virtual std::optional<Refusal> refusal(const KernelKey &) const { return std::nullopt; }
  virtual Result<std::vector<uint8_t>> entryBytes(const std::string &name) const = 0;
  virtual std::vector<TextFile> texts(const std::string &folder, std::string_view suffix,
                                      const TextLimits &limits) const = 0;

  /// The targets that it has kernels for, if that is all that it will ever have; else nothing.
  virtual std::optional<std::vector<std::string>> onlyTargets() const { return std::nullopt; }
};

} // namespace flashplus
