// SPDX-License-Identifier: BSD-3-Clause
// cp.async.bulk from global to shared memory (TMA), of bytes and of a tensor in tiled mode, to one CTA or to
// several of a cluster.
#include "emulator/isa/bulk_copy.h"
#include "emulator/core/cluster.h"
#include "emulator/core/tensor_map.h"
#include "emulator/core/windows.h"
#include <algorithm>

namespace flashplus::emu {
namespace {

/// What cuTensorMapEncodeTiled refuses in a map; null if nothing. Of a dimension of one any stride will do.
const char *problemOf(const TensorMapContents &m) {
  if (m.address % 16)
    return "address is no multiple of 16";
  for (int d = 0; d < m.rank; ++d) {
    if (m.box[d] < 1 || m.box[d] > 256)
      return "box has a side outside 1 to 256";
    if (d && m.extent[d] > 1 && (m.stride[d - 1] % 16 || m.stride[d - 1] >> 40))
      return "stride is no multiple of 16 below 2^40";
  }
  const uint32_t row = m.box[0] * m.element_bytes;
  if (row % 16)
    return "box has rows of no multiple of 16 bytes";
  // Wider ones are refused; how narrower ones lie in shared memory is not modelled.
  if (m.swizzle_bytes && row != m.swizzle_bytes)
    return "box has rows of another width than its swizzle";
  return nullptr;
}

} // namespace

bool readMap(Warp &w, uint64_t address, uint32_t lane, int rank, TensorMapContents &map) {
  const uint8_t *at = access(w, Space::Generic, address, 128, 64, lane, AccessKind::Read);
  if (!at)
    return false;
  std::memcpy(&map, at, sizeof map);
  if (map.magic != TensorMapContents::kMagic || map.rank < 1 || map.rank > 5) {
    w.fault(FaultKind::Launch, "there is no tensor map", int(lane), address);
    return false;
  }
  if (rank && map.rank != rank) {
    w.fault(FaultKind::Launch,
            "a copy of " + std::to_string(rank) + " dimensions with a map of " + std::to_string(map.rank),
            int(lane));
    return false;
  }
  if (const char *problem = problemOf(map)) {
    w.fault(FaultKind::Launch, std::string("the tensor map's ") + problem, int(lane), address);
    return false;
  }
  return true;
}

uint32_t boxBytes(const TensorMapContents &map) {
  uint64_t total = map.element_bytes;
  for (int d = 0; d < map.rank; ++d)
    total *= map.box[d];
  return uint32_t(total);
}

bool checkBox(Warp &w, uint64_t address, const int64_t (&start)[5], uint32_t lane,
              const TensorMapContents &map) {
  const uint32_t align = map.swizzle_bytes == 128  ? 1024
                         : map.swizzle_bytes == 64 ? 512
                         : map.swizzle_bytes == 32 ? 256
                                                   : 128;
  if (address % align) {
    w.fault(FaultKind::Misaligned, "a tile with this swizzle lies at a multiple of " + std::to_string(align),
            int(lane), address, Space::Shared);
    return false;
  }
  // An illegal instruction on sm_90, though the PTX ISA does not say so.
  if (start[0] * map.element_bytes % 16) {
    w.fault(FaultKind::Misaligned,
            "a box starts at a multiple of 16 bytes in the innermost dimension, not at element " +
                std::to_string(start[0]) + " of " + std::to_string(map.element_bytes) + " bytes",
            int(lane));
    return false;
  }
  return true;
}

void cutBox(const TensorMapContents &m, const int64_t (&start)[5], uint32_t to, BulkCopy &copy) {
  const uint32_t row_bytes = m.box[0] * m.element_bytes;
  const uint32_t piece = m.swizzle_bytes ? 16 : row_bytes;
  uint64_t rows = 1;
  for (int d = 1; d < m.rank; ++d)
    rows *= m.box[d];
  for (uint64_t row = 0; row < rows; ++row) {
    uint64_t rest = row, from = m.address;
    bool inside = true;
    for (int d = 1; d < m.rank; ++d) {
      const int64_t at = start[d] + int64_t(rest % m.box[d]);
      rest /= m.box[d];
      inside &= at >= 0 && uint64_t(at) < m.extent[d];
      from += uint64_t(at) * m.stride[d - 1];
    }
    for (uint32_t byte = 0; byte < row_bytes; byte += piece) {
      const uint32_t end = std::min(byte + piece, row_bytes);
      // Columns outside are zeros one element at a time.
      const int64_t first = start[0] * m.element_bytes + byte,
                    last = start[0] * m.element_bytes + int64_t(end);
      const int64_t limit = int64_t(m.extent[0]) * m.element_bytes;
      const uint32_t target = swizzled(to + uint32_t(row) * row_bytes + byte, m.swizzle_bytes) - kSharedBase;
      const int64_t lo = std::clamp<int64_t>(first, 0, limit), hi = std::clamp<int64_t>(last, 0, limit);
      if (!inside || lo >= hi) {
        copy.pieces.push_back({target, end - byte, 0});
        continue;
      }
      if (lo > first)
        copy.pieces.push_back({target, uint32_t(lo - first), 0});
      copy.pieces.push_back({target + uint32_t(lo - first), uint32_t(hi - lo), from + uint64_t(lo)});
      if (hi < last)
        copy.pieces.push_back({target + uint32_t(hi - first), uint32_t(last - hi), 0});
    }
  }
  copy.total = uint32_t(rows) * row_bytes;
}

namespace {

/// The copy's part for one CTA of the cluster: `to` and `barrier` count from the start of its shared memory.
bool issueInto(Warp &w, Cta &target, BulkCopy copy, uint32_t to, uint64_t barrier, uint32_t lane) {
  const int thread = w.thread(lane);
  copy.barrier = target.mbarrierAt(uint32_t(barrier));
  if (copy.barrier < 0) {
    w.fault(FaultKind::Barrier, "there is no initialised mbarrier", int(lane),
            clusterAddress(barrier + kSharedBase, uint64_t(target.rank())), Space::SharedCluster);
    return false;
  }
  const Mbarrier &b = target.mbarriers[size_t(copy.barrier)];
  const std::string initialised = w.cta().party("initialised", b.init_thread, b.init_pc);
  if (!b.fenced || !target.seesBarrier(thread, copy.barrier)) {
    w.fault(FaultKind::Race,
            b.fenced
                ? "a copy uses an mbarrier whose initialisation nothing orders before"
                : "a copy uses an mbarrier that no fence.mbarrier_init or fence.proxy.async has made visible "
                  "to the asynchronous proxy",
            int(lane), barrier + kSharedBase, Space::Shared, initialised);
    return false;
  }
  SharedProblem problem;
  if (!target.shared().onBulkBegin(to, copy.total, {thread, w.pc()}, problem)) {
    w.fault(problem, int(lane));
    return false;
  }
  w.cta().statistics().shared_written += copy.total;
  w.cta().statistics().by_pc[w.pc()].wavefronts += (copy.total + 127) / 128;
  target.issue(std::move(copy));
  return !w.cta().faulted();
}

enum : uint8_t { kMulticast = 1 };

/// To the destination, or with `mask` to the same place in each CTA of it, whose own mbarrier hears of it.
/// False after a fault.
bool deliver(Warp &w, BulkCopy copy, SharedPlace place, SharedPlace signal, uint64_t barrier, uint64_t to,
             const uint32_t *mask, uint32_t lane) {
  Cluster &cluster = w.cta().cluster();
  if (!mask) {
    if (place.cta == signal.cta)
      return issueInto(w, *place.cta, std::move(copy), place.offset, signal.offset, lane);
    w.fault(FaultKind::Barrier, "the mbarrier of a copy lies in another CTA than its destination", int(lane),
            barrier, Space::SharedCluster);
    return false;
  }
  if (*mask == 0 || *mask >> cluster.size()) {
    w.fault(FaultKind::Launch,
            "a multicast to the mask " + std::to_string(*mask) + " in a cluster of " +
                std::to_string(cluster.size()) + " CTAs",
            int(lane));
    return false;
  }
  for (int r = 0; r < cluster.size(); ++r) {
    if (!(*mask >> r & 1))
      continue;
    Cta &target = cluster.cta(r);
    if (&target != &w.cta() && !target.admit(w, lane, clusterAddress(to, uint64_t(r)), /*copies=*/true))
      return false;
    if (!issueInto(w, target, copy, place.offset, signal.offset, lane))
      return false;
  }
  return true;
}

void runTensorLoad(Warp &w, const Instruction &in, uint32_t mask) {
  uint64_t to[kLanes], map_at[kLanes], barrier[kLanes];
  w.widen(in.src(0), to);
  w.widen(in.src(1), map_at);
  w.widen(in.src(2), barrier);
  const int rank = in.elements;
  const uint32_t *targets = in.mode & kMulticast ? w.lanes<uint32_t>(in.src(3 + rank)) : nullptr;
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1))
      continue;
    if (!checkGridBefore(w, lane, map_at[lane]))
      return;
    to[lane] += uint64_t(in.immediate >> 32);
    barrier[lane] += uint64_t(int64_t(int32_t(in.immediate)));
    TensorMapContents map;
    int64_t start[5] = {};
    for (int d = 0; d < rank; ++d)
      start[d] = int32_t(w.lanes<uint32_t>(in.src(3 + d))[lane]);
    if (!readMap(w, map_at[lane], lane, rank, map) || !checkBox(w, to[lane], start, lane, map))
      return;
    const SharedPlace place =
        sharedPlace(w, in.space, to[lane], boxBytes(map), lane, "copies", /*copies=*/true);
    if (!place.cta)
      return;
    const SharedPlace signal =
        sharedPlace(w, in.space, barrier[lane], 8, lane, "signals an mbarrier of", /*copies=*/true);
    if (!signal.cta)
      return;
    BulkCopy copy;
    copy.pc = w.pc();
    copy.issuer = &w.cta();
    copy.thread = w.thread(lane);
    cutBox(map, start, place.offset + kSharedBase, copy);
    Statistics &s = w.cta().statistics();
    s.global_read += copy.total; // once, to however many CTAs it goes
    s.global_sectors_read += copy.total / 32;
    if (!deliver(w, std::move(copy), place, signal, barrier[lane], to[lane],
                 targets ? &targets[lane] : nullptr, lane))
      return;
  }
}

