# SPDX-License-Identifier: BSD-3-Clause
"""`deterministic` decides whether dq may be summed in any order, whichever function it is given to and whichever way a
gradient takes. (Kernels for which that makes a difference are on Hopper; what reaches them is seen anywhere.)"""

import importlib
import pathlib

import flash_attn
import flash_attn_interface as fa3
import flashplus
import pytest
import torch
from flashplus import kernels
from flashplus.transformers_attention import attention_forward
from reference import random

HEADS, HEADS_K, ROWS = 4, 2, 40


@pytest.fixture
def seen(monkeypatch):
    """The any_order of each backward that reaches our kernels."""
    found, ours = [], kernels.gradients

    def gradients(*arguments, any_order=False, **named):
        found.append(any_order)
        return ours(*arguments, any_order=any_order, **named)

    monkeypatch.setattr(kernels, "gradients", gradients)
    torch._dynamo.reset()  # of one function it keeps a few graphs only
    return found


def inputs(device, heads=HEADS_K):
    return [random(2, ROWS, h, 32, device=device).requires_grad_() for h in (HEADS, heads, heads)]


def ends(device):
    return torch.tensor([0, ROWS, 2 * ROWS], dtype=torch.int32, device=device)


def flat(*tensors):
    return [t.flatten(0, 1) for t in tensors]


