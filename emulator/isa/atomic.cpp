// SPDX-License-Identifier: BSD-3-Clause
// atom and red. On global memory they are atomic between host threads too, as CTAs run on several.
#include "emulator/isa/access.h"
#include "emulator/isa/builder.h"
#include "emulator/isa/float_bits.h"

#include <algorithm>

namespace flashplus::emu {
namespace {

enum class AtomicOp : uint8_t { Add, Min, Max, And, Or, Xor, Exchange, CompareSwap, Inc, Dec };

uint64_t apply(AtomicOp op, Type type, uint64_t old, uint64_t v, uint64_t swap) {
  const bool narrow = typeBits(type) == 32;
  switch (op) {
  case AtomicOp::Add:
    if (type == Type::F32) // red/atom .add.f32 on global memory flushes no subnormals
      return std::bit_cast<uint32_t>(
          canonical(std::bit_cast<float>(uint32_t(old)) + std::bit_cast<float>(uint32_t(v))));
    if (type == Type::F64)
      return std::bit_cast<uint64_t>(std::bit_cast<double>(old) + std::bit_cast<double>(v));
    return old + v;
  case AtomicOp::Min:
  case AtomicOp::Max: {
    bool less;
    if (isSigned(type))
      less = narrow ? int32_t(old) < int32_t(v) : int64_t(old) < int64_t(v);
    else
      less = narrow ? uint32_t(old) < uint32_t(v) : old < v;
    return less == (op == AtomicOp::Min) ? old : v;
  }
  case AtomicOp::And:
    return old & v;
  case AtomicOp::Or:
    return old | v;
  case AtomicOp::Xor:
    return old ^ v;
  case AtomicOp::Exchange:
    return v;
  case AtomicOp::CompareSwap:
    return narrow ? (uint32_t(old) == uint32_t(v) ? swap : old) : (old == v ? swap : old);
  case AtomicOp::Inc:
    return uint32_t(old) >= uint32_t(v) ? 0 : uint32_t(old) + 1;
  case AtomicOp::Dec:
    return uint32_t(old) == 0 || uint32_t(old) > uint32_t(v) ? v : uint32_t(old) - 1;
  }
  return old;
}

template <class U> uint64_t exchange(uint8_t *at, AtomicOp op, Type type, uint64_t v, uint64_t swap) {
  auto *to = reinterpret_cast<U *>(at);
  U old = __atomic_load_n(to, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(to, &old, U(apply(op, type, old, v, swap)), true, __ATOMIC_ACQ_REL,
                                      __ATOMIC_RELAXED)) {
  }
  return old;
}

void runAtomic(Warp &w, const Instruction &in, uint32_t mask) {
  const auto op = AtomicOp(in.mode);
  const auto type = Type(in.mode2);
  const bool returns = in.destinations > 0;
  uint64_t at[kLanes], values[4][kLanes], swap[kLanes] = {}, out[4][kLanes] = {};
  addresses(w, in, 0, at);
  for (int e = 0; e < in.elements; ++e)
    w.widen(in.src(1 + e), values[e]);
  if (op == AtomicOp::CompareSwap)
    w.widen(in.src(2), swap);
  const uint32_t total = in.lane_bytes * uint32_t(in.elements);
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1))
      continue;
    uint8_t *to = access(w, in.space, at[lane], total, total, lane, AccessKind::Atomic);
    if (!to)
      return;
    for (int e = 0; e < in.elements; ++e)
      out[e][lane] = in.lane_bytes == 8
                         ? exchange<uint64_t>(to + e * 8, op, type, values[e][lane], swap[lane])
                         : exchange<uint32_t>(to + e * 4, op, type, values[e][lane], swap[lane]);
  }
  if (returns)
    for (int e = 0; e < in.elements; ++e)
      w.storeNarrow(in.dst(e), mask, out[e]);
  Statistics &s = w.cta().statistics();
  if (in.space == Space::Shared || in.space == Space::SharedCluster) {
    s.shared_written += uint64_t(std::popcount(mask)) * total;
    countBanks(w, at, mask, total);
  } else {
    s.global_written += uint64_t(std::popcount(mask)) * total;
    s.global_sectors_written += countSectors(at, mask, total);
  }
}

template <bool Returns> void decodeAtomic(Builder &b) {
  (void)b.takeAny({"relaxed", "acquire", "release", "acq_rel"});
  (void)b.takeAny({"cta", "cluster", "gpu", "sys"});
  const Space space = b.space();
  const auto op =
      AtomicOp(b.takeOneOf({"add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"}));
  const int vector = b.takeAny({"v2", "v4"});
  const size_t n = vector < 0 ? 1 : size_t(2) << vector;
  const Type type = b.type();
  const int bits = typeBits(type);
  const bool is_bits = type == Type::B32 || type == Type::B64;
  bool exists = bits == 32 || bits == 64;
  switch (op) {
  case AtomicOp::Add:
    exists &=
        type == Type::U32 || type == Type::S32 || type == Type::U64 || type == Type::F32 || type == Type::F64;
    break;
  case AtomicOp::Min:
  case AtomicOp::Max:
    exists &= !is_bits && !isFloat(type);
    break;
  case AtomicOp::Inc:
  case AtomicOp::Dec:
    exists &= type == Type::U32;
    break;
  default:
    exists &= is_bits;
  }
  if (n > 1)
    exists &= op == AtomicOp::Add && type == Type::F32 && space == Space::Global;
  if (space == Space::Param || space == Space::Const || space == Space::Local)
    exists = false;
  if (!exists)
    return b.fail(std::string(b.ast().opcode) + " does not exist (or is not modelled) in this form for ." +
                  typeName(type));
  const size_t first = Returns ? 1 : 0, sources = op == AtomicOp::CompareSwap ? 2 : 1;
  b.wantOperands(first + 1 + sources);
  if (Returns)
    b.dstVector(b.operand(0), n, type);
  b.address(first, space);
  b.srcVector(b.operand(first + 1), n, type);
  if (sources == 2)
    b.src(first + 2, type);
  b.out.mode = uint8_t(op);
  b.out.mode2 = uint8_t(type);
  b.out.lane_bytes = uint8_t(bits / 8);
  b.out.elements = uint8_t(n);
  b.out.run = runAtomic;
  b.out.op_class = OpClass::Atomic;
}

} // namespace

void addAtomic(OpcodeTable &t) {
  t["atom"] = decodeAtomic<true>;
  t["red"] = decodeAtomic<false>;
}

} // namespace flashplus::emu
