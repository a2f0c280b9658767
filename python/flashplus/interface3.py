# SPDX-License-Identifier: BSD-3-Clause
"""FlashAttention 3's functions over the same kernels: a thin second face. What differs from interface.py: no dropout or
ALiBi, more that is not there yet, and the LSE of a row that sees no key is -inf."""

import torch

from flashplus import backend, cache_ops, checks, kernels, later, ops
from flashplus.direct import direct, plain, unusual
from flashplus.interface import checked_cache, maybe_contiguous, on_cache, through_exchange

_INF = float("inf")


def _refuse(**arguments):
    """Raises for the first argument that is used and that our kernels don't have."""
    for name, value in arguments.items():
        if value is not None and value is not False and (isinstance(value, torch.Tensor) or value != 0):
            what = f"{tuple(value.shape)} tensor" if isinstance(value, torch.Tensor) else value
            raise later.not_yet(f"{name} in flash_attn_interface ({name} is {what})", "leave it at its default")


def _ready(*tensors):
    for name, t in zip(("q", "k", "v"), tensors):
        checks.tensor(name, t)
    if not backend.ours:
        raise later.not_yet("original FlashAttention 3 to hand calls to", "set FLASH_ATTENTION_USE_FLAGGEMS=TRUE")


def flash_attn_func(q, k, v, softmax_scale=None, causal=False, qv=None, q_descale=None, k_descale=None, v_descale=None,
                    window_size=(-1, -1), attention_chunk=0, softcap=0.0, num_splits=1, pack_gqa=None,
                    deterministic=False, sm_margin=0, return_attn_probs=False):
    """out, or (out, lse). q (batch, seqlen_q, heads, d), k (batch, seqlen_k, heads_k, d), v (.., dv)."""
    _ready(q, k, v)
    _refuse(qv=qv, q_descale=q_descale, k_descale=k_descale, v_descale=v_descale, attention_chunk=attention_chunk)
    scale = q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale
    numbers, num_splits = checks.numbers(scale, causal, window_size, softcap), checks.integer("num_splits", num_splits)
    straight = direct(q, k, v) and not (q.dim() == 4 and ops.without_batch(q, None))
    if straight:
        try:
            out, lse = kernels.dense(q, k, v, None, None, *numbers, bool(return_attn_probs), lse_empty=-_INF,
                                     num_splits=num_splits)
        except Exception:
            if not unusual(q, k, v):
                raise
            straight = False
    if not straight:
        out, lse = ops.ours(q, k, v, None, None, None, None, 0, 0, *numbers, -_INF, num_splits, bool(deterministic))
    return (out, lse) if return_attn_probs else out


def flash_attn_qkvpacked_func(qkv, softmax_scale=None, causal=False, q_descale=None, k_descale=None, v_descale=None,
                              window_size=(-1, -1), attention_chunk=0, softcap=0.0, deterministic=False,
                              num_heads_q=None, sm_margin=0, return_attn_probs=False):
    """flash_attn_func of qkv (batch, seqlen, 3, heads, d), or (batch, seqlen, heads + 2 heads_k, d) with
    num_heads_q."""
    checks.tensor("qkv", qkv)
    if qkv.dim() == 5:
        q, k, v = qkv.unbind(2)
    else:
        if num_heads_q is None:
            raise ValueError("num_heads_q is None; it must be given with a qkv of 4 dimensions")
        heads_k = (qkv.shape[2] - num_heads_q) // 2
        q, k, v = qkv.split([num_heads_q, heads_k, heads_k], dim=2)
    return flash_attn_func(q, k, v, softmax_scale, causal, None, q_descale, k_descale, v_descale, window_size,
                           attention_chunk, softcap, 1, None, deterministic, sm_margin, return_attn_probs)


def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, seqused_q=None,
                           seqused_k=None, softmax_scale=None, causal=False, qv=None, q_descale=None, k_descale=None,
                           v_descale=None, window_size=(-1, -1), attention_chunk=0, softcap=0.0, num_splits=1,
                           pack_gqa=None, deterministic=False, sm_margin=0, return_attn_probs=False):
    """flash_attn_func of sequences laid end to end; seqused_*: int32 (batch), leading rows of each in use."""
    _ready(q, k, v)
    _refuse(qv=qv, q_descale=q_descale, k_descale=k_descale, v_descale=v_descale, attention_chunk=attention_chunk)
    scale = q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale
    numbers, num_splits = checks.numbers(scale, causal, window_size, softcap), checks.integer("num_splits", num_splits)
    max_seqlen_q = checks.integer("max_seqlen_q", max_seqlen_q)
    max_seqlen_k = checks.integer("max_seqlen_k", max_seqlen_k)
    lengths = cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k
    straight = direct(q, k, v) and plain(*lengths) and not ops.without_batch(q, cu_seqlens_q)
    if straight:
        scale, *rest = numbers
        try:
            out, lse = kernels.ragged(q, k, v, None, cu_seqlens_q, cu_seqlens_k,
                                      seqused_k, None, max_seqlen_q, max_seqlen_k, scale, False, *rest,
                                      bool(return_attn_probs), seqused_q=seqused_q, lse_empty=-_INF,
                                      num_splits=num_splits)
        except Exception:
            if not unusual(q, k, v, *lengths):
                raise
            straight = False
    if not straight:
        out, lse = ops.ours(q, k, v, *lengths, max_seqlen_q, max_seqlen_k, *numbers, -_INF, num_splits,
                            bool(deterministic))
    return (out, lse) if return_attn_probs else out


