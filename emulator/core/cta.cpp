// SPDX-License-Identifier: BSD-3-Clause
#include "emulator/core/cluster.h"
#include "emulator/core/windows.h"

#include <algorithm>

namespace flashplus::emu {

Cta::Cta(Cluster &cluster, int rank)
    : cluster_(cluster), rank_(rank), program_(cluster.program_), memory_(cluster.memory_),
      config_(cluster.config_), options_(cluster.options_), statistics_(cluster.statistics_),
      clocks_(cluster.clocks_), fault_(cluster.fault_) {
  const uint32_t threads = config_.block[0] * config_.block[1] * config_.block[2];
  const uint32_t count = (threads + kLanes - 1) / kLanes;
  warps_.reserve(count);
  for (uint32_t w = 0; w < count; ++w) {
    const uint32_t lanes = std::min(kLanes, threads - w * kLanes);
    warps_.emplace_back(*this, program_, rank * int(count) + int(w), int(w),
                        lanes == kLanes ? kAllLanes : (1u << lanes) - 1);
  }
}

void Cta::start(const std::array<uint32_t, 3> &ctaid) {
  ctaid_ = ctaid;
  mbarriers.clear();
  bulk_.clear();
  visits_.clear();
  shared_.reset(uint32_t(program_.dynamic_shared_offset) + config_.dynamic_shared, rank_ * warpCount(),
                warpCount(), clocks_);
  barriers_ = {};
  steps_ = 0;
  const uint64_t index = ctaid[0] + config_.grid[0] * (ctaid[1] + uint64_t(config_.grid[1]) * ctaid[2]);
  random_ = options_.seed * 0x9e3779b97f4a7c15ull + index + 1;
  for (Warp &w : warps_)
    w.start();
  // What ptxas gives each thread at the start, when it must leave room for all: hopper setmaxnreg moves
  // shares about.
  const int threads = warpCount() * int(kLanes);
  const int entry = program_.max_registers
                        ? program_.max_registers
                        : std::min(255, program_.registersOfCta() / std::max(threads, 1) / 8 * 8);
  for (Warp &w : warps_)
    w.registers = entry;
  ++statistics_.ctas;
}

void Cta::event() { cluster_.event(); }

bool Cta::exited() const {
  return std::all_of(warps_.begin(), warps_.end(),
                     [](const Warp &w) { return w.state() == Warp::State::Done; });
}

std::string Cta::stuck(bool name_cta) const {
  std::string out;
  if (name_cta)
    out = "CTA (" + std::to_string(ctaid_[0]) + ", " + std::to_string(ctaid_[1]) + ", " +
          std::to_string(ctaid_[2]) + ")";
  for (size_t id = 0; id < barriers_.size(); ++id) {
    const NamedBarrier &b = barriers_[id];
    if (!b.arrived)
      continue;
    out += (out.empty() ? "" : "; ") + ("barrier " + std::to_string(id)) + ": " +
           std::to_string(std::popcount(b.arrived) * int(kLanes)) + " threads have arrived, it wants " +
           (b.threads ? std::to_string(b.threads) : std::string("all"));
  }
  for (const Warp &w : warps_)
    out += (out.empty() ? "" : "; ") + w.describe();
  return out;
}

Fault Cta::makeFault(FaultKind kind, std::string message, uint32_t pc, int warp, int lane) const {
  Fault f;
  f.kind = kind;
  f.message = std::move(message);
  const Instruction &in = program_.code[std::min<size_t>(pc, program_.code.size() - 1)];
  f.where.line = in.at.line;
  f.instruction = std::string(in.text);
  for (size_t i = 0; i < 3; ++i)
    f.where.cta[i] = ctaid_[i];
  f.where.warp = warp;
  f.where.lane = lane;
  return f;
}

std::string Cta::party(const char *verb, int thread, uint32_t pc) const {
  const Instruction &in = program_.code[pc];
  if (thread >= clocks_.threads())
    return std::string(verb) + " by the asynchronous copy at line " + std::to_string(in.at.line) + " '" +
           std::string(in.text) + "'";
  const int rank = thread / int(kLanes) / warpCount();
  return std::string(verb) + " by " +
         (cluster_.size() > 1 ? "CTA " + std::to_string(rank) + " of the cluster, " : "") + "warp " +
         std::to_string(thread / int(kLanes) % warpCount()) + ", lane " +
         std::to_string(thread % int(kLanes)) + " at line " + std::to_string(in.at.line) + " '" +
         std::string(in.text) + "'";
}

uint64_t Cta::random() { // xorshift64*
  random_ ^= random_ >> 12;
  random_ ^= random_ << 25;
  random_ ^= random_ >> 27;
  return random_ * 0x2545f4914f6cdd1dull >> 16;
}

void Cta::arrive(Warp &warp, uint32_t id, uint32_t threads, bool wait) {
  if (id >= barriers_.size())
    return warp.fault(FaultKind::Barrier,
                      "barrier " + std::to_string(id) + " does not exist; there are 0 to 15", -1);
  const uint32_t all = uint32_t(warps_.size()) * kLanes;
  if (threads % kLanes || threads > all)
    return warp.fault(FaultKind::Barrier,
                      "barrier " + std::to_string(id) + " for " + std::to_string(threads) +
                          " threads: the count must be a multiple of 32 up to the CTA's " +
                          std::to_string(all),
                      -1);
  NamedBarrier &b = barriers_[id];
  const uint32_t bit = 1u << warp.index();
  if (b.arrived && b.threads != threads)
    return warp.fault(FaultKind::Barrier,
                      "barrier " + std::to_string(id) + " was begun for " +
                          (b.threads ? std::to_string(b.threads) : std::string("all")) +
                          " threads, this warp arrives for " +
                          (threads ? std::to_string(threads) : std::string("all")),
                      -1);
  if (b.arrived & bit)
    return warp.fault(
        FaultKind::Barrier,
        "the warp arrives at barrier " + std::to_string(id) + " a second time before it is complete", -1);
  event();
  b.threads = threads;
  b.arrived |= bit;
  for (uint32_t lane = 0; lane < kLanes; ++lane)
    if (warp.live() >> lane & 1)
      clocks_.release(warp.thread(lane), b.released);
  if (wait) {
    b.waiting |= bit;
    warp.waitAt(int(id));
  }
  completeIfFull(id);
}

void Cta::completeIfFull(uint32_t id) {
  NamedBarrier &b = barriers_[id];
  if (!b.arrived)
    return;
  bool full;
  if (b.threads) {
    full = uint32_t(std::popcount(b.arrived)) * kLanes == b.threads;
  } else {
    full = true;
    for (const Warp &w : warps_)
      full &= w.state() == Warp::State::Done || (b.arrived >> w.index() & 1);
  }
  if (!full)
    return;
  const View view = b.released.take();
  for (Warp &w : warps_)
    if (b.waiting >> w.index() & 1) {
      clocks_.acquire(w.thread(0), w.live(), view, /*merge=*/false);
      w.setState(Warp::State::Ready);
    }
  b = {};
}

// --- mbarriers and bulk copies
// ---------------------------------------------------------------------------------------

int Cta::mbarrierAt(uint32_t offset) const {
  for (size_t i = 0; i < mbarriers.size(); ++i)
    if (mbarriers[i].valid && mbarriers[i].offset == offset)
      return int(i);
  return -1;
}

bool Cta::seesBarrier(int thread, int index) const {
  const Mbarrier &b = mbarriers[size_t(index)];
  return clocks_.seen(thread, size_t(b.init_thread), b.init_clock) ||
         clocks_.seen(thread, clocks_.init(barrierNumber(index)), 1);
}

void Cta::settle(int index) {
  event();
  Mbarrier &b = mbarriers[size_t(index)];
  if (b.pending || b.transactions)
    return;
  ++b.phases;
  b.pending = b.expected;
  b.released.set(clocks_.size() - 1, 0);
  b.released.set(clocks_.barrier(barrierNumber(index)), b.phases);
  b.completed = b.released.take();
  b.released.clear();
  wakeAll(index);
}

void Cta::wakeAll(int on, bool timeout) {
  for (Warp &w : warps_)
    w.wake(on, timeout);
}

void Cta::issue(BulkCopy copy) {
  bulk_.push_back(std::move(copy));
  event();
  if (options_.async == AsyncMode::Eager)
    (void)land(bulk_.size() - 1);
}

bool Cta::landOne() {
  return land(options_.async == AsyncMode::Random ? cluster_.cta(0).random() % bulk_.size() : 0);
}

/// False after a fault.
bool Cta::land(size_t which) {
  const BulkCopy copy = std::move(bulk_[which]);
  bulk_.erase(bulk_.begin() + long(which));
  const int thread = copy.thread;
  auto refuse = [&](FaultKind kind, std::string message, uint64_t address, Space space) {
    Fault f = copy.issuer->makeFault(kind, std::move(message), copy.pc, thread / int(kLanes) % warpCount(),
                                     thread % int(kLanes));
    f.address = address;
    f.space = space;
    setFault(std::move(f));
    return false;
  };
  for (const BulkPiece &p : copy.pieces) {
    if (!p.from) {
      std::memset(shared_.data(p.to), 0, p.bytes);
      continue;
    }
    const GlobalMemory::Allocation *a = memory_.find(p.from, p.bytes);
    if (!a)
      return refuse(FaultKind::OutOfBounds,
                    "copies " + std::to_string(p.bytes) + " bytes from outside memory; " +
                        memory_.describe(p.from),
                    p.from, Space::Global);
    // What nothing has written arrives as it lies there (NaN): a kernel may load rows that it masks.
    std::memcpy(shared_.data(p.to), a->data(p.from), p.bytes);
  }
  Mbarrier &b = mbarriers[size_t(copy.barrier)];
  if (!b.valid)
    return refuse(FaultKind::Barrier, "the mbarrier of the copy is gone when it lands",
                  b.offset + kSharedBase, Space::Shared);
  for (const BulkPiece &p : copy.pieces)
    shared_.onBulkEnd(p.to, p.bytes, clocks_.barrier(barrierNumber(copy.barrier)), b.phases + 1, copy.pc);
  b.landed = b.phases + 1;
  b.landed_pc = copy.pc;
  b.landed_thread = thread;
  b.transactions -= copy.total;
  settle(copy.barrier);
  return true;
}

int Cta::registersInUse() const {
  int total = 0;
  for (const Warp &w : warps_)
    total += w.registers * int(kLanes); // what a warp that has exited had is nobody else's
  return total;
}

void Cta::warpExited(Warp &warp) {
  event();
  for (uint32_t id = 0; id < barriers_.size(); ++id)
    if (barriers_[id].arrived && !barriers_[id].threads)
      completeIfFull(id);
  if (exited())
    checkExit(warp);
}

// --- clusters
// ---------------------------------------------------------------------------------------------------------

bool Cta::admit(Warp &w, uint32_t lane, uint64_t address, bool copies) {
  const int thread = w.thread(lane);
  const std::string name = "the shared memory of CTA " + std::to_string(rank_) + " of the cluster, ";
  if (exited()) {
    w.fault(FaultKind::Race, "touches " + name + "which has exited", int(lane), address,
            Space::SharedCluster);
    return false;
  }
  bool started = false; // some thread of it has done something that `thread` has seen
  for (int t = firstThread(); t < firstThread() + warpCount() * int(kLanes) && !started; ++t)
    started = clocks_.seen(thread, size_t(t), Clocks::kStart);
  if (!started) {
    w.fault(FaultKind::Race, "touches " + name + "with nothing to order its start before", int(lane), address,
            Space::SharedCluster);
    return false;
  }
  if (copies)
    return true;
  for (Visit &v : visits_)
    if (v.thread == thread) {
      v = {thread, clocks_.own(thread), w.pc()};
      return true;
    }
  visits_.push_back({thread, clocks_.own(thread), w.pc()});
  return true;
}

void Cta::checkExit(Warp &last) {
  if (std::ranges::all_of(warps_, [](const Warp &w) { return !w.grid_waited; }))
    return last.fault(FaultKind::Race,
                      "the CTA exits without griddepcontrol.wait: the grid behind this one would begin while "
                      "the one before still runs",
                      -1);
  if (!bulk_.empty())
    return last.fault(FaultKind::AsyncPending,
                      "the CTA exits while an asynchronous copy into its shared memory is under way", -1, {},
                      Space::Generic, party("issued", bulk_.front().thread, bulk_.front().pc));
  for (Warp &w : warps_)
    landStores(w);
  for (const Warp &w : warps_)
    for (const BulkStore &s : w.stores)
      if (!s.read)
        return last.fault(FaultKind::AsyncPending,
                          "the CTA exits while a bulk store still reads its shared memory", -1, {},
                          Space::Generic, party("issued", w.thread(s.lane), s.pc));
  auto anyoneSaw = [&](size_t component, uint32_t clock) {
    for (int t = firstThread(); t < firstThread() + warpCount() * int(kLanes); ++t)
      if (clocks_.seen(t, component, clock))
        return true;
    return false;
  };
  for (size_t i = 0; i < mbarriers.size(); ++i) {
    const Mbarrier &b = mbarriers[i];
    if (b.landed && !anyoneSaw(clocks_.barrier(barrierNumber(int(i))), b.landed))
      return last.fault(FaultKind::AsyncPending,
                        "the CTA exits without having waited for an asynchronous copy into its shared memory",
                        -1, {}, Space::Generic, party("issued", b.landed_thread, b.landed_pc));
  }
  for (const Visit &v : visits_) {
    if (!anyoneSaw(size_t(v.thread), v.clock))
      return last.fault(
          FaultKind::Race,
          "the CTA exits, with nothing to order an access of another CTA to its shared memory before", -1, {},
          Space::Generic, party("accessed", v.thread, v.pc));
  }
}

} // namespace flashplus::emu