/// cp.async.bulk of contiguous bytes.
void runLinearLoad(Warp &w, const Instruction &in, uint32_t mask) {
  uint64_t to[kLanes], from[kLanes], barrier[kLanes];
  w.widen(in.src(0), to);
  w.widen(in.src(1), from);
  w.widen(in.src(3), barrier);
  const uint32_t *bytes = w.lanes<uint32_t>(in.src(2));
  const uint32_t *targets = in.mode & kMulticast ? w.lanes<uint32_t>(in.src(4)) : nullptr;
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1))
      continue;
    to[lane] += uint64_t(in.immediate >> 32);
    barrier[lane] += uint64_t(int64_t(int32_t(in.immediate)));
    if (!checkGridBefore(w, lane, from[lane]))
      return;
    for (uint64_t v : {to[lane], from[lane], uint64_t(bytes[lane])})
      if (v % 16)
        return w.fault(FaultKind::Misaligned, "a bulk copy's addresses and size are multiples of 16",
                       int(lane), v);
    const SharedPlace place =
        sharedPlace(w, in.space, to[lane], bytes[lane], lane, "copies", /*copies=*/true);
    if (!place.cta)
      return;
    const SharedPlace signal =
        sharedPlace(w, in.space, barrier[lane], 8, lane, "signals an mbarrier of", /*copies=*/true);
    if (!signal.cta)
      return;
    BulkCopy copy;
    copy.pc = w.pc();
    copy.issuer = &w.cta();
    copy.thread = w.thread(lane);
    copy.total = bytes[lane];
    if (bytes[lane])
      copy.pieces.push_back({place.offset, bytes[lane], from[lane]});
    Statistics &s = w.cta().statistics();
    s.global_read += copy.total;
    s.global_sectors_read += copy.total / 32;
    if (!deliver(w, std::move(copy), place, signal, barrier[lane], to[lane],
                 targets ? &targets[lane] : nullptr, lane))
      return;
  }
}

