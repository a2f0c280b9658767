// SPDX-License-Identifier: BSD-3-Clause
#include "emulator/core/clocks.h"

#include <algorithm>

namespace flashplus::emu {

void Released::join(const View &view) {
  if (view == last_ && !clocks_.empty())
    return;
  clocks_.resize(std::max(clocks_.size(), view->size()));
  for (size_t i = 0; i < view->size(); ++i)
    clocks_[i] = std::max(clocks_[i], (*view)[i]);
  last_ = view;
}

void Released::set(int threads, int thread, uint32_t clock) {
  clocks_.resize(std::max(clocks_.size(), size_t(threads)));
  clocks_[size_t(thread)] = std::max(clocks_[size_t(thread)], clock);
}

void Clocks::acquire(int thread, const View &view, bool merge) {
  View &mine = views_[size_t(thread)];
  if (!merge || mine == view) {
    mine = view;
    return;
  }
  // Mostly one side already contains the other.
  bool contained = true;
  for (size_t i = 0; i < mine->size(); ++i)
    contained &= (*mine)[i] <= (*view)[i];
  if (contained) {
    mine = view;
    return;
  }
  std::vector<uint32_t> both(*view);
  for (size_t i = 0; i < mine->size(); ++i)
    both[i] = std::max(both[i], (*mine)[i]);
  mine = std::make_shared<const std::vector<uint32_t>>(std::move(both));
}

} // namespace flashplus::emu
