// SPDX-License-Identifier: BSD-3-Clause
#include "ir/warp.h"

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

} // namespace flashplus::gpu
