// SPDX-License-Identifier: BSD-3-Clause
// flashplus-opt: the usual MLIR driver with the attn dialect and our passes.
#include "compiler/passes/Passes.h"

#include "mlir/Tools/mlir-opt/MlirOptMain.h"
#include "mlir/Transforms/Passes.h"

int main(int argc, char **argv) {
  mlir::DialectRegistry registry;
  flashplus::registerFlashplusDialects(registry);
  flashplus::registerFlashplusPasses();
  mlir::registerCSEPass();
  mlir::registerCanonicalizerPass();
  return mlir::asMainReturnCode(
      mlir::MlirOptMain(argc, argv, "FlashAttention-Plus kernel compiler driver\n", registry));
}
