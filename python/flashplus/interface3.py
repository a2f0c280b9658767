# SPDX-License-Identifier: BSD-3-Clause
"""FlashAttention 3's functions over the same kernels: a thin second face. What differs from interface.py: no dropout or
ALiBi, more that is not there yet, and the LSE of a row that sees no key is -inf."""

import torch

from flashplus import attention_ops, autograd, backend, cache_ops, checks, chunks, kernels, later, ops, ops3, sinks
from flashplus.direct import direct, plain, unusual
from flashplus.interface import checked_cache, on_cache, through_exchange
from flashplus.ops3 import refuse as _refuse
from flashplus.positional import maybe_contiguous, round_multiple

_INF = float("inf")
_LENGTHS = "cu_seqlens_q", "cu_seqlens_k", "seqused_q", "seqused_k"


flash_attn_3_gpu = ops3.operators


def _ready(*tensors):
    for name, t in zip(("q", "k", "v"), tensors):
        checks.tensor(name, t)
    if not backend.ours:
        raise later.not_yet("original FlashAttention 3 to hand calls to", "set FLASH_ATTENTION_USE_FLAGGEMS=TRUE")


def _in_graph(q, k, v, longest, scale, causal, window_size, softcap, num_splits, deterministic, want_lse, **lengths):
    """For a compiler to which some of the numbers are tensors."""
    numbers = (*longest, *attention_ops.graph_numbers(scale, causal, window_size, softcap))
    out, lse, _ = attention_ops.in_graph(q, k, v, dict(zip(attention_ops.NUMBERS, numbers)), lse_empty=-_INF,
                                         num_splits=checks.integer("num_splits", num_splits),
                                         deterministic=bool(deterministic), **lengths)
    return (out, lse) if want_lse else out


def flash_attn_func(q, k, v, softmax_scale=None, causal=False, qv=None, q_descale=None, k_descale=None, v_descale=None,
                    window_size=(-1, -1), attention_chunk=0, softcap=0.0, num_splits=1, pack_gqa=None,
                    deterministic=False, sm_margin=0, return_attn_probs=False, s_aux=None):
    """softmax(softmax_scale * q k^T) v, differentiable in q, k, v and s_aux.

    q: (batch, seqlen_q, heads, d), fp16 or bf16, on the CPU also fp32.
    k, v: (batch, seqlen_k, heads_k, d), (batch, seqlen_k, heads_k, dv).
    softmax_scale: None: 1 / sqrt(d).
    causal, window_size, softcap: as flash_attn.flash_attn_func's.
    qv, q_descale, k_descale, v_descale: not there; NotImplementedError unless None.
    attention_chunk: 0, or how many positions a chunk has: a row sees only keys of its own (chunks.py).
    deterministic: as flash_attn.flash_attn_func's. num_splits, pack_gqa, sm_margin: say how, not what, is computed;
        accepted.
    return_attn_probs: True: the log-sum-exp, too.
    s_aux: attention sinks, as flash_attn.flash_attn_func's; the log-sum-exp includes them.

    Returns out (batch, seqlen_q, heads, dv), or (out, lse fp32 (batch, heads, seqlen_q)); a row that sees no key is 0,
    and -inf. Raises: as flash_attn.flash_attn_func.
    """
    _ready(q, k, v)
    _refuse(qv=qv, q_descale=q_descale, k_descale=k_descale, v_descale=v_descale)
    chunk = chunks.check(attention_chunk)
    if s_aux is not None or chunk:
        out, lse = sinks.attend(q, k, v, s_aux, "s_aux", softmax_scale=softmax_scale, causal=causal,
                                window_size=window_size, softcap=softcap, want_lse=bool(return_attn_probs),
                                deterministic=deterministic, chunk=chunk, lse_empty=-_INF,
                                num_splits=checks.integer("num_splits", num_splits))
        return (out, lse) if return_attn_probs else out
    scale = checks.default_scale(q) if softmax_scale is None else softmax_scale
    if attention_ops.left_to_graph(scale, causal, softcap, window_size):
        return _in_graph(q, k, v, (0, 0), scale, causal, window_size, softcap, num_splits, deterministic,
                         return_attn_probs)
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
        trained = None if q.dim() == 4 and ops.without_batch(q, None) else autograd.straight(
            q, k, v, (0, 0, *numbers), deterministic=bool(deterministic), lse_empty=-_INF, num_splits=num_splits)
        out, lse = trained or ops.ours(q, k, v, None, None, None, None, 0, 0, *numbers, -_INF, num_splits,
                                       bool(deterministic))
    return (out, lse) if return_attn_probs else out


