// SPDX-License-Identifier: BSD-3-Clause
// At most one thread of a process makes what has one name; the others wait for it.
#pragma once

#include "cache/fork.h"

#include <condition_variable>
#include <mutex>
#include <set>
#include <string>

namespace flashplus {

/// Thread-safe. The child of a fork has none of its parent's flights, as it has none of its other threads.
class Flights final : private ForkGuarded {
public:
  Flights() { enlist(); }
  ~Flights() { leave(); }

  /// Waits until no other thread has `name`, and has it then.
  class Flight {
  public:
    Flight(Flights &all, std::string name);
    ~Flight();
    Flight(const Flight &) = delete;
    Flight &operator=(const Flight &) = delete;

  private:
    Flights &all_;
    const std::string name_;
  };

private:
  bool hold() override { return mutex_.try_lock(); }
  void letGo() override { mutex_.unlock(); }
  void inChild(bool held) override;

  std::mutex mutex_;
  std::condition_variable done_;
  std::set<std::string> names_;
};

} // namespace flashplus
