// SPDX-License-Identifier: BSD-3-Clause
// A CTA while it runs, and its warps. Handlers (isa/) work on these.
#pragma once

#include "emulator/core/machine.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

namespace flashplus::emu {

inline constexpr uint32_t kAllLanes = ~0u;
inline constexpr uint32_t kLanes = 32;

/// How a value of type T lies in a lane.
template <class T> using LaneOf = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
template <class T> T fromLane(LaneOf<T> v) {
  if constexpr (std::is_floating_point_v<T>)
    return std::bit_cast<T>(v);
  else
    return T(v);
}
template <class T> LaneOf<T> toLane(T v) {
  if constexpr (std::is_floating_point_v<T>)
    return std::bit_cast<LaneOf<T>>(v);
  else
    return LaneOf<T>(std::make_unsigned_t<T>(v));
}

class Cta;
class Cluster;

/// An asynchronous 4-, 8- or 16-byte copy that nothing has waited for.
struct PendingCopy {
  uint32_t to = 0; ///< Offset in shared memory.
  uint8_t bytes = 0, from_bytes = 0;
  uint8_t lane = 0;
  bool landed = false;
  uint32_t pc = 0, group = 0;
  uint64_t from = 0;
};

/// Lanes of a warp that share a program counter. When lanes part at a branch, the group becomes a join that
/// waits at the branch's immediate post-dominator, and its two sides become groups of their own.
struct LaneGroup {
  uint32_t mask = 0;
  uint32_t pc = 0;
  uint32_t reconvergence = kNoTarget; ///< Here its lanes wait for the rest of `join`.
  int join = -1;                      ///< The group that it merges into.
  int parts = 0;                      ///< Join: groups still under way. 0: it runs (or is free if mask is 0).
  int blocked = kRuns;                ///< mbarrier that it waits for, or one of these.
  bool timed_out = false;             ///< Its wait may come back without success.

  static constexpr int kRuns = -1, kWantsRegisters = -2, kAtClusterBarrier = -3;
};

/// An mbarrier object in shared memory.
struct Mbarrier {
  uint32_t offset = 0;
  uint32_t expected = 0, pending = 0; ///< Arrivals: of a phase, and still to come in this one.
  int64_t transactions = 0;           ///< Bytes announced and not yet copied.
  uint32_t phases = 0;                ///< Complete.
  uint32_t landed = 0, landed_pc = 0; ///< The phase that counted the last copy.
  int landed_thread = 0;              ///< That issued it.
  bool valid = false, fenced = false; ///< Fenced: the asynchronous proxy may use it.
  bool init_fenced = false;           ///< By fence.mbarrier_init.
  int init_thread = 0;
  uint32_t init_clock = 0, init_pc = 0;
  Released released;
  View completed; ///< Of the last phase.
};

/// One row of a box of a cp.async.bulk.tensor, or padding, on its way.
struct BulkPiece {
  uint32_t to = 0, bytes = 0;
  uint64_t from = 0; ///< 0: zeros
};
/// A copy into the shared memory of the CTA that holds it; of a multicast, that CTA's part.
struct BulkCopy {
  std::vector<BulkPiece> pieces;
  uint32_t total = 0, pc = 0;
  int barrier = -1; ///< Of the destination.
  const Cta *issuer = nullptr;
  int thread = 0; ///< That issued it, in the cluster.
};

/// A bulk store (or reduction) from shared to global memory that its thread has not waited for.
struct BulkStore {
  struct Piece {
    uint64_t to = 0;
    std::vector<uint8_t> data;
  };
  std::vector<Piece> pieces;
  uint32_t offset = 0, bytes = 0; ///< What it reads.
  uint32_t pc = 0, group = 0;
  uint8_t lane = 0;
  bool read = false, landed = false;
};

class Warp {
public:
  enum class State : uint8_t { Ready, AtBarrier, Blocked, Done };

