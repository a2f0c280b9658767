# SPDX-License-Identifier: BSD-3-Clause
"""A forward on torch tensors: from tensors to DLTensors without a copy, and one call of flashplus_forward.

This is the hot path, over frames.py. What is checked here or in checks.py is checked once for each kind of call;
what the C API refuses is put in words by checks.py.
"""

import math

import torch

from flashplus import c_api, checks, exchange, frames, library, scores
from flashplus.frames import contiguous_rows, raw_stream as _raw_stream, said as _said, sides as _sides

_INF = float("inf")
_Block = frames.block(
    c_api.ForwardArgs,
    ("q", "k", "v", "o", "lse", "cu_seqlens_q", "cu_seqlens_k", "seqused_q", "seqused_k", "alibi_slopes",
     "rng_state", "sinks"))
_known = frames.Frames()
_frames = _known.lists


class Frame(frames.Frame):
    __slots__ = ("copies", "like_q", "q", "k", "v", "o")

    def __init__(self, home, index):
        super().__init__(home, index, _Block)
        block = self.block
        self.q, self.k, self.v, self.o = block.q, block.k, block.v, block.o


def _new_frame(call, q, k, v, out, others, lse_shape, softmax_scale, causal, window_left, window_right, softcap,
               lse_empty, num_splits, dropout_p, score=None):
    """A frame for a call that is seen for the first time, or whose frames are all in use. `others`: {name: tensor}."""
    ragged = "cu_seqlens_q" in others
    index = q.get_device()
    for name, t in others.items():
        checks.other(name, t, index)
    if others["cu_seqlens_q"].numel() < 2 if ragged else q.shape[0] == 0:
        raise RuntimeError("batch size must be positive")
    if out is not None:
        checks.output(out, q, v)
    frame = Frame(_known.home(call), index)
    frame.copies = any(t.stride(-1) != 1 for t in (q, k, v))
    if frame.copies:
        q, k, v = contiguous_rows(q), contiguous_rows(k), contiguous_rows(v)
    frame.like_q = q.shape[-1] == v.shape[-1]
    # Made only for its strides. (A meta tensor would have them too, but the first one of a process takes PyTorch
    # seconds.)
    o = out if out is not None else output(q, v, frame.like_q)
    for name, t in (("q", q), ("k", k), ("v", v), ("o", o), *others.items()):
        frame.lay_out(name, t.dtype, t.shape, t.stride())
    if lse_shape is not None:
        frame.lay_out("lse", torch.float32, lse_shape, [math.prod(lse_shape[i + 1:]) for i in range(len(lse_shape))])
    if softmax_scale is None:
        softmax_scale = checks.default_scale(q)
    frame.set_mask_and_score(softmax_scale, causal, window_left, window_right, softcap)
    frame.args.lse_empty, frame.args.num_splits = lse_empty, num_splits
    frame.args.dropout_p = dropout_p
    if score is not None:
        frame.score = scores.Laid(frame, score)
    return frame


def output(q, v, like_q):
    """An uninitialised output: q's shape with v's head dim, and q's order of dimensions."""
    return frames.rows_like(q) if like_q else q.new_empty((*q.shape[:-1], v.shape[-1]))


def _run(frame, q, k, v, out, others=None):
    """Enqueues on the current stream of q's device."""
    frame.q.data = q.data_ptr()
    frame.k.data = k.data_ptr()
    frame.v.data = v.data_ptr()
    frame.o.data = out.data_ptr()
    index = frame.index
    lib = library._library or library.get()
    status = lib.forward(lib.context, frame.address, None if index < 0 else _raw_stream(index))
    if status:
        message = lib.last_error()
        others = others or {}
        checks.explain(q, k, v, others.get("cu_seqlens_q"), others.get("cu_seqlens_k"), others.get("alibi_slopes"))
        raise library.failure(status, message if frame.score is None else scores.in_python(message))
    frame.home.append(frame)


def dense(q, k, v, out, alibi_slopes, softmax_scale, causal, window_left, window_right, softcap, want_lse,
          lse_empty=_INF, num_splits=0, dropout_p=0.0, rng_state=None, score=None, sinks=None):
    """(out, lse or None) of q (b, sq, h, d), k (b, sk, hk, d) and v (b, sk, hk, dv), on the current stream of q's
    device.

    out None: a new tensor. softmax_scale None: 1 / sqrt(d). lse_empty: the LSE of rows that see no key. With dropout_p
    rng_state is int64 (2) (dropout.py). score: a scores.Score. sinks: (h), which lse includes. Flags are plain Python
    numbers (checks.flags)."""
    call = (q.dtype, k.dtype, v.dtype, q.device, k.device, v.device, q.shape, k.shape, v.shape, q.stride(), k.stride(),
            v.stride(), softmax_scale, causal, window_left, window_right, softcap, want_lse, lse_empty, num_splits)
    if alibi_slopes is not None or out is not None or rng_state is not None or score is not None or sinks is not None:
        call += (_said(alibi_slopes), _said(out), dropout_p, _said(rng_state), score and score.said, _said(sinks))
    try:
        frame = _frames[call].pop()
    except LookupError:
        frame = _first_dense(call, q, k, v, out, alibi_slopes, softmax_scale, causal, window_left, window_right,
                             softcap, want_lse, lse_empty, num_splits, dropout_p, rng_state, score, sinks)
    if frame.copies:
        q, k, v = contiguous_rows(q), contiguous_rows(k), contiguous_rows(v)
    if out is None:
        out = output(q, v, frame.like_q)
    if score is not None:
        frame.score.write(score)
    if alibi_slopes is None and not want_lse and rng_state is None and sinks is None:
        _run(frame, q, k, v, out)
        return out, None
    lse, others = None, {}
    if want_lse:
        lse = q.new_empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32)
        frame.block.lse.data = lse.data_ptr()
    if alibi_slopes is not None:
        others["alibi_slopes"] = alibi_slopes
        frame.block.alibi_slopes.data = alibi_slopes.data_ptr()
    if rng_state is not None:
        frame.block.rng_state.data = rng_state.data_ptr()
    if sinks is not None:
        frame.block.sinks.data = sinks.data_ptr()
    _run(frame, q, k, v, out, others)
    return out, lse


