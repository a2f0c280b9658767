# SPDX-License-Identifier: BSD-3-Clause
"""The functions of `flash_attn`: signatures, defaults and results are the original's (2.8.3).

With our kernels a call goes straight to kernels.py where direct.py allows it, and else through the torch operators of
ops.py. With the original's extension it goes through the autograd functions of original.py.
"""

import torch
from torch import empty_like, is_grad_enabled

from flashplus import (attention_ops, autograd, backend, cache_ops, checks, dropout, exchange, kernels, later, library,
                       ops, sinks)
from flashplus.direct import direct, integers, plain, unusual
from flashplus.original import (FlashAttnFunc, FlashAttnKVPackedFunc, FlashAttnQKVPackedFunc, FlashAttnVarlenFunc,
                                FlashAttnVarlenKVPackedFunc, FlashAttnVarlenQKVPackedFunc)
from flashplus.positional import maybe_contiguous

_INF = float("inf")

_calls, _cache_calls = exchange.calls, exchange.cache_calls


def _need(**tensors):
    for name, value in tensors.items():
        checks.tensor(name, value)


def _numbers(softmax_scale, causal, window_size, softcap):
    """checks.numbers, where most calls have nothing to convert."""
    if type(window_size) is tuple and len(window_size) == 2:
        left, right = window_size
        if (type(left) is int and type(right) is int and type(causal) is bool and type(softcap) is float
                and (softmax_scale is None or type(softmax_scale) is float)):
            return softmax_scale, causal, left, right, softcap
    return checks.numbers(softmax_scale, causal, window_size, softcap)


def remember_cache(key):
    try:
        known = key in _cache_calls
    except TypeError:  # something that is no key
        return
    if not known:
        exchange.remember_cache(key)


def _operator(q, k, v, lengths, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes,
              return_attn_probs, deterministic):
    """Through the operator. `lengths`: () or the four of a varlen call, block_table."""
    _need(q=q, k=k, v=v)
    if alibi_slopes is not None:
        _need(alibi_slopes=alibi_slopes)
    if attention_ops.left_to_graph(softmax_scale, causal, softcap, window_size, *lengths[2:4]):
        return _in_graph(q, k, v, lengths, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes,
                         return_attn_probs, deterministic)
    softmax_scale, causal, left, right, softcap = _numbers(softmax_scale, causal, window_size, softcap)
    dropout_p = dropout.check(dropout_p, softcap)
    if softmax_scale is None:
        softmax_scale = checks.default_scale(q)
    probs = return_attn_probs and dropout_p > 0
    if not probs and (not lengths or lengths[4] is None):
        named = {"cu_seqlens_q": lengths[0], "cu_seqlens_k": lengths[1]} if lengths else None
        numbers = (*(lengths[2:4] or (0, 0)), softmax_scale, causal, left, right, softcap)
        results = autograd.straight(q, k, v, numbers, named, alibi_slopes, dropout_p, bool(deterministic))
        if results is not None:
            return (*results, q.new_empty(0)) if return_attn_probs else results[0]
    if lengths:
        *lengths, block_table = lengths
        out, lse, dmask, _ = ops.varlen_forward(q, k, v, *lengths, dropout_p, softmax_scale, causal, left, right,
                                                softcap, alibi_slopes, probs, block_table,
                                                deterministic=bool(deterministic))
    else:
        out, lse, dmask, _ = ops.forward(q, k, v, dropout_p, softmax_scale, causal, left, right, softcap, alibi_slopes,
                                         probs, bool(deterministic))
    return (out, lse, dmask) if return_attn_probs else out


