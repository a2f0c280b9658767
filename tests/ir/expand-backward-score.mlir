// RUN: flashplus-opt %s -attn-expand -split-input-file | FileCheck %s

// What all scores of a head share is one sum a thread, which a warp adds up at its end: atomic operations are in no loop.
// CHECK-LABEL: llvm.func @shared(
// CHECK: scf.for {{.*}} -> (f32)
// CHECK-NOT: llvm.atomicrmw
// CHECK: scf.yield
// CHECK-COUNT-5: nvvm.shfl.sync
// CHECK: llvm.atomicrmw fadd {{.*}} syncscope("device") monotonic
// CHECK-NOT: llvm.atomicrmw
// CHECK-NOT: attn.
attn.backward_score @shared dtype(bf16) head_dim(64, 64) schedule("sm80.backward_score stages=1 tile_m=64 tile_n=64 warps=4")
    target("sm_80@sm_80") attributes {score_grads = 1 : i64} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  %p = attn.scalar 0 : f32
  %w = arith.mulf %s, %p : f32
  attn.scalar_gradient 0, %s
  attn.yield %w
}

// -----

// What a key has is one for each score that counts.
// CHECK-LABEL: llvm.func @by_key(
// CHECK: scf.for
// CHECK: scf.if
// CHECK: llvm.atomicrmw fadd
attn.backward_score @by_key dtype(bf16) head_dim(64, 64) schedule("sm80.backward_score stages=1 tile_m=64 tile_n=64 warps=4")
    target("sm_80@sm_80") attributes {score_grads = 256 : i64} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  %t = attn.aux 0[%k] : f32
  %w = arith.addf %s, %t : f32
  %one = arith.constant 1.0 : f32
  attn.aux_gradient 0[%k], %one
  attn.yield %w
}
