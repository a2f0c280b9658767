# SPDX-License-Identifier: BSD-3-Clause
"""The torch operators `flash_attn::_flash_attn_forward`, ... : what torch.compile, torch.export and dispatch modes see.

They have the original's names and schemas, and a fake each that gives shapes without computing. They follow the switch
(backend.py). `flashplus::forward` is what FlashAttention 3's face needs beyond them. Eager calls of the public
functions go past them where direct.py allows it."""

import torch
from torch.autograd import forward_ad

from flashplus import autograd, backend, checks, frames, kernels, later


def new_library(name):
    """For definitions in the namespace `name`. Kept with torch, whose registry outlives this module: whoever clears
    sys.modules and imports anew would else define every operator twice, which PyTorch refuses."""
    kept = vars(torch.library).setdefault("_flashplus_libraries", {})
    if name in kept:
        kept[name]._destroy()
    _libraries[name] = kept[name] = torch.library.Library(name, "FRAGMENT")


_libraries = {}
new_library("flash_attn")
new_library("flashplus")


def _above_autograd(operator, meant, refusal):
    """What the operator does with gradients. With our kernels a forward has some (`meant`: what its arguments are,
    autograd.Call, or None where these have no gradient); what has none refuses what would else be lost in silence,
    with the exception that `refusal` makes: when it is asked for, or where gradients are written into, at once."""
    at_once = operator._schema.is_mutable and refusal is later.double_backward
    if refusal is None:
        def refusal():
            return RuntimeError(f"{operator.name()} has no gradient of its own; call flash_attn_func or its kin")

    def function(keys, *arguments):
        flat, packed = _flattened(arguments)
        tensors = [t for t in flat if isinstance(t, torch.Tensor)]
        if forward_ad._current_level >= 0:
            for t in tensors:
                if t.is_floating_point() and forward_ad.unpack_dual(t).tangent is not None:
                    raise later.forward_ad()
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            if backend.ours and torch._C._are_functorch_transforms_active():
                raise later.functional_grad()
            if backend.ours and at_once:
                raise refusal()
            if meant is None or not backend.ours or meant(*arguments) is None:
                return autograd.NoBackward.apply(refusal, packed(operator), *flat)
            return autograd.Attention.apply(packed(operator), packed(meant), *flat)
        # As PyTorch's own fallback: past autograd, which an implementation may still use inside.
        return operator.redispatch(keys & torch._C._after_autograd_keyset, *arguments)

    return function


def _flattened(arguments):
    """(`arguments` with lists of tensors, which autograd doesn't look into, laid out; what makes of a function of
    `arguments` one of those)"""
    if not any(type(a) is list and a and isinstance(a[0], torch.Tensor) for a in arguments):
        return arguments, lambda function: function
    flat, spans = [], []
    for a in arguments:
        items = a if type(a) is list and a and isinstance(a[0], torch.Tensor) else [a]
        spans.append((len(flat), len(flat) + len(items) if items is a else None))
        flat += items

    def packed(function):
        return lambda *flat: function(*(flat[at] if end is None else list(flat[at:end]) for at, end in spans))

    return flat, packed


def define(name, schema, function, fake, namespace="flash_attn", meant=None, draws=False, refusal=None):
    """`draws`: with dropout it draws from the generator of q's device. `meant`, `refusal`: see _above_autograd."""
    library = _libraries[namespace]
    tags = (torch.Tag.pt2_compliant_tag,)
    if draws:  # two calls are not one, and what is computed again is so with the same state of the generator
        tags += (torch.Tag.nondeterministic_seeded,)
    if hasattr(torch.Tag, "needs_exact_strides"):  # a transposed q stays what it was in the eager call
        tags += (torch.Tag.needs_exact_strides,)
    elif hasattr(torch.Tag, "needs_fixed_stride_order"):
        tags += (torch.Tag.needs_fixed_stride_order,)
    library.define(name + schema, tags=tags)
    for key in ("CPU", "CUDA"):
        library.impl(name, function, key)
    operator = getattr(getattr(torch.ops, namespace), name).default
    library.impl(name, _above_autograd(operator, meant, refusal), "Autograd", with_keyset=True)
    torch.library.register_fake(f"{namespace}::{name}", fake, lib=library)
    if "Tensor[] " in schema and hasattr(torch.library, "register_vmap"):
        torch.library.register_vmap(f"{namespace}::{name}", _one_by_one(operator), lib=library)