def flash_attn_qkvpacked_func(qkv, softmax_scale=None, causal=False, q_descale=None, k_descale=None, v_descale=None,
                              window_size=(-1, -1), attention_chunk=0, softcap=0.0, deterministic=False,
                              num_heads_q=None, sm_margin=0, return_attn_probs=False):
    """flash_attn_func of q, k and v in one tensor.

    qkv: (batch, seqlen, 3, heads, d), or with num_heads_q (batch, seqlen, num_heads_q + 2 heads_k, d).
    softmax_scale, causal, q_descale, k_descale, v_descale, window_size, attention_chunk, softcap, deterministic,
    sm_margin, return_attn_probs: as flash_attn_func's.
    num_heads_q: query heads of a qkv of 4 dimensions.

    Returns, raises: as flash_attn_func.
    """
    q, k, v = checks.qkv_split(qkv, num_heads_q)(qkv)
    return flash_attn_func(q, k, v, softmax_scale, causal, None, q_descale, k_descale, v_descale, window_size,
                           attention_chunk, softcap, 1, None, deterministic, sm_margin, return_attn_probs)


def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, seqused_q=None,
                           seqused_k=None, softmax_scale=None, causal=False, qv=None, q_descale=None, k_descale=None,
                           v_descale=None, window_size=(-1, -1), attention_chunk=0, softcap=0.0, num_splits=1,
                           pack_gqa=None, deterministic=False, sm_margin=0, return_attn_probs=False, s_aux=None):
    """flash_attn_func of sequences laid end to end, differentiable.

    q, k, v: (total_q, heads, d), (total_k, heads_k, d), (total_k, heads_k, dv).
    cu_seqlens_q, cu_seqlens_k: int32 (batch + 1).
    max_seqlen_q, max_seqlen_k: upper bounds of the lengths.
    seqused_q, seqused_k: None, or int32 (batch): only so many leading rows of each sequence are in use.
    softmax_scale, causal, window_size, softcap, return_attn_probs, s_aux: as flash_attn_func's.
    qv, q_descale, k_descale, v_descale: not there; NotImplementedError unless None.
    attention_chunk: 0, or how many positions a chunk has: a row sees only keys of its own (chunks.py).
    deterministic: as flash_attn.flash_attn_func's. num_splits, pack_gqa, sm_margin: say how, not what, is computed;
        accepted.

    Returns out (total_q, heads, dv), or (out, lse fp32 (heads, total_q)); rows that are not in use are 0, and -inf.
    """
    _ready(q, k, v)
    _refuse(qv=qv, q_descale=q_descale, k_descale=k_descale, v_descale=v_descale)
    chunk = chunks.check(attention_chunk)
    if s_aux is not None or chunk:
        checks.tensor("cu_seqlens_q", cu_seqlens_q)
        checks.tensor("cu_seqlens_k", cu_seqlens_k)
        out, lse = sinks.attend(q, k, v, s_aux, "s_aux", lengths=(cu_seqlens_q, cu_seqlens_k, max_seqlen_q,
                                                                  max_seqlen_k), softmax_scale=softmax_scale,
                                causal=causal, window_size=window_size, softcap=softcap,
                                want_lse=bool(return_attn_probs), seqused_q=seqused_q, seqused_k=seqused_k,
                                deterministic=deterministic, chunk=chunk, lse_empty=-_INF,
                                num_splits=checks.integer("num_splits", num_splits))
        return (out, lse) if return_attn_probs else out
    scale = checks.default_scale(q) if softmax_scale is None else softmax_scale
    if attention_ops.left_to_graph(scale, causal, softcap, window_size, max_seqlen_q, max_seqlen_k):
        return _in_graph(q, k, v, (max_seqlen_q, max_seqlen_k), scale, causal, window_size, softcap, num_splits,
                         deterministic, return_attn_probs, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k,
                         seqused_q=seqused_q, seqused_k=seqused_k)
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
        trained = None if ops.without_batch(q, cu_seqlens_q) else autograd.straight(
            q, k, v, (max_seqlen_q, max_seqlen_k, *numbers), dict(zip(_LENGTHS, lengths)),
            deterministic=bool(deterministic), lse_empty=-_INF, num_splits=num_splits)
        out, lse = trained or ops.ours(q, k, v, *lengths, max_seqlen_q, max_seqlen_k, *numbers, -_INF, num_splits,
                                       bool(deterministic))
    return (out, lse) if return_attn_probs else out


