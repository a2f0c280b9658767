# SPDX-License-Identifier: BSD-3-Clause
"""The five positional functions of the original's extension `flash_attn_2_cuda`, over our kernels and by the switch.

xformers, MSLK and TransformerEngine call them by position (`flash_attn_interface.flash_attn_gpu`), so the order of the
arguments is an ABI. The `ours_*` functions are our half; `fwd` and the others follow the switch at every call.
"""

import inspect

import torch

from flashplus import backend, checks, dropout, kvcache, later
from flashplus.backward import gradients, sink_gradient  # noqa: F401, for attention_ops.py
from flashplus.forward import dense, ragged
from flashplus.frames import contiguous_rows  # noqa: F401, for ops.py

def _check_positional(q, k, v, generator, dropout_p, softcap, return_softmax):
    if generator is not None:
        raise RuntimeError("The `generator` argument is no longer supported and must be None: dropout draws from the "
                           "default generator")
    for name, t in (("q", q), ("k", k), ("v", v)):
        checks.tensor(name, t)
    if return_softmax and not dropout_p > 0.0:
        raise RuntimeError("return_softmax is only supported when p_dropout > 0.0")
    return dropout.check(dropout_p, softcap)


def _rng_state(q, p):
    return dropout.draw(q) if p else torch.zeros(2, dtype=torch.int64, device=q.device)


def _packed_lengths(cu_seqlens_q, cu_seqlens_k, seqused_k):
    q, k = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    lengths = [b - a for a, b in zip(k, k[1:])]
    if seqused_k is not None:
        lengths = [min(n, used) for n, used in zip(lengths, seqused_k.tolist())]
    return [(a, b - a, j, n) for a, b, j, n in zip(q, q[1:], k, lengths)]


def ours_fwd(q, k, v, out, alibi_slopes, p_dropout, softmax_scale, is_causal, window_size_left, window_size_right,
             softcap, return_softmax, gen):
    p = _check_positional(q, k, v, gen, p_dropout, softcap, return_softmax)
    softmax_scale, is_causal, left, right, softcap = checks.numbers(
        softmax_scale, is_causal, (window_size_left, window_size_right), softcap)
    rng_state = _rng_state(q, p)
    out, lse = dense(q, k, v, out, alibi_slopes, softmax_scale, is_causal, left, right, softcap, True, dropout_p=p,
                     rng_state=rng_state if p else None)
    dmask = q.new_empty(0)
    if return_softmax:
        scale = checks.default_scale(q) if softmax_scale is None else softmax_scale
        dmask = dropout.probabilities(rng_state, p, q, k, scale, is_causal, left, right, alibi_slopes)
    return [out, lse, dmask, rng_state]


def ours_varlen_fwd(q, k, v, out, cu_seqlens_q, cu_seqlens_k, seqused_k, leftpad_k, block_table, alibi_slopes,
                    max_seqlen_q, max_seqlen_k, p_dropout, softmax_scale, zero_tensors, is_causal, window_size_left,
                    window_size_right, softcap, return_softmax, gen, num_splits=0):
    max_seqlen_q = checks.integer("max_seqlen_q", max_seqlen_q)
    max_seqlen_k = checks.integer("max_seqlen_k", max_seqlen_k)
    num_splits = checks.integer("num_splits", num_splits)
    p = _check_positional(q, k, v, gen, p_dropout, softcap, return_softmax)
    if block_table is not None and num_splits > 1:
        raise RuntimeError("num_splits > 1 is not supported for varlen paged KV")
    if leftpad_k is not None and block_table is None:
        raise later.leftpad()
    softmax_scale, is_causal, left, right, softcap = checks.numbers(
        softmax_scale, is_causal, (window_size_left, window_size_right), softcap)
    if block_table is not None:
        if p:
            raise later.cache_dropout(p)
        out, lse = kvcache.attention(
            q, k, v, softmax_scale=softmax_scale, causal=is_causal, window_left=left, window_right=right,
            softcap=softcap, out=out, num_splits=num_splits, max_seqlen_q=max_seqlen_q,
            max_seqlen_k=max_seqlen_k, want_lse=True, cu_seqlens_q=cu_seqlens_q,
            cu_seqlens_k=cu_seqlens_k if seqused_k is None else None,
            seqused_k=seqused_k, leftpad_k=leftpad_k, block_table=block_table, alibi_slopes=alibi_slopes)
        return [out, lse, q.new_empty(0), _rng_state(q, p)]
    rng_state = _rng_state(q, p)
    out, lse = ragged(q, k, v, out, cu_seqlens_q, cu_seqlens_k, seqused_k, alibi_slopes, max_seqlen_q,
                      max_seqlen_k, softmax_scale, zero_tensors, is_causal, left, right, softcap, True,
                      num_splits=num_splits, dropout_p=p, rng_state=rng_state if p else None)
    dmask = q.new_empty(0)
    if return_softmax:
        scale = checks.default_scale(q) if softmax_scale is None else softmax_scale
        dmask = dropout.probabilities(rng_state, p, q, k, scale, is_causal, left, right, alibi_slopes,
                                      _packed_lengths(cu_seqlens_q, cu_seqlens_k, seqused_k), max_seqlen_q,
                                      max_seqlen_k)
    return [out, lse, dmask, rng_state]


def _padded(n):
    return (n + 127) // 128 * 128


