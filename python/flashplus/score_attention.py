# SPDX-License-Identifier: BSD-3-Clause
"""flashplus.attention: attention with any score, from Python. docs/scores.md is the language."""

from collections.abc import Mapping

import torch
from torch.compiler import is_compiling

from flashplus import attention_ops, checks, scores
from flashplus.direct import direct, plain, unusual
from flashplus.positional import maybe_contiguous

_RESERVED = ("s", "b", "h", "hk", "q", "k", "sq", "sk", "inf", "and", "or", "not")


def _named(argument, values):
    """`values` as a dict whose keys can be names in a score."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise TypeError(f"{argument} is {type(values).__name__}; it must be a dict of names in the score")
    for name in values:
        if not isinstance(name, str) or not name.isidentifier() or not name.isascii() or name in _RESERVED:
            raise ValueError(f"{argument} has the name {name!r}; it must be one of letters, digits and _ that is not "
                             f"one of the score's own ({', '.join(_RESERVED)})")
    return dict(values)


def _scalar(name, value):
    """A number, or, where its gradient or its place in a graph is wanted, the tensor of it."""
    label = f"scalars[{name!r}]"
    if isinstance(value, torch.Tensor):
        if value.numel() != 1 or value.is_complex():
            raise TypeError(f"{label} has shape {tuple(value.shape)}; it must be a number or a tensor of one element")
        if is_compiling() or value.requires_grad and torch.is_grad_enabled():
            return value
    elif is_compiling() and not attention_ops.is_number(value):
        return torch.as_tensor(value)
    return checks.number(label, value)


def attention(q, k, v, score=None, *, tensors=None, scalars=None, causal=False, window=(-1, -1), softmax_scale=None,
              softcap=0.0, alibi_slopes=None, dropout_p=0.0, cu_seqlens_q=None, cu_seqlens_k=None, max_seqlen_q=None,
              max_seqlen_k=None, num_splits=0, schedule=None, deterministic=False, return_lse=False, sinks=None):
    """softmax(score(softmax_scale * q k^T)) v, for a score that is an expression of text, compiled into the kernel.

    Differentiable, in q, k, v, alibi_slopes, sinks and in those of `tensors` and `scalars` that require a gradient;
    under torch.compile(fullgraph=True) one operator, `flashplus::attention`.

    q: (batch, seqlen_q, heads, head_dim), fp16 or bf16, on the CPU also fp32. Any strides (a last one other than 1
        costs a copy).
    k: (batch, seqlen_k, heads_k, head_dim), q's dtype and device; heads_k divides heads.
    v: (batch, seqlen_k, heads_k, head_dim_v).
    score: what to do to one score, e.g. "s + bias[h, q, k]"; None: nothing. docs/scores.md has the language.
    tensors: {name: fp32 tensor of 1 to 4 dimensions on q's device} that the score reads with [].
    scalars: {name: a number, or a tensor of one element} that it reads by name. Another value compiles nothing.
    causal, window: a mask that is aligned at the bottom right: query i sees key j iff i + seqlen_k - seqlen_q - left
        <= j <= i + seqlen_k - seqlen_q + right, window=(left, right), -1 unbounded; causal: right = 0. Keys that it
        hides cost nothing, those that a score hides do.
    softmax_scale: 1 / sqrt(head_dim) by default.
    softcap: > 0: s -> softcap * tanh(s / softcap), after `score`. 0.0: none.
    alibi_slopes: fp32 (heads) or (batch, heads): s -> s - slope * |i + seqlen_k - seqlen_q - j|, last.
    dropout_p: 0 <= p < 1, of probabilities, by PyTorch's generator of q's device; not with softcap.
    cu_seqlens_q, cu_seqlens_k: int32 (batch + 1): sequences laid end to end, q (total_q, heads, head_dim), k and v
        (total_k, heads_k, ..); in a score q and k count from the start of the sequence, and sq and sk are its lengths.
    max_seqlen_q, max_seqlen_k: upper bounds of these lengths; None: not known, which may cost time.
    num_splits: 0: chosen; 1: keys are never split; n <= 128: into n parts.
    schedule: None: chosen; else text of one, as `flashplus inspect` and `tune` print (of the forward).
    deterministic: True: dq is the same bits every time on Hopper, too; all else is anyway, but for the gradients of
        alibi_slopes, tensors and scalars on a GPU.
    return_lse: with the log-sum-exp of the scores, fp32 (batch, heads, seqlen_q) or (heads, total_q); its gradient
        counts.
    sinks: None, or (heads) of fp16, bf16 or fp32: a learned logit a head that is in the softmax of all its rows and has
        no value, as in gpt-oss; return_lse's includes it.

    Returns out (as q with head_dim_v), or with return_lse (out, lse). A row that sees no key is 0 and its lse is +inf,
    or its sink.
    Raises ValueError for a score that is wrong or that reads what is not given, or the reverse; TypeError for an
    argument of a wrong kind; RuntimeError for shapes, dtypes and devices that don't fit.
    """
    for name, t in (("q", q), ("k", k), ("v", v)):
        checks.tensor(name, t)
    for name, t in (("alibi_slopes", alibi_slopes), ("cu_seqlens_q", cu_seqlens_q), ("cu_seqlens_k", cu_seqlens_k)):
        if t is not None:
            checks.tensor(name, t)
    for name, text in (("score", score), ("schedule", schedule)):
        if text is not None and not isinstance(text, str):
            raise TypeError(f"{name} is {text!r}; it must be text or None")
        if text and "\0" in text:  # behind which the library, which is C, would not look
            raise ValueError(f"{name} has a NUL at column {text.index(chr(0)) + 1}; it must have none")
    if (cu_seqlens_q is None) != (cu_seqlens_k is None):
        raise ValueError("one of cu_seqlens_q and cu_seqlens_k is given; packed sequences need both")
    tensors = _named("tensors", tensors)
    for name, t in tensors.items():
        checks.tensor(f"tensors[{name!r}]", t)
        if not t.dim():
            raise RuntimeError(f"tensors[{name!r}] has no dimension; give it in scalars")
    scalars = {name: _scalar(name, value) for name, value in _named("scalars", scalars).items()}
    if twice := tensors.keys() & scalars.keys():
        raise ValueError(f"{sorted(twice)[0]!r} is in tensors and in scalars; a name is one of them")
    if softmax_scale is None:
        softmax_scale = checks.default_scale(q)
    numbers = attention_ops.graph_numbers(softmax_scale, causal, window, softcap)
    lengths = (0 if n is None else n if is_compiling() else checks.integer(name, n)
               for name, n in (("max_seqlen_q", max_seqlen_q), ("max_seqlen_k", max_seqlen_k)))
    numbers = dict(zip(attention_ops.NUMBERS, (*lengths, *numbers)))
    options = {"alibi_slopes": alibi_slopes, "cu_seqlens_q": cu_seqlens_q, "cu_seqlens_k": cu_seqlens_k}
    rest = {"dropout_p": checks.number("dropout_p", dropout_p), "num_splits": checks.integer("num_splits", num_splits)}
    deterministic = checks.flag("deterministic", deterministic)
    if sinks is not None:
        checks.sinks("sinks", sinks, q)
        options["sinks"] = maybe_contiguous(sinks)
    others = (*tensors.values(), *options.values())
    if direct(q, k, v) and plain(*others) and not any(isinstance(x, torch.Tensor) for x in scalars.values()):
        try:
            said = scores.Score(score or "", tensors, scalars, schedule or "")
            out, lse, _ = attention_ops.attend(q, k, v, said, numbers.values(), want_lse=return_lse, **options, **rest)
            return (out, lse) if return_lse else out
        except Exception:
            if not unusual(q, k, v, *others):
                raise
    out, lse, _ = attention_ops.in_graph(q, k, v, numbers, tensors=tensors, scalars=scalars, score=score or "",
                                         schedule=schedule or "", deterministic=deterministic, **options, **rest)
    return (out, lse) if return_lse else out