  /// `number` in the cluster, `index` in the CTA.
  Warp(Cta &cta, const Program &program, int number, int index, uint32_t lanes);
  void start();
  /// Runs until it blocks, exits, faults, or `steps` instructions are done.
  void run(uint64_t steps);

  // --- for handlers
  // ------------------------------------------------------------------------------------------------
  template <class T> const LaneOf<T> *lanes(const Operand &o) const {
    return reinterpret_cast<const LaneOf<T> *>(file_.get() + o.offset);
  }
  uint32_t predicate(const Operand &o) const {
    uint32_t bits;
    std::memcpy(&bits, file_.get() + o.offset, 4);
    return bits;
  }
  void setPredicate(const Operand &o, uint32_t mask, uint32_t bits) {
    bits = (predicate(o) & ~mask) | (bits & mask);
    std::memcpy(file_.get() + o.offset, &bits, 4);
  }
  template <class T> void store(const Operand &o, uint32_t mask, const LaneOf<T> *values) {
    auto *to = reinterpret_cast<LaneOf<T> *>(file_.get() + o.offset);
    if (mask == kAllLanes) {
      std::memcpy(to, values, sizeof(LaneOf<T>) * kLanes);
      return;
    }
    for (uint32_t lane = 0; lane < kLanes; ++lane)
      if (mask >> lane & 1)
        to[lane] = values[lane];
  }
  bool isWide(const Operand &o) const { return program_.registers[o.reg].bytes == 8; }
  /// Any integer register as 64 bits, zero-extended.
  void widen(const Operand &o, uint64_t (&out)[kLanes]) const {
    if (isWide(o)) {
      std::memcpy(out, lanes<uint64_t>(o), sizeof out);
      return;
    }
    const uint32_t *v = lanes<uint32_t>(o);
    for (uint32_t lane = 0; lane < kLanes; ++lane)
      out[lane] = v[lane];
  }
  /// Stores as many low bits as the register has.
  void storeNarrow(const Operand &o, uint32_t mask, const uint64_t *values) {
    if (isWide(o))
      return store<uint64_t>(o, mask, values);
    const uint32_t bits = program_.registers[o.reg].bits == 16 ? 0xffffu : ~0u;
    uint32_t low[kLanes];
    for (uint32_t lane = 0; lane < kLanes; ++lane)
      low[lane] = uint32_t(values[lane]) & bits;
    store<uint32_t>(o, mask, low);
  }

  // Which 16-bit halves of a register have a value. Code generators build a word from two halves of which one
  // has none, so a copy is no use of it; every other instruction is.
  using Halves = std::array<uint32_t, 4>; ///< Lanes, for each half from the low end.
  Halves halves(const Operand &o) const;
  void setHalves(const Operand &o, uint32_t mask, const Halves &halves);
  int halfCount(const Operand &o) const { return std::max(1, program_.registers[o.reg].bits / 16); }

  Cta &cta() { return cta_; }
  const Program &program() const { return program_; }
  int index() const { return index_; }
  int thread(uint32_t lane) const { return first_thread_ + int(lane); } ///< In the cluster.
  uint32_t live() const { return live_; }                               ///< Lanes that have not exited.
  uint32_t groupMask() const { return groups_[size_t(current_)].mask; }
  uint32_t pc() const { return pc_; }
  State state() const { return state_; }
  void setState(State state) { state_ = state; }
  int barrier() const { return barrier_; }
  void waitAt(int barrier) { state_ = State::AtBarrier, barrier_ = barrier, blocked_pc_ = pc_; }
  uint32_t blockedPc() const { return blocked_pc_; } ///< The instruction that it waits in.
  std::string describe() const;                      ///< For deadlock and step-limit messages.

  /// Records the fault (the CTA's first wins) and stops the CTA.
  void fault(FaultKind kind, std::string message, int lane, std::optional<uint64_t> address = {},
             Space space = Space::Generic, std::string other = {});
  void fault(const SharedProblem &problem, int lane);

  /// The current branch: lanes of `taken` go to `target`, the others on.
  void branch(const Instruction &in, uint32_t taken);
  void exitLanes(uint32_t mask);

