// RUN: flashplus-opt %s -lower-math-to-nvvm | FileCheck %s --check-prefix=GPU
// RUN: flashplus-opt %s -approximate-math | FileCheck %s --check-prefix=CPU

// GPU-LABEL: @scalars
// CPU-LABEL: @scalars
llvm.func @scalars(%x: f32, %y: f32) -> f32 {
  // GPU: llvm.nvvm.ex2.approx.ftz.f
  // CPU-NOT: math.exp %
  %a = math.exp %x : f32
  // GPU: llvm.nvvm.lg2.approx.ftz.f
  // CPU-NOT: math.log %
  %b = math.log %y : f32
  // tanh x = 1 - 2 / (1 + e^(2x)): never the one-instruction approximation.
  // GPU: llvm.nvvm.ex2.approx.ftz.f
  // GPU: llvm.nvvm.rcp.approx.ftz.f
  // GPU-NOT: tanh
  // CPU-NOT: math.tanh
  %c = math.tanh %x : f32
  // GPU: llvm.nvvm.rcp.approx.ftz.f
  // CPU: arith.divf
  %d = arith.divf %a, %b : f32
  %e = arith.addf %c, %d : f32
  llvm.return %e : f32
}
