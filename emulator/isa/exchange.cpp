// SPDX-License-Identifier: BSD-3-Clause
// shfl, vote, redux, activemask, elect: values between the lanes of a warp.
#include "emulator/isa/builder.h"
#include "emulator/isa/lanes.h"

#include <algorithm>

namespace flashplus::emu {
namespace {

/// The lanes that the instruction names must be the ones that execute it. (The hardware would wait for the
/// missing ones; they are not coming from anywhere but the same place, or the kernel hangs.)
bool membersTogether(Warp &w, const uint32_t *members, uint32_t mask) {
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1))
      continue;
    if (!(members[lane] >> lane & 1)) {
      w.fault(FaultKind::Divergence, "the lane executes it but is not in its member mask", int(lane));
      return false;
    }
    if (const uint32_t missing = members[lane] & w.live() & ~mask) {
      w.fault(FaultKind::Divergence,
              "lane " + std::to_string(std::countr_zero(missing)) +
                  " is in the member mask but does not execute it together with the others",
              int(lane));
      return false;
    }
  }
  return true;
}

enum class Shuffle : uint8_t { Up, Down, Butterfly, Index };

void runShuffle(Warp &w, const Instruction &in, uint32_t mask) {
  const uint32_t *a = w.lanes<uint32_t>(in.src(0)), *b = w.lanes<uint32_t>(in.src(1)),
                 *c = w.lanes<uint32_t>(in.src(2));
  if (!membersTogether(w, w.lanes<uint32_t>(in.src(3)), mask))
    return;
  uint32_t out[kLanes], valid = 0;
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    // PTX ISA, shfl.sync: segments and clamps are in c.
    const uint32_t bound = c[lane] & 31, segment = c[lane] >> 8 & 31, shift = b[lane] & 31;
    const uint32_t most = (lane & segment) | (bound & ~segment), least = lane & segment;
    int64_t from = 0;
    bool ok = false;
    switch (Shuffle(in.mode)) {
    case Shuffle::Up:
      from = int64_t(lane) - shift;
      ok = from >= int64_t(most);
      break;
    case Shuffle::Down:
      from = lane + shift;
      ok = from <= int64_t(most);
      break;
    case Shuffle::Butterfly:
      from = lane ^ shift;
      ok = from <= int64_t(most);
      break;
    case Shuffle::Index:
      from = least | (shift & ~segment);
      ok = from <= int64_t(most);
      break;
    }
    if (!ok)
      from = lane;
    valid |= uint32_t(ok) << lane;
    if ((mask >> lane & 1) && !(mask >> from & 1))
      return w.fault(FaultKind::Divergence,
                     "takes the value of lane " + std::to_string(from) + ", which does not execute it",
                     int(lane));
    out[lane] = a[from];
  }
  w.store<uint32_t>(in.dst(0), mask, out);
  if (in.destinations > 1)
    w.setPredicate(in.dst(1), mask, valid);
}

void decodeShfl(Builder &b) {
  b.require("sync");
  b.out.mode = uint8_t(b.takeOneOf({"up", "down", "bfly", "idx"}));
  b.require("b32");
  b.wantOperands(5);
  b.dst(0, Type::B32);
  if (b.operand(0).second)
    b.predDst(*b.operand(0).second);
  b.src(1, Type::B32);
  b.src(2, Type::B32);
  b.src(3, Type::B32);
  b.src(4, Type::B32);
  b.out.run = runShuffle;
  b.out.op_class = OpClass::Exchange;
}

enum class Vote : uint8_t { All, Any, Uniform, Ballot };

void runVote(Warp &w, const Instruction &in, uint32_t mask) {
  if (!membersTogether(w, w.lanes<uint32_t>(in.src(1)), mask))
    return;
  uint32_t p = w.predicate(in.src(0));
  if (in.mode2)
    p = ~p;
  p &= mask;
  const auto vote = Vote(in.mode);
  if (vote == Vote::Ballot) {
    uint32_t out[kLanes];
    std::fill(out, out + kLanes, p);
    return w.store<uint32_t>(in.dst(), mask, out);
  }
  const bool all = p == mask, any = p != 0;
  const bool result = vote == Vote::All ? all : vote == Vote::Any ? any : all || !any;
  w.setPredicate(in.dst(), mask, result ? kAllLanes : 0);
}

