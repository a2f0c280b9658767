// RUN: flashplus-opt %s -attn-expand | FileCheck %s
// RUN: flashplus-opt %s -attn-expand -flashplus-lower-gpu | FileCheck %s --check-prefix=LLVM

// Few query rows: a warp's step is 16 keys of S^T = K Q^T, two chains of products, and O^T += V^T P^T, to which P^T goes
// through movmatrix. The loop has no barrier of the block; K and V are waited for apart, and the stage is filled anew only
// when every lane has read it.
// CHECK-LABEL: llvm.func @decode(
// CHECK-SAME: nvvm.reqntid = array<i32: 128, 1, 1>
// CHECK: nvvm.cp.async.shared.global {{.*}}, 16, cache = cg
// CHECK: nvvm.cp.async.commit.group
// CHECK: scf.while
// CHECK: scf.for
// CHECK: nvvm.cp.async.wait.group 5
// CHECK-NOT: nvvm.ldmatrix
// CHECK: llvm.nvvm.bar.warp.sync
// CHECK-COUNT-4: llvm.nvvm.mma.m16n8k16.row.col.bf16
// CHECK-NOT: llvm.nvvm.barrier.cta
// CHECK: llvm.nvvm.vote.any.sync
// CHECK-NOT: llvm.nvvm.barrier.cta
// CHECK: nvvm.cp.async.wait.group 4
// CHECK-NOT: nvvm.ldmatrix
// CHECK: llvm.nvvm.bar.warp.sync
// CHECK-COUNT-2: movmatrix.sync.aligned.m8n8.trans.b16
// CHECK-COUNT-4: llvm.nvvm.mma.m16n8k16.row.col.bf16
// CHECK-NOT: llvm.nvvm.mma
// CHECK: llvm.nvvm.bar.warp.sync
// CHECK-NOT: llvm.nvvm.barrier.cta
// CHECK: nvvm.cp.async.shared.global
// CHECK: llvm.nvvm.barrier.cta
// One share after the other is counted by one atomic operation, which releases what the block stored.
// CHECK: atom.acq_rel.gpu.global.add.u32
// CHECK-NOT: attn.
// LLVM-LABEL: llvm.func @decode(
// LLVM-NOT: __nv_
// LLVM-NOT: math.
attn.forward @decode dtype(bf16) head_dim(64, 64)
    schedule("sm80.decode least=4 stages=3 tile_m=8 tile_n=16 warps=4") target("sm_80@sm_80")
    attributes {alignment = 16 : i64, results = "merged"} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  attn.yield %s
}
