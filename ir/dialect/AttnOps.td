// SPDX-License-Identifier: BSD-3-Clause
#ifndef FLASHPLUS_ATTN_OPS
#define FLASHPLUS_ATTN_OPS

include "ir/dialect/AttnDialect.td"
include "mlir/IR/BuiltinAttributes.td"
include "mlir/Interfaces/InferTypeOpInterface.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

def Attn_StorageType : TypeAttrBase<"::mlir::FloatType", "fp16, bf16 or fp32"> {
  let predicate = And<[CPred<"::llvm::isa<::mlir::TypeAttr>($_self)">,
                       CPred<"::llvm::isa<::mlir::Float16Type, ::mlir::BFloat16Type, ::mlir::Float32Type>("
                             "::llvm::cast<::mlir::TypeAttr>($_self).getValue())">]>;
}

/// A kernel of attention with a score: the fields of KernelSpec (spec/fields.h) are attributes, and those that are at their
/// default do not appear, nor do run-time parameters. The region's arguments are (s : f32, b, h, hk, q, k, sq, sk : i32).
class Attn_ScoredOp<string mnemonic> : Attn_Op<mnemonic, [IsolatedFromAbove, SingleBlock]> {
  let arguments = (ins SymbolNameAttr:$sym_name, Attn_StorageType:$dtype, I64Attr:$head_dim_qk, I64Attr:$head_dim_v,
                       StrAttr:$schedule, StrAttr:$target);
  let regions = (region SizedRegion<1>:$score);
  let assemblyFormat = [{
    $sym_name `dtype` `(` $dtype `)` `head_dim` `(` $head_dim_qk `,` $head_dim_v `)` `schedule` `(` $schedule `)`
    `target` `(` $target `)` attr-dict-with-keyword $score
  }];
  let hasVerifier = 1;
  let hasRegionVerifier = 1;
}

def Attn_ForwardOp : Attn_ScoredOp<"forward"> {
  let summary = "Forward attention";
  let description = [{
    o, lse = softmax(score(softmax_scale * q k^T) masked to an interval of keys per query row) v. The region maps one scaled
    score to another and ends in `attn.yield` of it.

    ```mlir
    attn.forward @flashplus_forward_bf16_d64_right dtype(bf16) head_dim(64, 64) schedule("cpu.flash tile_m=96")
        target("x86-64-v3") attributes {bounded_right} {
    ^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
      attn.yield %s
    }
    ```
  }];
}

def Attn_BackwardOp : Attn_ScoredOp<"backward"> {
  let summary = "Gradients of q, k and v";
  let description = [{
    With w = score(s), p = exp(w - lse) and ds = p (dout v^T - delta) dw/ds:  dv = p^T dout, dk = softmax_scale ds^T q,
    dq = softmax_scale ds k. The region yields w and dw/ds.

    ```mlir
    attn.backward @flashplus_backward_fp32_d64 dtype(f32) head_dim(64, 64) schedule("cpu.backward tile_m=96")
        target("x86-64-v3") {
    ^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
      %one = arith.constant 1.0 : f32
      attn.yield %s, %one
    }
    ```
  }];
}

def Attn_BackwardKVOp : Attn_ScoredOp<"backward_kv"> {
  let summary = "Gradients of k and v alone; otherwise as attn.backward";
}

def Attn_BackwardQOp : Attn_ScoredOp<"backward_q"> {
  let summary = "The gradient of q alone; otherwise as attn.backward";
}

def Attn_BackwardScoreOp : Attn_ScoredOp<"backward_score"> {
  let summary = "Gradients of the score's own scalars and tensors";
  let description = [{
    With g = p (dout v^T - delta), adds g d to what each attn.scalar_gradient and attn.aux_gradient of the region, whose derivative is
    d, names, for every score that the mask does not hide. The region yields w.

    ```mlir
    attn.backward_score @flashplus_backward_score_fp32_d64 dtype(f32) head_dim(64, 64) schedule("cpu.backward_score")
        target("x86-64-v3") attributes {score_grads = 256 : i64} {
    ^bb0(%s: f32, %b: i32, %h: i32, %hk: i32, %q: i32, %k: i32, %sq: i32, %sk: i32):
      %gain = attn.aux 0[%h] : f32
      %w = arith.mulf %s, %gain : f32
      attn.aux_gradient 0[%h], %s
      attn.yield %w
    }
    ```
  }];
}