def flash_attn_with_kvcache(q, k_cache, v_cache, k=None, v=None, qv=None, rotary_cos=None, rotary_sin=None,
                            cache_seqlens=None, cache_batch_idx=None, cache_leftpad=None, page_table=None,
                            cu_seqlens_q=None, cu_seqlens_k_new=None, max_seqlen_q=None, rotary_seqlens=None,
                            q_descale=None, k_descale=None, v_descale=None, softmax_scale=None, causal=False,
                            window_size=(-1, -1), attention_chunk=0, softcap=0.0, rotary_interleaved=True,
                            scheduler_metadata=None, num_splits=0, pack_gqa=None, sm_margin=0,
                            return_softmax_lse=False, s_aux=None):
    """As flash_attn.flash_attn_with_kvcache, with more ways to say where things are. No gradient.

    q: (batch, seqlen_q, heads, d), or with cu_seqlens_q (total_q, heads, d).
    k_cache, v_cache, k, v, rotary_cos, rotary_sin, cache_seqlens, cache_batch_idx, cache_leftpad, softmax_scale,
    causal, window_size, softcap, rotary_interleaved: as there.
    page_table: its block_table. cu_seqlens_q: int32 (batch + 1), with max_seqlen_q, an upper bound.
    cu_seqlens_k_new: int32 (batch + 1): k and v are (total_new, heads_k, d).
    rotary_seqlens: int32 (batch): the position of the first new token; None: cache_seqlens.
    qv, q_descale, k_descale, v_descale: not there; NotImplementedError unless None.
    attention_chunk: 0, or how many positions a chunk has: a row sees only keys of its own (chunks.py).
    num_splits: 0: chosen. scheduler_metadata, pack_gqa, sm_margin: not needed, ignored.
    return_softmax_lse: False.
    s_aux: as flash_attn_func's.

    Returns out, or (out, lse, None, None): partial results stay in the kernel.
    """
    _ready(q, k_cache, v_cache)
    _refuse(qv=qv, q_descale=q_descale, k_descale=k_descale, v_descale=v_descale)
    chunk = chunks.check(attention_chunk)
    key = softmax_scale, causal, window_size, softcap, rotary_interleaved, num_splits, -_INF
    if not chunk and (type(max_seqlen_q) is int or cu_seqlens_q is None):
        found = through_exchange(key, q, k_cache, v_cache, return_softmax_lse, cache_seqlens, cache_batch_idx,
                                 cache_leftpad, page_table, None, cu_seqlens_q, k, v, rotary_cos, rotary_sin,
                                 rotary_seqlens, cu_seqlens_k_new, 0 if cu_seqlens_q is None else max_seqlen_q,
                                 s_aux=s_aux)
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
    longest = q.shape[0] if max_seqlen_q is None else max_seqlen_q
    out, lse = on_cache(q, k_cache, v_cache,
                        (cache_seqlens, cache_batch_idx, cache_leftpad, page_table, None, cu_seqlens_q, None, None),
                        (k, v, rotary_cos, rotary_sin, rotary_seqlens, cu_seqlens_k_new),
                        0 if cu_seqlens_q is None else longest, 0, softmax_scale, causal, window_size, softcap, -_INF,
                        num_splits, rotary_interleaved, return_softmax_lse, None if chunk else key, s_aux, chunk)
    return (out, lse, None, None) if return_softmax_lse else out


