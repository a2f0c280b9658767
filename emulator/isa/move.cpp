// SPDX-License-Identifier: BSD-3-Clause
// mov, with packing and unpacking, and conversions between address spaces.
#include "emulator/core/windows.h"
#include "emulator/isa/builder.h"
#include "emulator/isa/lanes.h"

namespace flashplus::emu {
namespace {

template <class U> void runMove(Warp &w, const Instruction &in, uint32_t mask) {
  w.store<U>(in.dst(), mask, w.lanes<U>(in.src(0)));
  w.setHalves(in.dst(), mask, w.halves(in.src(0)));
}

void runMovePredicate(Warp &w, const Instruction &in, uint32_t mask) {
  w.setPredicate(in.dst(), mask, w.predicate(in.src(0)));
  w.setHalves(in.dst(), mask, w.halves(in.src(0)));
}

/// {a, b, ...} -> one wider register; `lane_bytes` is that of an element.
void runPack(Warp &w, const Instruction &in, uint32_t mask) {
  uint64_t out[kLanes] = {}, v[kLanes];
  Warp::Halves written{};
  int half = 0;
  for (int i = 0; i < in.sources; ++i) {
    w.widen(in.src(i), v);
    for (int h = 0; h < w.halfCount(in.src(i)); ++h)
      written[size_t(half++)] = w.halves(in.src(i))[size_t(h)];
    for (uint32_t lane = 0; lane < kLanes; ++lane)
      out[lane] |= v[lane] << (8 * in.lane_bytes * i);
  }
  w.storeNarrow(in.dst(), mask, out);
  w.setHalves(in.dst(), mask, written);
}

void runUnpack(Warp &w, const Instruction &in, uint32_t mask) {
  uint64_t v[kLanes], part[kLanes];
  w.widen(in.src(0), v);
  const uint64_t bits = in.lane_bytes == 8 ? ~uint64_t(0) : (uint64_t(1) << (8 * in.lane_bytes)) - 1;
  for (int i = 0; i < in.destinations; ++i) {
    for (uint32_t lane = 0; lane < kLanes; ++lane)
      part[lane] = v[lane] >> (8 * in.lane_bytes * i) & bits;
    w.storeNarrow(in.dst(i), mask, part);
    Warp::Halves written{};
    for (int h = 0; h < in.lane_bytes / 2; ++h)
      written[size_t(h)] = w.halves(in.src(0))[size_t(i * in.lane_bytes / 2 + h)];
    w.setHalves(in.dst(i), mask, written);
  }
}

void decodeMov(Builder &b) {
  const Type type = b.type();
  b.wantOperands(2);
  b.out.op_class = OpClass::Move;
  b.out.moves = true;
  if (type == Type::Pred) {
    b.predDst(0);
    b.predSrc(1);
    b.out.run = runMovePredicate;
    return;
  }
  const int bits = typeBits(type);
  if (bits < 16 || bits > 64)
    return b.fail(std::string("mov does not exist for .") + typeName(type));
  const bool pack = b.operand(1).kind == OperandAst::Kind::Vector,
             unpack = b.operand(0).kind == OperandAst::Kind::Vector;
  if (pack || unpack) {
    if (pack && unpack)
      return b.fail("mov: only one side may be a vector");
    const size_t n = b.operand(pack ? 1 : 0).elements.size();
    const int part = bits / int(n);
    if ((n != 2 && n != 4) || (part != 16 && part != 32))
      return b.fail("mov: " + std::to_string(n) + " elements of a ." + typeName(type) + " is not modelled");
    const Type element = part == 16 ? Type::B16 : Type::B32;
    if (pack) {
      b.dst(0, type);
      b.srcVector(b.operand(1), n, element);
      b.out.run = runPack;
    } else {
      b.dstVector(b.operand(0), n, element);
      b.src(1, type);
      b.out.run = runUnpack;
    }
    b.out.lane_bytes = uint8_t(part / 8);
    return;
  }
  b.dst(0, type);
  b.src(1, type);
  b.out.run = bits == 64 ? runMove<uint64_t> : runMove<uint32_t>;
}

/// cvta{.to}.space: between an address in a space and the generic one.
void runCvta(Warp &w, const Instruction &in, uint32_t mask) {
  const uint64_t *a = w.lanes<uint64_t>(in.src(0));
  uint64_t out[kLanes];
  for (uint32_t lane = 0; lane < kLanes; ++lane)
    out[lane] = in.mode ? a[lane] - windowOf(in.space) : a[lane] + windowOf(in.space);
  w.store<uint64_t>(in.dst(), mask, out);
}

void decodeCvta(Builder &b) {
  b.out.mode = b.take("to");
  b.out.space = b.space();
  if (b.out.space == Space::Generic)
    return b.fail("cvta: the space is missing");
  const Type type = b.type();
  if (type != Type::U64)
    return b.fail("cvta is modelled for .u64");
  b.wantOperands(2);
  b.dst(0, Type::U64);
  b.src(1, Type::U64);
  b.out.run = runCvta;
  b.out.op_class = OpClass::Integer;
}

} // namespace

void addMove(OpcodeTable &t) {
  t["mov"] = decodeMov;
  t["cvta"] = decodeCvta;
}

} // namespace flashplus::emu
