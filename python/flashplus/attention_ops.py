# SPDX-License-Identifier: BSD-3-Clause
"""The torch operators of attention with a score: `flashplus::attention`, and `flashplus::attention_backward`, which is
its gradient, that of the score's own tensors and scalars included.

`values` are the tensors that a score reads, by `names` (with commas), and numbers that came as tensors: those without
dimensions. Such a number is a scalar of the score, or, by "@" and the name of an argument (NUMBERS), that argument: so
a compiled graph may work out a scale or a mask's sides, which PyTorch's operators else take as Python numbers only."""

import torch
from torch.compiler import is_compiling

from flashplus import autograd, checks, dropout, frames, kernels, later, ops, scores

_INF = float("inf")
# Arguments of both operators, and what of them may come in `values`.
NUMBERS = ("max_seqlen_q", "max_seqlen_k", "softmax_scale", "causal", "window_left", "window_right", "softcap")
_NUMBERS_SCHEMA = ("SymInt max_seqlen_q, SymInt max_seqlen_k, float softmax_scale, bool causal, SymInt window_left, "
                   "SymInt window_right, float softcap")
_OWN = "@"  # begins the name of an argument in `names`; no name in a score does
_SCORE_SCHEMA = "str score, str names, str scalar_names, float[] scalars"


def _names(text):
    return text.split(",") if text else []


def _taken(values, names, score, scalar_names, scalars, numbers, schedule=""):
    """(numbers, Score) with what `values` say of either."""
    tensors, given = {}, dict(zip(_names(scalar_names), scalars))
    numbers = dict(zip(NUMBERS, numbers))
    for name, t in zip(_names(names), values):
        if t.dim():
            tensors[name] = t
        elif name.startswith(_OWN):
            numbers[name[len(_OWN):]] = t.item()
        else:
            given[name] = t.item()
    scale, causal, left, right, softcap = checks.numbers(
        numbers["softmax_scale"], numbers["causal"], (numbers["window_left"], numbers["window_right"]),
        numbers["softcap"])
    lengths = (checks.integer(name, numbers[name]) for name in NUMBERS[:2])
    return (*lengths, scale, causal, left, right, softcap), scores.Score(score, tensors, given, schedule)


def attend(q, k, v, score, numbers, *, alibi_slopes=None, cu_seqlens_q=None, cu_seqlens_k=None, seqused_q=None,
           seqused_k=None, dropout_p=0.0, lse_empty=_INF, num_splits=0, want_lse=True, sinks=None):
    """(out, lse or None, rng_state) by our kernels; `numbers` are plain and in the order of NUMBERS."""
    max_seqlen_q, max_seqlen_k, *numbers = numbers
    p = dropout.check(dropout_p, numbers[-1])
    rng_state = dropout.draw(q) if p else torch.zeros(2, dtype=torch.int64, device=q.device)
    options = {"lse_empty": lse_empty, "num_splits": num_splits, "dropout_p": p, "rng_state": rng_state if p else None,
               "score": score, "sinks": sinks}
    if cu_seqlens_q is None:
        out, lse = kernels.dense(q, k, v, None, alibi_slopes, *numbers, want_lse, **options)
    else:
        scale, *rest = numbers
        out, lse = kernels.ragged(q, k, v, None, cu_seqlens_q, cu_seqlens_k, seqused_k, alibi_slopes, max_seqlen_q,
                                  max_seqlen_k, scale, False, *rest, want_lse, seqused_q, **options)
    return out, lse, rng_state


def _attend(q, k, v, values, alibi_slopes, cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k, max_seqlen_q,
            max_seqlen_k, softmax_scale, causal, window_left, window_right, softcap, dropout_p, lse_empty, num_splits,
            score, names, scalar_names, scalars, schedule, deterministic, sinks=None):
    numbers, s = _taken(values, names, score, scalar_names, scalars,
                        (max_seqlen_q, max_seqlen_k, softmax_scale, causal, window_left, window_right, softcap),
                        schedule)
    return attend(q, k, v, s, numbers, alibi_slopes=alibi_slopes, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k,
                  seqused_q=seqused_q, seqused_k=seqused_k, dropout_p=dropout_p, lse_empty=lse_empty,
                  num_splits=num_splits, sinks=sinks)