def trained(q, k, v, alibi_slopes, softmax_scale, causal, window_left, window_right, softcap, lse_empty=_INF,
            num_splits=0, dropout_p=0.0, rng_state=None):
    """dense() with lse, of numbers that are plain Python numbers, softmax_scale too."""
    key = softmax_scale, causal, window_left, window_right, softcap, lse_empty, num_splits, dropout_p
    call = exchange.training_calls.get(key)
    if call is not None and q.shape[-1] == v.shape[-1]:
        try:
            out = frames.rows_like(q)
            lse = q.new_empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32)
            if not library._library.forward_python_tuple(call.address, (q, k, v, out, lse, alibi_slopes, rng_state),
                                                         0, 0):
                return out, lse
        except Exception:  # a tensor whose memory PyTorch can't describe, or of another rank
            pass
    result = dense(q, k, v, None, alibi_slopes, softmax_scale, causal, window_left, window_right, softcap, True,
                   lse_empty, num_splits, dropout_p, rng_state)
    if call is None:
        exchange.remember_training(key)
    return result


def _first_dense(call, q, k, v, out, alibi_slopes, softmax_scale, causal, window_left, window_right, softcap, want_lse,
                 lse_empty, num_splits, dropout_p, rng_state, score, sinks):
    checks.tensors(q, k, v, False)
    others = {name: t for name, t in (("alibi_slopes", alibi_slopes), ("rng_state", rng_state), ("sinks", sinks))
              if t is not None}
    lse_shape = (q.shape[0], q.shape[2], q.shape[1]) if want_lse else None
    left, right = _sides(window_left, window_right, q.shape[1], k.shape[1])
    return _new_frame(call, q, k, v, out, others, lse_shape, softmax_scale, causal, left, right, softcap, lse_empty,
                      num_splits, dropout_p, score)


def ragged(q, k, v, out, cu_seqlens_q, cu_seqlens_k, seqused_k, alibi_slopes, max_seqlen_q, max_seqlen_k, softmax_scale,
           zero_tensors, causal, window_left, window_right, softcap, want_lse, seqused_q=None, lse_empty=_INF,
           num_splits=0, dropout_p=0.0, rng_state=None, score=None, sinks=None):
    """(out, lse or None) of q (total_q, h, d), k and v (total_k, hk, d), packed as cu_seqlens_* say.

    Rows of q that belong to no sequence get 0, and lse_empty (-inf with zero_tensors) as their LSE."""
    others = {"cu_seqlens_q": cu_seqlens_q, "cu_seqlens_k": cu_seqlens_k}
    for name, t in (("seqused_q", seqused_q), ("seqused_k", seqused_k), ("alibi_slopes", alibi_slopes),
                    ("rng_state", rng_state), ("sinks", sinks)):
        if t is not None:
            others[name] = t
    call = (q.dtype, k.dtype, v.dtype, q.device, k.device, v.device, q.shape, k.shape, v.shape, q.stride(), k.stride(),
            v.stride(), softmax_scale, causal, window_left, window_right, softcap, want_lse, lse_empty, num_splits,
            _said(out), dropout_p, score and score.said, *((name, _said(t)) for name, t in others.items()))
    try:
        frame = _frames[call].pop()
    except LookupError:
        checks.tensors(q, k, v, True)
        left, right = _sides(window_left, window_right, q.shape[0], k.shape[0])
        frame = _new_frame(call, q, k, v, out, others, (q.shape[1], q.shape[0]) if want_lse else None, softmax_scale,
                           causal, left, right, softcap, lse_empty, num_splits, dropout_p, score)
    if frame.copies:
        q, k, v = contiguous_rows(q), contiguous_rows(k), contiguous_rows(v)
    if out is None:
        out = output(q, v, frame.like_q)
    out.zero_()
    lse = None
    if want_lse:
        lse = q.new_full((q.shape[1], q.shape[0]), -_INF if zero_tensors else lse_empty, dtype=torch.float32)
        frame.block.lse.data = lse.data_ptr()
    for name, t in others.items():
        getattr(frame.block, name).data = t.data_ptr()
    if score is not None:
        frame.score.write(score)
    frame.args.max_seqlen_q, frame.args.max_seqlen_k = max_seqlen_q, max_seqlen_k
    _run(frame, q, k, v, out, others)
    return out, lse
