// RUN: flashplus-opt %s -attn-expand -split-input-file | FileCheck %s

// A row a warp: both LSEs are read by all lanes, which have a barrier of the warp between that and the store of the new one, since it
// may lie where one of them lay. A side without a key is selected away, never multiplied by 0.
// CHECK-LABEL: llvm.func @gpu(
// CHECK-SAME: nvvm.reqntid = array<i32: 128, 1, 1>
// CHECK-COUNT-2: llvm.load {{.*}} {alignment = 4 : i64} : !llvm.ptr<1> -> f32
// CHECK: scf.for
// CHECK-COUNT-2: llvm.load {{.*}} {alignment = 2 : i64} : !llvm.ptr<1> -> bf16
// CHECK-COUNT-3: arith.select
// CHECK: llvm.store {{.*}} {alignment = 2 : i64} : i16, !llvm.ptr<1>
// CHECK: llvm.nvvm.bar.warp.sync
// CHECK: llvm.store {{.*}} {alignment = 4 : i64} : f32, !llvm.ptr<1>
// CHECK-NOT: !llvm.ptr<3>
// CHECK-NOT: attn.
attn.merge @gpu dtype(bf16) head_dim_v(64) schedule("gpu.merge rows=4")
    target("sm_80@sm_80") attributes {alignment = 2 : i64}

// -----

// CHECK-LABEL: llvm.func @cpu(
// CHECK: scf.for
// CHECK-COUNT-2: llvm.load {{.*}} {alignment = 4 : i64} : !llvm.ptr -> f32
// CHECK-COUNT-3: arith.select {{.*}} : vector<8xf32>
// CHECK-NOT: attn.
attn.merge @cpu dtype(f32) head_dim_v(20) schedule("cpu.merge rows=16")
    target("x86-64-v3") attributes {alignment = 4 : i64}
