// SPDX-License-Identifier: BSD-3-Clause
#include "ir/warpgroup.h"

#include "ir/ptx.h"

using namespace mlir;

namespace flashplus::gpu {

Val uniform(Ir &ir, Val value) {
  return ir.wrap(NVVM::ShflOp::create(ir.builder, ir.loc, ir.i32(), ir.i32(-1).value, value.value,
                                      ir.i32(0).value, ir.i32(31).value, NVVM::ShflKind::idx, UnitAttr()));
}

Val uniformWarp(Ir &ir, Val thread) { return uniform(ir, thread / 32); }

Val electOne(Ir &ir) {
  Val chosen =
      ptx(ir, "{ .reg .pred p; elect.sync _|p, 0xffffffff; selp.b32 $0, 1, 0, p; }", "=r", {ir.i32()}, {})[0];
  return chosen != 0;
}

void increaseRegisters(Ir &ir, int count) {
  ptx(ir, "setmaxnreg.inc.sync.aligned.u32 " + std::to_string(count) + ";");
}

void decreaseRegisters(Ir &ir, int count) {
  ptx(ir, "setmaxnreg.dec.sync.aligned.u32 " + std::to_string(count) + ";");
}

void barrierSync(Ir &ir, Val id, int threads) {
  ptx(ir, "bar.sync $0, " + std::to_string(threads) + ";", "r,~{memory}", {id});
}

void barrierArrive(Ir &ir, Val id, int threads) {
  ptx(ir, "bar.arrive $0, " + std::to_string(threads) + ";", "r,~{memory}", {id});
}

} // namespace flashplus::gpu