  // barrier.cluster (Cluster): lanes that have arrived in the phase under way; lanes that have arrived and
  // not waited, and for which phase.
  uint32_t cluster_arrived = 0, cluster_owes_wait = 0;
  std::array<uint32_t, kLanes> cluster_phase{};

  // Waits that the group repeats until they succeed.
  void block(int on) { groups_[size_t(current_)].blocked = on, repeats_ = true, blocked_pc_ = pc_; }
  bool takeTimeout() { return std::exchange(groups_[size_t(current_)].timed_out, false); }
  /// Lets groups that wait for `on` try again; with `timeout`, all, and they may fail.
  void wake(int on, bool timeout);
  void yield() { yields_ = true; }

  // wgmma: registers in flight. `busy` is the group that a register belongs to, 0 if none.
  struct Flight {
    uint32_t accumulator = 0, operand = 0;
  };
  Flight &flight(const Operand &o) { return flights_[o.reg]; }
  uint64_t lastAccess(const Operand &o) const { return last_access_[o.reg]; }
  bool isWritten(const Operand &o, uint32_t mask) const { return (mask & ~written_[o.reg]) == 0; }
  std::string registerName(const Operand &o) const { return program_.registers[o.reg].name; }
  uint32_t wgmma_committed = 0, wgmma_waited = 0;
  /// Lanes that have waited for the grid before; all, in a program that does not overlap it.
  uint32_t grid_waited = 0;
  bool wgmma_open = false; ///< Something was issued since the last commit.
  uint64_t fence_step = 0; ///< When the last wgmma.fence ran; 0: never.
  uint64_t stepNumber() const { return step_; }
  void landGroups(uint32_t up_to);
  int registers = 0; ///< A thread's, as setmaxnreg has it.

  uint8_t *localMemory(uint32_t lane) { return local_.get() + size_t(lane) * program_.local_bytes; }
  uint8_t *localWritten(uint32_t lane) {
    return local_.get() + (size_t(lane) + kLanes) * program_.local_bytes;
  }

  // cp.async of this warp's lanes
  std::vector<PendingCopy> copies;
  std::array<uint32_t, kLanes> committed{};
  // Bulk stores of this warp's lanes.
  std::vector<BulkStore> stores;
  std::array<uint32_t, kLanes> stores_committed{};
  // The allocation that the last global access was in: the next one mostly is too.
  const GlobalMemory::Allocation *last_allocation = nullptr;

private:
  void fillConstants();
  bool checkSources(const Instruction &in, uint32_t mask);
  /// Moves the group on to `pc`, parking it where it is to meet the others.
  void moveTo(int group, uint32_t pc);
  void finishPart(int join, uint32_t mask);
  int newGroup();
  void pickGroup();

  Cta &cta_;
  const Program &program_;
  int index_, first_thread_;
  uint32_t lanes_, live_ = 0;
  std::unique_ptr<uint8_t[]> file_, local_;
  std::vector<uint32_t> written_; ///< Per register: lanes that have a whole value.
  std::vector<Halves> partly_;    ///< Per register, for lanes that have not.
  std::vector<LaneGroup> groups_;
  int current_ = 0;
  uint32_t pc_ = 0, next_ = 0, blocked_pc_ = 0;
  bool moved_ = false, repeats_ = false, yields_ = false;
  std::vector<Flight> flights_;
  std::vector<uint64_t> last_access_; ///< Step of the last access by anything but a wgmma.
  uint64_t step_ = 1;
  bool checkFlights(const Instruction &in);
  State state_ = State::Ready;
  int barrier_ = -1;
};

/// What a warp's bulk stores still hold back arrives (isa/bulk_store.cpp).
void landStores(Warp &warp);

class Cta {
public:
  /// CTA `rank` of the cluster.
  Cta(Cluster &cluster, int rank);
  /// Becomes the CTA at `ctaid` of the grid, with nothing executed. The cluster's clocks start first.
  void start(const std::array<uint32_t, 3> &ctaid);

