// SPDX-License-Identifier: BSD-3-Clause
// An object that all share, made when it is first wanted.
#pragma once

#include <atomic>
#include <memory>

namespace flashplus {

/// In place of a static in a function. That is made under a lock, and the child of a fork that comes
/// meanwhile finds it taken by a thread that it does not have, and waits for ever. Here is no lock: threads
/// that come at once make one each, all but the first of which are thrown away, and a child that finds none
/// makes its own. What is made lives as long as the process. Itself it must be static and constinit.
template <class T> class MadeOnce {
public:
  constexpr MadeOnce() = default;
  MadeOnce(const MadeOnce &) = delete;

  /// `make()` is a std::unique_ptr<T>, not null; it may be called by several threads.
  template <class Make> T &from(Make make) {
    if (T *made = made_.load(std::memory_order_acquire))
      return *made;
    std::unique_ptr<T> fresh = make();
    T *first = nullptr;
    if (made_.compare_exchange_strong(first, fresh.get(), std::memory_order_acq_rel))
      return *fresh.release();
    return *first;
  }

  /// One of these arguments.
  template <class... Arguments> T &of(const Arguments &...arguments) {
    return from([&] { return std::make_unique<T>(arguments...); });
  }

private:
  std::atomic<T *> made_{nullptr};
};

} // namespace flashplus