def _in_graph(q, k, v, lengths, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes,
              return_attn_probs, deterministic):
    """_operator, for a compiler to which some of the numbers are tensors."""
    if return_attn_probs and dropout_p:
        raise later.not_yet("S_dmask in a compiled graph with tensors for numbers", "pass numbers")
    cu_seqlens_q, cu_seqlens_k, *longest = lengths[:4] or (None, None, 0, 0)
    scale = checks.default_scale(q) if softmax_scale is None else softmax_scale
    numbers = (*longest, *attention_ops.graph_numbers(scale, causal, window_size, softcap))
    out, lse, _ = attention_ops.in_graph(
        q, k, v, dict(zip(attention_ops.NUMBERS, numbers)), alibi_slopes=alibi_slopes, cu_seqlens_q=cu_seqlens_q,
        cu_seqlens_k=cu_seqlens_k, dropout_p=checks.number("dropout_p", dropout_p), deterministic=bool(deterministic))
    return (out, lse, q.new_empty(0)) if return_attn_probs else out


def _dense(q, k, v, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, return_attn_probs,
           deterministic):
    """Straight to our kernels."""
    if alibi_slopes is not None and not plain(alibi_slopes):
        return _operator(q, k, v, (), dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes,
                         return_attn_probs, deterministic)
    key = (dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, return_attn_probs)
    try:
        call = _calls.get(key)
        if call is not None and q.numel():
            out = empty_like(q)
            if not library._library.forward_python(call.address, id(q), id(k), id(v), id(out)):
                return out
    except Exception:  # something that is no key, or a tensor whose memory PyTorch can't describe
        call = key
    # Finds out what is wrong, or does what the library can't: copies where the last stride is not 1, an empty batch.
    if dropout_p or type(dropout_p) not in (float, int):
        return _operator(q, k, v, (), dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes,
                         return_attn_probs, deterministic)
    numbers = _numbers(softmax_scale, causal, window_size, softcap)
    try:
        out, lse = kernels.dense(q, k, v, None, alibi_slopes, *numbers, return_attn_probs)
    except Exception:
        if not unusual(q, k, v, alibi_slopes):
            raise
        return _operator(q, k, v, (), dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes,
                         return_attn_probs, deterministic)
    if call is None:
        exchange.remember(key)
    return (out, lse, q.new_empty(0)) if return_attn_probs else out


def _ragged(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale, causal,
            window_size, softcap, alibi_slopes, return_attn_probs, deterministic):
    _need(cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k)
    same = max_seqlen_k is max_seqlen_q  # one wait for a tensor on a GPU, not two
    max_seqlen_q = checks.integer("max_seqlen_q", max_seqlen_q)
    max_seqlen_k = max_seqlen_q if same else checks.integer("max_seqlen_k", max_seqlen_k)
    if not dropout_p and type(dropout_p) in (float, int) and plain(cu_seqlens_q, cu_seqlens_k, alibi_slopes):
        scale, is_causal, left, right, cap = _numbers(softmax_scale, causal, window_size, softcap)
        try:
            out, lse = kernels.ragged(q, k, v, None, cu_seqlens_q, cu_seqlens_k, None, alibi_slopes, max_seqlen_q,
                                      max_seqlen_k, scale, False, is_causal, left, right, cap, return_attn_probs)
            return (out, lse, q.new_empty(0)) if return_attn_probs else out
        except Exception:
            if not unusual(q, k, v, cu_seqlens_q, cu_seqlens_k, alibi_slopes):
                raise
    return _operator(q, k, v, (cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, None), dropout_p, softmax_scale,
                     causal, window_size, softcap, alibi_slopes, return_attn_probs, deterministic)


