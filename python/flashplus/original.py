# SPDX-License-Identifier: BSD-3-Clause
"""The original's autograd functions (FlashAttnFunc, ...), by their `apply`: what its kernels need around them. Calls of
ours don't come here (interface.py); they have their gradient at the operators (ops.py)."""

import torch

from flashplus import backend
from flashplus.positional import (_flash_attn_backward, _flash_attn_forward, _flash_attn_varlen_backward,
                                  _flash_attn_varlen_forward)


class _Options:
    """What forward and backward both need."""

    __slots__ = ("dropout_p", "softmax_scale", "causal", "window_size", "softcap", "alibi_slopes", "deterministic",
                 "return_softmax")

    def __init__(self, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
                 return_softmax, head_dim):
        self.dropout_p = dropout_p
        self.softmax_scale = head_dim ** -0.5 if softmax_scale is None else softmax_scale
        self.causal = causal
        self.window_size = (int(window_size[0]), int(window_size[1]))
        self.softcap = softcap
        self.alibi_slopes = alibi_slopes
        self.deterministic = deterministic
        self.return_softmax = return_softmax


def _pad_head_dim(t):
    """The original's kernels need a multiple of 8; ours take any."""
    over = t.shape[-1] % 8
    return torch.nn.functional.pad(t, [0, 8 - over]) if over and not backend.ours else t


def _run_forward(ctx, is_grad, q, k, v, o, lengths):
    """`lengths`: () or the four of a varlen call, block_table."""
    head_dim = q.shape[-1]
    q, k, v = (_pad_head_dim(t) for t in (q, k, v))
    probs = o.return_softmax and o.dropout_p > 0
    if lengths:
        *cu, block_table = lengths
        out, lse, dmask, rng_state = _flash_attn_varlen_forward(
            q, k, v, *cu, o.dropout_p, o.softmax_scale, o.causal, *o.window_size, o.softcap, o.alibi_slopes, probs,
            block_table)
    else:
        out, lse, dmask, rng_state = _flash_attn_forward(
            q, k, v, o.dropout_p, o.softmax_scale, o.causal, *o.window_size, o.softcap, o.alibi_slopes, probs)
    if is_grad:
        ctx.save_for_backward(q, k, v, out, lse, rng_state, *(lengths[:2] if lengths else ()))
        ctx.max_lengths = lengths[2:4]
        ctx.options = o
        ctx.head_dim = head_dim
    if out.shape[-1] != v.shape[-1] or v.shape[-1] != head_dim and not backend.ours:
        out = out[..., :head_dim]
    return (out, lse, dmask) if o.return_softmax else out


def _run_backward(ctx, dout, dq, dk, dv):
    q, k, v, out, lse, rng_state, *cu = ctx.saved_tensors
    o = ctx.options
    if dout.shape[-1] != q.shape[-1]:
        dout = torch.nn.functional.pad(dout, [0, q.shape[-1] - dout.shape[-1]])
    rest = (o.dropout_p, o.softmax_scale, o.causal, *o.window_size, o.softcap, o.alibi_slopes, o.deterministic,
            rng_state)
    if cu:
        _flash_attn_varlen_backward(dout, q, k, v, out, lse, dq, dk, dv, *cu, *ctx.max_lengths, *rest)
    else:
        _flash_attn_backward(dout, q, k, v, out, lse, dq, dk, dv, *rest)


def _grads(ctx, dout):
    q, k, v = ctx.saved_tensors[:3]
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    _run_backward(ctx, dout, dq, dk, dv)
    return tuple(t[..., :ctx.head_dim] for t in (dq, dk, dv))


def _packed_grads(ctx, dout, count):
    """One tensor for q, k, v (3) or k, v (2) that the caller had packed; and dq in the second case."""
    q, k, v = ctx.saved_tensors[:3]
    packed = k.new_empty((*k.shape[:-2], count, *k.shape[-2:]))
    parts = packed.unbind(-3)
    dq = parts[0] if count == 3 else torch.empty_like(q)
    _run_backward(ctx, dout, dq, parts[-2], parts[-1])
    return dq[..., :ctx.head_dim], packed[..., :ctx.head_dim]


class FlashAttnFunc(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
                return_softmax, is_grad_enabled):
        o = _Options(dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
                     return_softmax, q.shape[-1])
        return _run_forward(ctx, is_grad_enabled and any(t.requires_grad for t in (q, k, v)), q, k, v, o, ())

    @staticmethod
    def backward(ctx, dout, *_):
        return (*_grads(ctx, dout), *[None] * 9)


class FlashAttnQKVPackedFunc(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
                return_softmax, is_grad_enabled):
        o = _Options(dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
                     return_softmax, qkv.shape[-1])
        return _run_forward(ctx, is_grad_enabled and qkv.requires_grad, *(t.detach() for t in qkv.unbind(2)), o, ())

    @staticmethod
    def backward(ctx, dout, *_):
        return (_packed_grads(ctx, dout, 3)[1], *[None] * 9)


class FlashAttnKVPackedFunc(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, kv, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
                return_softmax, is_grad_enabled):
        o = _Options(dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
                     return_softmax, q.shape[-1])
        is_grad = is_grad_enabled and (q.requires_grad or kv.requires_grad)
        return _run_forward(ctx, is_grad, q, *(t.detach() for t in kv.unbind(2)), o, ())

    @staticmethod
    def backward(ctx, dout, *_):
        return (*_packed_grads(ctx, dout, 2), *[None] * 9)


class FlashAttnVarlenFunc(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale, causal,
                window_size, softcap, alibi_slopes, deterministic, return_softmax, block_table, is_grad_enabled):
        o = _Options(dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
                     return_softmax, q.shape[-1])
        is_grad = is_grad_enabled and any(t.requires_grad for t in (q, k, v))
        return _run_forward(ctx, is_grad, q, k, v, o,
                            (cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, block_table))

    @staticmethod
    def backward(ctx, dout, *_):
        return (*_grads(ctx, dout), *[None] * 14)


class FlashAttnVarlenQKVPackedFunc(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv, cu_seqlens, max_seqlen, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes,
                deterministic, return_softmax, is_grad_enabled):
        o = _Options(dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
                     return_softmax, qkv.shape[-1])
        return _run_forward(ctx, is_grad_enabled and qkv.requires_grad, *(t.detach() for t in qkv.unbind(1)), o,
                            (cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, None))

    @staticmethod
    def backward(ctx, dout, *_):
        return (_packed_grads(ctx, dout, 3)[1], *[None] * 11)


class FlashAttnVarlenKVPackedFunc(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, kv, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale, causal,
                window_size, softcap, alibi_slopes, deterministic, return_softmax, is_grad_enabled):
        o = _Options(dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
                     return_softmax, q.shape[-1])
        is_grad = is_grad_enabled and (q.requires_grad or kv.requires_grad)
        return _run_forward(ctx, is_grad, q, *(t.detach() for t in kv.unbind(1)), o,
                            (cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, None))

    @staticmethod
    def backward(ctx, dout, *_):
        return (*_packed_grads(ctx, dout, 2), *[None] * 13)
