// RUN: flashplus-opt %s -attn-expand | FileCheck %s

// Two parameters: the struct and three tensor maps. The warpgroup that copies gives registers away and the others take
// them; S of the next tile is issued before O += P V of the last one, and ptxas is kept from waiting for the latter above
// the softmax; the score's arithmetic is inlined between the two waits.
// CHECK-LABEL: llvm.func @overlap(
// CHECK-SAME: llvm.byval = !llvm.array<{{[0-9]+}} x i8>
// CHECK-SAME: llvm.align = 64 : i64
// CHECK-SAME: llvm.byval = !llvm.array<384 x i8>
// CHECK-SAME: nvvm.minctasm = 1 : i32
// CHECK-SAME: nvvm.reqntid = array<i32: 384, 1, 1>
// CHECK: prefetch.tensormap
// CHECK: mbarrier.init.shared::cta.b64
// CHECK: setmaxnreg.dec.sync.aligned.u32 24
// CHECK: cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint
// CHECK: setmaxnreg.inc.sync.aligned.u32 240
// The first tile: S alone.
// CHECK: wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16
// CHECK: wgmma.wait_group.sync.aligned 0
// The loop.
// CHECK: scf.for
// CHECK: bar.sync $0, 256
// CHECK: wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16
// CHECK: wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16
// CHECK: bar.arrive $0, 256
// CHECK: wgmma.wait_group.sync.aligned 1
// The score: tanh of small arguments as a polynomial, if all of a warp's are.
// CHECK: math.absf
// CHECK: llvm.nvvm.vote.any.sync
// CHECK: scf.if
// CHECK: llvm.nvvm.rcp.approx.ftz.f
// CHECK: } else {
// CHECK: llvm.intr.fma
// CHECK: llvm.nvvm.ex2.approx.ftz.f
// CHECK: nanosleep
// CHECK: wgmma.wait_group.sync.aligned 0
// CHECK: llvm.nvvm.ff2bf16x2.rn
// CHECK: scf.yield
// The last product, and O out of registers.
// CHECK: wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16
// CHECK: wgmma.wait_group.sync.aligned 0
// CHECK-NOT: attn.
attn.forward @overlap dtype(bf16) head_dim(128, 64)
    schedule("sm90.flash blocks=1 pingpong=1 q_stages=1 stages=2 tile_m=128 tile_n=128") target("sm_90a@sm_90a")
    attributes {alignment = 16 : i64, bounded_right} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  %y = math.tanh %s : f32
  attn.yield %y
}

// What is linear in the key is one fused operation an element, and none for a row's first key (8 elements here, 2 rows): where
// the distance keeps its sign, its absolute value is a sign a row. The other branch takes every element's absolute value.
// CHECK-LABEL: llvm.func @linear(
// CHECK: llvm.nvvm.vote.any.sync
// CHECK: scf.if
// CHECK-COUNT-8: math.absf
// CHECK: } else {
// CHECK-NOT: math.absf
// CHECK-COUNT-6: llvm.intr.fma
// CHECK-NOT: llvm.intr.fma
// CHECK: scf.yield
attn.forward @linear dtype(bf16) head_dim(64, 64)
    schedule("sm90.flash blocks=1 pingpong=0 q_stages=1 stages=2 tile_m=64 tile_n=16") target("sm_90a@sm_90a")
    attributes {alignment = 16 : i64, bounded_right} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  %row = arith.sitofp %q : i32 to f32
  %key = arith.sitofp %k : i32 to f32
  %distance = arith.subf %row, %key : f32
  %far = math.absf %distance : f32
  %y = arith.subf %s, %far : f32
  attn.yield %y
}

// An index that is worked out from a key stays inside its tensor, whatever it is: an fp32 one is converted with saturation (8
// elements a thread, from one key a thread) and cut at the end of the tensor; h is inside already.
// CHECK-LABEL: llvm.func @computed_index(
// CHECK: wgmma.wait_group.sync.aligned 0
// CHECK: arith.sitofp
// CHECK-COUNT-8: "llvm.nvvm.f2ui.rz"
// CHECK-NOT: arith.fptosi
// CHECK-NOT: arith.maxsi
// CHECK-COUNT-8: arith.minui
attn.forward @computed_index dtype(bf16) head_dim(64, 64)
    schedule("sm90.flash blocks=1 pingpong=0 q_stages=1 stages=2 tile_m=64 tile_n=16") target("sm_90a@sm_90a")
    attributes {alignment = 16 : i64, bounded_right} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  %row = arith.sitofp %q : i32 to f32
  %key = arith.sitofp %k : i32 to f32
  %distance = arith.subf %row, %key : f32
  %index = attn.index %distance
  %bias = attn.aux 0[%h, %index] : f32
  %y = arith.addf %s, %bias : f32
  attn.yield %y
}

// A whole number is an integer all the way, and is cut at both ends; a plain key is never negative.
// CHECK-LABEL: llvm.func @integer_index(
// CHECK-SAME: llvm.byval = !llvm.array<[[#ALL:]] x i8>
// CHECK: wgmma.wait_group.sync.aligned 0
// CHECK-COUNT-8: arith.subi
// CHECK-NOT: "llvm.nvvm.f2ui.rz"
// CHECK: arith.maxsi
// CHECK: arith.minui
// CHECK: arith.minui
// CHECK: llvm.load {{.*}} invariant
// CHECK-NOT: arith.fptosi
attn.forward @integer_index dtype(bf16) head_dim(64, 64)
    schedule("sm90.flash blocks=1 pingpong=0 q_stages=1 stages=2 tile_m=64 tile_n=16") target("sm_90a@sm_90a")
    attributes {alignment = 16 : i64, bounded_right} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  %distance = arith.subi %q, %k : i32
  %bias = attn.aux 0[%distance, %k] : f32
  %y = arith.addf %s, %bias : f32
  attn.yield %y
}

// Kernels take the tensors' sizes, 16 numbers, only where an index is clamped.
// CHECK-LABEL: llvm.func @slopes(
// CHECK-SAME: llvm.byval = !llvm.array<[[#ALL-64]] x i8>
// CHECK-NOT: arith.minui
attn.forward @slopes dtype(bf16) head_dim(64, 64)
    schedule("sm90.flash blocks=1 pingpong=0 q_stages=1 stages=2 tile_m=64 tile_n=16") target("sm_90a@sm_90a")
    attributes {alignment = 16 : i64, bounded_right} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  %slope = attn.aux 0[%b, %h, %hk] : f32
  %y = arith.mulf %s, %slope : f32
  attn.yield %y
}

// Keys in pages: boxes by turns, as long as page and tile allow, each at the page that an entry of the table names; one behind
// the last key is of page -1, zeros. V's rows behind it are cleared.
// CHECK-LABEL: llvm.func @pages(
// CHECK: prefetch.tensormap
// K of the first tile: its first box's page is read before the wait for its stage.
// CHECK: arith.shrui
// CHECK: llvm.load {{.*}} -> i32
// CHECK: mbarrier.try_wait
// CHECK: mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], 32768
// CHECK: scf.for
// CHECK: llvm.load {{.*}} -> i32
// CHECK-COUNT-2: cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint
// CHECK: scf.yield
// The last product's V.
// CHECK: fence.proxy.async.shared::cta
attn.forward @pages dtype(bf16) head_dim(128, 64)
    schedule("sm90.flash blocks=1 pingpong=0 q_stages=1 stages=2 tile_m=128 tile_n=128") target("sm_90a@sm_90a")
    attributes {alignment = 16 : i64, keys = "paged"} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  attn.yield %s
}