def flash_attn_combine(out_partial, lse_partial, out=None, out_dtype=None):
    """Attention over all keys, from that over parts of them. flashplus.merge_states does two in one launch.

    out_partial: fp32 (splits, batch, seqlen, heads, d), or (splits, total, heads, d).
    lse_partial: fp32 (splits, batch, seqlen, heads), or (splits, total, heads).
    out: None, or written and returned. out_dtype: None: out_partial's.

    Returns (out, lse), differentiable where out is None.
    """
    checks.tensor("out_partial", out_partial)
    checks.tensor("lse_partial", lse_partial)
    if out is None:
        return ops3.fwd_combine(out_partial, lse_partial, None, out_dtype)  # plain PyTorch: it has a gradient
    return ops3.operators.fwd_combine(out_partial, lse_partial, out, out_dtype)


def get_scheduler_metadata(batch_size, max_seqlen_q, max_seqlen_k, num_heads_q, num_heads_kv, headdim, cache_seqlens,
                           qkv_dtype=torch.bfloat16, headdim_v=None, cu_seqlens_q=None, cu_seqlens_k_new=None,
                           cache_leftpad=None, page_size=None, max_seqlen_k_new=0, causal=False, window_size=(-1, -1),
                           attention_chunk=0, has_softcap=False, num_splits=0, pack_gqa=None, sm_margin=0):
    """An int32 tensor that flash_attn_with_kvcache takes as scheduler_metadata and ignores: its kernels divide the
    work by the lengths as they are when it runs.

    cache_seqlens: says the device. batch_size, max_seqlen_q, max_seqlen_k, num_heads_q, num_heads_kv, headdim,
    qkv_dtype, headdim_v, cu_seqlens_q, cu_seqlens_k_new, cache_leftpad, page_size, max_seqlen_k_new, causal,
    window_size, attention_chunk, has_softcap, num_splits, pack_gqa, sm_margin: not looked at.
    """
    checks.tensor("cache_seqlens", cache_seqlens)
    return torch.zeros(1, dtype=torch.int32, device=cache_seqlens.device)


# ------------------------------------------------------------------------------------------ low level, by position --


def _flash_attn_forward(q, k, v, k_new=None, v_new=None, qv=None, out_=None, cu_seqlens_q=None, cu_seqlens_k=None,
                        cu_seqlens_k_new=None, seqused_q=None, seqused_k=None, max_seqlen_q=None, max_seqlen_k=None,
                        page_table=None, kv_batch_idx=None, leftpad_k=None, rotary_cos=None, rotary_sin=None,
                        seqlens_rotary=None, q_descale=None, k_descale=None, v_descale=None, softmax_scale=None,
                        causal=False, window_size_left=-1, window_size_right=-1, attention_chunk=0, softcap=0.0,
                        rotary_interleaved=True, scheduler_metadata=None, num_splits=1, pack_gqa=None, sm_margin=0):
    """(out, softmax_lse, out_accum, softmax_lse_accum) of any call of this face: what the functions above are made of
    in the original, with its order of arguments. k_new and v_new are written into k and v, which then are a cache, and
    the result into out_ if it is given. The last two results are empty. With a gradient, unless k and v are a cache."""
    _ready(q, k, v)
    scale = checks.default_scale(q) if softmax_scale is None else softmax_scale
    scale, causal, left, right, softcap = checks.numbers(scale, causal, (window_size_left, window_size_right), softcap)
    longest_q, longest_k = (n if n is None else checks.integer(name, n) for name, n in (
        ("max_seqlen_q", max_seqlen_q), ("max_seqlen_k", max_seqlen_k)))
    rest = (cu_seqlens_q, cu_seqlens_k, cu_seqlens_k_new, seqused_q, seqused_k, longest_q, longest_k, page_table,
            kv_batch_idx, leftpad_k, rotary_cos, rotary_sin, seqlens_rotary, q_descale, k_descale, v_descale, scale,
            causal, left, right, checks.integer("attention_chunk", attention_chunk), softcap,
            checks.flag("rotary_interleaved", rotary_interleaved), scheduler_metadata,
            checks.integer("num_splits", num_splits), pack_gqa, sm_margin)
    if k_new is None and v_new is None and out_ is None:
        return ops3.operators._flash_attn_forward(q, k, v, None, None, qv, None, *rest)
    return ops3.operators.fwd(q, k, v, k_new, v_new, qv, out_, *rest)


