# SPDX-License-Identifier: BSD-3-Clause
"""The functions of the original below its public ones, by position as ring attention's packages call them, and the
small ones beside them. Signatures are the original's (2.8.4): plain functions with named arguments, which callers
inspect."""

from flashplus import ops
from flashplus.direct import direct, plain

USE_TRITON_ROCM = False


def maybe_contiguous(x):
    return x.contiguous() if x is not None and x.stride(-1) != 1 else x


def round_multiple(x, m):
    return (x + m - 1) // m * m


def _get_block_size_n(device, head_dim, is_dropout, is_causal):
    """The width of the key blocks that S_dmask is written in: all keys, for it has one maximum for a whole row."""
    return 1 << 30


def straight(q, k, v):
    return direct(q, k, v) and not q.is_meta


def _flash_attn_forward(q, k, v, dropout_p, softmax_scale, causal, window_size_left, window_size_right, softcap,
                        alibi_slopes, return_softmax):
    """(out, softmax_lse, S_dmask, rng_state)"""
    function = ops._forward if straight(q, k, v) and plain(alibi_slopes) else ops.forward
    return function(q, k, v, dropout_p, softmax_scale, causal, window_size_left, window_size_right, softcap,
                    alibi_slopes, return_softmax)


def _flash_attn_varlen_forward(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p,
                               softmax_scale, causal, window_size_left=-1, window_size_right=-1, softcap=0.0,
                               alibi_slopes=None, return_softmax=False, block_table=None, leftpad_k=None,
                               seqused_k=None, zero_tensors=False, num_splits=0):
    """(out, softmax_lse, S_dmask, rng_state)"""
    others = cu_seqlens_q, cu_seqlens_k, alibi_slopes, block_table, leftpad_k, seqused_k
    function = ops._varlen_forward if straight(q, k, v) and plain(*others) else ops.varlen_forward
    return function(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale, causal,
                    window_size_left, window_size_right, softcap, alibi_slopes, return_softmax, block_table, leftpad_k,
                    seqused_k, zero_tensors, num_splits)


def _flash_attn_backward(dout, q, k, v, out, softmax_lse, dq, dk, dv, dropout_p, softmax_scale, causal,
                         window_size_left, window_size_right, softcap, alibi_slopes, deterministic, rng_state=None):
    """softmax_d; writes dq, dk and dv"""
    others = dout, out, softmax_lse, dq, dk, dv, alibi_slopes, rng_state
    function = ops._backward if straight(q, k, v) and plain(*others) else ops.backward
    return function(dout, q, k, v, out, softmax_lse, dq, dk, dv, dropout_p, softmax_scale, causal, window_size_left,
                    window_size_right, softcap, alibi_slopes, deterministic, rng_state)


def _flash_attn_varlen_backward(dout, q, k, v, out, softmax_lse, dq, dk, dv, cu_seqlens_q, cu_seqlens_k, max_seqlen_q,
                                max_seqlen_k, dropout_p, softmax_scale, causal, window_size_left, window_size_right,
                                softcap, alibi_slopes, deterministic, rng_state=None, zero_tensors=False):
    """softmax_d; writes dq, dk and dv"""
    others = dout, out, softmax_lse, dq, dk, dv, cu_seqlens_q, cu_seqlens_k, alibi_slopes, rng_state
    function = ops._varlen_backward if straight(q, k, v) and plain(*others) else ops.varlen_backward
    return function(dout, q, k, v, out, softmax_lse, dq, dk, dv, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k,
                    dropout_p, softmax_scale, causal, window_size_left, window_size_right, softcap, alibi_slopes,
                    deterministic, rng_state, zero_tensors)


_wrapped_flash_attn_forward = ops.forward
_wrapped_flash_attn_varlen_forward = ops.varlen_forward
_wrapped_flash_attn_backward = ops.backward
_wrapped_flash_attn_varlen_backward = ops.varlen_backward