def _one_by_one(operator):
    """What torch.func.vmap does where there is no rule, which it can't for an operator with lists of tensors: a call an
    element."""

    def element(argument, dim, i):
        if isinstance(argument, (list, tuple)):
            dims = dim if isinstance(dim, (list, tuple)) else [dim] * len(argument)
            return [element(a, d, i) for a, d in zip(argument, dims)]
        return argument if dim is None else argument.select(dim, i)

    def rule(info, dims, *arguments):
        results = [operator(*(element(a, d, i) for a, d in zip(arguments, dims))) for i in range(info.batch_size)]
        stacked = type(results[0])(torch.stack(parts) for parts in zip(*results))
        return stacked, type(stacked)(0 for _ in stacked)

    return rule


def _round_up(n, m):
    return (n + m - 1) // m * m


def outputs(q, v, lse_shape, probs_shape):
    out = frames.rows_like(q) if q.shape[-1] == v.shape[-1] else q.new_empty((*q.shape[:-1], v.shape[-1]))
    return (out, q.new_empty(lse_shape, dtype=torch.float32), q.new_empty(probs_shape),
            q.new_empty((2,), dtype=torch.int64))


def _forward(q, k, v, dropout_p, softmax_scale, causal, window_size_left, window_size_right, softcap, alibi_slopes,
             return_softmax, deterministic=False):
    q, k, v = (kernels.contiguous_rows(t) for t in (q, k, v))
    return tuple(kernels.fwd(q, k, v, None, alibi_slopes, dropout_p, softmax_scale, causal, window_size_left,
                             window_size_right, softcap, return_softmax, None))


def _meant_forward(q, k, v, dropout_p, softmax_scale, causal, window_size_left, window_size_right, softcap,
                   alibi_slopes, return_softmax, deterministic=False):
    return autograd.Call((0, 0, softmax_scale, causal, window_size_left, window_size_right, softcap), dropout_p,
                         deterministic, alibi_slopes=alibi_slopes)


def _forward_fake(q, k, v, dropout_p, softmax_scale, causal, window_size_left, window_size_right, softcap, alibi_slopes,
                  return_softmax, deterministic=False):
    batch, seqlen_q, heads = q.shape[:3]
    probs = (batch, heads, _round_up(seqlen_q, 128), _round_up(k.shape[1], 128)) if return_softmax else (0,)
    return outputs(q, v, (batch, heads, seqlen_q), probs)


def _varlen_forward(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale, causal,
                    window_size_left=-1, window_size_right=-1, softcap=0.0, alibi_slopes=None, return_softmax=False,
                    block_table=None, leftpad_k=None, seqused_k=None, zero_tensors=False, num_splits=0,
                    deterministic=False):
    q, k, v = (kernels.contiguous_rows(t) for t in (q, k, v))
    return tuple(kernels.varlen_fwd(q, k, v, None, cu_seqlens_q, cu_seqlens_k, seqused_k, leftpad_k, block_table,
                                    alibi_slopes, max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale, zero_tensors,
                                    causal, window_size_left, window_size_right, softcap, return_softmax, None,
                                    num_splits))


