# SPDX-License-Identifier: BSD-3-Clause
"""The switch: our kernels or the original's extension, for which a stand-in in Python serves."""

import os
import subprocess
import sys
import types

import pytest
import torch
from reference import attention, random

import flash_attn
from flash_attn.flash_attn_interface import flash_attn_gpu
from flashplus import backend


def stand_in(positional_arguments=21):
    """An extension with the original's functions: naive attention, with a backward by autograd."""
    module = types.ModuleType("flash_attn_2_cuda")
    module.calls = []

    def fwd(q, k, v, out, alibi, p, scale, causal, left, right, softcap, return_softmax, gen):
        module.calls.append("fwd")
        assert q.shape[-1] % 8 == 0 and gen is None
        o, lse = attention(q, k, v, torch.float32, softmax_scale=scale, causal=causal, window_size=(left, right))
        return [o.to(q.dtype), lse, torch.empty(0), torch.zeros(2, dtype=torch.int64)]

    def bwd(dout, q, k, v, out, lse, dq, dk, dv, alibi, p, scale, causal, left, right, softcap, deterministic, gen,
            rng):
        module.calls.append("bwd")
        with torch.enable_grad():
            leaves = [t.detach().float().requires_grad_() for t in (q, k, v)]
            o, _ = attention(*leaves, torch.float32, softmax_scale=scale, causal=causal, window_size=(left, right))
            for buffer, grad in zip((dq, dk, dv), torch.autograd.grad(o, leaves, dout.float())):
                buffer.copy_(grad)
        return [dq, dk, dv, torch.zeros(1)]

    def varlen(*args):
        module.calls.append(f"varlen_fwd {len(args)}")
        q, k, v, _, cu_q = args[:5]
        return [q.clone(), torch.zeros(q.shape[1], q.shape[0]), torch.empty(0), torch.zeros(2, dtype=torch.int64)]

    def fwd_kvcache(q, kcache, vcache, *rest):
        module.calls.append("fwd_kvcache")
        assert len(rest) == 17
        return [q.clone(), torch.zeros(1)]

    names = ", ".join(f"a{i}" for i in range(positional_arguments))
    scope = {"varlen": varlen}
    exec(f"def varlen_fwd({names}): return varlen({names})", scope)
    module.fwd, module.bwd, module.fwd_kvcache, module.varlen_fwd = fwd, bwd, fwd_kvcache, scope["varlen_fwd"]
    return module


@pytest.fixture(params=[21, 22], ids=["2.8.3", "2.8.4"])
def original(request, monkeypatch, ours):
    module = stand_in(request.param)
    monkeypatch.setitem(sys.modules, "flash_attn_2_cuda", module)
    flash_attn.set_backend("flash_attn_2_cuda")
    assert flash_attn.backend() == "flash_attn_2_cuda"
    return module


def test_without_the_original(ours):
    with pytest.raises(ImportError, match="pip install flash-attn"):
        flash_attn.set_backend("flash_attn_2_cuda")
    assert flash_attn.backend() == "flashplus"
    with pytest.raises(ValueError, match="name is 'triton'"):
        flash_attn.set_backend("triton")


def test_every_call_goes_to_the_original(original):
    q, k, v = (random(1, 20, 2, 64) for _ in range(3))
    flash_attn.flash_attn_func(q, k, v, causal=True)
    flash_attn.flash_attn_qkvpacked_func(torch.stack((q, k, v), 2))
    flash_attn.flash_attn_kvpacked_func(q, torch.stack((k, v), 2))
    cu = torch.tensor([0, 20], dtype=torch.int32)
    flash_attn.flash_attn_varlen_func(q[0], k[0], v[0], cu, cu, 20, 20)
    flash_attn_gpu.varlen_fwd(q[0], k[0], v[0], *[None] * 7, 20, 20, 0.0, 1.0, False, False, -1, -1, 0.0, False, None)
    flash_attn.flash_attn_with_kvcache(q, k, v, cache_seqlens=3)
    count = original.varlen_fwd.__code__.co_argcount
    assert original.calls == ["fwd"] * 3 + [f"varlen_fwd {count}"] * 2 + ["fwd_kvcache"]
    flash_attn.set_backend("flashplus")
    flash_attn.flash_attn_func(q, k, v)
    assert len(original.calls) == 6


@pytest.mark.parametrize("head_dim", [64, 59])
def test_training_through_the_original(original, head_dim):
    """Forward and backward, the head dim padded to a multiple of 8 for it and cut again."""
    q, k, v = (random(1, 20, 2, head_dim).requires_grad_() for _ in range(3))
    out = flash_attn.flash_attn_func(q, k, v, causal=True)
    assert out.shape == q.shape
    dout = torch.randn_like(out)
    out.backward(dout)
    leaves = [t.detach().double().requires_grad_() for t in (q, k, v)]
    expected = torch.autograd.grad(attention(*leaves, causal=True)[0], leaves, dout.double())
    for t, grad in zip((q, k, v), expected):
        assert t.grad.shape == t.shape and (t.grad.double() - grad).abs().max() < 5e-3
    qkv = torch.stack([t.detach() for t in (q, k, v)], 2).requires_grad_()
    flash_attn.flash_attn_qkvpacked_func(qkv, causal=True).backward(dout)
    kv = torch.stack([t.detach() for t in (k, v)], 2).requires_grad_()
    q2 = q.detach().requires_grad_()
    flash_attn.flash_attn_kvpacked_func(q2, kv, causal=True).backward(dout)
    assert torch.equal(qkv.grad, torch.stack((q.grad, k.grad, v.grad), 2))
    assert torch.equal(q2.grad, q.grad) and torch.equal(kv.grad, torch.stack((k.grad, v.grad), 2))
    assert original.calls == ["fwd", "bwd"] * 3


def test_compiled_training_through_the_original(original):
    q, k, v = (random(1, 20, 2, 64).requires_grad_() for _ in range(3))
    flash_attn.flash_attn_func(q, k, v).sum().backward()
    expected, q.grad = q.grad, None
    compiled = torch.compile(lambda q, k, v: flash_attn.flash_attn_func(q, k, v), fullgraph=True, backend="aot_eager")
    compiled(q, k, v).sum().backward()
    assert torch.equal(q.grad, expected)


@pytest.mark.parametrize("value, expected", [("TRUE", "flashplus"), ("", "flashplus"), ("1", "flashplus"),
                                             ("FALSE", "flash_attn_2_cuda"), ("false", "flash_attn_2_cuda")])
def test_the_variable_is_read_on_import(value, expected):
    code = ("import flashplus.finder; flashplus.finder.install()\n"
            f"import os; os.environ['FLASH_ATTENTION_USE_FLAGGEMS'] = {value!r}\n"
            "import torch, flash_attn; print(flash_attn.backend()); q = torch.zeros(1, 4, 1, 32).half()\n"
            "flash_attn.flash_attn_func(q, q, q)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout.split() == [expected], done.stderr
    if expected == "flashplus":
        assert done.returncode == 0, done.stderr
    else:  # importing is fine; the first call says what is missing
        assert done.returncode == 1 and "ImportError: FLASH_ATTENTION_USE_FLAGGEMS=FALSE" in done.stderr


def test_a_value_that_is_neither(monkeypatch):
    from flashplus import environment

    monkeypatch.setenv("FLASH_ATTENTION_USE_FLAGGEMS", "maybe")
    with pytest.raises(ValueError, match="FLASH_ATTENTION_USE_FLAGGEMS is 'maybe'"):
        environment.use_our_kernels()
    assert backend.ours
