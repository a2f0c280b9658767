// SPDX-License-Identifier: BSD-3-Clause
// Happens-before inside a cluster (mostly of one CTA), as vector clocks (Flanagan and Freund, FastTrack, PLDI
// 2009).
//
// A view has a component for each thing that can be seen to have happened:
//   thread t     its accesses, labelled with its own clock, which counts its releases
//   group w      wgmma groups of warp w that are complete, numbered from 1: what they read and wrote
//   fence t      accesses of thread t that its fence.proxy.async has made visible to the asynchronous proxy
//   barrier b    phases of mbarrier b that are complete, numbered from 1: what copies wrote that it counted
//   init b       1: the initialisation of mbarrier b
// Threads, warps and mbarriers are numbered through the cluster.
// Views are immutable and shared: after a barrier all its threads have the same one.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace flashplus::emu {

using View = std::shared_ptr<const std::vector<uint32_t>>;

/// What has been released into a synchronisation object and not yet acquired.
class Released {
public:
  void clear() { clocks_.clear(), last_.reset(); }
  void join(const View &view);
  void set(size_t component, uint32_t clock);
  View take() const { return std::make_shared<const std::vector<uint32_t>>(clocks_); }

private:
  std::vector<uint32_t> clocks_;
  View last_; ///< The view joined last: neighbours mostly have the same one.
};

class Clocks {
public:
  static constexpr int kMaxBarriers = 128; ///< mbarrier objects of a CTA.
  static constexpr uint32_t kStart = 1;    ///< A thread's clock when it starts; its accesses have later ones.

  /// `warps` of each of `ctas`.
  void reset(int warps, int ctas);
  int threads() const { return threads_; }
  size_t group(int warp) const { return size_t(threads_ + warp); }
  size_t fence(int thread) const { return size_t(threads_ + threads_ / 32 + thread); }
  size_t barrier(int index) const { return size_t(2 * threads_ + threads_ / 32 + index); }
  size_t init(int index) const { return barrier(barriers_ + index); }
  size_t size() const { return barrier(2 * barriers_); }

  uint32_t own(int thread) const { return own_[size_t(thread)]; }
  bool seen(int thread, size_t component, uint32_t clock) const {
    return size_t(thread) == component || clock <= (*views_[size_t(thread)])[component];
  }
  /// Whether an access of thread `writer` is visible to asynchronous operations of `thread`: a
  /// fence.proxy.async of the writer after it, that `thread` has seen, or one of `thread` itself after it saw
  /// the access.
  bool seenByProxy(int thread, int writer, uint32_t clock) const;

  /// Everything that `thread` did or saw becomes visible to whoever acquires `to`.
  void release(int thread, Released &to);
  /// A relaxed arrival: that `thread` has started becomes visible, and what its last fence (releaseFence)
  /// came after.
  void releaseFenced(int thread, Released &to) const;
  void releaseFence(int thread);
  /// For the lanes of `mask` from `first` on. `view` must be a superset of the threads' own (they released
  /// into the same object), or pass `merge`.
  void acquire(int first, uint32_t mask, const View &view, bool merge);
  /// The lanes of `mask` from `first` on see `component` up to `clock`.
  void observe(int first, uint32_t mask, size_t component, uint32_t clock);
  void proxyFence(int thread);

private:
  int threads_ = 0, barriers_ = 0;
  std::vector<uint32_t> own_, fenced_;
  std::vector<View> views_, views_at_fence_;
  std::vector<View> released_; ///< What a thread's release fence came after; null: it had none.
};

} // namespace flashplus::emu
