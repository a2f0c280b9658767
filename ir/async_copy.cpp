// SPDX-License-Identifier: BSD-3-Clause
#include "ir/async_copy.h"

using namespace mlir;

namespace flashplus::gpu {

void copyAsync16(Ir &ir, Val shared, Val global) { copyAsync16(ir, shared, global, {}); }

void copyAsync16(Ir &ir, Val shared, Val global, Val bytes) {
  NVVM::CpAsyncOp::create(ir.builder, ir.loc, shared.value, global.value, 16, NVVM::LoadCacheModifierKind::CG,
                          bytes.value);
}

void copyAsync4(Ir &ir, Val shared, Val global) {
  NVVM::CpAsyncOp::create(ir.builder, ir.loc, shared.value, global.value, 4, NVVM::LoadCacheModifierKind::CA,
                          Value());
}

void commitGroup(Ir &ir) { NVVM::CpAsyncCommitGroupOp::create(ir.builder, ir.loc); }

void waitGroup(Ir &ir, int pending) { NVVM::CpAsyncWaitGroupOp::create(ir.builder, ir.loc, pending); }

} // namespace flashplus::gpu
