# SPDX-License-Identifier: BSD-3-Clause
"""Gradients of the forward operators (ops.py) with our kernels: what their Autograd key runs, and what an eager call
that goes past the dispatcher has in its place.

The forward runs below autograd and its inputs are saved; the backward is the operator `flashplus::backward`, so that
compilers and dispatch modes see it, too, or, where nobody looks on (direct.trains), what it calls. It is ours whatever
the switch says by then: a graph that began with our kernels ends with them.
"""

import torch

from flashplus import direct, dropout, forward, kernels


class Attention(torch.autograd.Function):
    """`operator` of `arguments`, a forward operator whose first arguments are q, k and v and whose first outputs out
    and lse; `meant` tells what the arguments are."""

    @staticmethod
    def forward(ctx, operator, meant, *arguments):
        with torch._C._AutoDispatchBelowAutograd():
            out, lse, *rest = operator(*arguments)
        call = ctx.call = meant(*arguments)
        ctx.count = len(arguments)
        ctx.places = call.places(arguments)
        # rng_state is the last output of an operator that has dropout.
        ctx.save_for_backward(*arguments[:3], *call.tensors.values(), out, lse, rest[-1] if call.dropout_p else None)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*rest)
        return (out, lse, *rest)

    @staticmethod
    def backward(ctx, dout, dlse, *_):
        if dout is None and dlse is None:
            return (None,) * (2 + ctx.count)
        *saved, out, lse, rng_state = ctx.saved_tensors
        q, k, v, *others = saved
        named = dict(zip(ctx.call.tensors, others))
        if dout is None:
            dout = torch.zeros_like(out)
        wanted = [name for name, place in ctx.places.items() if ctx.needs_input_grad[2 + place]]
        grads, others = ctx.call.backward((dout, q, k, v, out, lse, dlse), named, rng_state, wanted)
        rest = [None] * (ctx.count - 3)
        for name, grad in zip(wanted, others):
            rest[ctx.places[name] - 3] = grad
        return (None, None, *grads, *rest)


class Straight(torch.autograd.Function):
    """Attention of an eager call past the dispatcher. Few arguments: each costs time that a small step feels.

    `run`(rng_state, q, k, v, *others) gives out and lse; `others` are the tensors of `call` in its order."""

    @staticmethod
    def forward(ctx, run, call, q, k, v, *others):
        rng_state = dropout.draw(q) if call.dropout_p else None
        out, lse = run(rng_state, q, k, v, *others)
        ctx.call = call
        ctx.save_for_backward(q, k, v, *others, out, lse, rng_state)
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    def backward(ctx, dout, dlse):
        call, needed = ctx.call, ctx.needs_input_grad
        if dout is None and dlse is None:
            return (None,) * len(needed)
        q, k, v, *others, out, lse, rng_state = ctx.saved_tensors
        if dout is None:
            dout = torch.zeros_like(out)
        slopes = len(needed) > 5 and needed[-1]  # the last of the tensors, see Call
        grads, dslopes = call.backward((dout, q, k, v, out, lse, dlse), dict(zip(call.tensors, others)), rng_state,
                                       slopes)
        if not others:
            return (None, None, *grads)
        return (None, None, *grads, *[None] * (len(others) - 1), dslopes[0] if slopes else None)