def _meant_varlen_forward(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale,
                          causal, window_size_left=-1, window_size_right=-1, softcap=0.0, alibi_slopes=None,
                          return_softmax=False, block_table=None, leftpad_k=None, seqused_k=None, zero_tensors=False,
                          num_splits=0, deterministic=False):
    return autograd.Call(
        (max_seqlen_q, max_seqlen_k, softmax_scale, causal, window_size_left, window_size_right, softcap), dropout_p,
        deterministic, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k, seqused_k=seqused_k,
        alibi_slopes=alibi_slopes)


def _varlen_forward_fake(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale,
                         causal, window_size_left=-1, window_size_right=-1, softcap=0.0, alibi_slopes=None,
                         return_softmax=False, block_table=None, leftpad_k=None, seqused_k=None, zero_tensors=False,
                         num_splits=0, deterministic=False):
    total, heads = q.shape[:2]
    batch = cu_seqlens_q.shape[0] - 1
    probs = (batch, heads, _round_up(max_seqlen_q, 128), _round_up(max_seqlen_k, 128)) if return_softmax else (0,)
    return outputs(q, v, (heads, total), probs)


def _readable(*tensors):
    """dout, q, k, v and out as the original's extension wants them; ours says of each what is wrong with it."""
    return tensors if backend.ours else tuple(kernels.contiguous_rows(t) for t in tensors)


def _copy_grads(buffers, grads):
    for buffer, grad in zip(buffers, grads):
        if buffer is not None and buffer.data_ptr() != grad.data_ptr():
            buffer.copy_(grad)


def _backward(dout, q, k, v, out, softmax_lse, dq, dk, dv, dropout_p, softmax_scale, causal, window_size_left,
              window_size_right, softcap, alibi_slopes, deterministic, rng_state=None):
    dout, q, k, v, out = _readable(dout, q, k, v, out)
    *grads, softmax_d = kernels.bwd(dout, q, k, v, out, softmax_lse, dq, dk, dv, alibi_slopes, dropout_p, softmax_scale,
                                    causal, window_size_left, window_size_right, softcap, deterministic, None,
                                    rng_state)
    _copy_grads((dq, dk, dv), grads)
    return softmax_d


def _backward_fake(dout, q, k, v, out, softmax_lse, dq, dk, dv, dropout_p, softmax_scale, causal, window_size_left,
                   window_size_right, softcap, alibi_slopes, deterministic, rng_state=None):
    batch, seqlen_q, heads = q.shape[:3]
    return q.new_empty((batch, heads, _round_up(seqlen_q, 128)), dtype=torch.float32)


def _varlen_backward(dout, q, k, v, out, softmax_lse, dq, dk, dv, cu_seqlens_q, cu_seqlens_k, max_seqlen_q,
                     max_seqlen_k, dropout_p, softmax_scale, causal, window_size_left, window_size_right, softcap,
                     alibi_slopes, deterministic, rng_state=None, zero_tensors=False):
    dout, q, k, v, out = _readable(dout, q, k, v, out)
    *grads, softmax_d = kernels.varlen_bwd(dout, q, k, v, out, softmax_lse, dq, dk, dv, cu_seqlens_q, cu_seqlens_k,
                                           alibi_slopes, max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale,
                                           zero_tensors, causal, window_size_left, window_size_right, softcap,
                                           deterministic, None, rng_state)
    _copy_grads((dq, dk, dv), grads)
    return softmax_d


def _varlen_backward_fake(dout, q, k, v, out, softmax_lse, dq, dk, dv, cu_seqlens_q, cu_seqlens_k, max_seqlen_q,
                          max_seqlen_k, dropout_p, softmax_scale, causal, window_size_left, window_size_right, softcap,
                          alibi_slopes, deterministic, rng_state=None, zero_tensors=False):
    total, heads = q.shape[:2]
    return q.new_empty((heads, total + 128 * (cu_seqlens_q.shape[0] - 1)), dtype=torch.float32)


def without_batch(q, cu_seqlens_q):
    """Whether there is no sequence, which the original 2 refuses and 3 has an answer for: as empty as q."""
    return (q.shape[0] if cu_seqlens_q is None else cu_seqlens_q.shape[0] - 1) == 0


