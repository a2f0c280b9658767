// RUN: flashplus-opt %s | flashplus-opt | FileCheck %s

// CHECK-LABEL: attn.forward @plain dtype(bf16) head_dim(64, 64)
// CHECK-SAME: schedule("cpu.flash mr=6 nr=2 tile_m=96 tile_n=64") target("x86-64-v3")
// CHECK-SAME: attributes {alignment = 16 : i64, bounded_right}
// CHECK: attn.yield
attn.forward @plain dtype(bf16) head_dim(64, 64) schedule("cpu.flash mr=6 nr=2 tile_m=96 tile_n=64")
    target("x86-64-v3") attributes {alignment = 16 : i64, bounded_right} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  attn.yield %s
}

// CHECK-LABEL: attn.forward @bias
// CHECK: %[[P:.*]] = attn.scalar 0 : f32
// CHECK: %[[I:.*]] = attn.index %{{.*}}
// CHECK: %[[T:.*]] = attn.aux 1[%{{.*}}, %[[I]]] : f32
attn.forward @bias dtype(f16) head_dim(128, 64) schedule("sm80.flash tile_m=64 tile_n=64 warps=4")
    target("sm_80@sm_90") attributes {alignment = 2 : i64, bounded_left, results = "partial"} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  %p = attn.scalar 0 : f32
  %i = attn.index %s
  %t = attn.aux 1[%h, %i] : f32
  %x = arith.mulf %p, %t : f32
  %y = arith.addf %s, %x : f32
  attn.yield %y
}

// CHECK-LABEL: attn.combine @merge dtype(f32) head_dim_v(40)
attn.combine @merge dtype(f32) head_dim_v(40) schedule("cpu.combine rows=8") target("x86-64-v4")
    attributes {alignment = 4 : i64}

// CHECK-LABEL: attn.append @fresh dtype(bf16) head_dim(128, 64) schedule("gpu.append rows=8")
// CHECK-SAME: attributes {alignment = 2 : i64}
attn.append @fresh dtype(bf16) head_dim(128, 64) schedule("gpu.append rows=8") target("sm_90a")
    attributes {alignment = 2 : i64}