def packed(q, k, v, dim):
    """qkv and kv: heads as many as q's."""
    return [torch.stack([t.repeat_interleave(q.shape[-2] // t.shape[-2], -2) for t in part], dim)
            for part in ((q, k, v), (k, v))]


def varlen(function, q, k, v, **options):
    cu = ends(q.device)
    return function(*flat(q, k, v), cu, cu, ROWS, ROWS, **options)


def in_a_graph(function):
    """With a number that is a tensor to the compiler: the operator with values."""
    scale = torch.tensor(0.2)
    graph = torch.compile(lambda q, k, v, scale, deterministic: function(q, k, v, softmax_scale=scale,
                                                                         deterministic=deterministic),
                          fullgraph=True, backend="aot_eager")
    return lambda q, k, v, deterministic: graph(q, k, v, scale, deterministic)


def as_transformers(mask):
    def call(q, k, v, deterministic):
        padding = torch.ones(2, ROWS, dtype=torch.int64, device=q.device)
        padding[0, :5] = 0
        return attention_forward(None, *(t.transpose(1, 2) for t in (q, k, v)), padding if mask else None,
                                 is_causal=True, deterministic=deterministic)[0]

    return call


def hub(folder, name):
    """A function as the kernels hub's loader hands it out."""
    path = pathlib.Path(flashplus.__file__).parent / "hub" / folder / "__init__.py"
    spec = importlib.util.spec_from_file_location(f"deterministic_{folder}", path,
                                                  submodule_search_locations=[str(path.parent)])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def positional(function, gradient):
    class Ring(torch.autograd.Function):
        """As ring attention's packages use what is below the public functions."""

        @staticmethod
        def forward(ctx, q, k, v, deterministic):
            with torch.no_grad():
                out, lse, *_ = function(q, k, v)
            ctx.save_for_backward(q, k, v, out, lse)
            ctx.deterministic = deterministic
            return out

        @staticmethod
        def backward(ctx, dout):
            grads = [torch.empty_like(t) for t in ctx.saved_tensors[:3]]
            gradient(dout, *ctx.saved_tensors, *grads, ctx.deterministic)
            return *grads, None

    return lambda q, k, v, deterministic: Ring.apply(q, k, v, deterministic)


def logits(q, k, v):
    return q.new_zeros(q.shape[-2])


FA2 = flash_attn.flash_attn_interface
LENGTHS = lambda t: (ends(t.device), ends(t.device), ROWS, ROWS)
FACES = {
    "dense": lambda *t, **o: flash_attn.flash_attn_func(*t, **o),
    "dense with dropout": lambda *t, **o: flash_attn.flash_attn_func(*t, dropout_p=0.2, **o),
    "qkv": lambda *t, **o: flash_attn.flash_attn_qkvpacked_func(packed(*t, 2)[0], **o),
    "kv": lambda *t, **o: flash_attn.flash_attn_kvpacked_func(t[0], packed(*t, 2)[1], **o),
    "varlen": lambda *t, **o: varlen(flash_attn.flash_attn_varlen_func, *t, **o),
    "varlen qkv": lambda *t, **o: flash_attn.flash_attn_varlen_qkvpacked_func(
        packed(*flat(*t), 1)[0], ends(t[0].device), ROWS, **o),
    "varlen kv": lambda *t, **o: flash_attn.flash_attn_varlen_kvpacked_func(
        flat(t[0])[0], packed(*flat(*t), 1)[1], *LENGTHS(t[0]), **o),
    "FA3": lambda *t, **o: fa3.flash_attn_func(*t, **o),
    "FA3 qkv": lambda *t, **o: fa3.flash_attn_qkvpacked_func(packed(*t, 2)[0], **o),
    "FA3 varlen": lambda *t, **o: varlen(fa3.flash_attn_varlen_func, *t, **o),
    "FA3 class": lambda *t, deterministic: fa3.FlashAttnFunc.apply(
        *t, 0.2, True, None, None, None, None, (-1, -1), 0, 0.0, 1, None, deterministic),
    "scores": lambda *t, **o: flashplus.attention(*t, "s * 0.5", **o),
    "scores varlen": lambda *t, **o: flashplus.attention(*flat(*t), cu_seqlens_q=ends(t[0].device),
                                                         cu_seqlens_k=ends(t[0].device), **o),
    "hub 2": lambda *t, **o: hub("flash_attn2", "flash_attn_func")(*t, **o),
    "hub 3": lambda *t, **o: varlen(hub("flash_attn3", "flash_attn_varlen_func"), *t, **o),
    "transformers": as_transformers(False),
    "transformers with padding": as_transformers(True),
    "compiled": lambda *t, **o: torch.compile(flash_attn.flash_attn_func, fullgraph=True, backend="aot_eager")(*t, **o),
    "compiled with tensors": lambda *t, **o: in_a_graph(flash_attn.flash_attn_func)(*t, **o),
    "compiled varlen with tensors": lambda *t, **o: in_a_graph(
        lambda *t, **o: varlen(flash_attn.flash_attn_varlen_func, *t, **o))(*t, **o),
    "FA3 compiled with tensors": lambda *t, **o: in_a_graph(fa3.flash_attn_func)(*t, **o),
    "FA3 compiled varlen with tensors": lambda *t, **o: in_a_graph(
        lambda *t, **o: varlen(fa3.flash_attn_varlen_func, *t, **o))(*t, **o),
    "sinks": lambda *t, **o: flash_attn.flash_attn_func(*t, s_aux=logits(*t), **o),
    "sinks varlen": lambda *t, **o: varlen(flash_attn.flash_attn_varlen_func, *t, s_aux=logits(*t), **o),
    "FA3 sinks": lambda *t, **o: fa3.flash_attn_func(*t, s_aux=logits(*t), **o),
    "FA3 sinks varlen": lambda *t, **o: varlen(fa3.flash_attn_varlen_func, *t, s_aux=logits(*t), **o),
    "scores compiled": lambda *t, **o: in_a_graph(flashplus.attention)(*t, **o),
    "positional": positional(
        lambda *t: FA2._flash_attn_forward(*t, 0.0, 0.2, True, -1, -1, 0.0, None, False),
        lambda *t: FA2._flash_attn_backward(*t[:9], 0.0, 0.2, True, -1, -1, 0.0, None, t[9])),
    "FA3 positional": positional(
        lambda *t: fa3.flash_attn_func(*t, softmax_scale=0.2, return_attn_probs=True),
        lambda *t: fa3._flash_attn_backward(*t[:6], None, None, None, None, None, None, *t[6:9], 0.2, False,
                                            deterministic=t[9])),
}


@pytest.mark.parametrize("face", FACES)
def test_deterministic_is_passed_on(device, seen, face):
    for deterministic in (True, False):
        q, k, v = inputs(device)
        out = FACES[face](q, k, v, deterministic=deterministic)
        torch.autograd.grad(out.float().square().sum(), q)
        assert seen == [not deterministic], deterministic
        seen.clear()


@pytest.mark.skipif(not hasattr(torch.nn.attention, "register_flash_attention_impl"), reason="this PyTorch has no "
                    "registry of flash attention")
def test_pytorchs_own_setting(device, seen):
    """Under PyTorch's functions PyTorch's setting decides."""
    from torch.nn.attention.varlen import varlen_attn

    torch.nn.attention.activate_flash_attention_impl(flashplus.register_torch())
    try:
        for deterministic in (False, True):
            torch.use_deterministic_algorithms(deterministic)
            q, k, v = flat(*inputs(device, HEADS))
            out = varlen_attn(q, k, v, *LENGTHS(q))
            torch.autograd.grad(out.float().sum(), q)
        assert seen == [True, False]
    finally:
        torch.use_deterministic_algorithms(False)
        torch.nn.attention.restore_flash_attention_impl(_raise_warn=False)


@pytest.mark.parametrize("said, environment, wanted", [(None, None, False), (None, "1", True), (False, "1", False)])
def test_deterministic_of_transformers(device, monkeypatch, seen, said, environment, wanted):
    """As its argument says, else as transformers' own variable."""
    monkeypatch.delenv("FLASH_ATTENTION_DETERMINISTIC", raising=False)
    if environment:
        monkeypatch.setenv("FLASH_ATTENTION_DETERMINISTIC", environment)
    for mask in (False, True):
        q, k, v = inputs(device)
        torch.autograd.grad(as_transformers(mask)(q, k, v, said).float().sum(), q)
    assert seen == [not wanted] * 2


def test_what_is_no_flag(device):
    with pytest.raises(TypeError, match="deterministic is 'no'; it must be True or False"):
        flashplus.attention(*inputs(device), deterministic="no")