void runPrefetchMap(Warp &w, const Instruction &in, uint32_t mask) {
  uint64_t at[kLanes];
  addresses(w, in, 0, at);
  TensorMapContents map;
  for (uint32_t lane = 0; lane < kLanes; ++lane)
    if ((mask >> lane & 1) && !readMap(w, at[lane], lane, 0, map))
      return;
}

} // namespace

const OperandAst *mapOperand(Builder &b, size_t i, int rank) {
  const OperandAst &map = b.operand(i);
  if (map.kind != OperandAst::Kind::Address || map.elements.size() != 2 ||
      map.elements[1].kind != OperandAst::Kind::Vector || map.elements[1].elements.size() != size_t(rank) ||
      map.offset) {
    b.fail(map.at, "cp.async.bulk: expected [map, {" + std::to_string(rank) + " coordinates}]");
    return nullptr;
  }
  b.src(map.elements[0], Type::B64);
  return &map;
}

void coordinates(Builder &b, const OperandAst &map) {
  for (const OperandAst &c : map.elements[1].elements)
    b.src(c, Type::S32);
}

void decodeBulk(Builder &b) {
  if (b.take("commit_group"))
    return decodeBulkCommit(b);
  if (b.take("wait_group"))
    return decodeBulkWait(b);
  int rank = 0;
  if (b.take("tensor"))
    rank = b.takeOneOf({"1d", "2d", "3d", "4d", "5d"}) + 1;
  if (b.take("global"))
    return decodeBulkStore(b, rank, /*reduces=*/false);
  const Space space =
      b.takeOneOf({"shared::cluster", "shared::cta"}) == 0 ? Space::SharedCluster : Space::Shared;
  b.require("global");
  if (rank)
    (void)b.take("tile");
  b.require("mbarrier::complete_tx::bytes");
  const bool multicast = b.take("multicast::cluster"), hint = b.take("L2::cache_hint");
  if (multicast && space != Space::SharedCluster)
    return b.fail("cp.async.bulk: a multicast goes to .shared::cluster");
  const size_t barrier = rank ? 2 : 3;
  b.wantOperands(barrier + 1 + size_t(multicast) + size_t(hint));
  b.address(0, space);
  const int64_t to_offset = b.out.immediate;
  const OperandAst *map = nullptr;
  if (rank) {
    map = mapOperand(b, 1, rank);
  } else {
    b.address(1, Space::Global);
    if (b.out.immediate)
      return b.fail("cp.async.bulk: an offset in the source's address is not modelled");
    b.src(2, Type::U32);
  }
  b.address(barrier, space);
  const int64_t barrier_offset = b.out.immediate;
  if (to_offset != int32_t(to_offset) || barrier_offset != int32_t(barrier_offset))
    return b.fail("cp.async.bulk: an address offset does not fit 32 bits");
  b.out.immediate = int64_t(uint64_t(to_offset) << 32 | uint32_t(barrier_offset));
  if (map)
    coordinates(b, *map);
  if (multicast)
    b.src(barrier + 1, Type::B16);
  if (hint)
    b.src(barrier + 1 + size_t(multicast), Type::B64);
  b.out.mode = multicast ? kMulticast : 0;
  b.out.elements = uint8_t(rank);
  b.out.run = rank ? runTensorLoad : runLinearLoad;
  b.out.op_class = OpClass::AsyncCopy;
}

void decodePrefetchMap(Builder &b) {
  b.wantOperands(1);
  b.address(0, Space::Generic);
  b.out.run = runPrefetchMap;
}

} // namespace flashplus::emu