def new_delta(q, cu_seqlens_q=None):
    """(softmax_d as the originals shape it, 0 in rows that are no query's; the part of it that rows of q have)"""
    if cu_seqlens_q is None:
        shape, rows = (q.shape[0], q.shape[2], _padded(q.shape[1])), q.shape[1]
    else:
        shape, rows = (q.shape[1], q.shape[0] + 128 * (cu_seqlens_q.numel() - 1)), q.shape[0]
    delta = torch.zeros(shape, dtype=torch.float32, device=q.device)
    return delta, delta[..., :rows]


def ours_bwd(dout, q, k, v, out, softmax_lse, dq, dk, dv, alibi_slopes, p_dropout, softmax_scale, is_causal,
             window_size_left, window_size_right, softcap, deterministic, gen, rng_state):
    """[dq, dk, dv, softmax_d]; softmax_d (batch, heads, seqlen_q rounded up to 128), 0 in rows that are no query's."""
    p = _check_positional(q, k, v, gen, p_dropout, softcap, False)
    softmax_scale, is_causal, left, right, softcap = checks.numbers(
        softmax_scale, is_causal, (window_size_left, window_size_right), softcap)
    delta, rows = new_delta(q)
    grads = gradients(dout, q, k, v, out, softmax_lse, dq=dq, dk=dk, dv=dv, delta=rows,
                      alibi_slopes=alibi_slopes, softmax_scale=softmax_scale, causal=is_causal, window_left=left,
                      window_right=right, softcap=softcap, dropout_p=p, rng_state=dropout.state_of(p, rng_state),
                      any_order=not deterministic)
    return [*grads, delta]


def ours_varlen_bwd(dout, q, k, v, out, softmax_lse, dq, dk, dv, cu_seqlens_q, cu_seqlens_k, alibi_slopes, max_seqlen_q,
                    max_seqlen_k, p_dropout, softmax_scale, zero_tensors, is_causal, window_size_left,
                    window_size_right, softcap, deterministic, gen, rng_state):
    """[dq, dk, dv, softmax_d]; softmax_d (heads, total_q + 128 batch), whose row i is row i of q: the original
    leaves room between sequences instead, and gives no meaning to the places."""
    p = _check_positional(q, k, v, gen, p_dropout, softcap, False)
    softmax_scale, is_causal, left, right, softcap = checks.numbers(
        softmax_scale, is_causal, (window_size_left, window_size_right), softcap)
    if zero_tensors:
        for grad in (dq, dk, dv):
            if grad is not None:
                grad.zero_()
    delta, rows = new_delta(q, cu_seqlens_q)
    grads = gradients(dout, q, k, v, out, softmax_lse, dq=dq, dk=dk, dv=dv, delta=rows,
                      cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k,
                      max_seqlen_q=checks.integer("max_seqlen_q", max_seqlen_q),
                      max_seqlen_k=checks.integer("max_seqlen_k", max_seqlen_k), alibi_slopes=alibi_slopes,
                      softmax_scale=softmax_scale, causal=is_causal, window_left=left, window_right=right,
                      softcap=softcap, dropout_p=p, rng_state=dropout.state_of(p, rng_state),
                      any_order=not deterministic)
    return [*grads, delta]


def ours_fwd_kvcache(q, kcache, vcache, k, v, seqlens_k, rotary_cos, rotary_sin, cache_batch_idx, leftpad_k,
                     block_table, alibi_slopes, out, softmax_scale, is_causal, window_size_left, window_size_right,
                     softcap, is_rotary_interleaved, num_splits):
    """[out, softmax_lse (batch, heads, seqlen_q)]; k and v are written into the caches."""
    for name, t in (("q", q), ("k_cache", kcache), ("v_cache", vcache)):
        checks.tensor(name, t)
    softmax_scale, is_causal, left, right, softcap = checks.numbers(
        softmax_scale, is_causal, (window_size_left, window_size_right), softcap)
    return list(kvcache.attention(
        q, kcache, vcache, softmax_scale=softmax_scale, causal=is_causal, window_left=left, window_right=right,
        softcap=softcap, out=out, rotary_interleaved=checks.flag("rotary_interleaved", is_rotary_interleaved),
        num_splits=checks.integer("num_splits", num_splits), want_lse=True,
        k_new=k, v_new=v, seqused_k=seqlens_k, rotary_cos=rotary_cos, rotary_sin=rotary_sin,
        cache_batch_idx=cache_batch_idx, leftpad_k=leftpad_k, block_table=block_table, alibi_slopes=alibi_slopes))


def _takes_num_splits(varlen_fwd):
    """From 2.8.4 on the original's varlen_fwd has a 22nd argument and, being an extension, no default for it."""
    try:
        return len(inspect.signature(varlen_fwd).parameters) > 21
    except (TypeError, ValueError):
        return "arg21" in (varlen_fwd.__doc__ or "")


def fwd(*args):
    return ours_fwd(*args) if backend.ours else backend.original().fwd(*args)


def varlen_fwd(*args):
    if backend.ours:
        return ours_varlen_fwd(*args)
    function = backend.original().varlen_fwd
    if len(args) == 21 and _takes_num_splits(function):
        args = (*args, 0)
    elif len(args) == 22 and args[21] == 0 and not _takes_num_splits(function):
        args = args[:21]
    return function(*args)


def bwd(*args):
    return ours_bwd(*args) if backend.ours else backend.original().bwd(*args)


def varlen_bwd(*args):
    return ours_varlen_bwd(*args) if backend.ours else backend.original().varlen_bwd(*args)


def fwd_kvcache(*args):
    return ours_fwd_kvcache(*args) if backend.ours else backend.original().fwd_kvcache(*args)