def _attend_fake(q, k, v, values, alibi_slopes, cu_seqlens_q, *rest, **named):
    shape = (q.shape[0], q.shape[2], q.shape[1]) if cu_seqlens_q is None else (q.shape[1], q.shape[0])
    out, lse, _, rng_state = ops.outputs(q, v, shape, ())
    return out, lse, rng_state


class _Call(autograd.Call):
    """`values` are named value0, ... in `tensors`; `said` is what both operators have of the score besides them."""

    __slots__ = ("said", "count")

    def places(self, arguments):
        # By position: one tensor may be a value of the score and the slopes, too, and each has its own gradient. An
        # empty list of values is an argument like another (ops._flattened); sinks are the last.
        others = {"alibi_slopes": 3 + max(self.count, 1), "sinks": len(arguments) - 1}
        return {**{f"value{i}": 3 + i for i in range(self.count)},
                **{name: place for name, place in others.items() if name in self.tensors}}

    def backward(self, given, named, rng_state, wanted):
        values = [named[f"value{i}"] for i in range(self.count)]
        wants = [f"value{i}" in wanted for i in range(self.count)]
        dq, dk, dv, *rest = torch.ops.flashplus.attention_backward(
            *given, values, named.get("alibi_slopes"), *(named.get(name) for name in _LENGTHS), *self.numbers,
            self.dropout_p, *self.said, wants, "alibi_slopes" in wanted, rng_state, self.deterministic,
            named.get("sinks"), "sinks" in wanted)
        return (dq, dk, dv), rest


def _meant(q, k, v, values, alibi_slopes, cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k, *rest):
    numbers, (dropout_p, _, _, score, names, scalar_names, scalars, _, deterministic) = rest[:7], rest[7:16]
    sinks = rest[16] if len(rest) > 16 else None
    call = _Call(numbers, dropout_p, deterministic, **{f"value{i}": t for i, t in enumerate(values)},
                 alibi_slopes=alibi_slopes, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k, seqused_q=seqused_q,
                 seqused_k=seqused_k, sinks=sinks)
    call.said, call.count = (score, names, scalar_names, scalars), len(values)
    return call


def _backward(dout, q, k, v, out, lse, dlse, values, alibi_slopes, cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k,
              max_seqlen_q, max_seqlen_k, softmax_scale, causal, window_left, window_right, softcap, dropout_p, score,
              names, scalar_names, scalars, wants, wants_slopes, rng_state, deterministic, sinks=None,
              wants_sinks=False):
    """[dq, dk, dv, the gradients of those values that `wants` says, that of the slopes, that of the sinks]"""
    numbers, s = _taken(values, names, score, scalar_names, scalars,
                        (max_seqlen_q, max_seqlen_k, softmax_scale, causal, window_left, window_right, softcap))
    max_seqlen_q, max_seqlen_k, scale, causal, left, right, softcap = numbers
    dvalues = {name: q.new_empty(t.shape or (1,), dtype=torch.float32)
               for name, t, want in zip(_names(names), values, wants) if want}
    dslopes = q.new_empty(alibi_slopes.shape, dtype=torch.float32) if wants_slopes else None
    delta = torch.zeros_like(lse, memory_format=torch.contiguous_format) if wants_sinks else None
    grads = kernels.gradients(
        dout, q, k, v, out, lse, dlse=dlse, delta=delta, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k,
        seqused_q=seqused_q, seqused_k=seqused_k, max_seqlen_q=max_seqlen_q, max_seqlen_k=max_seqlen_k,
        alibi_slopes=alibi_slopes, softmax_scale=scale, causal=causal, window_left=left, window_right=right,
        softcap=softcap, dropout_p=dropout_p, rng_state=rng_state,
        dslopes=dslopes, score=s, dvalues=dvalues, any_order=not deterministic)
    named = dict(zip(_names(names), values))
    found = [d.reshape(named[name].shape).to(named[name].dtype) for name, d in dvalues.items()]
    return [*grads, *found, *([dslopes] if wants_slopes else []),
            *([kernels.sink_gradient(sinks, lse, delta)] if wants_sinks else [])]