def straight(q, k, v, numbers, lengths=None, alibi_slopes=None, dropout_p=0.0, deterministic=False, **options):
    """(out, lse), differentiable, past the dispatcher; None where that can't be. `numbers`: Call's, all plain Python
    numbers; `lengths`: {name: tensor or None} of packed sequences; `options`: lse_empty and num_splits."""
    lengths = lengths or {}
    if not (torch.is_grad_enabled() and direct.trains(q, k, v, alibi_slopes, *lengths.values())):
        return None
    call = Call(numbers, dropout_p, deterministic, **lengths, alibi_slopes=alibi_slopes)

    def dense(rng_state, q, k, v, *_):
        return forward.trained(q, k, v, alibi_slopes, *numbers[2:], dropout_p=dropout_p, rng_state=rng_state, **options)

    def ragged(rng_state, q, k, v, *_):
        longest_q, longest_k, scale, *rest = numbers
        return forward.ragged(
            q, k, v, None, lengths["cu_seqlens_q"], lengths["cu_seqlens_k"], lengths.get("seqused_k"), alibi_slopes,
            longest_q, longest_k, scale, False, *rest, True, lengths.get("seqused_q"), dropout_p=dropout_p,
            rng_state=rng_state, **options)

    try:
        return Straight.apply(ragged if lengths else dense, call, q, k, v, *call.tensors.values())
    except Exception:
        if not direct.unusual(q, k, v, alibi_slopes, *lengths.values()):
            raise
        return None


class NoBackward(torch.autograd.Function):
    """An operator whose outputs have no gradient, and say so when one is asked for: `refusal` makes the exception."""

    @staticmethod
    def forward(ctx, refusal, operator, *arguments):
        ctx.refusal = refusal
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*arguments)

    @staticmethod
    def backward(ctx, *_):
        raise ctx.refusal()


class Call:
    """What a forward's arguments mean to the backward: `tensors` besides q, k and v, by name, alibi_slopes the last of
    them, and `numbers`, which are max_seqlen_q, max_seqlen_k, softmax_scale, causal, window_left, window_right,
    softcap. With `dropout_p` the last output is rng_state. `deterministic`: gradients are the same bits every time."""

    __slots__ = ("tensors", "numbers", "dropout_p", "deterministic")

    def __init__(self, numbers, dropout_p=0.0, deterministic=False, **tensors):
        self.numbers, self.dropout_p, self.deterministic = numbers, dropout_p, deterministic
        self.tensors = {name: t for name, t in tensors.items() if t is not None}

    def places(self, arguments):
        """{name: index in `arguments`} of those of `tensors` that have a gradient."""
        slopes = self.tensors.get("alibi_slopes")
        return {} if slopes is None else {"alibi_slopes": next(i for i, t in enumerate(arguments) if t is slopes)}

    def backward(self, given, named, rng_state, wanted):
        """((dq, dk, dv), gradients of the `wanted` of places()); `given`: dout, q, k, v, out, lse, dlse, and `named`
        the saved `tensors`."""
        lengths = named.get("cu_seqlens_q")
        empty = not given[1].numel() or lengths is not None and lengths.shape[0] < 2  # of which the operator knows
        if not empty and not torch.is_grad_enabled() and direct.trains(*given, rng_state, *named.values()):
            try:
                return self._straight(given, named, rng_state, wanted)
            except Exception:
                if not direct.unusual(*given, *named.values()):
                    raise
        names = "cu_seqlens_q", "cu_seqlens_k", "seqused_q", "seqused_k", "alibi_slopes"
        *grads, dslopes = torch.ops.flashplus.backward(*given, *(named.get(name) for name in names), *self.numbers,
                                                       self.dropout_p, rng_state, bool(wanted), self.deterministic)
        return grads, [dslopes]

    def _straight(self, given, named, rng_state, wanted):
        """What the operator does (ops.py)."""
        dout, q, k, v, out, lse, dlse = given
        longest_q, longest_k, scale, causal, left, right, softcap = self.numbers
        dslopes = torch.empty_like(named["alibi_slopes"], memory_format=torch.contiguous_format) if wanted else None
        return kernels.gradients(
            dout, q, k, v, out, lse, dlse=dlse, **named, max_seqlen_q=longest_q, max_seqlen_k=longest_k,
            softmax_scale=scale, causal=causal, window_left=left, window_right=right, softcap=softcap,
            dropout_p=self.dropout_p, rng_state=rng_state, dslopes=dslopes,
            any_order=not self.deterministic), [dslopes]