void decodeVote(Builder &b) {
  b.require("sync");
  b.out.mode = uint8_t(b.takeOneOf({"all", "any", "uni", "ballot"}));
  const bool ballot = Vote(b.out.mode) == Vote::Ballot;
  b.require(ballot ? "b32" : "pred");
  b.wantOperands(3);
  if (ballot)
    b.dst(0, Type::B32);
  else
    b.predDst(0);
  b.predSrc(1);
  b.out.mode2 = b.negated_source;
  b.src(2, Type::B32);
  b.out.run = runVote;
  b.out.op_class = OpClass::Exchange;
}

enum class Redux : uint8_t { Add, Min, Max, And, Or, Xor };

template <class T> void runRedux(Warp &w, const Instruction &in, uint32_t mask) {
  if (!membersTogether(w, w.lanes<uint32_t>(in.src(1)), mask))
    return;
  const uint32_t *v = w.lanes<uint32_t>(in.src(0));
  T sum = fromLane<T>(v[std::countr_zero(mask)]);
  for (uint32_t lane = uint32_t(std::countr_zero(mask)) + 1; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1))
      continue;
    const T x = fromLane<T>(v[lane]);
    switch (Redux(in.mode)) {
    case Redux::Add:
      sum = T(uint32_t(sum) + uint32_t(x));
      break;
    case Redux::Min:
      sum = std::min(sum, x);
      break;
    case Redux::Max:
      sum = std::max(sum, x);
      break;
    case Redux::And:
      sum &= x;
      break;
    case Redux::Or:
      sum |= x;
      break;
    case Redux::Xor:
      sum ^= x;
      break;
    }
  }
  uint32_t out[kLanes];
  std::fill(out, out + kLanes, toLane<T>(sum));
  w.store<uint32_t>(in.dst(), mask, out);
}

void decodeRedux(Builder &b) {
  b.require("sync");
  b.out.mode = uint8_t(b.takeOneOf({"add", "min", "max", "and", "or", "xor"}));
  const bool bits = Redux(b.out.mode) >= Redux::And;
  const Type type = b.type();
  if (bits ? type != Type::B32 : type != Type::U32 && type != Type::S32)
    return b.fail("redux does not exist in this form (f32 is for newer targets)");
  b.wantOperands(3);
  b.dst(0, type);
  b.src(1, type);
  b.src(2, Type::B32);
  b.out.run = type == Type::S32 ? runRedux<int32_t> : runRedux<uint32_t>;
  b.out.op_class = OpClass::Exchange;
}

void runActiveMask(Warp &w, const Instruction &in, uint32_t mask) {
  uint32_t out[kLanes];
  std::fill(out, out + kLanes, mask);
  w.store<uint32_t>(in.dst(), mask, out);
}

void decodeActiveMask(Builder &b) {
  b.require("b32");
  b.wantOperands(1);
  b.dst(0, Type::B32);
  b.out.run = runActiveMask;
  b.out.op_class = OpClass::Exchange;
}

/// elect.sync d|p, mask: the lowest member leads.
void runElect(Warp &w, const Instruction &in, uint32_t mask) {
  if (!membersTogether(w, w.lanes<uint32_t>(in.src(0)), mask))
    return;
  const auto leader = uint32_t(std::countr_zero(mask));
  uint32_t out[kLanes];
  std::fill(out, out + kLanes, leader);
  w.store<uint32_t>(in.dst(0), mask, out);
  w.setPredicate(in.dst(1), mask, 1u << leader);
}

void decodeElect(Builder &b) {
  b.require("sync");
  b.wantOperands(2);
  if (!b.operand(0).second)
    return b.fail("elect.sync: expected d|p");
  b.dst(0, Type::B32);
  b.predDst(*b.operand(0).second);
  b.src(1, Type::B32);
  b.out.run = runElect;
  b.out.op_class = OpClass::Exchange;
}

} // namespace

void addExchange(OpcodeTable &t) {
  t["shfl"] = decodeShfl;
  t["vote"] = decodeVote;
  t["redux"] = decodeRedux;
  t["activemask"] = decodeActiveMask;
  t["elect"] = decodeElect;
}

} // namespace flashplus::emu