  Cluster &cluster() { return cluster_; }
  int rank() const { return rank_; }
  int firstThread() const { return rank_ * warpCount() * int(kLanes); } ///< In the cluster.
  const Program &program() const { return program_; }
  const LaunchConfig &config() const { return config_; }
  const Options &options() const { return options_; }
  GlobalMemory &memory() { return memory_; }
  SharedMemory &shared() { return shared_; }
  Clocks &clocks() { return clocks_; }
  Statistics &statistics() { return statistics_; }
  uint32_t ctaid(int axis) const { return ctaid_[size_t(axis)]; }
  int warpCount() const { return int(warps_.size()); }
  std::vector<Warp> &warps() { return warps_; }

  bool faulted() const { return fault_.has_value(); }
  void setFault(Fault fault) { // of the cluster: the first wins
    if (!fault_)
      fault_ = std::move(fault);
  }
  Fault makeFault(FaultKind kind, std::string message, uint32_t pc, int warp, int lane) const;
  /// "written by warp 1, lane 3 at line 92 'st.shared...'"; `thread` is the cluster's.
  std::string party(const char *verb, int thread, uint32_t pc) const;
  uint64_t random();
  bool step() { return ++steps_ <= options_.step_limit; }
  uint64_t stepsLeft() const { return options_.step_limit - steps_; }

  /// A warp arrives at a named barrier, and waits there if `wait`. `threads` 0: all that have not exited.
  void arrive(Warp &warp, uint32_t id, uint32_t threads, bool wait);
  void warpExited(Warp &warp);
  bool exited() const; ///< All its threads have.

  // mbarriers and what completes on them
  std::vector<Mbarrier> mbarriers;
  /// The object at `offset` in shared memory; -1 if there is none.
  int mbarrierAt(uint32_t offset) const;
  /// The number that the clocks know it by.
  int barrierNumber(int barrier) const { return rank_ * Clocks::kMaxBarriers + barrier; }
  /// Whether `thread` has seen the object's initialisation.
  bool seesBarrier(int thread, int barrier) const;
  /// After a change of its counts: completes the phase if they are all zero.
  void settle(int barrier);
  void issue(BulkCopy copy);
  bool hasCopies() const { return !bulk_.empty(); }
  /// Any of the copies (the first, unless turns are random) lands. False after a fault.
  bool landOne();
  void event();
  void wakeAll(int on, bool timeout = false);
  int registersInUse() const;

  /// A thread of another CTA touches this CTA's shared memory: it must have started, not have exited, and not
  /// exit before that (`copies`: before the copy is complete). False and a fault in `w` if not.
  bool admit(Warp &w, uint32_t lane, uint64_t address, bool copies);
  std::string stuck(bool name_cta) const; ///< Who waits for what.

private:
  bool land(size_t which);
  struct NamedBarrier {
    uint32_t threads = 0;              ///< Expected; 0: all.
    uint32_t arrived = 0, waiting = 0; ///< Warps, a bit each.
    Released released;
  };
  void completeIfFull(uint32_t id);
  void checkExit(Warp &last);

  Cluster &cluster_;
  const int rank_;
  const Program &program_;
  GlobalMemory &memory_;
  const LaunchConfig &config_;
  const Options &options_;
  Statistics &statistics_;
  SharedMemory shared_;
  Clocks &clocks_;
  std::vector<Warp> warps_;
  std::array<NamedBarrier, 16> barriers_;
  std::array<uint32_t, 3> ctaid_{};
  std::optional<Fault> &fault_;
  uint64_t steps_ = 0, random_ = 1;
  std::vector<BulkCopy> bulk_;
  /// The last access of threads of other CTAs: what must be ordered before this one's exit.
  struct Visit {
    int thread = 0;
    uint32_t clock = 0, pc = 0;
  };
  std::vector<Visit> visits_;
};

} // namespace flashplus::emu