def flash_attn_with_kvcache(q, k_cache, v_cache, k=None, v=None, qv=None, rotary_cos=None, rotary_sin=None,
                            cache_seqlens=None, cache_batch_idx=None, cache_leftpad=None, page_table=None,
                            cu_seqlens_q=None, cu_seqlens_k_new=None, max_seqlen_q=None, rotary_seqlens=None,
                            q_descale=None, k_descale=None, v_descale=None, softmax_scale=None, causal=False,
                            window_size=(-1, -1), attention_chunk=0, softcap=0.0, rotary_interleaved=True,
                            scheduler_metadata=None, num_splits=0, pack_gqa=None, sm_margin=0,
                            return_softmax_lse=False):
    """As flash_attn.flash_attn_with_kvcache; page_table is its block_table. With cu_seqlens_q (int32 (batch + 1)) q is
    (total_q, heads, d), with cu_seqlens_k_new k and v are (total_new, heads_k, d). rotary_seqlens, int32 (batch): the
    position of the first new token, cache_seqlens where it is None. scheduler_metadata is not needed and ignored, as
    are pack_gqa and sm_margin.

    Returns out, or with return_softmax_lse (out, lse, None, None): partial results stay in the kernel."""
    _ready(q, k_cache, v_cache)
    _refuse(qv=qv, q_descale=q_descale, k_descale=k_descale, v_descale=v_descale, attention_chunk=attention_chunk)
    key = softmax_scale, causal, window_size, softcap, rotary_interleaved, num_splits, -_INF
    if type(max_seqlen_q) is int or cu_seqlens_q is None:
        found = through_exchange(key, q, k_cache, v_cache, return_softmax_lse, cache_seqlens, cache_batch_idx,
                                 cache_leftpad, page_table, None, cu_seqlens_q, k, v, rotary_cos, rotary_sin,
                                 rotary_seqlens, cu_seqlens_k_new, 0 if cu_seqlens_q is None else max_seqlen_q)
        if found is not None:
            return (*found, None, None) if return_softmax_lse else found[0]
    cache_seqlens = checked_cache(
        q, k_cache, v_cache, cache_seqlens, lambda: q.shape[0] if cu_seqlens_q is None else cu_seqlens_q.numel() - 1,
        k=k, v=v, rotary_cos=rotary_cos, rotary_sin=rotary_sin, rotary_seqlens=rotary_seqlens, page_table=page_table,
        cache_batch_idx=cache_batch_idx, cache_leftpad=cache_leftpad, cu_seqlens_q=cu_seqlens_q,
        cu_seqlens_k_new=cu_seqlens_k_new)
    cache_seqlens, cache_batch_idx, page_table = (
        maybe_contiguous(t) for t in (cache_seqlens, cache_batch_idx, page_table))
    if ops.without_batch(q, cu_seqlens_q):
        out, lse = cache_ops._fake(q, k_cache, v_cache)
        return (out, lse, None, None) if return_softmax_lse else out
    longest = q.shape[0] if max_seqlen_q is None else checks.integer("max_seqlen_q", max_seqlen_q)
    out, lse = on_cache(q, k_cache, v_cache,
                        (cache_seqlens, cache_batch_idx, cache_leftpad, page_table, None, cu_seqlens_q, None, None),
                        (k, v, rotary_cos, rotary_sin, rotary_seqlens, cu_seqlens_k_new),
                        0 if cu_seqlens_q is None else longest, 0, softmax_scale, causal, window_size, softcap, -_INF,
                        num_splits, rotary_interleaved, return_softmax_lse, key)
    return (out, lse, None, None) if return_softmax_lse else out


def flash_attn_combine(out_partial, lse_partial, out=None, out_dtype=None):
    """(out, lse) of attention over all keys, from that over parts of them: out_partial fp32 (splits, batch, seqlen,
    heads, d), lse_partial fp32 (splits, batch, seqlen, heads); or without batch, (splits, total, heads, ..)."""
    lse = lse_partial.logsumexp(0)
    # A row that no part has keys for is 0, not nan.
    weights = torch.exp(lse_partial - lse.masked_fill(lse == -_INF, 0.0))
    merged = (out_partial * weights.unsqueeze(-1)).sum(0)
    if out is None:
        return merged.to(out_dtype or out_partial.dtype), lse
    return out.copy_(merged), lse


def get_scheduler_metadata(batch_size, max_seqlen_q, max_seqlen_k, num_heads_q, num_heads_kv, headdim, cache_seqlens,
                           qkv_dtype=torch.bfloat16, headdim_v=None, cu_seqlens_q=None, cu_seqlens_k_new=None,
                           cache_leftpad=None, page_size=None, max_seqlen_k_new=0, causal=False, window_size=(-1, -1),
                           attention_chunk=0, has_softcap=False, num_splits=0, pack_gqa=None, sm_margin=0):
    """An int32 tensor that flash_attn_with_kvcache takes as scheduler_metadata and ignores: its kernels divide the work
    by the lengths as they are when it runs."""
    checks.tensor("cache_seqlens", cache_seqlens)
    return torch.zeros(1, dtype=torch.int32, device=cache_seqlens.device)
