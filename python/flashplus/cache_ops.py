# SPDX-License-Identifier: BSD-3-Clause
"""The torch operators of attention on a KV cache: `flashplus::kvcache` reads it, `flashplus::kvcache_append` writes new
rows into it first and says so in its schema. Inference only; a gradient is refused in words."""

import torch

from flashplus import kvcache, later, ops

_READ = ("cache_seqlens", "cache_batch_idx", "leftpad_k", "block_table", "alibi_slopes", "cu_seqlens_q",
         "cu_seqlens_k", "seqused_q")
_NEW = ("k", "v", "rotary_cos", "rotary_sin", "rotary_seqlens", "cu_seqlens_k_new")
_NUMBERS = ("max_seqlen_q", "max_seqlen_k", "softmax_scale", "causal", "window_left", "window_right", "softcap",
            "lse_empty", "num_splits", "rotary_interleaved")
_NUMBERS_SCHEMA = ("SymInt max_seqlen_q, SymInt max_seqlen_k, float softmax_scale, bool causal, SymInt window_left, "
                   "SymInt window_right, float softcap, float lse_empty, SymInt num_splits, bool rotary_interleaved")
_C_NAMES = {"cache_seqlens": "seqused_k", "k": "k_new", "v": "v_new"}


def attend(q, k_cache, v_cache, *arguments, want_lse=True):
    """(out, lse) by the arguments of either operator."""
    names = _READ if len(arguments) == len(_READ) + len(_NUMBERS) else _READ + _NEW
    tensors = {_C_NAMES.get(name, name): t for name, t in zip(names, arguments)}
    return kvcache.attention(q, k_cache, v_cache, want_lse=want_lse, **tensors,
                             **dict(zip(_NUMBERS, arguments[len(names):])))


def _fake(q, k_cache, v_cache, *arguments):
    shape = (q.shape[1], q.shape[0]) if q.dim() == 3 else (q.shape[0], q.shape[2], q.shape[1])
    out = torch.empty_like(q) if q.shape[-1] == v_cache.shape[-1] else q.new_empty((*q.shape[:-1], v_cache.shape[-1]))
    return out, q.new_empty(shape, dtype=torch.float32)


def _optional(names):
    return ", ".join(f"Tensor? {name}" for name in names)


ops.define("kvcache",
           f"(Tensor q, Tensor k_cache, Tensor v_cache, {_optional(_READ)}, {_NUMBERS_SCHEMA}) -> (Tensor, Tensor)",
           attend, _fake, "flashplus", refusal=later.cache_gradient)
ops.define("kvcache_append",
           f"(Tensor q, Tensor(a!) k_cache, Tensor(b!) v_cache, {_optional(_READ)}, {_optional(_NEW)}, "
           f"{_NUMBERS_SCHEMA}) -> (Tensor, Tensor)", attend, _fake, "flashplus", refusal=later.cache_gradient)

read = torch.ops.flashplus.kvcache
append = torch.ops.flashplus.kvcache_append