def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
                    alibi_slopes=None, deterministic=False, return_attn_probs=False, s_aux=None):
    """softmax(softmax_scale * q k^T) v, differentiable in q, k, v, alibi_slopes and s_aux.

    q: (batch, seqlen_q, heads, head_dim), fp16 or bf16, on the CPU also fp32; on CUDA or the CPU. Any strides; a last
        one other than 1 costs a copy. head_dim at most 256, of any size.
    k: (batch, seqlen_k, heads_k, head_dim), q's dtype and device. heads_k divides heads: query head i reads key head
        i // (heads / heads_k).
    v: (batch, seqlen_k, heads_k, head_dim_v).
    dropout_p: 0.0; 0 <= dropout_p < 1: every probability is dropped with this probability and else multiplied by
        1 / (1 - dropout_p), by PyTorch's generator of q's device; not with softcap. 0.0 when evaluating.
    softmax_scale: None: 1 / sqrt(head_dim).
    causal: False; True: a query sees no later key; masks are aligned at the bottom right.
    window_size: (-1, -1); (left, right): query i sees key j iff i + seqlen_k - seqlen_q - left <= j <= i + seqlen_k -
        seqlen_q + right; -1 is unbounded; causal is right = 0.
    softcap: 0.0: none; > 0: s -> softcap * tanh(s / softcap).
    alibi_slopes: None, or fp32 (heads) or (batch, heads): the bias is -slope * |i + seqlen_k - seqlen_q - j|.
    deterministic: False; True: dq is the same bits every time on Hopper, too; all else is anyway, but for the
        gradients of alibi_slopes on a GPU.
    return_attn_probs: False; True: return more, for tests.
    s_aux: None, or (heads) of fp16, bf16 or fp32: attention sinks, a logit a head that is in the softmax of all its
        rows and has no value (gpt-oss). Not the original's; ours alone. softmax_lse includes it.

    Returns out (batch, seqlen_q, heads, head_dim_v) in q's dtype, or with return_attn_probs (out, softmax_lse fp32
    (batch, heads, seqlen_q), S_dmask): without dropout an empty tensor, else the probabilities relative to the row's
    largest, negative where dropped. A row that sees no key is 0 and its softmax_lse is +inf.
    Raises RuntimeError for tensors that don't fit, TypeError and ValueError for other arguments, NotImplementedError
    for what is not there; each names the argument, its value and what is allowed.
    """
    if s_aux is not None:
        sinks.only_ours(backend.ours)
        return sinks.flash_attn(q, k, v, s_aux, (None, None, 0, 0), dropout_p, softmax_scale, causal, window_size,
                                softcap, alibi_slopes, return_attn_probs, deterministic)
    if backend.ours and direct(q, k, v):
        return _dense(q, k, v, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, return_attn_probs,
                      deterministic)
    _need(q=q, k=k, v=v)
    if backend.ours:
        return _operator(q, k, v, (), dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes,
                         return_attn_probs, deterministic)
    return FlashAttnFunc.apply(q, k, v, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes,
                               deterministic, return_attn_probs, is_grad_enabled())


def flash_attn_qkvpacked_func(qkv, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
                              alibi_slopes=None, deterministic=False, return_attn_probs=False):
    """flash_attn_func of q, k and v in one tensor, without a copy.

    qkv: (batch, seqlen, 3, heads, head_dim); its gradient is one tensor, too.
    dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic, return_attn_probs:
        as flash_attn_func's.

    Returns, raises: as flash_attn_func.
    """
    _need(qkv=qkv)
    if backend.ours:
        _packed("qkv", qkv, 5, 2, 3)
        return flash_attn_func(*qkv.unbind(2), dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes,
                               deterministic, return_attn_probs)
    return FlashAttnQKVPackedFunc.apply(qkv, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes,
                                        deterministic, return_attn_probs, is_grad_enabled())


def flash_attn_kvpacked_func(q, kv, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
                             alibi_slopes=None, deterministic=False, return_attn_probs=False):
    """flash_attn_func of k and v in one tensor, without a copy.

    q: (batch, seqlen_q, heads, head_dim).
    kv: (batch, seqlen_k, 2, heads_k, head_dim); its gradient is one tensor, too.
    dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic, return_attn_probs:
        as flash_attn_func's.

    Returns, raises: as flash_attn_func.
    """
    _need(q=q, kv=kv)
    if backend.ours:
        _packed("kv", kv, 5, 2, 2)
        return flash_attn_func(q, *kv.unbind(2), dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes,
                               deterministic, return_attn_probs)
    return FlashAttnKVPackedFunc.apply(q, kv, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes,
                                       deterministic, return_attn_probs, is_grad_enabled())


