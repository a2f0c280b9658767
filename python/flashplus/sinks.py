# SPDX-License-Identifier: BSD-3-Clause
"""Attention sinks in the faces, and chunks: calls with what few have go to `flashplus::attention`, so that those
without pay nothing for it. docs/rationale/sinks.md says what a sink is, chunks.py what a chunk is."""

import torch

from flashplus import attention_ops, checks, chunks, later, scores
from flashplus.direct import direct, plain, unusual
from flashplus.positional import maybe_contiguous

_INF = float("inf")


def only_ours(ours, name="s_aux"):
    if not ours:
        raise later.not_yet(f"{name} in the original flash-attn, whose kernels this call asks for",
                            "set FLASH_ATTENTION_USE_FLAGGEMS=TRUE")


def attend(q, k, v, sinks, name, *, lengths=(None, None, 0, 0), softmax_scale=None, causal=False, window_size=(-1, -1),
           softcap=0.0, want_lse=True, deterministic=False, chunk=0, **options):
    """(out, lse or None). `name` is what the caller calls sinks, which may be None; lengths: cu_seqlens_q,
    cu_seqlens_k, max_seqlen_q, max_seqlen_k; chunk: by chunks.check; options: of attention_ops.attend."""
    for said, t in (("q", q), ("k", k), ("v", v)):
        checks.tensor(said, t)
    if sinks is not None:
        checks.sinks(name, sinks, q)
        sinks = maybe_contiguous(sinks)
    *cu_seqlens, longest_q, longest_k = lengths
    if (cu_seqlens[0] is None) != (cu_seqlens[1] is None):
        checks.tensor("cu_seqlens_q", cu_seqlens[0])
        checks.tensor("cu_seqlens_k", cu_seqlens[1])
    scale = checks.default_scale(q) if softmax_scale is None else softmax_scale
    if not attention_ops.left_to_graph(longest_q, longest_k):
        longest_q = checks.integer("max_seqlen_q", longest_q)
        longest_k = checks.integer("max_seqlen_k", longest_k)
    numbers = (longest_q, longest_k, *attention_ops.graph_numbers(scale, causal, window_size, softcap))
    numbers = dict(zip(attention_ops.NUMBERS, numbers))
    mask = numbers["causal"], numbers["window_left"], numbers["window_right"]
    if not attention_ops.left_to_graph(*mask):
        numbers["window_left"], numbers["window_right"] = chunks.narrowed(chunk, *mask)
    text, scalars = chunks.said(chunk)
    options.update(cu_seqlens_q=cu_seqlens[0], cu_seqlens_k=cu_seqlens[1], sinks=sinks)
    deterministic = checks.flag("deterministic", deterministic)
    options["dropout_p"] = checks.number("dropout_p", options.get("dropout_p", 0.0))
    tensors = [t for t in options.values() if isinstance(t, torch.Tensor)]
    if direct(q, k, v) and plain(*tensors):
        try:
            score = scores.Score(text, {}, scalars)
            out, lse, _ = attention_ops.attend(q, k, v, score, numbers.values(), want_lse=want_lse, **options)
            return out, lse
        except Exception:
            if not unusual(q, k, v, *tensors):
                raise
    out, lse, _ = attention_ops.in_graph(q, k, v, numbers, deterministic=deterministic, score=text, scalars=scalars,
                                         **options)
    return out, lse


def flash_attn(q, k, v, s_aux, lengths, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes,
               return_attn_probs, deterministic):
    """What flash_attn_func and flash_attn_varlen_func return."""
    if return_attn_probs and dropout_p:
        raise later.not_yet("S_dmask of a call with s_aux", "leave return_attn_probs at False")
    out, lse = attend(q, k, v, s_aux, "s_aux", lengths=lengths, softmax_scale=softmax_scale, causal=causal,
                      window_size=window_size, softcap=softcap, want_lse=bool(return_attn_probs),
                      alibi_slopes=alibi_slopes, dropout_p=dropout_p, deterministic=deterministic)
    return (out, lse, q.new_empty(0)) if return_attn_probs else out
