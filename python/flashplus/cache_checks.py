# SPDX-License-Identifier: BSD-3-Clause
"""What is wrong with a call on a KV cache, in the original's words where it has some (mha_fwd_kvcache in
csrc/flash_attn/flash_api.cpp). As checks.py, never on the hot path: what is not said here the C API says."""

import torch

from flashplus import checks
from flashplus.checks import HALF, MAX_HEAD_DIM, _shape

# Names that the original has for arguments whose names in flashplus.h are others.
_SAID = {"seqused_k": "seqlens_k", "k_new": "k", "v_new": "v"}


def _device(name, t, q):
    if t.device != q.device:
        raise RuntimeError(f"{name} must be on CUDA, on the device of q; it is on {t.device} and q on {q.device}"
                           if q.is_cuda else f"{name} must be on the device of q, {q.device}; it is on {t.device}")


def _operands(q, k_cache, v_cache, ragged):
    for name, t in (("q", q), ("k_cache", k_cache), ("v_cache", v_cache)):
        checks.tensor(name, t)
        if not (t.is_cuda or t.is_cpu):
            raise RuntimeError(f"{name} must be on CUDA or on the CPU; it is on {t.device}")
    _device("k_cache", k_cache, q)
    _device("v_cache", v_cache, q)
    if q.dtype not in HALF and not (q.is_cpu and q.dtype == torch.float32):
        raise RuntimeError(f"FlashAttention only support fp16 and bf16 data type (and fp32 on the CPU); q is {q.dtype}")
    for name, t in (("key", k_cache), ("value", v_cache)):
        if t.dtype != q.dtype:
            raise RuntimeError(f"query and {name} must have the same dtype; they are {q.dtype} and {t.dtype}")
    if q.dim() != (3 if ragged else 4):
        layout = "(total_q, num_heads, head_size)" if ragged else "(batch_size, seqlen_q, num_heads, head_size)"
        raise RuntimeError(f"q must have shape {layout}; it has {_shape(q)}")
    for name, t in (("k_cache", k_cache), ("v_cache", v_cache)):
        if t.dim() != 4:
            raise RuntimeError(f"{name} must have shape (batch_size_cache, seqlen_cache, num_heads_k, head_size), or "
                               f"(num_blocks, page_block_size, num_heads_k, head_size); it has {_shape(t)}")
        if t.stride(-1) != 1 and t.shape[-1] > 1 and t.numel():
            raise RuntimeError(f"{name} must have contiguous last dimension")
    heads, dim, heads_k = q.shape[-2], q.shape[-1], k_cache.shape[2]
    if dim > MAX_HEAD_DIM:
        raise RuntimeError(f"FlashAttention forward only supports head dimension at most {MAX_HEAD_DIM}; q has {dim}")
    if heads_k == 0 or heads % heads_k:
        raise RuntimeError(f"Number of heads in key/value must divide number of heads in query; they are {heads_k} "
                           f"and {heads}")
    for name, t, last in (("k_cache", k_cache, dim), ("v_cache", v_cache, v_cache.shape[3])):
        wanted = (*k_cache.shape[:3], last)
        if tuple(t.shape) != wanted:
            raise RuntimeError(f"{name} must have shape ({', '.join(map(str, wanted))}); it has {_shape(t)}")


def _lists(q, batch, others):
    """int32 of the batch, on q's device."""
    for name in ("cu_seqlens_q", "cu_seqlens_k", "cu_seqlens_k_new", "seqused_q", "seqused_k", "cache_batch_idx",
                 "leftpad_k", "rotary_seqlens"):
        t = others.get(name)
        if t is None:
            continue
        said = _SAID.get(name, name)
        checks.tensor(said, t)
        _device(said, t, q)
        if t.dtype != torch.int32:
            raise RuntimeError(f"{said} must have dtype int32; it is {t.dtype}")
        rows = batch + name.startswith("cu_")
        if tuple(t.shape) != (rows,):
            raise RuntimeError(f"{said} must have shape (batch_size{' + 1' if rows > batch else ''}); it has "
                               f"{_shape(t)}, and it must be ({rows})")
        if t.stride(0) != 1 and rows > 1:
            raise RuntimeError(f"{said} must be contiguous")


def _table(q, batch, others):
    table = others.get("block_table")
    if table is None:
        return
    checks.tensor("block_table", table)
    _device("block_table", table, q)
    if "cache_batch_idx" in others:
        raise RuntimeError("Paged KVcache does not support cache_batch_idx; leave it None with block_table")
    if table.dtype != torch.int32:
        raise RuntimeError(f"block_table must have dtype torch.int32; it is {table.dtype}")
    if table.dim() != 2 or table.shape[0] != batch:
        raise RuntimeError(f"block_table must have shape (batch_size, max_num_blocks_per_seq); it has "
                           f"{_shape(table)}, and batch_size is {batch}")
    if table.stride(1) != 1 and table.shape[1] > 1:
        raise RuntimeError("block_table must have contiguous last dimension")


