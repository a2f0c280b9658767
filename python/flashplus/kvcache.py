# SPDX-License-Identifier: BSD-3-Clause
"""Attention on a KV cache, over frames.py as forward.py is: one call of flashplus_forward, which appends too.

The cache is k_cache and v_cache (batch_cache, seqlen_cache, heads_k, d), or a pool of pages (num_blocks, page_size,
heads_k, d) with block_table. Nothing is read on the host: lengths, tables and offsets stay where they are, so that a
call can be captured in a CUDA graph. On the CPU the library checks what they say before anything is written."""

import math

import torch

from flashplus import c_api, cache_checks, checks, frames, library, scores
from flashplus.forward import output
from flashplus.frames import contiguous_rows, said

_INF = float("inf")
_OPERANDS = ("q", "k", "v", "o", "lse")
_LISTS = ("cu_seqlens_q", "cu_seqlens_k", "seqused_q", "seqused_k", "cache_batch_idx", "leftpad_k", "cu_seqlens_k_new",
          "rotary_seqlens")
_REST = (*_LISTS, "block_table", "k_new", "v_new", "rotary_cos", "rotary_sin", "alibi_slopes", "sinks")
_Block = frames.block(c_api.ForwardArgs, _OPERANDS + _REST)
_known = frames.Frames()


def attention(q, k_cache, v_cache, *, softmax_scale=None, causal=False, window_left=-1, window_right=-1, softcap=0.0,
              out=None, rotary_interleaved=True, num_splits=0, max_seqlen_q=0, max_seqlen_k=0, lse_empty=_INF,
              want_lse=False, score=None, **others):
    """(out, lse or None) of q (batch, seqlen_q, heads, d), or (total_q, heads, d) with cu_seqlens_q, on the current
    stream of q's device.

    others: tensors or None, by the names of _REST (flashplus.h says what each is). seqused_k has the lengths before
    k_new and v_new are written behind them; the keys then are these too. Numbers are plain Python numbers
    (checks.numbers). score: a scores.Score. Rows of a packed q that belong to no sequence get 0, and lse_empty as their
    LSE."""
    others = {name: t for name, t in others.items() if t is not None}
    ragged = "cu_seqlens_q" in others
    call = (said(q), said(k_cache), said(v_cache), said(out), tuple((name, said(t)) for name, t in others.items()),
            softmax_scale, causal, window_left, window_right, softcap, rotary_interleaved, num_splits, lse_empty,
            want_lse, score and score.said)
    try:
        frame = _known.lists[call].pop()
    except LookupError:
        frame = _new_frame(call, q, k_cache, v_cache, out, others, softmax_scale, causal, window_left, window_right,
                           softcap, rotary_interleaved, num_splits, lse_empty, want_lse, score)
    q = contiguous_rows(q)
    for name in ("k_new", "v_new"):
        if name in others:
            others[name] = contiguous_rows(others[name])
    if out is None:
        out = output(q, v_cache, q.shape[-1] == v_cache.shape[-1])
    lse = None
    if ragged:
        out.zero_()
    if want_lse:
        shape = _lse_shape(q)
        lse = q.new_full(shape, lse_empty, dtype=torch.float32) if ragged else q.new_empty(shape, dtype=torch.float32)
        frame.block.lse.data = lse.data_ptr()
    block = frame.block
    block.q.data, block.k.data, block.v.data = q.data_ptr(), k_cache.data_ptr(), v_cache.data_ptr()
    block.o.data = out.data_ptr()
    for name, t in others.items():
        getattr(block, name).data = t.data_ptr()
    frame.args.max_seqlen_q, frame.args.max_seqlen_k = max_seqlen_q, max_seqlen_k
    if score is not None:
        frame.score.write(score)
    index = frame.index
    lib = library._library or library.get()
    status = lib.forward(lib.context, frame.address, None if index < 0 else frames.raw_stream(index))
    if status:
        message = lib.last_error()
        cache_checks.cache(q, k_cache, v_cache, others)
        if "block_table" in others and "room for" in message:
            raise RuntimeError(f"block_table names too few pages: {message}")
        # The name that it has in flash_attn_with_kvcache.
        raise library.failure(status, message.replace("seqused_k", "cache_seqlens (seqused_k)"))
    frame.home.append(frame)
    return out, lse


def _lse_shape(q):
    return (q.shape[1], q.shape[0]) if q.dim() == 3 else (q.shape[0], q.shape[2], q.shape[1])


def _new_frame(call, q, k_cache, v_cache, out, others, softmax_scale, causal, window_left, window_right, softcap,
               rotary_interleaved, num_splits, lse_empty, want_lse, score):
    """A frame for a call that is seen for the first time, or whose frames are all in use."""
    cache_checks.cache(q, k_cache, v_cache, others)
    if out is not None:
        checks.output(out, q, v_cache)
    index = q.get_device()
    frame = frames.Frame(_known.home(call), index, _Block)
    q = contiguous_rows(q)
    laid = {name: contiguous_rows(t) if name in ("k_new", "v_new") else t for name, t in others.items()}
    o = out if out is not None else output(q, v_cache, q.shape[-1] == v_cache.shape[-1])
    for name, t in (("q", q), ("k", k_cache), ("v", v_cache), ("o", o), *laid.items()):
        frame.lay_out(name, t.dtype, t.shape, t.stride())
    if want_lse:
        shape = _lse_shape(q)
        frame.lay_out("lse", torch.float32, shape, [math.prod(shape[i + 1:]) for i in range(len(shape))])
    if softmax_scale is None:
        softmax_scale = checks.default_scale(q)
    capacity = k_cache.shape[1] * (others["block_table"].shape[1] if "block_table" in others else 1)
    rows_q = q.shape[0 if "cu_seqlens_q" in others else 1]
    left, right = frames.sides(window_left, window_right, rows_q, capacity)
    frame.set_mask_and_score(softmax_scale, causal, left, right, softcap)
    args = frame.args
    args.lse_empty, args.num_splits = lse_empty, num_splits
    args.rotary_interleaved = rotary_interleaved and "rotary_cos" in others
    if score is not None:
        frame.score = scores.Laid(frame, score)
    return frame
