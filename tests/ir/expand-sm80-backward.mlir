// RUN: flashplus-opt %s -attn-expand -split-input-file | FileCheck %s

// The warps' keys are in rows: no weight passes through shared memory, and no value is added in global memory. One barrier a
// tile, one before the sums are written into K's and V's memory, and one before they are read.
// CHECK-LABEL: llvm.func @kv(
// CHECK-SAME: nvvm.reqntid = array<i32: 256, 1, 1>
// CHECK: nvvm.cp.async.shared.global {{.*}}, 16, cache = cg
// CHECK: nvvm.cp.async.shared.global {{.*}}, 4, cache = ca
// CHECK: scf.for
// CHECK: nvvm.cp.async.wait.group 0
// CHECK: llvm.nvvm.barrier.cta.sync.aligned.all
// CHECK-NOT: llvm.nvvm.barrier.cta.sync.aligned.all
// CHECK: llvm.nvvm.mma.m16n8k16.row.col.bf16
// CHECK: llvm.nvvm.ex2.approx.ftz.f
// CHECK: llvm.nvvm.barrier.cta.sync.aligned.all
// CHECK: llvm.nvvm.barrier.cta.sync.aligned.all
// CHECK-NOT: atomicrmw fadd
// CHECK-NOT: attn.
attn.backward_kv @kv dtype(bf16) head_dim(64, 64)
    schedule("sm80.backward_kv parts=1 stages=2 tile_m=64 tile_n=128 warps=8")
    target("sm_80@sm_80") attributes {alignment = 16 : i64, bounded_right} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  %one = arith.constant 1.0 : f32
  attn.yield %s, %one
}

// -----

// Two warps with the same keys exchange their weights, 16 bytes a lane, between two barriers of a tile.
// CHECK-LABEL: llvm.func @parts(
// CHECK: scf.for
// CHECK: llvm.nvvm.barrier.cta.sync.aligned.all
// CHECK: llvm.nvvm.ex2.approx.ftz.f
// CHECK: llvm.store {{.*}} : vector<4xi32>, !llvm.ptr<3>
// CHECK: llvm.nvvm.barrier.cta.sync.aligned.all
// CHECK: llvm.load {{.*}} : !llvm.ptr<3> -> vector<4xi32>
// CHECK: llvm.nvvm.mma.m16n8k16.row.col.bf16
attn.backward_kv @parts dtype(bf16) head_dim(256, 256)
    schedule("sm80.backward_kv parts=2 stages=1 tile_m=32 tile_n=48 warps=6")
    target("sm_80@sm_86") attributes {alignment = 16 : i64} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  %one = arith.constant 1.0 : f32
  attn.yield %s, %one
}

// -----

// Rows that are aligned to an element only are read element by element, and stored so.
// CHECK-LABEL: llvm.func @q(
// CHECK-NOT: nvvm.cp.async
// CHECK: llvm.nvvm.mma.m16n8k16.row.col.f32.f32
// CHECK-NOT: vector<4xi32>
attn.backward_q @q dtype(f16) head_dim(33, 33) schedule("sm80.backward_q stages=1 tile_m=64 tile_n=64 warps=4")
    target("sm_80@sm_80") attributes {alignment = 2 : i64} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  %one = arith.constant 1.0 : f32
  attn.yield %s, %one
}

// -----

// A slope multiplies the weights of dS where they are not 0. A row's 16 scores have one tanh each, which score and slope share.
// CHECK-LABEL: llvm.func @slope(
// CHECK: scf.for
// CHECK-COUNT-16: llvm.nvvm.rcp.approx.ftz.f
// CHECK-NOT: llvm.nvvm.rcp.approx.ftz.f
// CHECK: %[[P:.*]] = llvm.call_intrinsic "llvm.nvvm.ex2.approx.ftz.f"
// CHECK: %[[NONE:.*]] = arith.cmpf oeq, %[[P]], %{{.*}} : f32
// CHECK: %[[H:.*]] = arith.mulf %[[P]], %{{.*}} : f32
// CHECK: arith.select %[[NONE]], %{{.*}}, %[[H]] : f32
attn.backward_q @slope dtype(bf16) head_dim(64, 64) schedule("sm80.backward_q stages=1 tile_m=64 tile_n=64 warps=4")
    target("sm_80@sm_80") attributes {alignment = 16 : i64} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  %one = arith.constant 1.0 : f32
  %t = math.tanh %s : f32
  %tt = arith.mulf %t, %t : f32
  %slope = arith.subf %one, %tt : f32
  attn.yield %t, %slope
}
