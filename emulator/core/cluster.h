// SPDX-License-Identifier: BSD-3-Clause
// The CTAs that run together: a cluster, mostly of one. It has what they share (clocks, the fault, the
// cluster's barrier) and gives their warps turns.
#pragma once

#include "emulator/core/cta.h"

namespace flashplus::emu {

class Cluster {
public:
  Cluster(const Program &program, GlobalMemory &memory, const LaunchConfig &config, const Options &options,
          Statistics &statistics);
  Cluster(const Cluster &) = delete;

  /// The shape that a launch has: its own, or what the entry requires.
  static std::array<uint32_t, 3> shapeOf(const Program &program, const LaunchConfig &config);

  /// Runs cluster `index` of the grid (x fastest) to its end; the fault if there was one.
  std::optional<Fault> run(uint64_t index);

  int size() const { return int(ctas_.size()); }
  Cta &cta(int rank) { return *ctas_[size_t(rank)]; }
  const std::array<uint32_t, 3> &shape() const { return shape_; }
  uint32_t id(int axis) const { return id_[size_t(axis)]; }
  void event() { stalls_ = 0; }

  // barrier.cluster. Each thread arrives, then waits; threads that have exited are not waited for.
  void arrive(Warp &warp, uint32_t mask, bool relaxed);
  /// False: the group waits on, or a fault.
  bool wait(Warp &warp, uint32_t mask);
  /// After an exit.
  void settleBarrier();

private:
  friend class Cta;
  Fault deadlock();
  std::string stuck() const;

  const Program &program_;
  GlobalMemory &memory_;
  const LaunchConfig &config_;
  const Options &options_;
  Statistics &statistics_;
  const std::array<uint32_t, 3> shape_;
  std::array<uint32_t, 3> id_{};
  Clocks clocks_;
  std::optional<Fault> fault_;
  std::vector<std::unique_ptr<Cta>> ctas_;
  std::vector<Warp *> warps_; ///< Of all CTAs.
  int stalls_ = 0;            ///< Rounds in which nothing could go on.

  uint32_t phase_ = 0; ///< Of the barrier: complete.
  bool arrived_ = false;
  Released released_;
  View completed_;
};

} // namespace flashplus::emu