def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0,
                           softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None,
                           deterministic=False, return_attn_probs=False, block_table=None, s_aux=None):
    """flash_attn_func of sequences laid end to end: sequence b is rows cu_seqlens_q[b] to cu_seqlens_q[b + 1] of q.

    q: (total_q, heads, head_dim).
    k, v: (total_k, heads_k, head_dim), (total_k, heads_k, head_dim_v); with block_table a pool of pages (num_blocks,
        page_block_size, heads_k, head_dim), pages of any size.
    cu_seqlens_q, cu_seqlens_k: int32 (batch + 1), the first 0, on q's device. Sequences may be empty.
    max_seqlen_q, max_seqlen_k: upper bounds of the lengths; any value that is large enough gives the same result.
    dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic, return_attn_probs:
        as flash_attn_func's.
    block_table: None, or int32 (batch, max_blocks): where the pages of each sequence are; cu_seqlens_k says only how
        many keys it has. No gradient and no dropout then.
    s_aux: as flash_attn_func's.

    Returns out (total_q, heads, head_dim_v), or with return_attn_probs (out, softmax_lse fp32 (heads, total_q),
    S_dmask). Rows of q that belong to no sequence are 0, and +inf. Raises: as flash_attn_func.
    """
    if s_aux is not None:
        sinks.only_ours(backend.ours)
        if block_table is None:
            _need(cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k)
            return sinks.flash_attn(q, k, v, s_aux, (cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k), dropout_p,
                                    softmax_scale, causal, window_size, softcap, alibi_slopes, return_attn_probs,
                                    deterministic)
    if backend.ours and block_table is None and direct(q, k, v):
        return _ragged(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale,
                       causal, window_size, softcap, alibi_slopes, return_attn_probs, deterministic)
    key = softmax_scale, causal, window_size, softcap, True, 0, _INF
    if (backend.ours and type(max_seqlen_q) is int and type(max_seqlen_k) is int and not dropout_p
            and cu_seqlens_q is not None and cu_seqlens_k is not None and block_table is not None):
        found = through_exchange(key, q, k, v, return_attn_probs, None, None, None, block_table, alibi_slopes,
                                 cu_seqlens_q, None, None, None, None, None, None, max_seqlen_q, cu_seqlens_k,
                                 max_seqlen_k, s_aux)
        if found is not None:
            return (*found, q.new_empty(0)) if return_attn_probs else found[0]
    _need(q=q, k=k, v=v, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k)
    if backend.ours:
        if block_table is not None:
            if checks.number("dropout_p", dropout_p):
                raise later.cache_dropout(dropout_p)
            out, lse = on_cache(q, k, v, (None, None, None, maybe_contiguous(block_table), alibi_slopes, cu_seqlens_q,
                                          cu_seqlens_k, None), (), max_seqlen_q, max_seqlen_k, softmax_scale, causal,
                                window_size, softcap, _INF, 0, True, return_attn_probs, key, s_aux)
            return (out, lse, q.new_empty(0)) if return_attn_probs else out
        return _operator(q, k, v, (cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, None), dropout_p,
                         softmax_scale, causal, window_size, softcap, alibi_slopes, return_attn_probs, deterministic)
    return FlashAttnVarlenFunc.apply(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p,
                                     softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
                                     return_attn_probs, block_table, is_grad_enabled())


def flash_attn_varlen_qkvpacked_func(qkv, cu_seqlens, max_seqlen, dropout_p=0.0, softmax_scale=None, causal=False,
                                     window_size=(-1, -1), softcap=0.0, alibi_slopes=None, deterministic=False,
                                     return_attn_probs=False):
    """flash_attn_varlen_func of q, k and v in one tensor, without a copy.

    qkv: (total, 3, heads, head_dim).
    cu_seqlens: int32 (batch + 1), of queries and keys.
    max_seqlen: an upper bound of the lengths.
    dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic, return_attn_probs:
        as flash_attn_func's.

    Returns, raises: as flash_attn_varlen_func.
    """
    _need(qkv=qkv, cu_seqlens=cu_seqlens)
    if backend.ours:
        _packed("qkv", qkv, 4, 1, 3)
        return flash_attn_varlen_func(*qkv.unbind(1), cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, dropout_p,
                                      softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
                                      return_attn_probs)
    return FlashAttnVarlenQKVPackedFunc.apply(qkv, cu_seqlens, max_seqlen, dropout_p, softmax_scale, causal,
                                              window_size, softcap, alibi_slopes, deterministic, return_attn_probs,
                                              is_grad_enabled())


