// SPDX-License-Identifier: BSD-3-Clause
#include "emulator/core/cta.h"

#include <algorithm>

namespace flashplus::emu {
namespace {

constexpr uint64_t kTurn = 1 << 16; ///< Instructions before another warp gets its turn.
constexpr int kStalls = 3;          ///< Times that waits may time out with nothing else happening.

} // namespace

Cta::Cta(const Program &program, GlobalMemory &memory, const LaunchConfig &config, const Options &options,
         Statistics &statistics)
    : program_(program), memory_(memory), config_(config), options_(options), statistics_(statistics) {
  const uint32_t threads = config.block[0] * config.block[1] * config.block[2];
  const uint32_t count = (threads + kLanes - 1) / kLanes;
  warps_.reserve(count);
  for (uint32_t w = 0; w < count; ++w) {
    const uint32_t lanes = std::min(kLanes, threads - w * kLanes);
    warps_.emplace_back(*this, program, int(w), lanes == kLanes ? kAllLanes : (1u << lanes) - 1);
  }
}

std::optional<Fault> Cta::run(uint64_t index) {
  ctaid_ = {uint32_t(index % config_.grid[0]), uint32_t(index / config_.grid[0] % config_.grid[1]),
            uint32_t(index / (uint64_t(config_.grid[0]) * config_.grid[1]))};
  clocks_.reset(warpCount());
  mbarriers.clear();
  bulk_.clear();
  stalls_ = 0;
  shared_.reset(uint32_t(program_.dynamic_shared_offset) + config_.dynamic_shared, warpCount(), clocks_);
  barriers_ = {};
  fault_.reset();
  steps_ = 0;
  random_ = options_.seed * 0x9e3779b97f4a7c15ull + index + 1;
  for (Warp &w : warps_)
    w.start();
  // What ptxas gives each thread at the start, when it must leave room for all: hopper setmaxnreg moves
  // shares about.
  const int threads = warpCount() * int(kLanes);
  const int entry =
      program_.max_registers ? program_.max_registers : std::min(255, 65536 / std::max(threads, 1) / 8 * 8);
  for (Warp &w : warps_)
    w.registers = entry;
  ++statistics_.ctas;
  // The order of turns changes with the seed; what is checked must not depend on it.
  std::vector<size_t> order(warps_.size());
  for (size_t i = 0; i < order.size(); ++i)
    order[i] = i;
  for (;;) {
    bool progress = false, alive = false;
    if (options_.async == AsyncMode::Random)
      for (size_t i = order.size(); i > 1; --i)
        std::swap(order[i - 1], order[random() % i]);
    if (options_.async == AsyncMode::Random && !bulk_.empty() && random() % 4 == 0 &&
        !land(random() % bulk_.size()))
      return fault_;
    for (size_t w : order) {
      alive |= warps_[w].state() != Warp::State::Done;
      if (warps_[w].state() != Warp::State::Ready)
        continue;
      warps_[w].run(options_.async == AsyncMode::Random ? 1 + random() % 512 : kTurn);
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
    if (!bulk_.empty()) {
      if (!land(options_.async == AsyncMode::Random ? random() % bulk_.size() : 0))
        return fault_;
      continue;
    }
    if (stalls_ < kStalls) {
      const int before = ++stalls_;
      wakeAll(0, /*timeout=*/true);
      stalls_ = before;
      bool woke = false;
      for (const Warp &w : warps_)
        woke |= w.state() == Warp::State::Ready;
      if (woke)
        continue;
    }
    {
      const Warp *waiting = nullptr;
      for (const Warp &w : warps_)
        if (w.state() != Warp::State::Done && !waiting)
          waiting = &w;
      setFault(makeFault(FaultKind::Deadlock, "no warp can go on", waiting ? waiting->blockedPc() : 0,
                         waiting ? waiting->index() : -1, -1));
      fault_->other = stuck();
      return fault_;
    }
  }
}

std::string Cta::stuck() const {
  std::string out;
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
  return std::string(verb) + " by warp " + std::to_string(thread / int(kLanes)) + ", lane " +
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

void Cta::settle(int index) {
  event();
  Mbarrier &b = mbarriers[size_t(index)];
  if (b.pending || b.transactions)
    return;
  ++b.phases;
  b.pending = b.expected;
  b.released.set(clocks_.size() - 1, 0);
  b.released.set(clocks_.barrier(index), b.phases);
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

/// False after a fault.
bool Cta::land(size_t which) {
  const BulkCopy copy = std::move(bulk_[which]);
  bulk_.erase(bulk_.begin() + long(which));
  const int thread = copy.thread;
  auto refuse = [&](FaultKind kind, std::string message, uint64_t address, Space space) {
    Fault f = makeFault(kind, std::move(message), copy.pc, thread / int(kLanes), thread % int(kLanes));
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
    shared_.onBulkEnd(p.to, p.bytes, clocks_.barrier(copy.barrier), b.phases + 1, copy.pc);
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

void Cta::warpExited() {
  event();
  for (uint32_t id = 0; id < barriers_.size(); ++id)
    if (barriers_[id].arrived && !barriers_[id].threads)
      completeIfFull(id);
}

} // namespace flashplus::emu
