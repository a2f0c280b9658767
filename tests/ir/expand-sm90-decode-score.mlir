// RUN: flashplus-opt %s -attn-expand | FileCheck %s

// A kernel that may start while the one before it runs reads a score's tensors as memory that may change: an invariant load
// would be ld.global.nc, from a cache that does not see what that one wrote, and need not stay behind the wait.
// CHECK-LABEL: llvm.func @decode(
// CHECK: griddepcontrol.wait
// CHECK-NOT: llvm.load {{.*}} invariant {{.*}} : !llvm.ptr<1> -> f32
// CHECK: llvm.load {{.*}} {alignment = 4 : i64} : !llvm.ptr<1> -> f32
// CHECK-NOT: llvm.load {{.*}} invariant {{.*}} : !llvm.ptr<1> -> f32
attn.forward @decode dtype(bf16) head_dim(64, 64)
    schedule("sm90.decode least=4 stages=3 tile_m=8 tile_n=32 warps=4") target("sm_90a@sm_90a")
    attributes {alignment = 16 : i64, results = "merged"} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  %t = attn.aux 0[%k] : f32
  %w = arith.addf %s, %t : f32
  attn.yield %w
}
