// SPDX-License-Identifier: BSD-3-Clause
// Several sources as one: folders and packs that are only read (of a container's image, of a network file
// system), in order, and then the folder that is written.
#pragma once

#include "cache/store.h"

#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace flashplus {

/// Thread-safe, as the sources are, which must outlive it.
class Tiers {
public:
  explicit Tiers(KernelStore &own, std::vector<KernelSource *> before = {}, SourceLog log = nullptr)
      : own_(own), before_(std::move(before)), log_(std::move(log)) {}

  /// The first hit, one that is PTX only if none is better. Without any the miss of the last store, or that
  /// of another one where something was wrong.
  ReadResult read(const KernelKey &key);
  Status publish(const KernelKey &key, const Artifact &artifact) { return own_.publish(key, artifact); }
  /// What read() gave for `key`, from `tier` and with `mark`, is of no use: it is removed, or, from a store
  /// that is only read, passed over from now on.
  void discard(const KernelKey &key, int tier, const std::string &mark, const std::string &why);
  /// The first that is kept for `key`, in the store that is written, then in the others.
  std::optional<Refusal> refusal(const KernelKey &key) const;
  /// KernelStore::mark() of the store that is written.
  std::string mark(const KernelKey &key) const { return own_.mark(key); }

  KernelStore &own() { return own_; }
  size_t readOnly() const { return before_.size(); }

private:
  bool isRefused(size_t tier, const std::string &name);
  void explainMiss(const std::string &target);

  KernelStore &own_;
  const std::vector<KernelSource *> before_;
  const SourceLog log_;
  ForkSafe<std::mutex> explained_mutex_;
  std::set<std::string> explained_; ///< Targets that the packs have nothing for, and it was said.
  ForkSafe<std::mutex> refused_mutex_;
  std::set<std::pair<size_t, std::string>> refused_; ///< Tier and entry.
};

} // namespace flashplus
