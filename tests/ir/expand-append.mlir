// RUN: flashplus-opt %s -attn-expand -split-input-file | FileCheck %s

// A thread moves 16 bytes of a row where every row is aligned, which is seen when it runs, else an element; no block waits for
// another, and nothing goes through shared memory. The new length is stored by one thread.
// CHECK-LABEL: llvm.func @wide(
// CHECK-SAME: nvvm.reqntid = array<i32: 128, 1, 1>
// CHECK-NOT: barrier
// CHECK: llvm.store {{.*}} {alignment = 4 : i64} : i32, !llvm.ptr<1>
// Pairs (2i, 2i + 1): 16 bytes of a row, and 8 of its cosines and sines.
// CHECK: llvm.load {{.*}} {alignment = 16 : i64} : !llvm.ptr<1> -> vector<4xi32>
// CHECK: llvm.load {{.*}} {alignment = 8 : i64} : !llvm.ptr<1> -> vector<2xi32>
// CHECK: llvm.load {{.*}} {alignment = 8 : i64} : !llvm.ptr<1> -> vector<2xi32>
// CHECK: llvm.store {{.*}} {alignment = 16 : i64} : vector<4xi32>, !llvm.ptr<1>
// Pairs (i, i + half): two times 16 bytes of a row, cosines and sines.
// CHECK-COUNT-4: llvm.load {{.*}} {alignment = 16 : i64} : !llvm.ptr<1> -> vector<4xi32>
// CHECK: llvm.store {{.*}} {alignment = 16 : i64} : vector<4xi32>, !llvm.ptr<1>
// CHECK: llvm.store {{.*}} {alignment = 16 : i64} : vector<4xi32>, !llvm.ptr<1>
// What does not turn is copied as it is.
// CHECK: %[[COPY:.*]] = llvm.load {{.*}} {alignment = 16 : i64} : !llvm.ptr<1> -> vector<4xi32>
// CHECK: llvm.store %[[COPY]], {{.*}} {alignment = 16 : i64}
// CHECK: llvm.store {{.*}} {alignment = 2 : i64} : i16, !llvm.ptr<1>
// CHECK-NOT: atomicrmw
// CHECK-NOT: barrier
// CHECK-NOT: !llvm.ptr<3>
// CHECK-NOT: attn.
attn.append @wide dtype(bf16) head_dim(128, 128) schedule("gpu.append rows=8")
    target("sm_80@sm_80") attributes {alignment = 2 : i64}

// -----

// Rows that are no multiple of 16 bytes have no such form.
// CHECK-LABEL: llvm.func @narrow(
// CHECK-NOT: vector<4xi32>
// CHECK: llvm.store {{.*}} {alignment = 2 : i64} : i16, !llvm.ptr<1>
// CHECK-NOT: vector<4xi32>
attn.append @narrow dtype(f16) head_dim(33, 40) schedule("gpu.append rows=16")
    target("sm_90a") attributes {alignment = 2 : i64}

// -----

// CHECK-LABEL: llvm.func @cpu(
// CHECK: vector.shuffle
// CHECK: llvm.intr.masked.store
// CHECK: llvm.store {{.*}} : vector<8xi32>, !llvm.ptr
// CHECK-NOT: attn.
attn.append @cpu dtype(f32) head_dim(128, 64) schedule("cpu.append rows=32")
    target("x86-64-v3") attributes {alignment = 4 : i64}
