// SPDX-License-Identifier: BSD-3-Clause
// At most one process of a machine makes what has one name, as far as that can be had: the lock saves work
// and guards nothing, so whatever is in its way is as if there were none. It is in a folder that no other
// machine has (/dev/shm), because locks of network file systems hang.
#pragma once

#include "cache/file_ops.h"
#include "cache/fork.h"

#include <chrono>
#include <functional>
#include <memory>
#include <string>

namespace flashplus {

/// A lock that is held, or that could not be had in time. Let go of when it goes, or when the process ends in
/// whatever way; the child of a fork does not have it.
class KeyLock final : private ForkGuarded {
public:
  KeyLock(const FileOps &ops, int folder, std::string name, int fd, bool waited);
  ~KeyLock();
  bool waited() const { return waited_; } ///< Another had it.

private:
  bool hold() override { return true; }
  void letGo() override {}
  void inChild(bool held) override;

  const FileOps *ops_;
  int folder_;
  std::string name_;
  int fd_;
  const bool waited_;
};

class KeyLocks {
public:
  using Log = std::function<void(const std::string &)>;

  struct Patience {
    std::chrono::milliseconds until_told{5'000}; ///< After so long who waits says so.
    std::chrono::milliseconds most{30'000};      ///< After so long it goes on without the lock.
  };

  /// `folder`: made if need be, trusted as the cache's is (cache/trust.h); "" for none.
  KeyLocks(std::string folder, Log log, const FileOps &ops = systemFileOps())
      : KeyLocks(std::move(folder), std::move(log), ops, Patience()) {}
  KeyLocks(std::string folder, Log log, const FileOps &ops, Patience patience)
      : folder_(std::move(folder)), log_(std::move(log)), ops_(ops), patience_(patience) {}

  /// Waits for the lock of `name`, a file name, and gives it; null if it could not be had. `what` is what the
  /// log calls it.
  std::unique_ptr<KeyLock> take(const std::string &name, const std::string &what) const;
  /// Whether a process has it now.
  bool isTaken(const std::string &name) const;

private:
  const std::string folder_;
  const Log log_;
  const FileOps ops_;
  const Patience patience_;
};

} // namespace flashplus
