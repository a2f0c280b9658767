// SPDX-License-Identifier: BSD-3-Clause
#include "ir/mbarrier.h"

#include "ir/ptx.h"

using namespace mlir;

namespace flashplus::gpu {

Val sharedAddress(Ir &ir, Val pointer) {
  return ir.wrap(LLVM::PtrToIntOp::create(ir.builder, ir.loc, ir.i32(), pointer.value));
}

void initBarrier(Ir &ir, Val barrier, int arrivals) {
  ptx(ir, "mbarrier.init.shared::cta.b64 [$0], " + std::to_string(arrivals) + ";", "r,~{memory}", {barrier});
}

void fenceBarrierInit(Ir &ir) { ptx(ir, "fence.mbarrier_init.release.cluster;"); }

void arrive(Ir &ir, Val barrier, Val predicate) {
  // Predicated and not branched over: a branch would have to reconverge.
  Val number = ir.wrap(arith::ExtUIOp::create(ir.builder, ir.loc, ir.i32(), predicate.value));
  ptx(ir, "{ .reg .pred p; setp.ne.b32 p, $1, 0; @p mbarrier.arrive.shared::cta.b64 _, [$0]; }",
      "r,r,~{memory}", {barrier, number});
}

void arriveExpect(Ir &ir, Val barrier, int bytes) {
  ptx(ir, "mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], " + std::to_string(bytes) + ";", "r,~{memory}",
      {barrier});
}

void waitBarrier(Ir &ir, Val barrier, Val parity) {
  ptx(ir,
      "{ .reg .pred p;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 p, [$0], $1;\n"
      "@p bra done;\n"
      "bra again;\n"
      "done: }",
      "r,r,~{memory}", {barrier, parity});
}

void Pipeline::init(int producers, int consumers) {
  for (int i = 0; i < stages_; ++i) {
    initBarrier(ir_, barriers_ + 8 * i, producers);
    initBarrier(ir_, barriers_ + 8 * (stages_ + i), consumers);
  }
}

Position Pipeline::next(Position p) {
  if (stages_ == 1)
    return {p.stage, p.phase ^ 1};
  Val last = p.stage == stages_ - 1;
  return {ir_.select(last, ir_.i32(0), p.stage + 1), ir_.select(last, p.phase ^ 1, p.phase)};
}

Position Pipeline::advance(Position p, Val count) {
  Val sum = p.stage + count;
  return {sum % stages_, p.phase ^ (sum / stages_ & ir_.i32(1))};
}

} // namespace flashplus::gpu