def _append(q, k_cache, v_cache, batch, capacity, others):
    k, v = others.get("k_new"), others.get("v_new")
    if k is None and v is None:
        return
    if v is None:
        raise RuntimeError("If key is supplied, value must also be passed in; v is None")
    if k is None:
        raise RuntimeError("If value is supplied, key must also be passed in; k is None")
    if "seqused_k" not in others:
        raise RuntimeError("If key is supplied, seqlens_k must also be passed in; cache_seqlens is None")
    ragged = "cu_seqlens_k_new" in others
    for name, t, cache in (("k", k, k_cache), ("v", v, v_cache)):
        checks.tensor(name, t)
        _device(name, t, q)
        if t.dtype != q.dtype:
            raise RuntimeError(f"Key and query must have the same dtype; {name} is {t.dtype} and q {q.dtype}")
        rows = t.shape[:1] if ragged else (batch, k.shape[1] if k.dim() == 4 else 0)
        wanted = (*rows, cache.shape[2], cache.shape[3])
        if tuple(t.shape) != wanted:
            raise RuntimeError(f"{name} must have shape ({'total_k_new' if ragged else 'batch_size, seqlen_knew'}, "
                               f"num_heads_k, head_size); it has {_shape(t)}, and it must be "
                               f"({', '.join(map(str, wanted))})")
    if not ragged and k.shape[1] > capacity:
        raise RuntimeError(f"If key is supplied, it must have seqlen <= the seqlen of the KV cache; they are "
                           f"{k.shape[1]} and {capacity}")


def _rotary(q, capacity, others):
    cos, sin = others.get("rotary_cos"), others.get("rotary_sin")
    if cos is None and sin is None:
        return
    if "k_new" not in others:
        raise RuntimeError("If rotary cos/sin are provided, new key / value to be appended to KV cache must also be "
                           "provided; k is None")
    if sin is None:
        raise RuntimeError("If rotary cos is provided, rotary sin must also be provided; rotary_sin is None")
    if cos is None:
        raise RuntimeError("If rotary sin is provided, rotary cos must also be provided; rotary_cos is None")
    for name, t in (("rotary_cos", cos), ("rotary_sin", sin)):
        checks.tensor(name, t)
        _device(name, t, q)
        if t.dtype != q.dtype:
            raise RuntimeError(f"{name} must have the same dtype as query; they are {t.dtype} and {q.dtype}")
        if t.dim() != 2 or t.shape != cos.shape:
            raise RuntimeError(f"{name} must have shape (seqlen_ro, rotary_dim / 2); it has {_shape(t)}")
        if not t.is_contiguous():
            raise RuntimeError(f"{name} must be contiguous")
    rotary_dim = 2 * cos.shape[1]
    if rotary_dim > q.shape[-1]:
        raise RuntimeError(f"rotary_dim must be <= headdim; they are {rotary_dim} and {q.shape[-1]}")
    if rotary_dim % 16:
        raise RuntimeError(f"Only rotary dimensions divisible by 16 are currently supported; rotary_dim is "
                           f"{rotary_dim}")
    if cos.shape[0] < capacity:
        raise RuntimeError(f"cos/sin seqlen must be at least the seqlen of KV cache; they are {cos.shape[0]} and "
                           f"{capacity}")


def cache(q, k_cache, v_cache, others):
    """Raises for what is wrong with kvcache.attention's arguments; returns where only the C API has words."""
    ragged = "cu_seqlens_q" in others
    _operands(q, k_cache, v_cache, ragged)
    batch = others["cu_seqlens_q"].numel() - 1 if ragged else q.shape[0]
    if batch < 1:
        raise RuntimeError("batch size must be positive")
    _lists(q, batch, others)
    _table(q, batch, others)
    paged = "block_table" in others
    if not paged and "cache_batch_idx" not in others and k_cache.shape[0] != batch:
        raise RuntimeError(f"k_cache must have shape (batch_size, seqlen_cache, num_heads_k, head_size); it has "
                           f"{_shape(k_cache)} and batch_size is {batch}")
    page_size = k_cache.shape[1]
    if paged and page_size < 1:
        raise RuntimeError(f"Paged KV cache block size must be at least 1; k_cache has {_shape(k_cache)}")
    capacity = page_size * others["block_table"].shape[1] if paged else page_size
    _append(q, k_cache, v_cache, batch, capacity, others)
    _rotary(q, capacity, others)
    slopes = others.get("alibi_slopes")
    if slopes is not None:
        checks.other("alibi_slopes", slopes, q.get_device())
        heads = q.shape[-2]
        if tuple(slopes.shape) not in ((heads,), (batch, heads)):
            raise RuntimeError(f"alibi_slopes must have shape (num_heads) or (batch_size, num_heads); it has "
                               f"{_shape(slopes)}, and it must be ({heads}) or ({batch}, {heads})")
