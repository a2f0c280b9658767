// SPDX-License-Identifier: BSD-3-Clause
// Happens-before between the threads of a CTA, as vector clocks (Flanagan and Freund, FastTrack, PLDI 2009).
//
// A thread's own clock counts its releases; an access is labelled {thread, clock}. Thread t has seen an access of thread
// s with label c when c <= view(t)[s]. Views are immutable and shared: after a barrier all its threads have one.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace flashplus::emu {

using View = std::shared_ptr<const std::vector<uint32_t>>;

/// What has been released into a synchronisation object (a barrier) and not yet acquired.
class Released {
public:
  bool empty() const { return clocks_.empty(); }
  void clear() { clocks_.clear(), last_.reset(); }
  void join(const View &view);
  void set(int threads, int thread, uint32_t clock);
  View take() const { return std::make_shared<const std::vector<uint32_t>>(clocks_); }
  const std::vector<uint32_t> &clocks() const { return clocks_; }

private:
  std::vector<uint32_t> clocks_;
  View last_; ///< The view joined last: neighbours mostly have the same one.
};

class Clocks {
public:
  void reset(int threads) {
    threads_ = threads;
    own_.assign(size_t(threads), 1);
    views_.assign(size_t(threads), std::make_shared<const std::vector<uint32_t>>(size_t(threads), 0));
  }
  uint32_t own(int thread) const { return own_[size_t(thread)]; }
  bool seen(int thread, int other, uint32_t clock) const {
    return thread == other || clock <= (*views_[size_t(thread)])[size_t(other)];
  }
  /// Everything that `thread` did or saw becomes visible to whoever acquires `to`.
  void release(int thread, Released &to) {
    to.join(views_[size_t(thread)]);
    to.set(threads_, thread, own_[size_t(thread)]++);
  }
  /// `view` must be a superset of the thread's own (it released into the same object), or pass `merge`.
  void acquire(int thread, const View &view, bool merge);

private:
  int threads_ = 0;
  std::vector<uint32_t> own_;
  std::vector<View> views_;
};

} // namespace flashplus::emu