def Attn_BackwardDeltaOp : Attn_Op<"backward_delta"> {
  let summary = "What a backward needs of every query row";
  let description = [{
    row_delta = sum_d dout o - dlse, row_lse = lse log2(e); 0 and +inf for a row whose lse is not finite.
  }];
  let arguments = (ins SymbolNameAttr:$sym_name, Attn_StorageType:$dtype, I64Attr:$head_dim_v, StrAttr:$schedule,
                       StrAttr:$target);
  let assemblyFormat = [{
    $sym_name `dtype` `(` $dtype `)` `head_dim_v` `(` $head_dim_v `)` `schedule` `(` $schedule `)`
    `target` `(` $target `)` attr-dict-with-keyword
  }];
  let hasVerifier = 1;
}

def Attn_BackwardSumOp : Attn_Op<"backward_sum"> {
  let summary = "dq = softmax_scale times the sum of the parts that shares of the keys have of it";
  let arguments = (ins SymbolNameAttr:$sym_name, Attn_StorageType:$dtype, I64Attr:$head_dim_qk, StrAttr:$schedule,
                       StrAttr:$target);
  let assemblyFormat = [{
    $sym_name `dtype` `(` $dtype `)` `head_dim_qk` `(` $head_dim_qk `)` `schedule` `(` $schedule `)`
    `target` `(` $target `)` attr-dict-with-keyword
  }];
  let hasVerifier = 1;
}

def Attn_CombineOp : Attn_Op<"combine"> {
  let summary = "Merges the partial results of a split forward";
  let description = [{
    lse = ln sum_i exp(lse_i), o = sum_i exp(lse_i - lse) o_i over the shares i of the keys.

    ```mlir
    attn.combine @flashplus_combine_bf16_dv64 dtype(bf16) head_dim_v(64) schedule("gpu.combine rows=4")
        target("sm_80@sm_80") attributes {alignment = 2 : i64}
    ```
  }];
  let arguments = (ins SymbolNameAttr:$sym_name, Attn_StorageType:$dtype, I64Attr:$head_dim_v, StrAttr:$schedule,
                       StrAttr:$target);
  let assemblyFormat = [{
    $sym_name `dtype` `(` $dtype `)` `head_dim_v` `(` $head_dim_v `)` `schedule` `(` $schedule `)`
    `target` `(` $target `)` attr-dict-with-keyword
  }];
  let hasVerifier = 1;
}

def Attn_AppendOp : Attn_Op<"append"> {
  let summary = "Writes new keys and values into a cache";
  let description = [{
    New keys, by rotary embedding turned to their positions, and new values into the slots behind those that a sequence has; q
    turned likewise into memory of its own; the sequences' new lengths.

    ```mlir
    attn.append @flashplus_append_bf16_d64 dtype(bf16) head_dim(64, 64) schedule("gpu.append rows=16")
        target("sm_80@sm_80") attributes {alignment = 2 : i64}
    ```
  }];
  let arguments = (ins SymbolNameAttr:$sym_name, Attn_StorageType:$dtype, I64Attr:$head_dim_qk, I64Attr:$head_dim_v,
                       StrAttr:$schedule, StrAttr:$target);
  let assemblyFormat = [{
    $sym_name `dtype` `(` $dtype `)` `head_dim` `(` $head_dim_qk `,` $head_dim_v `)` `schedule` `(` $schedule `)`
    `target` `(` $target `)` attr-dict-with-keyword
  }];
  let hasVerifier = 1;
}

def Attn_MergeOp : Attn_Op<"merge"> {
  let summary = "Merges two results of the same queries over different keys";
  let description = [{
    lse = ln(exp(lse_a) + exp(lse_b)), o = exp(lse_a - lse) o_a + exp(lse_b - lse) o_b. A side whose lse is infinite has no share.

    ```mlir
    attn.merge @flashplus_merge_bf16_dv64 dtype(bf16) head_dim_v(64) schedule("gpu.merge rows=4")
        target("sm_80@sm_80") attributes {alignment = 2 : i64}
    ```
  }];
  let arguments = (ins SymbolNameAttr:$sym_name, Attn_StorageType:$dtype, I64Attr:$head_dim_v, StrAttr:$schedule,
                       StrAttr:$target);
  let assemblyFormat = [{
    $sym_name `dtype` `(` $dtype `)` `head_dim_v` `(` $head_dim_v `)` `schedule` `(` $schedule `)`
    `target` `(` $target `)` attr-dict-with-keyword
  }];
  let hasVerifier = 1;
}