def flash_attn_varlen_kvpacked_func(q, kv, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0,
                                    softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
                                    alibi_slopes=None, deterministic=False, return_attn_probs=False):
    """flash_attn_varlen_func of k and v in one tensor, without a copy.

    q: (total_q, heads, head_dim).
    kv: (total_k, 2, heads_k, head_dim).
    cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k: as flash_attn_varlen_func's.
    dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic, return_attn_probs:
        as flash_attn_func's.

    Returns, raises: as flash_attn_varlen_func.
    """
    _need(q=q, kv=kv, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k)
    if backend.ours:
        _packed("kv", kv, 4, 1, 2)
        return flash_attn_varlen_func(q, *kv.unbind(1), cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k,
                                      dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes,
                                      deterministic, return_attn_probs)
    return FlashAttnVarlenKVPackedFunc.apply(q, kv, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p,
                                             softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
                                             return_attn_probs, is_grad_enabled())


def _packed(name, t, rank, dim, count):
    if t.dim() != rank or t.shape[dim] != count:
        layout = f"({'batch_size, seqlen' if rank == 5 else 'total'}, {count}, num_heads, head_size)"
        raise RuntimeError(f"{name} must have shape {layout}; it has {tuple(t.shape)}")


def flash_attn_with_kvcache(q, k_cache, v_cache, k=None, v=None, rotary_cos=None, rotary_sin=None, cache_seqlens=None,
                            cache_batch_idx=None, cache_leftpad=None, block_table=None, softmax_scale=None,
                            causal=False, window_size=(-1, -1), softcap=0.0, rotary_interleaved=True, alibi_slopes=None,
                            num_splits=0, return_softmax_lse=False, s_aux=None):
    """flash_attn_func on a cache of keys, which k and v are appended to in the same call. For inference: no gradient.

    q: (batch, seqlen_q, heads, head_dim).
    k_cache, v_cache: (batch_cache, seqlen_cache, heads_k, head_dim), or with block_table a pool (num_blocks,
        page_block_size, heads_k, head_dim) of pages of any size. Any strides whose last is 1.
    k, v: None, or (batch, seqlen_new, heads_k, head_dim): written into the cache in place at cache_seqlens, which must
        be given, and seen by this call.
    rotary_cos, rotary_sin: None, or (seqlen_ro, rotary_dim / 2) of q's dtype: rotate k at the positions it is written
        to, and q: with causal or a window row i at cache_seqlens + i, else all rows at cache_seqlens.
    cache_seqlens: an int or int32 (batch): tokens in the cache before this call. None: all of it.
    cache_batch_idx: None, or int32 (batch): the row of the cache that each sequence uses.
    cache_leftpad: None, or int32 (batch): the keys before it are not there.
    block_table: None, or int32 (batch, max_blocks); entries that no length reaches are never read.
    softmax_scale, causal, window_size, softcap, alibi_slopes: as flash_attn_func's; masks are aligned at the bottom
        right of the keys that are there after the append.
    rotary_interleaved: True: pairs (2i, 2i + 1) are rotated; False: (i, i + rotary_dim / 2).
    num_splits: 0: chosen; n: keys are read in n parts, at most 128.
    return_softmax_lse: False.
    s_aux: as flash_attn_func's.

    Nothing is read on the host: the call can be captured in a CUDA graph. Lengths and tables that are wrong are an
    error on the CPU, but that a length beyond a cache means all of it where there is no block_table, cache_batch_idx,
    cache_leftpad or k; on CUDA rows without room are dropped (docs/debugging.md has a switch that checks).
    Returns out (as q), or with return_softmax_lse (out, softmax_lse fp32 (batch, heads, seqlen_q)).
    Raises: as flash_attn_func.
    """
    if s_aux is not None:
        sinks.only_ours(backend.ours)
    key = softmax_scale, causal, window_size, softcap, rotary_interleaved, num_splits, _INF
    if backend.ours:
        found = through_exchange(key, q, k_cache, v_cache, return_softmax_lse, cache_seqlens, cache_batch_idx,
                                 cache_leftpad, block_table, alibi_slopes, None, k, v, rotary_cos, rotary_sin,
                                 s_aux=s_aux)
        if found is not None:
            return found if return_softmax_lse else found[0]
    cache_seqlens = checked_cache(q, k_cache, v_cache, cache_seqlens, lambda: q.shape[0],
                                  cache_batch_idx=cache_batch_idx, cache_leftpad=cache_leftpad,
                                  block_table=block_table, k=k, v=v, rotary_cos=rotary_cos, rotary_sin=rotary_sin,
                                  alibi_slopes=alibi_slopes)
    cache_seqlens, cache_batch_idx, block_table = (
        maybe_contiguous(t) for t in (cache_seqlens, cache_batch_idx, block_table))
    if not backend.ours:
        q, k, v = (maybe_contiguous(t) for t in (q, k, v))
        if softmax_scale is None:
            softmax_scale = checks.default_scale(q)
        out, lse = kernels.fwd_kvcache(
            q, k_cache, v_cache, k, v, cache_seqlens, rotary_cos, rotary_sin, cache_batch_idx, cache_leftpad,
            block_table, alibi_slopes, None, softmax_scale, causal, int(window_size[0]), int(window_size[1]), softcap,
            rotary_interleaved, num_splits)
        return (out, lse) if return_softmax_lse else out
    out, lse = on_cache(q, k_cache, v_cache,
                        (cache_seqlens, cache_batch_idx, cache_leftpad, block_table, alibi_slopes, None, None, None),
                        (k, v, rotary_cos, rotary_sin, None, None), 0, 0, softmax_scale, causal, window_size, softcap,
                        _INF, num_splits, rotary_interleaved, return_softmax_lse, key, s_aux)
    return (out, lse) if return_softmax_lse else out


