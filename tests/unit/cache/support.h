// SPDX-License-Identifier: BSD-3-Clause
// What the tests of the cache share: folders that vanish, sample keys, and file operations that
// fail on command.
#pragma once

#include "cache/directory.h"
#include "cache/file_ops.h"
#include "cache/key.h"
#include "cache/store.h"
#include "tests/unit/spec/sample_artifact.h"

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace flashplus::test {

/// A fresh private folder; removed with everything in it.
class TemporaryFolder {
public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder &) = delete;
  TemporaryFolder &operator=(const TemporaryFolder &) = delete;
  std::string path;
};

KernelKey sampleKey(int number = 0);

std::vector<uint8_t> readFile(const std::string &path);
void writeFile(const std::string &path, std::span<const uint8_t> bytes);
/// Paths of all files below `folder`, relative to it, sorted.
std::vector<std::string> filesBelow(const std::string &folder);
std::string entryFile(const std::string &dir, const KernelKey &key);

/// The system's operations without fsync, which no test can see the effect of and which takes most of the
/// time.
const FileOps &plainOps();

/// A store that collects its warnings.
struct LoggedStore {
  explicit LoggedStore(const std::string &dir, const FileOps &ops = plainOps(),
                       KernelStore::Bad bad = KernelStore::Bad::Remove);
  std::shared_ptr<std::vector<std::string>> warnings = std::make_shared<std::vector<std::string>>();
  std::unique_ptr<KernelStore> store;
  KernelStore *operator->() { return store.get(); }
};

/// What faultyOps() does, per thread. Calls are counted from 1 over all operations.
struct Fault {
  enum Kind {
    Off,
    Fail,     ///< The operation is not done and fails with `error`; a close is done and fails all the same.
    FailHalf, ///< As Fail, but a write first writes half of its bytes.
    Short,    ///< A read or write does only half of its bytes; other operations are not touched.
    Kill,     ///< The process dies by SIGKILL before the operation, half-way through if that is a write.
  };
  Kind kind = Off;
  int at = 0;           ///< The call to spoil.
  bool onwards = false; ///< All later calls as well.
  int error = 0;
  bool no_links = false; ///< Neither link() nor rename_new() is supported.
  bool no_rename_new = false;
  int calls = 0;         ///< Out, as the rest.
  std::string trace;     ///< Operations called, e.g. "open write close ".
  std::string spoiled;   ///< Those of them that were spoiled.
};

Fault &fault();
const FileOps &faultyOps();

} // namespace flashplus::test