def _ours(q, k, v, cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k, max_seqlen_q, max_seqlen_k, softmax_scale, causal,
          window_size_left, window_size_right, softcap, lse_empty, num_splits, deterministic=False):
    if without_batch(q, cu_seqlens_q):
        checks.tensors(q, k, v, cu_seqlens_q is not None)
        return _ours_fake(q, k, v, cu_seqlens_q, *[None] * 12)
    if cu_seqlens_q is None:
        return kernels.dense(q, k, v, None, None, softmax_scale, causal, window_size_left, window_size_right, softcap,
                             True, lse_empty, num_splits)
    return kernels.ragged(q, k, v, None, cu_seqlens_q, cu_seqlens_k, seqused_k, None, max_seqlen_q, max_seqlen_k,
                          softmax_scale, False, causal, window_size_left, window_size_right, softcap, True, seqused_q,
                          lse_empty, num_splits)


def _meant_ours(q, k, v, cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k, max_seqlen_q, max_seqlen_k, softmax_scale,
                causal, window_size_left, window_size_right, softcap, lse_empty, num_splits, deterministic=False):
    return autograd.Call(
        (max_seqlen_q, max_seqlen_k, softmax_scale, causal, window_size_left, window_size_right, softcap),
        deterministic=deterministic, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k, seqused_q=seqused_q,
        seqused_k=seqused_k)


def _ours_fake(q, k, v, cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k, max_seqlen_q, max_seqlen_k, softmax_scale,
               causal, window_size_left, window_size_right, softcap, lse_empty, num_splits, deterministic=False):
    shape = (q.shape[1], q.shape[0]) if cu_seqlens_q is not None else (q.shape[0], q.shape[2], q.shape[1])
    return outputs(q, v, shape, ())[:2]


def _ours_backward(dout, q, k, v, out, softmax_lse, dlse, cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k,
                   alibi_slopes, max_seqlen_q, max_seqlen_k, softmax_scale, causal, window_size_left, window_size_right,
                   softcap, dropout_p=0.0, rng_state=None, wants_slopes=False, deterministic=False):
    dslopes = _slopes_like(alibi_slopes, q, wants_slopes)
    if without_batch(q, cu_seqlens_q):
        return *(torch.zeros_like(kernels.contiguous_rows(t)) for t in (q, k, v)), dslopes.zero_()
    grads = kernels.gradients(dout, q, k, v, out, softmax_lse, dlse=dlse, cu_seqlens_q=cu_seqlens_q,
                             cu_seqlens_k=cu_seqlens_k, seqused_q=seqused_q, seqused_k=seqused_k,
                             alibi_slopes=alibi_slopes, max_seqlen_q=max_seqlen_q, max_seqlen_k=max_seqlen_k,
                             softmax_scale=softmax_scale, causal=causal, window_left=window_size_left,
                             window_right=window_size_right, softcap=softcap, dropout_p=dropout_p,
                             rng_state=rng_state, dslopes=dslopes if wants_slopes else None,
                             any_order=not deterministic)
    return *grads, dslopes


def _slopes_like(alibi_slopes, q, wanted):
    """Memory for the gradient of slopes; without an element where none is wanted."""
    return q.new_empty(alibi_slopes.shape if wanted else (0,), dtype=torch.float32)


def _ours_backward_fake(dout, q, k, v, out, softmax_lse, dlse, cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k,
                        alibi_slopes, max_seqlen_q, max_seqlen_k, softmax_scale, causal, window_size_left,
                        window_size_right, softcap, dropout_p=0.0, rng_state=None, wants_slopes=False,
                        deterministic=False):
    return (*(frames.rows_like(kernels.contiguous_rows(t)) for t in (q, k, v)),
            _slopes_like(alibi_slopes, q, wants_slopes))


