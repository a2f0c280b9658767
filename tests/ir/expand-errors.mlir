// RUN: flashplus-opt %s -attn-expand -split-input-file -verify-diagnostics

// expected-error @+1 {{tile_m is 100; it must be a multiple of mr up to 512}}
attn.forward @knob dtype(bf16) head_dim(64, 64) schedule("cpu.flash mr=6 nr=2 tile_m=100 tile_n=64")
    target("x86-64-v3") attributes {alignment = 2 : i64} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  attn.yield %s
}

// -----

// expected-error @+1 {{'sm80.flash' is not an algorithm for this operation on x86-64-v3; there is cpu.flash}}
attn.forward @algorithm dtype(bf16) head_dim(64, 64) schedule("sm80.flash tile_m=64") target("x86-64-v3")
    attributes {alignment = 2 : i64} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  attn.yield %s
}

// -----

// A tile that does not fit the chip's shared memory names both sizes.
// expected-error @+1 {{bytes of shared memory; sm_80@sm_86 has 101376}}
attn.forward @memory dtype(bf16) head_dim(256, 256) schedule("sm80.flash stages=1 tile_m=128 tile_n=64 warps=8")
    target("sm_80@sm_86") attributes {alignment = 16 : i64} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  attn.yield %s
}

// -----

// TMA copies whole rows of 16 bytes.
// expected-error @+1 {{copies with TMA, which needs rows aligned to 16 bytes; the spec has alignment 2}}
attn.forward @unaligned dtype(bf16) head_dim(64, 64)
    schedule("sm90.flash blocks=1 pingpong=0 q_stages=1 stages=2 tile_m=128 tile_n=64") target("sm_90a@sm_90a")
    attributes {alignment = 2 : i64} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  attn.yield %s
}

// -----

// expected-error @+1 {{needs 224 accumulator registers a thread; at most 208 are allowed}}
attn.forward @registers dtype(bf16) head_dim(256, 256)
    schedule("sm90.flash blocks=1 pingpong=0 q_stages=1 stages=1 tile_m=128 tile_n=128") target("sm_90a@sm_90a")
    attributes {alignment = 16 : i64} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  attn.yield %s
}
