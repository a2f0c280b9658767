# SPDX-License-Identifier: BSD-3-Clause
"""Gradients of the forward operators (ops.py) with our kernels: what their Autograd key runs.

The forward runs below autograd and its inputs are saved; the backward is the operator `flashplus::backward`, so that
compilers and dispatch modes see it, too. It is ours whatever the switch says by then: a graph that began with our
kernels ends with them.
"""

import torch


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
    """What a forward's arguments mean to the backward: `tensors` besides q, k and v, by name, and `numbers`, which
    are max_seqlen_q,
    max_seqlen_k, softmax_scale, causal, window_left, window_right, softcap. With `dropout_p` the last output is
    rng_state. `deterministic`: gradients are the same bits every time."""

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
        names = "cu_seqlens_q", "cu_seqlens_k", "seqused_q", "seqused_k", "alibi_slopes"
        *grads, dslopes = torch.ops.flashplus.backward(*given, *(named.get(name) for name in names), *self.numbers,
                                                       self.dropout_p, rng_state, bool(wanted), self.deterministic)
        return grads, [dslopes]
