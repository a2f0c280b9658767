// SPDX-License-Identifier: BSD-3-Clause
#include "emulator/core/cluster.h"

namespace flashplus::emu {

Warp::Warp(Cta &cta, const Program &program, int number, int index, uint32_t lanes)
    : cta_(cta), program_(program), index_(index), first_thread_(number * int(kLanes)), lanes_(lanes),
      file_(new uint8_t[program.register_file_bytes]()),
      local_(program.local_bytes ? new uint8_t[program.local_bytes * kLanes * 2] : nullptr),
      written_(program.registers.size()), partly_(program.registers.size()),
      flights_(program.registers.size()), last_access_(program.registers.size()) {}

void Warp::start() {
  std::fill(written_.begin(), written_.end(), 0);
  std::fill(partly_.begin(), partly_.end(), Halves{});
  if (local_)
    std::memset(local_.get(), 0, program_.local_bytes * kLanes * 2);
  fillConstants();
  live_ = lanes_;
  groups_.assign(1, LaneGroup{.mask = lanes_});
  current_ = 0;
  pc_ = next_ = 0;
  state_ = State::Ready;
  barrier_ = -1;
  cluster_arrived = cluster_owes_wait = 0;
  grid_waited = program_.overlaps ? 0 : kAllLanes;
  copies.clear();
  committed.fill(0);
  stores.clear();
  stores_committed.fill(0);
  std::fill(flights_.begin(), flights_.end(), Flight{});
  std::fill(last_access_.begin(), last_access_.end(), 0);
  wgmma_committed = wgmma_waited = 0;
  wgmma_open = false;
  fence_step = 0;
  step_ = 1;
}

void Warp::fillConstants() {
  const LaunchConfig &c = cta_.config();
  Cluster &cluster = cta_.cluster();
  const auto rank = uint32_t(cta_.rank());
  for (size_t r = 0; r < program_.registers.size(); ++r) {
    const RegisterInfo &reg = program_.registers[r];
    if (!reg.constant)
      continue;
    written_[r] = kAllLanes;
    auto each = [&](auto value) {
      if (reg.bytes == 8) {
        auto *to = reinterpret_cast<uint64_t *>(file_.get() + reg.offset);
        for (uint32_t lane = 0; lane < kLanes; ++lane)
          to[lane] = uint64_t(value(lane));
      } else {
        auto *to = reinterpret_cast<uint32_t *>(file_.get() + reg.offset);
        for (uint32_t lane = 0; lane < kLanes; ++lane)
          to[lane] = uint32_t(value(lane));
      }
    };
    auto same = [&](uint64_t v) { each([v](uint32_t) { return v; }); };
    using S = SpecialRegister;
    auto tid = [&](uint32_t lane, int axis) {
      const uint32_t t = uint32_t(index_) * kLanes + lane;
      return axis == 0   ? t % c.block[0]
             : axis == 1 ? t / c.block[0] % c.block[1]
                         : t / (c.block[0] * c.block[1]);
    };
    switch (reg.special) {
    case S::None:
      if (reg.bytes == 0) {
        const uint32_t bits = reg.value ? kAllLanes : 0;
        std::memcpy(file_.get() + reg.offset, &bits, 4);
      } else {
        same(reg.value);
      }
      break;
    case S::TidX:
    case S::TidY:
    case S::TidZ:
      each([&](uint32_t lane) { return tid(lane, int(reg.special) - int(S::TidX)); });
      break;
    case S::NtidX:
    case S::NtidY:
    case S::NtidZ:
      same(c.block[size_t(reg.special) - size_t(S::NtidX)]);
      break;
    case S::CtaidX:
    case S::CtaidY:
    case S::CtaidZ:
      same(cta_.ctaid(int(reg.special) - int(S::CtaidX)));
      break;
    case S::NctaidX:
    case S::NctaidY:
    case S::NctaidZ:
      same(c.grid[size_t(reg.special) - size_t(S::NctaidX)]);
      break;
    case S::LaneId:
      each([](uint32_t lane) { return lane; });
      break;
    case S::WarpId:
      same(uint64_t(index_));
      break;
    case S::NwarpId:
      same(uint64_t(cta_.warpCount()));
      break;
    case S::LanemaskEq:
      each([](uint32_t lane) { return 1u << lane; });
      break;
    case S::LanemaskLt:
      each([](uint32_t lane) { return (1u << lane) - 1; });
      break;
    case S::LanemaskLe:
      each([](uint32_t lane) { return (2u << lane) - 1; });
      break;
    case S::LanemaskGe:
      each([](uint32_t lane) { return ~((1u << lane) - 1); });
      break;
    case S::LanemaskGt:
      each([](uint32_t lane) { return ~((2u << lane) - 1); });
      break;
    case S::DynamicSmemSize:
      same(c.dynamic_shared);
      break;
    case S::TotalSmemSize:
      same(cta_.shared().bytes());
      break;
    case S::NsmId:
      same(1);
      break;
    case S::SmId:
    case S::GridId:
      same(0);
      break;
    case S::ClusterCtaRank:
      same(rank);
      break;
    case S::ClusterNctaRank:
      same(uint64_t(cluster.size()));
      break;
    case S::ClusterCtaidX:
    case S::ClusterCtaidY:
    case S::ClusterCtaidZ: {
      const int axis = int(reg.special) - int(S::ClusterCtaidX);
      same(cta_.ctaid(axis) % cluster.shape()[size_t(axis)]);
      break;
    }
    case S::ClusterNctaidX:
    case S::ClusterNctaidY:
    case S::ClusterNctaidZ:
      same(cluster.shape()[size_t(reg.special) - size_t(S::ClusterNctaidX)]);
      break;
    case S::IsExplicitCluster: {
      const uint32_t bits = program_.explicit_cluster || c.cluster[0] ? kAllLanes : 0;
      std::memcpy(file_.get() + reg.offset, &bits, 4);
      break;
    }
    case S::ClusteridX:
    case S::ClusteridY:
    case S::ClusteridZ:
      same(cluster.id(int(reg.special) - int(S::ClusteridX)));
      break;
    case S::NclusteridX:
    case S::NclusteridY:
    case S::NclusteridZ: {
      const size_t axis = size_t(reg.special) - size_t(S::NclusteridX);
      same(c.grid[axis] / cluster.shape()[axis]);
      break;
    }
    }
  }
}

// --- divergence
// ----------------------------------------------------------------------------------------------------

int Warp::newGroup() {
  for (size_t i = 0; i < groups_.size(); ++i)
    if (groups_[i].mask == 0 && groups_[i].parts == 0)
      return int(i);
  groups_.emplace_back();
  return int(groups_.size()) - 1;
}

/// `mask` lanes reached the join (none: they exited); when all parts are in, it runs on.
void Warp::finishPart(int join, uint32_t mask) {
  while (join >= 0) {
    LaneGroup &j = groups_[size_t(join)];
    j.mask |= mask;
    if (--j.parts > 0)
      return;
    if (j.mask && j.pc != j.reconvergence)
      return; // runs on from here
    // The join itself is where its own join waits, or all its lanes have exited.
    mask = j.mask;
    const int outer = j.join;
    if (outer < 0)
      return;
    j = {};
    join = outer;
  }
}

void Warp::moveTo(int group, uint32_t pc) {
  LaneGroup &g = groups_[size_t(group)];
  if (g.join >= 0 && pc == g.reconvergence) {
    const uint32_t mask = g.mask;
    const int join = g.join;
    g = {};
    finishPart(join, mask);
    return;
  }
  g.pc = pc;
}

void Warp::branch(const Instruction &in, uint32_t taken) {
  const uint32_t mask = groupMask(), fall = mask & ~taken, after = pc_ + 1;
  if (taken == 0)
    return;
  if (fall == 0) {
    next_ = in.target;
    return;
  }
  moved_ = true;
  const int self = current_;
  if (groups_[size_t(self)].join >= 0 && in.reconvergence == groups_[size_t(self)].reconvergence) {
    // Both sides meet where this group is to meet others anyway: they become parts of the same join.
    const int other = newGroup(), join = groups_[size_t(self)].join;
    groups_[size_t(other)] = {taken, pc_, in.reconvergence, join, 0};
    groups_[size_t(self)].mask = fall;
    ++groups_[size_t(join)].parts;
    moveTo(other, in.target);
    moveTo(self, after);
    return;
  }
  const int a = newGroup();
  groups_[size_t(a)].mask = taken; // taken, so that the next newGroup() doesn't return it
  const int b = newGroup();
  groups_[size_t(a)] = {taken, pc_, in.reconvergence, self, 0};
  groups_[size_t(b)] = {fall, pc_, in.reconvergence, self, 0};
  LaneGroup &join = groups_[size_t(self)];
  join.mask = 0;
  join.pc = in.reconvergence;
  join.parts = 2;
  moveTo(a, in.target);
  moveTo(b, after);
}

void Warp::exitLanes(uint32_t mask) {
  live_ &= ~mask;
  cluster_arrived &= ~mask;
  LaneGroup &g = groups_[size_t(current_)];
  g.mask &= ~mask;
  if (live_)
    cta_.cluster().settleBarrier(); // it counts threads
  if (g.mask)                       // a guarded exit: the others go on
    return;
  moved_ = true;
  const int join = g.join;
  g = {};
  if (join >= 0)
    finishPart(join, 0);
  if (live_ == 0) {
    state_ = State::Done;
    cta_.warpExited(*this);
    cta_.cluster().settleBarrier();
  }
}

void Warp::pickGroup() {
  // The lowest program counter first: it is the one furthest from the join.
  int best = -1;
  for (size_t i = 0; i < groups_.size(); ++i) {
    const LaneGroup &g = groups_[i];
    if (g.mask && g.parts == 0 && g.blocked == LaneGroup::kRuns &&
        (best < 0 || g.pc < groups_[size_t(best)].pc))
      best = int(i);
  }
  current_ = best < 0 ? 0 : best;
  if (best < 0 && state_ == State::Ready)
    state_ = State::Blocked;
}

void Warp::wake(int on, bool timeout) {
  for (LaneGroup &g : groups_)
    if (g.mask && g.parts == 0 && g.blocked != LaneGroup::kRuns && (timeout || g.blocked == on)) {
      g.timed_out = timeout && g.blocked >= 0;
      g.blocked = LaneGroup::kRuns;
      if (state_ == State::Blocked)
        state_ = State::Ready;
    }
}

// --- wgmma
// ---------------------------------------------------------------------------------------------------------

/// Nothing but another wgmma may touch what one in flight writes, and nothing may write what it reads. A copy
/// of an accumulator is no use of it (ptxas makes no instruction of it): the copy is in flight too.
bool Warp::checkFlights(const Instruction &in) {
  for (int i = 0; i < in.sources; ++i)
    if (flights_[in.src(i).reg].accumulator > wgmma_waited && !in.moves) {
      fault(FaultKind::AsyncPending,
            "reads register " + program_.registers[in.src(i).reg].name +
                ", the accumulator of a wgmma that has not been waited for",
            -1);
      return false;
    }
  for (int i = 0; i < in.destinations; ++i) {
    const Flight &f = flights_[in.dst(i).reg];
    if (std::max(f.accumulator, f.operand) > wgmma_waited) {
      fault(FaultKind::AsyncPending,
            "writes register " + program_.registers[in.dst(i).reg].name +
                ", which a wgmma that has not been waited for " +
                (f.accumulator > wgmma_waited ? "accumulates in" : "reads"),
            -1);
      return false;
    }
  }
  return true;
}

// --- execution
// -----------------------------------------------------------------------------------------------------

Warp::Halves Warp::halves(const Operand &o) const {
  Halves out = partly_[o.reg];
  for (uint32_t &half : out)
    half |= written_[o.reg];
  return out;
}

void Warp::setHalves(const Operand &o, uint32_t mask, const Halves &halves) {
  uint32_t whole = kAllLanes;
  for (int i = 0; i < halfCount(o); ++i) {
    whole &= halves[size_t(i)];
    partly_[o.reg][size_t(i)] = (partly_[o.reg][size_t(i)] & ~mask) | (halves[size_t(i)] & mask);
  }
  written_[o.reg] = (written_[o.reg] & ~mask) | (whole & mask);
}

bool Warp::checkSources(const Instruction &in, uint32_t mask) {
  for (int i = 0; i < in.sources; ++i)
    if (const uint32_t missing = mask & ~written_[in.src(i).reg]) {
      fault(FaultKind::UninitialisedRegister,
            "reads register " + program_.registers[in.src(i).reg].name + ", which nothing has written",
            std::countr_zero(missing));
      return false;
    }
  return true;
}

void Warp::run(uint64_t steps) {
  pickGroup();
  pc_ = groups_[size_t(current_)].pc;
  while (steps-- && state_ == State::Ready) {
    const Instruction &in = program_.code[pc_];
    const uint32_t group = groupMask();
    uint32_t mask = group;
    if (!cta_.step()) {
      fault(FaultKind::StepLimit,
            "the CTA has executed " + std::to_string(cta_.options().step_limit) +
                " instructions without an end",
            -1);
      return;
    }
    next_ = pc_ + 1;
    moved_ = false;
    if (in.guarded) {
      if (const uint32_t missing = group & ~written_[in.guard.reg]) {
        fault(FaultKind::UninitialisedRegister,
              "reads predicate " + program_.registers[in.guard.reg].name + ", which nothing has written",
              std::countr_zero(missing));
        return;
      }
      const uint32_t p = predicate(in.guard);
      mask &= in.guard_negated ? ~p : p;
    }
    if (mask) {
      InstructionCount &count = cta_.statistics().by_pc[pc_];
      ++count.warps;
      count.lanes += uint64_t(std::popcount(mask));
      if (in.aligned && mask != live_) {
        fault(FaultKind::Divergence,
              "all lanes of a warp must execute it together, but lanes " +
                  std::to_string(std::popcount(live_ & ~mask)) + " of " +
                  std::to_string(std::popcount(live_)) + " do not",
              std::countr_zero(live_ & ~mask));
        return;
      }
      if (!in.moves && !checkSources(in, mask))
        return;
      const bool flying = wgmma_open || wgmma_committed > wgmma_waited;
      if (flying && in.op_class != OpClass::Wgmma && !checkFlights(in))
        return;
      ++step_;
      in.run(*this, in, mask);
      if (cta_.faulted())
        return;
      if (repeats_) { // a wait without success: the same instruction again, later
        repeats_ = false;
        pickGroup();
        pc_ = groups_[size_t(current_)].pc;
        continue;
      }
      if (program_.has_wgmma && in.op_class != OpClass::Wgmma) {
        for (int i = 0; i < in.destinations + in.sources; ++i)
          last_access_[in.operands[i].reg] = step_;
        if (in.moves && flying)
          for (int i = 0; i < in.destinations; ++i)
            flights_[in.dst(i).reg] = {flights_[in.src(0).reg].accumulator, 0};
      }
      if (!in.moves)
        for (int i = 0; i < in.destinations; ++i)
          written_[in.dst(i).reg] |= mask;
    }
    if (!moved_)
      moveTo(current_, next_);
    if (state_ == State::Done)
      return;
    if (std::exchange(yields_, false))
      return;
    const LaneGroup &g = groups_[size_t(current_)];
    if (moved_ || g.mask == 0 || g.parts)
      pickGroup();
    pc_ = groups_[size_t(current_)].pc;
  }
}

std::string Warp::describe() const {
  std::string out = "warp " + std::to_string(index_);
  if (state_ == State::Done)
    return out + " has exited";
  if (state_ == State::AtBarrier)
    out += " waits at barrier " + std::to_string(barrier_);
  for (const LaneGroup &g : groups_) {
    if (!g.mask || g.parts)
      continue;
    if (g.blocked >= 0) {
      const Mbarrier &b = cta_.mbarriers[size_t(g.blocked)];
      out += " waits for phase " + std::to_string(b.phases + 1) + " of the mbarrier at " +
             std::to_string(b.offset + kSharedBase) + " (" + std::to_string(b.pending) + " of " +
             std::to_string(b.expected) + " arrivals and " + std::to_string(b.transactions) +
             " bytes to come)";
    } else if (g.blocked == LaneGroup::kWantsRegisters) {
      out += " waits for registers";
    } else if (g.blocked == LaneGroup::kAtClusterBarrier) {
      out += " waits at the cluster's barrier";
    }
    const Instruction &in = program_.code[state_ == State::AtBarrier ? blocked_pc_ : g.pc];
    out +=
        (g.mask == live_ ? " at line " : ", " + std::to_string(std::popcount(g.mask)) + " lanes at line ") +
        std::to_string(in.at.line);
  }
  return out;
}

void Warp::fault(FaultKind kind, std::string message, int lane, std::optional<uint64_t> address, Space space,
                 std::string other) {
  Fault f = cta_.makeFault(kind, std::move(message), pc_, index_, lane);
  f.address = address;
  f.space = space;
  f.other = std::move(other);
  cta_.setFault(std::move(f));
}

void Warp::fault(const SharedProblem &problem, int lane) {
  fault(problem.kind, problem.message, lane, problem.address + kSharedBase, Space::Shared,
        problem.thread >= 0 ? cta_.party(problem.verb, problem.thread, problem.pc) : "");
}

} // namespace flashplus::emu
