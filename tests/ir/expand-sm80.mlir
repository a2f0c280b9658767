// RUN: flashplus-opt %s -attn-expand -split-input-file | FileCheck %s
// RUN: flashplus-opt %s -attn-expand -flashplus-lower-gpu -split-input-file | FileCheck %s --check-prefix=LLVM

// A score region is inlined on scalars: its position arithmetic and its tensor read appear in the kernel, and the
// copies are 16 bytes wide.
// CHECK-LABEL: llvm.func @bias(
// CHECK-SAME: llvm.byval = !llvm.array<{{[0-9]+}} x i8>
// CHECK-SAME: nvvm.grid_constant
// CHECK-SAME: nvvm.kernel
// CHECK-SAME: nvvm.reqntid = array<i32: 128, 1, 1>
// CHECK: nvvm.cp.async.shared.global {{.*}}, 16, cache = cg
// CHECK: nvvm.ldmatrix
// CHECK: llvm.nvvm.mma.m16n8k16.row.col.bf16
// CHECK: llvm.nvvm.ex2.approx.ftz.f
// CHECK-NOT: attn.
// The loops over a sequence's last tile stay loops down to the assembler.
// LLVM: #[[UNROLL:.*]] = #llvm.loop_unroll<disable = true>
// LLVM: #[[LOOP:.*]] = #llvm.loop_annotation<unroll = #[[UNROLL]]
// LLVM-COUNT-2: llvm.br {{.*}} {loop_annotation = #[[LOOP]]}
// LLVM-NOT: __nv_
// LLVM-NOT: math.
attn.forward @bias dtype(bf16) head_dim(64, 64) schedule("sm80.flash stages=1 tile_m=64 tile_n=64 warps=4")
    target("sm_80@sm_80") attributes {alignment = 16 : i64, bounded_right} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  %t = attn.aux 0[%h, %k] : f32
  %e = math.exp %t : f32
  %y = arith.addf %s, %e : f32
  attn.yield %y
}

// -----

// Rows that are aligned to an element only are read element by element: no copies, nothing to commit or wait for.
// CHECK-LABEL: llvm.func @misaligned(
// CHECK-NOT: nvvm.cp.async
// CHECK: llvm.nvvm.mma.m16n8k16.row.col.f32.f32
attn.forward @misaligned dtype(f16) head_dim(33, 33) schedule("sm80.flash stages=1 tile_m=64 tile_n=64 warps=4")
    target("sm_80@sm_80") attributes {alignment = 2 : i64} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  attn.yield %s
}
