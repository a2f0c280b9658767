# SPDX-License-Identifier: BSD-3-Clause
"""Results of attention over different keys become one: `flashplus.merge_states`, over the torch operators
`flashplus::merge_states` and `flashplus::merge_states_out` (which writes into tensors of the caller's). Ours
whatever the switch says: the original has no such function."""

import torch
from torch.autograd import forward_ad

from flashplus import c_api, checks, frames, later, library
from flashplus.frames import contiguous_rows, said

_NAMES = {"out_a": "o_a", "lse_a": "lse_a", "out_b": "o_b", "lse_b": "lse_b", "out": "o", "lse": "lse"}
_Block = frames.block(c_api.MergeArgs, tuple(_NAMES.values()))
_known = frames.Frames()
_LIBRARY = torch.library.Library("flashplus", "FRAGMENT")


def merge_states(out_a, lse_a, out_b, lse_b, *, out=None, lse=None):
    """(out, lse) of attention over the keys of both sides, from that over each.

    out_a, out_b: (batch, seqlen, heads, d) or (total, heads, d), fp16, bf16 or fp32, of one shape and dtype; any
    strides. lse_a, lse_b: fp32 (batch, heads, seqlen) or (heads, total), as the forwards return them:

        lse = ln(exp(lse_a) + exp(lse_b)),  out = exp(lse_a - lse) out_a + exp(lse_b - lse) out_b

    in fp32, rounded once. A row where the lse of a side is +inf or -inf, the conventions of FlashAttention 2 and 3
    for a row without a key, is the other side's, whatever lies in out (NaN); where both are, out is 0 and lse lse_a.

    out, lse: written and returned, if given; they may be out_a or out_b and lse_a or lse_b. Then, as of PyTorch's
    functions with out=, no argument may require a gradient. Without them all four tensors have one."""
    given = {"out_a": out_a, "lse_a": lse_a, "out_b": out_b, "lse_b": lse_b}
    for name, t in given.items():
        checks.tensor(name, t)
    if out is None and lse is None:
        return torch.ops.flashplus.merge_states(out_a, lse_a, out_b, lse_b)
    for name, t in (("out", out), ("lse", lse)):
        if t is not None:
            checks.tensor(name, t)
            if t.requires_grad and torch.is_grad_enabled():
                given[name] = t
    if torch.is_grad_enabled():
        for name, t in given.items():
            if t.requires_grad:
                raise RuntimeError(f"merge_states with out or lse has no gradient and {name} requires one; leave out "
                                   "and lse None, or call it under torch.no_grad()")
    out = torch.empty_like(out_a) if out is None else out
    lse = torch.empty_like(lse_a) if lse is None else lse
    torch.ops.flashplus.merge_states_out(out_a, lse_a, out_b, lse_b, out, lse)
    return out, lse


def _check(tensors):
    """Device, dtype and rank, which the DLTensor takes for granted; shapes are the library's to refuse."""
    out_a = tensors["out_a"]
    if not (out_a.is_cuda or out_a.is_cpu):
        raise RuntimeError(f"out_a must be on CUDA or on the CPU; it is on {out_a.device}")
    if out_a.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        raise RuntimeError(f"out_a has dtype {out_a.dtype}; it must be torch.float16, torch.bfloat16 or torch.float32")
    if out_a.dim() not in (3, 4):
        raise RuntimeError(f"out_a has shape {tuple(out_a.shape)}; it must be (batch, seqlen, heads, d) or "
                           "(total, heads, d)")
    for name, t in tensors.items():
        statistic = name.startswith("lse")
        wanted = torch.float32 if statistic else out_a.dtype
        if t.device != out_a.device:
            raise RuntimeError(f"{name} must be on the device of out_a, {out_a.device}; it is on {t.device}")
        if t.dtype != wanted:
            raise RuntimeError(f"{name} has dtype {t.dtype}; it must be {wanted}" +
                               ("" if statistic else ", out_a's"))
        rank = out_a.dim() - statistic
        if t.dim() != rank:
            raise RuntimeError(f"{name} has shape {tuple(t.shape)}; it must have {rank} dimensions")


