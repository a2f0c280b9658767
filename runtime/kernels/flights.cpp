// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/kernels/flights.h"

namespace flashplus {

Flights::Flight::Flight(Flights &all, std::string name) : all_(all), name_(std::move(name)) {
  std::unique_lock lock(all_.mutex_);
  all_.done_.wait(lock, [&] { return !all_.names_.contains(name_); });
  all_.names_.insert(name_);
}

Flights::Flight::~Flight() {
  {
    std::lock_guard lock(all_.mutex_);
    all_.names_.erase(name_);
  }
  all_.done_.notify_all();
}

void Flights::inChild(bool held) {
  // One of the thread that forked (in a listener) goes as well: at worst something is made twice.
  if (held)
    names_.clear();
  else
    new (&names_) std::set<std::string>; // in whatever state; what it has is lost
  new (&done_) std::condition_variable;  // the parent's threads wait in it
  new (&mutex_) std::mutex;
}

} // namespace flashplus
