# SPDX-License-Identifier: BSD-3-Clause
"""A backward on torch tensors, over frames.py as forward.py is: one call of flashplus_backward."""

import torch

from flashplus import c_api, checks, exchange, frames, library, scores
from flashplus.frames import contiguous_rows, said

_OPERANDS = ("q", "k", "v", "o", "dout", "dq", "dk", "dv")
_REST = ("lse", "dlse", "delta", "cu_seqlens_q", "cu_seqlens_k", "seqused_q", "seqused_k", "alibi_slopes", "rng_state")
_Block = frames.block(c_api.BackwardArgs, _OPERANDS + _REST + ("dalibi_slopes", ))
_known = frames.Frames()


def _readable(name, t):
    """A tensor whose last stride is 1; what else is wrong with it is said by _new_frame."""
    checks.tensor(name, t)
    return contiguous_rows(t) if t.dim() else t


def gradients(dout, q, k, v, out, lse, *, dq=None, dk=None, dv=None, dlse=None, delta=None, cu_seqlens_q=None,
              cu_seqlens_k=None, seqused_q=None, seqused_k=None, max_seqlen_q=0, max_seqlen_k=0, alibi_slopes=None,
              softmax_scale, causal, window_left, window_right, softcap, dropout_p=0.0, rng_state=None, dslopes=None,
              score=None, dvalues=None, any_order=False):
    """(dq, dk, dv) of the forward that has the same arguments, on the current stream of q's device.

    dq, dk, dv: written, or None for new ones. Packed sequences (with cu_seqlens_*): a new gradient is 0 in rows that
    belong to no sequence or are not in use; a given one keeps what it has there. dlse: the gradient that reaches
    lse, or None.
    delta: fp32 like lse, gets sum(dout * out) - dlse, or None. With dropout_p rng_state is what the forward had.
    dslopes: contiguous and like alibi_slopes, gets their gradient, or None. score: the forward's scores.Score, and
    dvalues {name: contiguous and like that tensor of it, or (1) for a scalar} gets their gradients.
    The same bits from run to run, but for dslopes and dvalues on a GPU, and for dq with any_order, which is faster."""
    key = softmax_scale, causal, window_left, window_right, softcap, dropout_p, any_order
    new = torch.empty_like if cu_seqlens_q is None else torch.zeros_like
    exchanged = None if score is not None else exchange.backward_calls.get(key)
    if exchanged is not None:
        try:
            if dout.stride(-1) != 1:  # of a sum, say
                dout = dout.contiguous()
            grads = (frames.rows_like(q, new) if dq is None else dq, frames.rows_like(k, new) if dk is None else dk,
                     frames.rows_like(v, new) if dv is None else dv)
            if not library._library.backward_python_tuple(
                    exchanged.address, (q, k, v, out, dout, lse, dlse, *grads, delta, cu_seqlens_q, cu_seqlens_k,
                                        seqused_q, seqused_k, alibi_slopes, rng_state, dslopes),
                    max_seqlen_q, max_seqlen_k):
                return grads
        except Exception:  # a tensor whose memory PyTorch can't describe, or no tensor
            pass
    q, k, v, out, dout, lse = (_readable(name, t) for name, t in (("q", q), ("k", k), ("v", v), ("out", out),
                                                                  ("dout", dout), ("softmax_lse", lse)))
    kept, grads = [], []
    for name, grad, like in (("dq", dq, q), ("dk", dk, k), ("dv", dv, v)):
        if grad is None:
            grad = frames.rows_like(like, new)
        elif isinstance(grad, torch.Tensor) and grad.dim() and grad.stride(-1) != 1 and grad.shape[-1] > 1:
            kept.append((grad, grad := grad.contiguous()))  # keeps what is in rows that no sequence has
        grads.append(grad)
    if dlse is not None:
        dlse = _readable("dlse", dlse)
    tensors = dict(zip(_OPERANDS, (q, k, v, out, dout, *grads)))
    tensors.update(
        (name, t)
        for name, t in zip(_REST, (lse, dlse, delta, cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k, alibi_slopes,
                                   rng_state))
        if t is not None)
    if dslopes is not None:
        tensors["dalibi_slopes"] = dslopes
    call = (tuple(
        (name, said(t)) for name, t in tensors.items()), softmax_scale, causal, window_left, window_right, softcap,
            dropout_p, any_order, score and (score.said, tuple(dvalues or ())))
    try:
        frame = _known.lists[call].pop()
    except LookupError:
        frame = _new_frame(call, tensors, softmax_scale, causal, window_left, window_right, softcap, dropout_p,
                           any_order)
        if score is not None:
            frame.score = scores.Laid(frame, score, dvalues)
    if score is not None:
        frame.score.write(score, dvalues)
    block = frame.block
    for name, t in tensors.items():
        getattr(block, name).data = t.data_ptr()
    frame.args.max_seqlen_q, frame.args.max_seqlen_k = max_seqlen_q, max_seqlen_k
    index = frame.index
    lib = library._library or library.get()
    status = lib.backward(lib.context, frame.address, None if index < 0 else frames.raw_stream(index))
    if status:
        message = lib.last_error()
        checks.explain(q, k, v, cu_seqlens_q, cu_seqlens_k, alibi_slopes)
        raise library.failure(status, message if score is None else scores.in_python(message))
    frame.home.append(frame)
    if exchanged is None and score is None:
        exchange.remember_backward(key)
    for given, copy in kept:
        given.copy_(copy)
    return tuple(dict(((id(copy), given) for given, copy in kept)).get(id(g), g) for g in grads)


def _new_frame(call, tensors, softmax_scale, causal, window_left, window_right, softcap, dropout_p, any_order):
    ragged = "cu_seqlens_q" in tensors
    q, k, v = tensors["q"], tensors["k"], tensors["v"]
    checks.tensors(q, k, v, ragged)
    index = q.get_device()
    for name, like in (("o", "out"), ("dout", ) * 2, ("dq", ) * 2, ("dk", ) * 2, ("dv", ) * 2, ("lse", "softmax_lse"),
                       ("dlse", ) * 2, ("delta", ) * 2):
        if name in tensors:
            checks.gradient(like, tensors[name], q, statistic=name in ("lse", "dlse", "delta"))
    for name in _REST[3:]:
        if name in tensors:
            checks.other(name, tensors[name], index)
    if tensors["cu_seqlens_q"].numel() < 2 if ragged else q.shape[0] == 0:
        raise RuntimeError("batch size must be positive")
    frame = frames.Frame(_known.home(call), index, _Block)
    for name, t in tensors.items():
        frame.lay_out(name, t.dtype, t.shape, t.stride())
    rows = 0 if ragged else 1
    left, right = frames.sides(window_left, window_right, q.shape[rows], k.shape[rows])
    frame.set_mask_and_score(softmax_scale, causal, left, right, softcap)
    frame.args.dropout_p = dropout_p
    frame.args.any_order = any_order
    return frame


def sink_gradient(sinks, lse, delta):
    """That of sinks (heads), from fp32 lse (batch, heads, seqlen) or (heads, total), which includes them, and delta,
    sum(dout * out) - dlse of the same shape: a sink's probability has no value, so that its row gives
    p (0 - delta)."""
    logits = sinks.float().unsqueeze(-1)
    rows = torch.where(torch.isfinite(lse), torch.exp(logits - lse) * delta, 0.0)
    return -rows.sum([d for d in range(rows.dim()) if d != rows.dim() - 2]).to(sinks.dtype)
