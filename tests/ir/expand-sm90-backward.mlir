// RUN: flashplus-opt %s -attn-expand -split-input-file | FileCheck %s

// Four tensor maps. One warp copies tiles, a second one the rows' values, in front of whose stores it waits for the stage. A
// warpgroup's turn has S and dP transposed, from shared memory alone; dV and dK are both in flight before either is waited for,
// and no value is added in global memory.
// CHECK-LABEL: llvm.func @kv(
// CHECK-SAME: llvm.byval = !llvm.array<512 x i8>
// CHECK-SAME: nvvm.reqntid = array<i32: 384, 1, 1>
// CHECK-COUNT-4: prefetch.tensormap
// CHECK: setmaxnreg.dec.sync.aligned.u32 40
// CHECK: cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint
// CHECK: mbarrier.try_wait.parity
// CHECK: llvm.store {{.*}} : f32, !llvm.ptr<3>
// CHECK: llvm.nvvm.bar.warp.sync
// CHECK: mbarrier.arrive.shared::cta.b64
// CHECK: setmaxnreg.inc.sync.aligned.u32 232
// CHECK: scf.for
// CHECK: bar.sync $0, 256
// CHECK-COUNT-2: wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {{.*}}, da, db, 0, 1, 1, 0, 0
// CHECK: bar.arrive $0, 256
// CHECK: wgmma.wait_group.sync.aligned 1
// CHECK: llvm.nvvm.ex2.approx.ftz.f
// CHECK: nanosleep
// CHECK: wgmma.wait_group.sync.aligned 0
// CHECK: wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {{.*}}, db, 1, 1, 1, 1
// CHECK-NOT: wgmma.wait_group
// CHECK: wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 {{.*}}, db, 1, 1, 1, 1
// CHECK: wgmma.wait_group.sync.aligned 0
// CHECK: scf.yield
// CHECK-NOT: atomicrmw fadd
// CHECK-NOT: attn.
attn.backward_kv @kv dtype(bf16) head_dim(96, 64)
    schedule("sm90.backward_kv kv_stages=1 pingpong=1 roles=1 stages=2 tile_m=64 tile_n=128")
    target("sm_90a@sm_90a") attributes {alignment = 16 : i64, bounded_right} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  %one = arith.constant 1.0 : f32
  attn.yield %s, %one
}

// -----

// dS passes to the third product in registers.
// CHECK-LABEL: llvm.func @q(
// CHECK-SAME: nvvm.reqntid = array<i32: 384, 1, 1>
// CHECK: setmaxnreg.inc.sync.aligned.u32 232
// CHECK: scf.for
// CHECK: bar.sync $0, 256
// CHECK-COUNT-2: wgmma.mma_async.sync.aligned.m64n80k16.f32.f16.f16 {{.*}}, da, db, 0, 1, 1, 0, 0
// CHECK: bar.arrive $0, 256
// CHECK: wgmma.wait_group.sync.aligned 1
// CHECK: llvm.nvvm.ex2.approx.ftz.f
// CHECK: nanosleep
// CHECK: wgmma.wait_group.sync.aligned 0
// CHECK: llvm.nvvm.ff2f16x2.rn
// CHECK: wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {{.*}}, db, 1, 1, 1, 1
// CHECK: wgmma.wait_group.sync.aligned 0
// CHECK: scf.yield
// CHECK-NOT: attn.
attn.backward_q @q dtype(f16) head_dim(128, 128)
    schedule("sm90.backward_q pingpong=1 q_stages=1 stages=2 tile_m=128 tile_n=80")
    target("sm_90a@sm_90a") attributes {alignment = 16 : i64} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  %one = arith.constant 1.0 : f32
  attn.yield %s, %one
}
