// SPDX-License-Identifier: BSD-3-Clause
#include "ir/async_copy.h"

#include "ir/ptx.h"

using namespace mlir;

namespace flashplus::gpu {

void copyAsync16(Ir &ir, Val shared, Val global) { copyAsync16(ir, shared, global, {}); }

void copyAsync16(Ir &ir, Val shared, Val global, Val bytes) {
  NVVM::CpAsyncOp::create(ir.builder, ir.loc, shared.value, global.value, 16, NVVM::LoadCacheModifierKind::CG,
                          bytes.value);
}

void copyAsync16(Ir &ir, Val shared, Val global, Val bytes, int l2) {
  if (!l2) {
    copyAsync16(ir, shared, global, bytes);
    return;
  }
  const std::string text =
      "cp.async.cg.shared.global.L2::" + std::to_string(l2) + "B [$0], [$1], 16" + (bytes ? ", $2;" : ";");
  Vals operands{shared, global};
  if (bytes)
    operands.push_back(bytes);
  ptx(ir, text, bytes ? "r,l,r,~{memory}" : "r,l,~{memory}", operands);
}

void copyAsync4(Ir &ir, Val shared, Val global) {
  NVVM::CpAsyncOp::create(ir.builder, ir.loc, shared.value, global.value, 4, NVVM::LoadCacheModifierKind::CA,
                          Value());
}

void commitGroup(Ir &ir) { NVVM::CpAsyncCommitGroupOp::create(ir.builder, ir.loc); }

void waitGroup(Ir &ir, int pending) { NVVM::CpAsyncWaitGroupOp::create(ir.builder, ir.loc, pending); }

} // namespace flashplus::gpu
