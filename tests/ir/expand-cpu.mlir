// RUN: flashplus-opt %s -attn-expand | FileCheck %s
// RUN: flashplus-opt %s -attn-expand -flashplus-lower-cpu | FileCheck %s --check-prefix=LLVM

// The kernel takes params, work item and scratch; both products are register blocks of mr * nr = 12 accumulators.
// CHECK-LABEL: llvm.func @causal(
// CHECK-SAME: !llvm.ptr
// CHECK-SAME: i64
// CHECK-SAME: !llvm.ptr {llvm.noalias}
// CHECK: scf.for {{.*}} iter_args({{.*}}) -> (vector<8xf32>, vector<8xf32>, vector<8xf32>, vector<8xf32>, vector<8xf32>, vector<8xf32>, vector<8xf32>, vector<8xf32>, vector<8xf32>, vector<8xf32>, vector<8xf32>, vector<8xf32>)
// Nothing of the level above is left, and nothing calls a library.
// CHECK-NOT: attn.
// LLVM-NOT: scf.
// LLVM-NOT: math.
// LLVM-NOT: llvm.call @
attn.forward @causal dtype(bf16) head_dim(64, 64) schedule("cpu.flash mr=6 nr=2 tile_m=96 tile_n=64")
    target("x86-64-v3") attributes {alignment = 16 : i64, bounded_right} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  %t = math.tanh %s : f32
  attn.yield %t
}

// Few rows: K is read in place, two keys times four rows of sums and of bf16 in pairs along the head dim. Inside the loop over
// the tiles of keys is that over the key heads. What is read is asked for a tile ahead, but for the last tile of a share.
// V takes the keys two at a time, and the last one by itself.
// CHECK-LABEL: llvm.func @few(
// CHECK: scf.for %[[TILE:.*]] =
// CHECK: arith.select {{.*}} : i64
// CHECK: scf.for
// CHECK: scf.for {{.*}} step %c2_i64{{.*}} -> (vector<8xf32>)
// CHECK: scf.for {{.*}} step %c16_i64
// CHECK-COUNT-2: llvm.prefetch
// CHECK: arith.shli {{.*}} : vector<8xi32>
// CHECK: vector.shuffle {{.*}} [0, 2, 8, 10, 4, 6, 12, 14]
// CHECK: scf.for {{.*}} step %c2_i64
// CHECK-COUNT-2: llvm.prefetch
// CHECK: scf.yield
// CHECK: scf.for {{.*}} step %c1_i64
// CHECK: llvm.prefetch
// CHECK-NOT: llvm.prefetch
attn.forward @few dtype(bf16) head_dim(64, 64) schedule("cpu.stream heads=8 tile_m=4 tile_n=16")
    target("x86-64-v3") attributes {alignment = 16 : i64} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  attn.yield %s
}
