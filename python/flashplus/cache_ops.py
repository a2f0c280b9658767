# SPDX-License-Identifier: BSD-3-Clause
"""The torch operators of attention on a KV cache: `flashplus::kvcache` reads it, `flashplus::kvcache_append` writes new
rows into it first and says so in its schema. Inference only; a gradient is refused in words.

`values` are numbers that came as tensors, by `names` (with commas, of _NUMBERS): a compiled graph may work them out,
and nobody asks for their values before the operator runs."""

import torch

from flashplus import attention_ops, checks, chunks, frames, kvcache, later, ops

_READ = ("cache_seqlens", "cache_batch_idx", "leftpad_k", "block_table", "alibi_slopes", "cu_seqlens_q",
         "cu_seqlens_k", "seqused_q")
_NEW = ("k", "v", "rotary_cos", "rotary_sin", "rotary_seqlens", "cu_seqlens_k_new")
_NUMBERS = ("max_seqlen_q", "max_seqlen_k", "softmax_scale", "causal", "window_left", "window_right", "softcap",
            "lse_empty", "num_splits", "rotary_interleaved")
_NUMBERS_SCHEMA = ("SymInt max_seqlen_q, SymInt max_seqlen_k, float softmax_scale, bool causal, SymInt window_left, "
                   "SymInt window_right, float softcap, float lse_empty, SymInt num_splits, bool rotary_interleaved, "
                   "Tensor[]? values=None, str names=\"\", Tensor? sinks=None, SymInt attention_chunk=0")
_LEFT_OUT = dict(zip(_NUMBERS, (0, 0, 1.0, False, -1, -1, 0.0, 0.0, 0, True)))  # where a number comes in `values`
_C_NAMES = {"cache_seqlens": "seqused_k", "k": "k_new", "v": "v_new"}


def attend(q, k_cache, v_cache, *arguments, want_lse=True):
    """(out, lse) by the arguments of either operator, of which those behind the numbers may be left out."""
    names = _READ if len(arguments) < len(_READ) + len(_NEW) + len(_NUMBERS) else _READ + _NEW
    rest = arguments[len(names) + len(_NUMBERS):]
    values, given, sinks, chunk = (*rest, *(None, "", None, 0)[len(rest):])
    tensors = {_C_NAMES.get(name, name): t for name, t in zip(names, arguments)}
    tensors["sinks"] = sinks
    numbers = dict(zip(_NUMBERS, arguments[len(names):]))
    if given:
        numbers.update(zip(given.split(","), (t.item() for t in values)))
        _check(numbers)
    numbers["window_left"], numbers["window_right"] = chunks.narrowed(
        chunk, numbers["causal"], numbers["window_left"], numbers["window_right"])
    return kvcache.attention(q, k_cache, v_cache, want_lse=want_lse, score=chunks.score(chunk), **tensors, **numbers)


def _check(numbers):
    """As the faces do where a number is one."""
    (numbers["softmax_scale"], numbers["causal"], numbers["window_left"], numbers["window_right"],
     numbers["softcap"]) = checks.numbers(numbers["softmax_scale"], numbers["causal"],
                                          (numbers["window_left"], numbers["window_right"]), numbers["softcap"])
    for name in ("max_seqlen_q", "max_seqlen_k", "num_splits"):
        numbers[name] = checks.integer(name, numbers[name])
    numbers["rotary_interleaved"] = checks.flag("rotary_interleaved", numbers["rotary_interleaved"])


def _fake(q, k_cache, v_cache, *arguments):
    shape = (q.shape[1], q.shape[0]) if q.dim() == 3 else (q.shape[0], q.shape[2], q.shape[1])
    out = frames.rows_like(q) if q.shape[-1] == v_cache.shape[-1] else q.new_empty((*q.shape[:-1], v_cache.shape[-1]))
    return out, q.new_empty(shape, dtype=torch.float32)


def _optional(names):
    return ", ".join(f"Tensor? {name}" for name in names)


ops.define("kvcache",
           f"(Tensor q, Tensor k_cache, Tensor v_cache, {_optional(_READ)}, {_NUMBERS_SCHEMA}) -> (Tensor, Tensor)",
           attend, _fake, "flashplus", refusal=later.cache_gradient)
ops.define("kvcache_append",
           f"(Tensor q, Tensor(a!) k_cache, Tensor(b!) v_cache, {_optional(_READ)}, {_optional(_NEW)}, "
           f"{_NUMBERS_SCHEMA}) -> (Tensor, Tensor)", attend, _fake, "flashplus", refusal=later.cache_gradient)

def in_graph(q, k_cache, v_cache, read_, new, *numbers, sinks=None, chunk=0):
    """(out, lse) through the operator, where some of `numbers`, in the order of _NUMBERS, are tensors."""
    plain, values = dict(_LEFT_OUT), {}
    for name, value in zip(_NUMBERS, numbers):
        if attention_ops.is_number(value):
            plain[name] = value
        else:
            values[name] = torch.as_tensor(value).detach().reshape(())
    operator = append if any(t is not None for t in new) else read
    return operator(q, k_cache, v_cache, *read_, *(new if operator is append else ()), *plain.values(),
                    list(values.values()), ",".join(list(values.keys())), sinks, chunk)


read = torch.ops.flashplus.kvcache
append = torch.ops.flashplus.kvcache_append
