// SPDX-License-Identifier: BSD-3-Clause
#include "ir/warp.h"

#include "ir/ptx.h"

using namespace mlir;

namespace flashplus::gpu {

Val threadId(Ir &ir) { return ir.wrap(NVVM::ThreadIdXOp::create(ir.builder, ir.loc, ir.i32())); }

Val again(Ir &ir, Val value) {
  const bool wide = value.type().isInteger(64);
  return ir.wrap(LLVM::InlineAsmOp::create(ir.builder, ir.loc, value.type(), value.value,
                                           wide ? "mov.b64 $0, $1;" : "mov.b32 $0, $1;",
                                           wide ? "=l,l" : "=r,r",
                                           /*has_side_effects=*/true, /*is_align_stack=*/false,
                                           LLVM::tailcallkind::TailCallKind::None, {}, {})
                     .getResult(0));
}

void barrier(Ir &ir) { ir.intrinsic("llvm.nvvm.barrier.cta.sync.aligned.all", {}, {ir.i32(0)}); }

void warpSync(Ir &ir) { ir.intrinsic("llvm.nvvm.bar.warp.sync", {}, {ir.i32(-1)}); }

namespace {

/// `bound` as PTX has it: the last lane, or, for shuffles upwards, the first.
Val shuffle(Ir &ir, NVVM::ShflKind kind, Val value, Val by, int bound) {
  return ir.wrap(NVVM::ShflOp::create(ir.builder, ir.loc, value.type(), ir.i32(-1).value, value.value,
                                      by.value, ir.i32(bound).value, kind, UnitAttr()));
}

} // namespace

Val shuffleXor(Ir &ir, Val value, int mask) {
  return shuffle(ir, NVVM::ShflKind::bfly, value, ir.i32(mask), 31);
}

Val shuffleUp(Ir &ir, Val value, int distance) {
  return shuffle(ir, NVVM::ShflKind::up, value, ir.i32(distance), 0);
}

Val shuffleFrom(Ir &ir, Val value, Val lane) { return shuffle(ir, NVVM::ShflKind::idx, value, lane, 31); }

Val anyLane(Ir &ir, Val predicate) {
  return ir.intrinsic("llvm.nvvm.vote.any.sync", ir.i1(), {ir.i32(-1), predicate});
}

Val countLanes(Ir &ir, Val predicate) {
  Val lanes = ir.intrinsic("llvm.nvvm.vote.ballot.sync", ir.i32(), {ir.i32(-1), predicate});
  return ir.wrap(LLVM::CtPopOp::create(ir.builder, ir.loc, lanes.value));
}

Vals loadIf(Ir &ir, Val predicate, Val pointer, int64_t offset, int count) {
  std::string zeros, outputs;
  for (int i = 0; i < count; ++i) {
    zeros += "mov.b32 $" + std::to_string(i) + ", 0; ";
    outputs += "=&f,"; // written before the pointer is read
  }
  Val number = ir.wrap(arith::ExtUIOp::create(ir.builder, ir.loc, ir.i32(), predicate.value));
  return ptx(ir,
             "{ .reg .pred p; setp.ne.b32 p, $" + std::to_string(count) + ", 0; " + zeros + "@p ld.global.v" +
                 std::to_string(count) + ".b32 " + registers(0, count) + ", [$" + std::to_string(count + 1) +
                 "+" + std::to_string(offset) + "]; }",
             outputs + "r,l,~{memory}", std::vector<Type>(size_t(count), ir.f32()), {number, pointer});
}

} // namespace flashplus::gpu