_OUTPUTS = " -> (Tensor, Tensor, Tensor, Tensor)"
define("_flash_attn_forward",
        "(Tensor q, Tensor k, Tensor v, float dropout_p, float softmax_scale, bool causal, SymInt window_size_left, "
        "SymInt window_size_right, float softcap, Tensor? alibi_slopes, bool return_softmax, "
        "bool deterministic=False)" + _OUTPUTS,
        _forward, _forward_fake, meant=_meant_forward, draws=True)
define("_flash_attn_varlen_forward",
        "(Tensor q, Tensor k, Tensor v, Tensor cu_seqlens_q, Tensor cu_seqlens_k, SymInt max_seqlen_q, "
        "SymInt max_seqlen_k, float dropout_p, float softmax_scale, bool causal, SymInt window_size_left=-1, "
        "SymInt window_size_right=-1, float softcap=0., Tensor? alibi_slopes=None, bool return_softmax=False, "
        "Tensor? block_table=None, Tensor? leftpad_k=None, Tensor? seqused_k=None, bool zero_tensors=False, "
        "SymInt num_splits=0, bool deterministic=False)" + _OUTPUTS, _varlen_forward, _varlen_forward_fake,
        meant=_meant_varlen_forward, draws=True)
_GRADS = "Tensor(a6!)? dq, Tensor(a7!)? dk, Tensor(a8!)? dv, "
define("_flash_attn_backward",
        "(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor softmax_lse, " + _GRADS +
        "float dropout_p, float softmax_scale, bool causal, SymInt window_size_left, SymInt window_size_right, "
        "float softcap, Tensor? alibi_slopes, bool deterministic, Tensor? rng_state=None) -> Tensor",
        _backward, _backward_fake, refusal=later.double_backward)
define("_flash_attn_varlen_backward",
        "(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor softmax_lse, " + _GRADS +
        "Tensor cu_seqlens_q, Tensor cu_seqlens_k, SymInt max_seqlen_q, SymInt max_seqlen_k, float dropout_p, "
        "float softmax_scale, bool causal, SymInt window_size_left, SymInt window_size_right, float softcap, "
        "Tensor? alibi_slopes, bool deterministic, Tensor? rng_state=None, bool zero_tensors=False) -> Tensor",
        _varlen_backward, _varlen_backward_fake, refusal=later.double_backward)

define(
    "forward",
    "(Tensor q, Tensor k, Tensor v, Tensor? cu_seqlens_q, Tensor? cu_seqlens_k, Tensor? seqused_q, Tensor? seqused_k, "
    "SymInt max_seqlen_q, SymInt max_seqlen_k, float softmax_scale, bool causal, SymInt window_size_left, "
    "SymInt window_size_right, float softcap, float lse_empty, SymInt num_splits, "
    "bool deterministic=False) -> (Tensor, Tensor)", _ours,
    _ours_fake, "flashplus", _meant_ours)
define(
    "backward",
    "(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor softmax_lse, Tensor? dlse, Tensor? cu_seqlens_q, "
    "Tensor? cu_seqlens_k, Tensor? seqused_q, Tensor? seqused_k, Tensor? alibi_slopes, SymInt max_seqlen_q, "
    "SymInt max_seqlen_k, float softmax_scale, bool causal, SymInt window_size_left, SymInt window_size_right, "
    "float softcap, float dropout_p=0., Tensor? rng_state=None, bool wants_slopes=False, "
    "bool deterministic=False) -> (Tensor, Tensor, Tensor, Tensor)",
    _ours_backward, _ours_backward_fake, "flashplus", refusal=later.double_backward)

ours = torch.ops.flashplus.forward
forward = torch.ops.flash_attn._flash_attn_forward
varlen_forward = torch.ops.flash_attn._flash_attn_varlen_forward
backward = torch.ops.flash_attn._flash_attn_backward
varlen_backward = torch.ops.flash_attn._flash_attn_varlen_backward