def Attn_ScalarOp : Attn_Op<"scalar", [Pure]> {
  let summary = "A scalar parameter of the score";
  let arguments = (ins I64Attr:$slot);
  let results = (outs F32:$result);
  let assemblyFormat = "$slot attr-dict `:` type($result)";
  let hasVerifier = 1;
}

def Attn_AuxOp : Attn_Op<"aux", [Pure]> {
  let summary = "An element of an auxiliary tensor of the score";
  let description = [{
    The tensor is fp32 with run-time strides and sizes, and is only read. Every index is clamped to its dimension, unless it
    is the region's own b, h or hk: that a tensor has room for those is checked before a launch.

    ```mlir
    %x = attn.aux 0[%b, %h] : f32
    ```
  }];
  let arguments = (ins I64Attr:$slot, Variadic<I32>:$indices);
  let results = (outs F32:$result);
  let assemblyFormat = "$slot `[` $indices `]` attr-dict `:` type($result)";
  let hasVerifier = 1;
}

def Attn_IndexOp : Attn_Op<"index", [Pure]> {
  let summary = "An fp32 value as an index of an auxiliary tensor";
  let description = [{
    Rounded towards zero, as an unsigned number: 0 for what is negative or NaN, and a number past the end of every tensor for what
    is too large (`arith.fptosi` is poison for all of these).

    ```mlir
    %i = attn.index %x
    %y = attn.aux 0[%h, %i] : f32
    ```
  }];
  let arguments = (ins F32:$value);
  let results = (outs I32:$result);
  let assemblyFormat = "$value attr-dict";
}

def Attn_RemainderOp : Attn_Op<"remainder", [Pure, SameOperandsAndResultType]> {
  let summary = "What is left of a division, with the divisor's sign";
  let description = [{
    a - floor(a / b) b, as Python has it (`arith.remf` and `arith.remsi` have the sign of a). In fp32 it is exact where a / b is below
    2^22, and NaN where b is 0; an integer divisor is positive.

    ```mlir
    %r = attn.remainder %a, %b : f32
    ```
  }];
  let arguments = (ins AnyTypeOf<[F32, I32]>:$lhs, AnyTypeOf<[F32, I32]>:$rhs);
  let results = (outs AnyTypeOf<[F32, I32]>:$result);
  let assemblyFormat = "$lhs `,` $rhs attr-dict `:` type($result)";
}

def Attn_ScalarGradientOp : Attn_Op<"scalar_gradient"> {
  let summary = "The score's derivative with respect to a scalar";
  let description = [{
    Stands in an attn.backward_score, which adds to the scalar's gradient what it means.
  }];
  let arguments = (ins I64Attr:$slot, F32:$derivative);
  let assemblyFormat = "$slot `,` $derivative attr-dict";
  let hasVerifier = 1;
}

def Attn_AuxGradientOp : Attn_Op<"aux_gradient"> {
  let summary = "The score's derivative with respect to an element of a tensor";
  let description = [{
    Stands in an attn.backward_score. The element is the one that attn.aux reads at these indices.
  }];
  let arguments = (ins I64Attr:$slot, Variadic<I32>:$indices, F32:$derivative);
  let assemblyFormat = "$slot `[` $indices `]` `,` $derivative attr-dict";
  let hasVerifier = 1;
}

def Attn_YieldOp : Attn_Op<"yield", [Pure, Terminator,
                                     ParentOneOf<["ForwardOp", "BackwardOp", "BackwardKVOp", "BackwardQOp", "BackwardScoreOp"]>]> {
  let summary = "The new score, and in a backward its derivative with respect to s";
  let arguments = (ins Variadic<F32>:$values);
  let assemblyFormat = "$values attr-dict";
  let extraClassDeclaration = [{
    ::mlir::Value getValue() { return getValues().front(); }
    /// Of a backward: dw/ds.
    ::mlir::Value getSlope() { return getValues()[1]; }
  }];
}

#endif