def through_exchange(key, q, k_cache, v_cache, want_lse, cache_seqlens, cache_batch_idx, cache_leftpad, block_table,
                     alibi_slopes, cu_seqlens_q, k, v, rotary_cos, rotary_sin, rotary_seqlens=None,
                     cu_seqlens_k_new=None, max_seqlen_q=0, cu_seqlens_k=None, max_seqlen_k=0, s_aux=None):
    """(out, lse) or (out, None) from one call of the library, which reads the tensors itself (exchange.py); None if
    this call can't go that way, for whatever reason: what is wrong with it is said by those who look at it next. `key`
    is what remember_cache() wants."""
    try:
        if not direct(q, k_cache, v_cache):  # first: a compiler that traces this reads no further
            return None
        call = _cache_calls.get(key)
        if call is None:
            return None
        if type(cache_seqlens) is int:
            batch = q.shape[0] if cu_seqlens_q is None else cu_seqlens_q.numel() - 1
            cache_seqlens = torch.full((batch,), cache_seqlens, dtype=torch.int32, device=q.device)
        if not (integers(cache_seqlens, cache_batch_idx, cache_leftpad, block_table)
                and (k is None or plain(k, v, rotary_cos, rotary_sin) and integers(rotary_seqlens, cu_seqlens_k_new))
                and (alibi_slopes is None or plain(alibi_slopes)) and (s_aux is None or plain(s_aux))
                and integers(cu_seqlens_q, cu_seqlens_k)):
            return None
        out = empty_like(q)
        lse = None
        if cu_seqlens_q is not None:
            out.zero_()
            if want_lse:
                lse = q.new_full((q.shape[1], q.shape[0]), key[-1], dtype=torch.float32)
        elif want_lse:
            lse = q.new_empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32)
        if not library._library.forward_python_tuple(
            call.address, (q, k_cache, v_cache, out, lse, cache_seqlens, cache_batch_idx, cache_leftpad, block_table,
                           alibi_slopes, cu_seqlens_q, k, v, rotary_cos, rotary_sin, rotary_seqlens, cu_seqlens_k_new,
                           cu_seqlens_k, s_aux), max_seqlen_q, max_seqlen_k):
            return out, lse
    except Exception:  # no key, or a tensor whose memory PyTorch can't describe
        pass
    return None