def _flash_attn_backward(dout, q, k, v, out, softmax_lse, cu_seqlens_q=None, cu_seqlens_k=None, sequed_q=None,
                         sequed_k=None, max_seqlen_q=None, max_seqlen_k=None, dq=None, dk=None, dv=None,
                         softmax_scale=None, is_causal=False, window_size_left=-1, window_size_right=-1, softcap=0.0,
                         deterministic=False, sm_margin=0):
    """softmax_d (batch, heads, seqlen_q rounded up to 128), or (heads, total_q + 128 batch); writes dq, dk and dv."""
    _ready(q, k, v)
    scale = checks.default_scale(q) if softmax_scale is None else softmax_scale
    scale, causal, left, right, softcap = checks.numbers(
        scale, is_causal, (window_size_left, window_size_right), softcap)
    longest_q, longest_k = (n if n is None else checks.integer(name, n) for name, n in (
        ("max_seqlen_q", max_seqlen_q), ("max_seqlen_k", max_seqlen_k)))
    return ops3.operators._flash_attn_backward(
        dout, q, k, v, out, softmax_lse, cu_seqlens_q, cu_seqlens_k, sequed_q, sequed_k, longest_q, longest_k, dq, dk,
        dv, scale, causal, left, right, softcap, checks.flag("deterministic", deterministic), sm_margin)


class FlashAttnFunc:
    """The original's autograd function by its `apply`; the gradient is the operator's (ops.py)."""

    @staticmethod
    def apply(q, k, v, softmax_scale, causal, qv=None, q_descale=None, k_descale=None, v_descale=None,
              window_size=(-1, -1), attention_chunk=0, softcap=0.0, num_splits=1, pack_gqa=None, deterministic=False,
              sm_margin=0, return_softmax=False):
        """flash_attn_func with return_softmax for return_attn_probs."""
        return flash_attn_func(q, k, v, softmax_scale, causal, qv, q_descale, k_descale, v_descale, window_size,
                               attention_chunk, softcap, num_splits, pack_gqa, deterministic, sm_margin,
                               return_softmax)


class FlashAttnQKVPackedFunc:
    """As FlashAttnFunc, of flash_attn_qkvpacked_func."""

    @staticmethod
    def apply(qkv, softmax_scale, causal, q_descale=None, k_descale=None, v_descale=None, window_size=(-1, -1),
              attention_chunk=0, softcap=0.0, deterministic=False, num_heads_q=None, sm_margin=0,
              return_softmax=False):
        """flash_attn_qkvpacked_func with return_softmax for return_attn_probs."""
        return flash_attn_qkvpacked_func(qkv, softmax_scale, causal, q_descale, k_descale, v_descale, window_size,
                                         attention_chunk, softcap, deterministic, num_heads_q, sm_margin,
                                         return_softmax)


class FlashAttnVarlenFunc:
    """As FlashAttnFunc, of flash_attn_varlen_func, whose arguments it has in another order."""

    @staticmethod
    def apply(q, k, v, cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k, max_seqlen_q, max_seqlen_k, softmax_scale,
              causal, qv=None, q_descale=None, k_descale=None, v_descale=None, window_size=(-1, -1),
              attention_chunk=0, softcap=0.0, num_splits=1, pack_gqa=None, deterministic=False, sm_margin=0,
              return_softmax=False):
        """flash_attn_varlen_func with return_softmax for return_attn_probs."""
        return flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, seqused_q,
                                      seqused_k, softmax_scale, causal, qv, q_descale, k_descale, v_descale,
                                      window_size, attention_chunk, softcap, num_splits, pack_gqa, deterministic,
                                      sm_margin, return_softmax)
