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

void Released::set(size_t component, uint32_t clock) {
  if (clocks_.size() <= component)
    clocks_.resize(component + 1);
  clocks_[component] = std::max(clocks_[component], clock);
}

void Clocks::reset(int warps, int ctas) {
  threads_ = warps * ctas * 32;
  barriers_ = ctas * kMaxBarriers;
  own_.assign(size_t(threads_), kStart + 1);
  fenced_.assign(size_t(threads_), 0);
  views_.assign(size_t(threads_), std::make_shared<const std::vector<uint32_t>>(size(), 0));
  views_at_fence_.assign(size_t(threads_), nullptr);
  released_.assign(size_t(threads_), nullptr);
}

bool Clocks::seenByProxy(int thread, int writer, uint32_t clock) const {
  if (thread == writer)
    return clock <= fenced_[size_t(thread)];
  if (clock <= (*views_[size_t(thread)])[fence(writer)])
    return true;
  const View &at_fence = views_at_fence_[size_t(thread)];
  return at_fence && clock <= (*at_fence)[size_t(writer)];
}

void Clocks::release(int thread, Released &to) {
  to.join(views_[size_t(thread)]);
  to.set(size() - 1, 0);
  to.set(size_t(thread), own_[size_t(thread)]++);
  to.set(fence(thread), fenced_[size_t(thread)]);
}

void Clocks::releaseFence(int thread) {
  Released now;
  release(thread, now);
  released_[size_t(thread)] = now.take();
}

void Clocks::releaseFenced(int thread, Released &to) const {
  to.set(size() - 1, 0);
  to.set(size_t(thread), kStart);
  if (const View &view = released_[size_t(thread)])
    to.join(view);
}

void Clocks::acquire(int first, uint32_t mask, const View &view, bool merge) {
  View before, after; // neighbours mostly have the same view
  for (int lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1))
      continue;
    View &mine = views_[size_t(first + lane)];
    if (!merge || mine == view) {
      mine = view;
      continue;
    }
    if (mine != before) {
      before = mine;
      bool contained = true;
      for (size_t i = 0; i < mine->size(); ++i)
        contained &= (*mine)[i] <= (*view)[i];
      if (contained) {
        after = view;
      } else {
        std::vector<uint32_t> both(*view);
        for (size_t i = 0; i < mine->size(); ++i)
          both[i] = std::max(both[i], (*mine)[i]);
        after = std::make_shared<const std::vector<uint32_t>>(std::move(both));
      }
    }
    mine = after;
  }
}

void Clocks::observe(int first, uint32_t mask, size_t component, uint32_t clock) {
  View before, after;
  for (int lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1))
      continue;
    View &mine = views_[size_t(first + lane)];
    if ((*mine)[component] >= clock)
      continue;
    if (mine != before) {
      before = mine;
      std::vector<uint32_t> more(*mine);
      more[component] = clock;
      after = std::make_shared<const std::vector<uint32_t>>(std::move(more));
    }
    mine = after;
  }
}

void Clocks::proxyFence(int thread) {
  // Accesses so far have labels up to the own clock; later ones must have larger ones.
  fenced_[size_t(thread)] = own_[size_t(thread)]++;
  views_at_fence_[size_t(thread)] = views_[size_t(thread)];
}

} // namespace flashplus::emu
