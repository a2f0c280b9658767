// SPDX-License-Identifier: BSD-3-Clause
#include "ir/grid.h"

#include "ir/ptx.h"
#include "spec/overlap.h"

using namespace mlir;

namespace flashplus::gpu {

void declareOverlap(Ir &ir) {
  ir.overlaps = true;
  auto module = ir.builder.getInsertionBlock()->getParent()->getParentOfType<ModuleOp>();
  if (module.lookupSymbol(kOverlapSymbol))
    return;
  OpBuilder::InsertionGuard guard(ir.builder);
  ir.builder.setInsertionPointToStart(module.getBody());
  LLVM::GlobalOp::create(ir.builder, ir.loc, ir.i32(), /*isConstant=*/true, LLVM::Linkage::External,
                         kOverlapSymbol, ir.builder.getI32IntegerAttr(1), /*alignment=*/4, /*addrSpace=*/1);
}

void waitForGridBefore(Ir &ir) { ptx(ir, "griddepcontrol.wait;"); }

void releaseGridBehind(Ir &ir) { ptx(ir, "griddepcontrol.launch_dependents;"); }

} // namespace flashplus::gpu
