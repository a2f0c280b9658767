// SPDX-License-Identifier: BSD-3-Clause
#include "emulator/core/cluster.h"

#include <algorithm>

namespace flashplus::emu {
namespace {

constexpr uint64_t kTurn = 1 << 16; ///< Instructions before another warp gets its turn.
constexpr int kStalls = 3;          ///< Times that waits may time out with nothing else happening.

} // namespace

std::array<uint32_t, 3> Cluster::shapeOf(const Program &program, const LaunchConfig &config) {
  if (config.cluster[0])
    return config.cluster;
  return {program.cluster[0], program.cluster[1], program.cluster[2]};
}

Cluster::Cluster(const Program &program, GlobalMemory &memory, const LaunchConfig &config,
                 const Options &options, Statistics &statistics)
    : program_(program), memory_(memory), config_(config), options_(options), statistics_(statistics),
      shape_(shapeOf(program, config)) {
  const int size = int(shape_[0] * shape_[1] * shape_[2]);
  for (int rank = 0; rank < size; ++rank)
    ctas_.push_back(std::make_unique<Cta>(*this, rank));
  for (auto &cta : ctas_)
    for (Warp &w : cta->warps())
      warps_.push_back(&w);
}

std::optional<Fault> Cluster::run(uint64_t index) {
  clocks_.reset(ctas_.front()->warpCount(), size());
  fault_.reset();
  stalls_ = 0;
  phase_ = 0;
  arrived_ = false;
  released_.clear();
  completed_.reset();
  const uint64_t across = config_.grid[0] / shape_[0], down = config_.grid[1] / shape_[1];
  id_ = {uint32_t(index % across), uint32_t(index / across % down), uint32_t(index / (across * down))};
  for (int rank = 0; rank < size(); ++rank) {
    const auto r = uint32_t(rank);
    const uint32_t at[3] = {r % shape_[0], r / shape_[0] % shape_[1], r / (shape_[0] * shape_[1])};
    ctas_[size_t(rank)]->start(
        {id_[0] * shape_[0] + at[0], id_[1] * shape_[1] + at[1], id_[2] * shape_[2] + at[2]});
  }
  // The order of turns changes with the seed; what is checked must not depend on it.
  const bool shuffle = options_.async == AsyncMode::Random;
  Cta &first = *ctas_.front(); // its random numbers are the cluster's
  std::vector<size_t> order(warps_.size());
  for (size_t i = 0; i < order.size(); ++i)
    order[i] = i;
  for (;;) {
    bool progress = false, alive = false;
    if (shuffle) {
      for (size_t i = order.size(); i > 1; --i)
        std::swap(order[i - 1], order[first.random() % i]);
      for (auto &cta : ctas_)
        if (cta->hasCopies() && first.random() % 4 == 0 && !cta->landOne())
          return fault_;
    }
    for (size_t w : order) {
      alive |= warps_[w]->state() != Warp::State::Done;
      if (warps_[w]->state() != Warp::State::Ready)
        continue;
      warps_[w]->run(shuffle ? 1 + first.random() % 512 : kTurn);
      progress = true;
      if (fault_)
        break;
    }
    if (fault_) {
      if (fault_->kind == FaultKind::StepLimit)
        fault_->other = stuck();
      return fault_;
    }
    if (!alive)
      return std::nullopt;
    if (progress)
      continue;
    // Nothing can go on: now, at the latest, copies land; then waits may time out, as the hardware's do.
    bool landed = false;
    for (auto &cta : ctas_) {
      if (!cta->hasCopies())
        continue;
      landed = true;
      if (!cta->landOne())
        return fault_;
    }
    if (landed)
      continue;
    if (stalls_ < kStalls) {
      const int before = ++stalls_;
      for (auto &cta : ctas_)
        cta->wakeAll(0, /*timeout=*/true);
      stalls_ = before;
      bool woke = false;
      for (const Warp *w : warps_)
        woke |= w->state() == Warp::State::Ready;
      if (woke)
        continue;
    }
    return deadlock();
  }
}

Fault Cluster::deadlock() {
  for (Warp *w : warps_)
    if (w->state() != Warp::State::Done) {
      fault_ = w->cta().makeFault(FaultKind::Deadlock, "no warp can go on", w->blockedPc(), w->index(), -1);
      break;
    }
  fault_->other = stuck();
  return *fault_;
}

std::string Cluster::stuck() const {
  std::string out;
  for (const auto &cta : ctas_)
    out += (out.empty() ? "" : "; ") + cta->stuck(/*name_cta=*/size() > 1);
  return out;
}

void Cluster::arrive(Warp &warp, uint32_t mask, bool relaxed) {
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1))
      continue;
    if (warp.cluster_owes_wait >> lane & 1)
      return warp.fault(FaultKind::Barrier,
                        "the thread arrives at the cluster's barrier a second time without a wait",
                        int(lane));
    warp.cluster_phase[lane] = phase_ + 1;
    if (!relaxed) {
      clocks_.release(warp.thread(lane), released_);
      continue;
    }
    clocks_.releaseFenced(warp.thread(lane), released_);
    // fence.mbarrier_init is there for this: initialisations become visible with an arrival that is relaxed.
    Cta &cta = warp.cta();
    for (size_t b = 0; b < cta.mbarriers.size(); ++b)
      if (cta.mbarriers[b].init_fenced && cta.mbarriers[b].init_thread == warp.thread(lane))
        released_.set(clocks_.init(cta.barrierNumber(int(b))), 1);
  }
  warp.cluster_arrived |= mask;
  warp.cluster_owes_wait |= mask;
  arrived_ = true;
  event();
  settleBarrier();
}

bool Cluster::wait(Warp &warp, uint32_t mask) {
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1))
      continue;
    if (!(warp.cluster_owes_wait >> lane & 1)) {
      warp.fault(FaultKind::Barrier, "the thread waits at the cluster's barrier without having arrived",
                 int(lane));
      return false;
    }
    if (warp.cluster_phase[lane] > phase_) {
      warp.block(LaneGroup::kAtClusterBarrier);
      return false;
    }
  }
  warp.cluster_owes_wait &= ~mask;
  clocks_.acquire(warp.thread(0), mask, completed_, /*merge=*/true);
  return true;
}

void Cluster::settleBarrier() {
  if (!arrived_)
    return;
  for (const Warp *w : warps_)
    if (w->live() & ~w->cluster_arrived)
      return;
  released_.set(clocks_.size() - 1, 0);
  completed_ = released_.take();
  released_.clear();
  ++phase_;
  arrived_ = false;
  event();
  for (Warp *w : warps_) {
    w->cluster_arrived = 0;
    w->wake(LaneGroup::kAtClusterBarrier, /*timeout=*/false);
  }
}

} // namespace flashplus::emu