def _run(**tensors):
    """Enqueues on the current stream of out_a's device."""
    call = tuple(said(t) for t in tensors.values())
    try:
        frame = _known.lists[call].pop()
    except LookupError:
        _check(tensors)
        frame = frames.Frame(_known.home(call), tensors["out_a"].get_device(), _Block)
        for name, t in tensors.items():
            frame.lay_out(_NAMES[name], t.dtype, t.shape, t.stride())
    for name, t in tensors.items():
        getattr(frame.block, _NAMES[name]).data = t.data_ptr()
    lib = library._library or library.get()
    status = lib.merge_states(lib.context, frame.address, None if frame.index < 0 else frames.raw_stream(frame.index))
    if status:
        message = lib.last_error()
        for name, c_name in _NAMES.items():
            if c_name != name:
                message = message.replace(f"{c_name} ", f"{name} ").replace(f" {c_name},", f" {name},")
        raise library.failure(status, message)
    frame.home.append(frame)


def _rows(t):
    return contiguous_rows(t) if t.dim() else t


def _merge(out_a, lse_a, out_b, lse_b):
    out, lse = _fake(out_a, lse_a, out_b, lse_b)
    _run(out_a=_rows(out_a), lse_a=_rows(lse_a), out_b=_rows(out_b), lse_b=_rows(lse_b), out=out, lse=lse)
    return out, lse


def _merge_out(out_a, lse_a, out_b, lse_b, out, lse):
    to_out, to_lse = _rows(out), _rows(lse)  # a copy is written back
    _run(out_a=_rows(out_a), lse_a=_rows(lse_a), out_b=_rows(out_b), lse_b=_rows(lse_b), out=to_out, lse=to_lse)
    if to_out is not out:
        out.copy_(to_out)
    if to_lse is not lse:
        lse.copy_(to_lse)


def _fake(out_a, lse_a, out_b, lse_b):
    return out_a.new_empty(out_a.shape), lse_a.new_empty(lse_a.shape)


class _Merge(torch.autograd.Function):
    """The gradient is plain torch, and has one in turn."""

    @staticmethod
    def forward(ctx, *tensors):
        with torch._C._AutoDispatchBelowAutograd():
            results = torch.ops.flashplus.merge_states(*tensors)
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        return results

    @staticmethod
    def backward(ctx, dout, dlse):
        out_a, lse_a, out_b, lse_b = ctx.saved_tensors
        if dout is None and dlse is None:
            return (None,) * 4
        no_a, no_b = lse_a.isinf(), lse_b.isinf()
        either = no_a | no_b
        # Shares of the sides; of a side without a key 0, of the other 1. No infinity gets into the arithmetic.
        share = torch.sigmoid((lse_a - lse_b).masked_fill(either, 0.0))
        a = torch.where(either, (no_b & ~no_a).float(), share)
        b = torch.where(either, (no_a & ~no_b).float(), 1 - share)
        grads = [None, None if dlse is None else a * dlse, None, None if dlse is None else b * dlse]
        if dout is not None:

            def rows(t):  # (batch, heads, seqlen) as out's
                return t.transpose(-1, -2).unsqueeze(-1)

            dout32 = dout.float()
            grads[0], grads[2] = ((rows(t) * dout32).to(dout.dtype) for t in (a, b))
            difference = torch.where(rows(either), 0.0, out_a.float() - out_b.float())
            slope = (dout32 * difference).sum(-1).transpose(-1, -2) * a * b
            grads[1], grads[3] = (slope if dlse is None else grads[1] + slope), (-slope if dlse is None else
                                                                                grads[3] - slope)
        return tuple(grads)


def _with_gradient(operator):

    def function(keys, *arguments):
        if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(t).tangent is not None for t in arguments):
            raise later.forward_ad()
        if not operator._schema.is_mutable and torch.is_grad_enabled() and any(t.requires_grad for t in arguments):
            if torch._C._are_functorch_transforms_active():
                raise later.functional_grad()
            return _Merge.apply(*arguments)
        return operator.redispatch(keys & torch._C._after_autograd_keyset, *arguments)

    return function


def _define(name, schema, function, fake):
    _LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    for key in ("CPU", "CUDA"):
        _LIBRARY.impl(name, function, key)
    operator = getattr(torch.ops.flashplus, name).default
    _LIBRARY.impl(name, _with_gradient(operator), "Autograd", with_keyset=True)
    torch.library.register_fake(f"flashplus::{name}", fake, lib=_LIBRARY)


_define("merge_states", "(Tensor out_a, Tensor lse_a, Tensor out_b, Tensor lse_b) -> (Tensor, Tensor)", _merge, _fake)
_define("merge_states_out",
        "(Tensor out_a, Tensor lse_a, Tensor out_b, Tensor lse_b, Tensor(a!) out, Tensor(b!) lse) -> ()", _merge_out,
        lambda *_: None)
