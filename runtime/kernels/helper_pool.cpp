// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/kernels/helper_pool.h"

namespace flashplus {

std::unique_ptr<HelperProcess> HelperPool::take(HelperProcess::Failure &failure) {
  std::vector<std::unique_ptr<HelperProcess>> gone; // ended outside the lock
  std::unique_ptr<HelperProcess> found;
  {
    std::lock_guard lock(mutex_);
    while (!found && !idle_.empty()) {
      found = std::move(idle_.back());
      idle_.pop_back();
      if (!found->isAlive())
        gone.push_back(std::move(found));
    }
    if (found)
      busy_.insert(found.get());
  }
  if (found)
    return found;
  found = HelperProcess::start(program_, library_, limits_, failure);
  if (found) {
    std::lock_guard lock(mutex_);
    busy_.insert(found.get());
  }
  return found;
}

void HelperPool::giveBack(std::unique_ptr<HelperProcess> process) {
  std::unique_lock lock(mutex_);
  busy_.erase(process.get());
  if (process->isUsable())
    idle_.push_back(std::move(process));
  lock.unlock(); // before one that is not is ended
}

void HelperPool::endIdle() {
  std::vector<std::unique_ptr<HelperProcess>> gone;
  std::lock_guard lock(mutex_);
  gone.swap(idle_);
}

std::vector<pid_t> HelperPool::processes() {
  std::lock_guard lock(mutex_);
  std::vector<pid_t> all;
  for (const auto &process : idle_)
    all.push_back(process->pid());
  for (const HelperProcess *process : busy_)
    all.push_back(process->pid());
  return all;
}

void HelperPool::inChild(bool held) {
  if (held) {
    for (const auto &process : idle_)
      process->abandon();
    idle_.clear();
    // Of threads that are not here: what they were told goes to the parent, where this end is open, too.
    for (HelperProcess *process : busy_)
      process->abandon();
    busy_.clear();
  } else { // in whatever state; what it has is lost
    new (&idle_) std::vector<std::unique_ptr<HelperProcess>>;
    new (&busy_) std::set<HelperProcess *>;
  }
  new (&mutex_) std::mutex;
}

} // namespace flashplus