def _backward_fake(dout, q, k, v, out, lse, dlse, values, alibi_slopes, cu_seqlens_q, cu_seqlens_k, seqused_q,
                   seqused_k, max_seqlen_q, max_seqlen_k, softmax_scale, causal, window_left, window_right, softcap,
                   dropout_p, score, names, scalar_names, scalars, wants, wants_slopes, rng_state, deterministic,
                   sinks=None, wants_sinks=False):
    return [*(frames.rows_like(kernels.contiguous_rows(t)) for t in (q, k, v)),
            *(q.new_empty(t.shape, dtype=t.dtype) for t, want in zip(values, wants) if want),
            *([q.new_empty(alibi_slopes.shape, dtype=torch.float32)] if wants_slopes else []),
            *([sinks.new_empty(sinks.shape)] if wants_sinks else [])]


_LENGTHS = "cu_seqlens_q", "cu_seqlens_k", "seqused_q", "seqused_k"
_SHARED = ("Tensor[] values, Tensor? alibi_slopes, " + "".join(f"Tensor? {name}, " for name in _LENGTHS)
           + _NUMBERS_SCHEMA + ", float dropout_p, ")
ops.define("attention",
           f"(Tensor q, Tensor k, Tensor v, {_SHARED}float lse_empty, SymInt num_splits, {_SCORE_SCHEMA}, "
           "str schedule, bool deterministic, Tensor? sinks=None) -> (Tensor, Tensor, Tensor)", _attend, _attend_fake,
           "flashplus", meant=_meant, draws=True)
ops.define("attention_backward",
           "(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor softmax_lse, Tensor? dlse, "
           f"{_SHARED}{_SCORE_SCHEMA}, bool[] wants, bool wants_slopes, Tensor? rng_state, bool deterministic, "
           "Tensor? sinks=None, bool wants_sinks=False) -> Tensor[]", _backward, _backward_fake, "flashplus",
           refusal=later.double_backward)

operator = torch.ops.flashplus.attention


_LEFT_OUT = dict(zip(NUMBERS, (0, 0, 1.0, False, -1, -1, 0.0)))  # where a number comes in `values`


def is_number(value):
    """Whether this is one to a compiler: not a tensor, nor what NumPy has, which is traced as one."""
    return value is None or isinstance(value, (bool, int, float, torch.SymInt, torch.SymFloat))


def left_to_graph(*numbers):
    """Whether a compiler traces this and some of these (numbers, or pairs of them) are tensors to it, which PyTorch's
    own operators don't take."""
    return is_compiling() and not all(
        all(map(is_number, n)) if isinstance(n, (tuple, list)) else is_number(n) for n in numbers)


def graph_numbers(softmax_scale, causal, window_size, softcap):
    """checks.numbers, but that a compiler is left with what is a tensor to it."""
    if is_compiling() and isinstance(window_size, (tuple, list)) and len(window_size) == 2:
        said = softmax_scale, causal, *window_size, softcap
        if left_to_graph(*said):
            plain = checks.numbers(*(x if is_number(x) else 0 for x in said[:2]),
                                   tuple(x if is_number(x) else 0 for x in window_size),
                                   softcap if is_number(softcap) else 0)
            return tuple(ready if is_number(x) else x for x, ready in zip(said, plain))
    return checks.numbers(softmax_scale, causal, window_size, softcap)


def in_graph(q, k, v, numbers, *, tensors=None, scalars=None, alibi_slopes=None, cu_seqlens_q=None, cu_seqlens_k=None,
             seqused_q=None, seqused_k=None, dropout_p=0.0, lse_empty=_INF, num_splits=0, score="", schedule="",
             deterministic=False, sinks=None):
    """(out, lse, rng_state) through the operator, with any of `numbers` ({name: value}, by NUMBERS) and `scalars` a
    tensor of one element, whose value nobody asks for before the operator runs. Of what is plain in `numbers` the types
    are right (checks.numbers)."""
    named, given, plain = dict(tensors or {}), {}, dict(_LEFT_OUT)
    for name, value in (scalars or {}).items():
        if isinstance(value, torch.Tensor):
            named[name] = value.reshape(())
        else:
            given[name] = value
    for name, value in numbers.items():
        if is_number(value):
            plain[name] = value
        else:
            named[_OWN + name] = torch.as_tensor(value).detach().reshape(())
    return operator(q, k, v, list(named.values()), alibi_slopes, cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k,
                    *plain.values(), dropout_p, lse_empty, num_splits, score,
                    ",".join(list(named.keys())), ",".join(list(given.keys())), list(given.values()), schedule,
                    deterministic, sinks)
