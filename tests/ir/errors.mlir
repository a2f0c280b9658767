// RUN: flashplus-opt %s -split-input-file -verify-diagnostics

// expected-error @+1 {{head_dim_qk}}
attn.forward @wide dtype(bf16) head_dim(512, 64) schedule("cpu.flash") target("x86-64-v3")
    attributes {alignment = 2 : i64} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  attn.yield %s
}

// -----

// expected-error @+1 {{alignment}}
attn.forward @misaligned dtype(bf16) head_dim(64, 64) schedule("cpu.flash") target("x86-64-v3")
    attributes {alignment = 3 : i64} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  attn.yield %s
}

// -----

// expected-error @+1 {{target}}
attn.combine @nowhere dtype(bf16) head_dim_v(64) schedule("cpu.combine rows=8") target("sm_13")
    attributes {alignment = 2 : i64}

// -----

// expected-error @+1 {{the score region takes}}
attn.forward @arguments dtype(bf16) head_dim(64, 64) schedule("cpu.flash") target("x86-64-v3")
    attributes {alignment = 2 : i64} {
^bb0(%s: f32):
  attn.yield %s
}

// -----

attn.forward @slots dtype(bf16) head_dim(64, 64) schedule("cpu.flash") target("x86-64-v3")
    attributes {alignment = 2 : i64} {
^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
  // expected-error @+1 {{slot is 8; it must be 0 to 7}}
  %p = attn.scalar 8 : f32
  attn.yield %p
}