def checked_cache(q, k_cache, v_cache, cache_seqlens, batch, **optional):
    """cache_seqlens as a tensor or None, from an integer of any kind too; a TypeError that names what is no tensor."""
    _need(q=q, k_cache=k_cache, v_cache=v_cache, **{name: t for name, t in optional.items() if t is not None})
    for name, t in (("q", q), ("k_cache", k_cache), ("v_cache", v_cache)):
        if not t.dim():
            raise RuntimeError(f"{name} has no dimension; it must have those of attention on a cache")
        if t.stride(-1) != 1 and name != "q" and t.numel():
            raise AssertionError(f"{name} must have contiguous last dimension")
    if isinstance(cache_seqlens, torch.Tensor) and not cache_seqlens.dim():
        if cache_seqlens.is_floating_point() or cache_seqlens.is_complex():
            raise TypeError(f"cache_seqlens is {cache_seqlens!r}; it must be an integer")
        return cache_seqlens.to(q.device, torch.int32).repeat(batch())  # whose value nobody waits for
    if cache_seqlens is None or isinstance(cache_seqlens, torch.Tensor):
        return cache_seqlens
    if attention_ops.left_to_graph(cache_seqlens):  # a number of NumPy's, which a compiler traces as an array
        return torch.as_tensor(cache_seqlens).to(q.device, torch.int32).reshape(1).repeat(batch())
    return torch.full((batch(),), checks.integer("cache_seqlens", cache_seqlens), dtype=torch.int32, device=q.device)


def on_cache(q, k_cache, v_cache, read, new, max_seqlen_q, max_seqlen_k, softmax_scale, causal, window_size, softcap,
             lse_empty, num_splits, rotary_interleaved, want_lse, key=None, s_aux=None, chunk=0):
    """(out, lse, or None unless want_lse) straight from our kernels, or through an operator of cache_ops.py, which
    says what `read` and `new` are. Calls that say `key` may go through_exchange() from then on. chunk: by
    chunks.check."""
    if s_aux is not None:
        checks.sinks("s_aux", s_aux, q)
        s_aux = maybe_contiguous(s_aux)
    if attention_ops.left_to_graph(max_seqlen_q, max_seqlen_k, softmax_scale, causal, window_size, softcap, num_splits,
                                   rotary_interleaved):
        scale = checks.default_scale(q) if softmax_scale is None else softmax_scale
        return cache_ops.in_graph(q, k_cache, v_cache, read, new, max_seqlen_q, max_seqlen_k,
                                  *attention_ops.graph_numbers(scale, causal, window_size, softcap), lse_empty,
                                  num_splits, rotary_interleaved, sinks=s_aux, chunk=chunk)
    scale, causal, left, right, softcap = _numbers(softmax_scale, causal, window_size, softcap)
    max_seqlen_q = checks.integer("max_seqlen_q", max_seqlen_q)
    max_seqlen_k = checks.integer("max_seqlen_k", max_seqlen_k)
    numbers = (max_seqlen_q, max_seqlen_k, checks.default_scale(q) if scale is None else scale, causal, left, right,
               softcap, lse_empty, checks.integer("num_splits", num_splits),
               checks.flag("rotary_interleaved", rotary_interleaved))
    appends = any(t is not None for t in new)
    arguments = (q, k_cache, v_cache, *read, *(new if appends else ()))
    if s_aux is not None or chunk:
        numbers = (*numbers, None, "", s_aux, chunk)
    if direct(q, k_cache, v_cache) and plain(*arguments, s_aux):
        try:
            result = cache_ops.attend(*arguments, *numbers, want_lse=want_lse)
            if key is not None:
                remember_cache(key)
            return result
        except Exception:
            if not unusual(*arguments, s_aux):
                raise
    return (cache_ops.append if appends else cache_ops.read)(*arguments, *numbers)
