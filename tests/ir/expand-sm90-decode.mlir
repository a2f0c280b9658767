// RUN: flashplus-opt %s -attn-expand | FileCheck %s
// RUN: flashplus-opt %s -attn-expand -flashplus-lower-gpu | FileCheck %s --check-prefix=LLVM

// The loop of expand-sm80-decode.mlir with a ring that TMA fills: each warp has barriers of its own, so that no barrier of
// the block stands before the first box; K and V of a step have one each, and a step's last keys are cleared before V is
// read.
// It overlaps the kernel before it, and waits before it copies.
// CHECK: llvm.mlir.global external constant @flashplus_overlaps(1 : i32)
// CHECK-LABEL: llvm.func @decode(
// CHECK-SAME: nvvm.reqntid = array<i32: 128, 1, 1>
// CHECK: mbarrier.init.shared::cta.b64
// CHECK: fence.mbarrier_init
// CHECK-NOT: llvm.nvvm.barrier.cta
// CHECK-NOT: cp.async.bulk
// CHECK: griddepcontrol.wait
// CHECK: griddepcontrol.launch_dependents
// CHECK: mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], 4096;
// CHECK: cp.async.bulk.tensor.4d
// CHECK: scf.while
// CHECK: scf.for
// CHECK: mbarrier.try_wait.parity
// CHECK-NOT: llvm.nvvm.barrier.cta
// CHECK-COUNT-4: llvm.nvvm.mma.m16n8k16.row.col.bf16
// CHECK-NOT: llvm.nvvm.barrier.cta
// CHECK: mbarrier.try_wait.parity
// CHECK: fence.proxy.async.shared::cta
// CHECK: llvm.nvvm.bar.warp.sync
// CHECK-COUNT-2: movmatrix.sync.aligned.m8n8.trans.b16
// CHECK-COUNT-4: llvm.nvvm.mma.m16n8k16.row.col.bf16
// CHECK-NOT: llvm.nvvm.barrier.cta
// CHECK: cp.async.bulk.tensor.4d
// CHECK: llvm.nvvm.barrier.cta
// The shares are asked for before the first is used.
// CHECK: atom.acq_rel.gpu.global.add.u32
// CHECK-COUNT-16: ld.global.v{{2|4}}.b32
// CHECK-NOT: attn.
// LLVM-LABEL: llvm.func @decode(
// LLVM-NOT: __nv_
// LLVM-NOT: math.
attn.forward @decode dtype(bf16) head_dim(64, 64)
    schedule("sm90.decode least=4 stages=3 tile_m=8 tile_n=32 warps=4") target("sm_90a@sm_90a")
    attributes {alignment = 16 : i64, results = "merged"} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  attn.yield %s
}
