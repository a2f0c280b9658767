// SPDX-License-Identifier: BSD-3-Clause
// cp.async and its groups. What lands when is chosen by AsyncMode; whatever the mode, until its thread has
// waited for a copy nobody may touch its destination, and until something orders the wait before them, other
// threads neither.
#include "emulator/core/windows.h"
#include "emulator/isa/access.h"
#include "emulator/isa/builder.h"
#include "emulator/isa/bulk_copy.h"

#include <algorithm>

namespace flashplus::emu {
namespace {

/// Moves the bytes. False after a fault.
bool land(Warp &w, PendingCopy &copy) {
  copy.landed = true;
  uint8_t *to = w.cta().shared().data(copy.to);
  std::memset(to, 0, copy.bytes);
  if (!copy.from_bytes)
    return true;
  const uint8_t *from = access(w, Space::Global, copy.from, copy.from_bytes, 1, copy.lane, AccessKind::Read);
  if (!from)
    return false;
  std::memcpy(to, from, copy.from_bytes);
  return true;
}

void runCopy(Warp &w, const Instruction &in, uint32_t mask) {
  uint64_t to[kLanes], from[kLanes], size[kLanes];
  w.widen(in.src(0), to);
  w.widen(in.src(1), from);
  const uint32_t bytes = in.lane_bytes;
  if (in.sources > 2)
    w.widen(in.src(2), size);
  Cta &cta = w.cta();
  const AsyncMode mode = cta.options().async;
  uint64_t read = 0;
  uint32_t reading = 0;
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1))
      continue;
    to[lane] += uint64_t(in.immediate >> 32);
    from[lane] += uint64_t(int64_t(int32_t(in.immediate)));
    PendingCopy copy;
    copy.bytes = uint8_t(bytes);
    copy.from_bytes = uint8_t(bytes);
    if (in.sources > 2) {
      if (size[lane] > bytes)
        return w.fault(FaultKind::OutOfBounds,
                       "copies " + std::to_string(size[lane]) + " of at most " + std::to_string(bytes) +
                           " bytes",
                       int(lane));
      copy.from_bytes = uint8_t(size[lane]);
    }
    copy.lane = uint8_t(lane);
    copy.pc = w.pc();
    copy.group = w.committed[lane];
    copy.from = from[lane];
    const SharedMemory &shared = cta.shared();
    if (to[lane] % bytes)
      return w.fault(FaultKind::Misaligned,
                     "copies to an address that is no multiple of " + std::to_string(bytes), int(lane),
                     to[lane], Space::Shared);
    if (from[lane] % bytes)
      return w.fault(FaultKind::Misaligned,
                     "copies from an address that is no multiple of " + std::to_string(bytes), int(lane),
                     from[lane], Space::Global);
    if (to[lane] < kSharedBase || to[lane] - kSharedBase + bytes > shared.bytes())
      return w.fault(FaultKind::OutOfBounds,
                     "copies outside shared memory; the CTA has " + std::to_string(shared.bytes()) +
                         " bytes from " + std::to_string(kSharedBase),
                     int(lane), to[lane], Space::Shared);
    copy.to = uint32_t(to[lane] - kSharedBase);
    // The source must be there when the copy is issued, whenever it is read.
    if (copy.from_bytes && !access(w, Space::Global, copy.from, copy.from_bytes, 1, lane, AccessKind::Read))
      return;
    SharedProblem problem;
    if (!cta.shared().onAsyncBegin(copy.to, bytes, {w.thread(lane), w.pc()}, problem))
      return w.fault(problem, int(lane));
    read += copy.from_bytes;
    reading |= copy.from_bytes ? 1u << lane : 0;
    if (mode == AsyncMode::Eager || (mode == AsyncMode::Random && (cta.random() & 1)))
      if (!land(w, copy))
        return;
    w.copies.push_back(copy);
  }
  Statistics &s = cta.statistics();
  s.global_read += read;
  s.global_sectors_read += countSectors(from, reading, bytes);
  s.shared_written += uint64_t(std::popcount(mask)) * bytes;
  countBanks(w, to, mask, bytes);
}

void runCommit(Warp &w, const Instruction &, uint32_t mask) {
  for (uint32_t lane = 0; lane < kLanes; ++lane)
    w.committed[lane] += mask >> lane & 1;
}

/// All of a lane's groups but the last `immediate` are complete; with `mode` also what is not committed.
void runWait(Warp &w, const Instruction &in, uint32_t mask) {
  auto done = [&](PendingCopy &copy) {
    if (!(mask >> copy.lane & 1))
      return false;
    const uint64_t pending = w.committed[copy.lane] - uint64_t(copy.group); // 0: not committed
    if (!in.mode && (pending == 0 || pending <= uint64_t(in.immediate)))
      return false;
    if (!copy.landed && !land(w, copy))
      return false;
    w.cta().shared().onAsyncEnd(copy.to, copy.bytes, {w.thread(copy.lane), copy.pc});
    return true;
  };
  w.copies.erase(std::remove_if(w.copies.begin(), w.copies.end(), done), w.copies.end());
}

void decodeCpAsync(Builder &b) {
  if (b.take("reduce")) {
    b.require("async");
    b.require("bulk");
    const int rank = b.take("tensor") ? b.takeOneOf({"1d", "2d", "3d", "4d", "5d"}) + 1 : 0;
    b.require("global");
    return decodeBulkStore(b, rank, /*reduces=*/true);
  }
  b.require("async");
  if (b.take("bulk"))
    return decodeBulk(b);
  if (b.take("commit_group")) {
    b.wantOperands(0);
    b.out.run = runCommit;
    b.out.op_class = OpClass::Barrier;
    return;
  }
  if (b.take("wait_group")) {
    b.wantOperands(1);
    b.out.immediate = b.constant(0, 0, 1 << 20);
    b.out.run = runWait;
    b.out.op_class = OpClass::Barrier;
    return;
  }
  if (b.take("wait_all")) {
    b.wantOperands(0);
    b.out.mode = 1;
    b.out.run = runWait;
    b.out.op_class = OpClass::Barrier;
    return;
  }
  const bool cg = b.takeOneOf({"ca", "cg"}) == 1;
  b.takeOneOf({"shared", "shared::cta"});
  b.require("global");
  for (std::string_view hint : {"L2::64B", "L2::128B", "L2::256B"})
    (void)b.take(hint);
  b.wantOperands(3, 4);
  b.address(0, Space::Shared);
  const int64_t to_offset = b.out.immediate;
  b.address(1, Space::Global);
  const int64_t from_offset = b.out.immediate;
  if (to_offset != int32_t(to_offset) || from_offset != int32_t(from_offset))
    return b.fail("cp.async: an address offset does not fit 32 bits");
  b.out.immediate = int64_t(uint64_t(to_offset) << 32 | uint32_t(from_offset));
  const int64_t bytes = b.constant(2, 4, 16);
  if ((bytes != 4 && bytes != 8 && bytes != 16) || (cg && bytes != 16))
    return b.fail("cp.async: the size must be 4, 8 or 16, with .cg 16");
  b.out.lane_bytes = uint8_t(bytes);
  if (b.count() == 4)
    b.src(3, Type::U32);
  b.out.run = runCopy;
  b.out.op_class = OpClass::AsyncCopy;
}

} // namespace

void addAsyncCopy(OpcodeTable &t) { t["cp"] = decodeCpAsync; }

} // namespace flashplus::emu
