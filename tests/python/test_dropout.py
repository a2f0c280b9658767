# SPDX-License-Identifier: BSD-3-Clause
"""Dropout: forward and gradients against the definition in fp64 with the mask read back, and what a training loop does
with the generator."""

import inspect

import pytest
import torch
import torch._functorch.compile_utils
from reference import mask, random
from torch.utils.checkpoint import checkpoint

from flash_attn import (flash_attn_func, flash_attn_kvpacked_func, flash_attn_qkvpacked_func, flash_attn_varlen_func,
                        flash_attn_varlen_kvpacked_func, flash_attn_varlen_qkvpacked_func)
from flash_attn.flash_attn_interface import _flash_attn_backward, _flash_attn_forward, _flash_attn_varlen_forward
from flashplus import dropout


def inputs(device, dtype=torch.float32, batch=2, sq=70, sk=90, heads=4, heads_k=2, d=64):
    if device == "cuda" and dtype == torch.float32:
        dtype = torch.bfloat16
    return [random(batch, s, h, d, dtype=dtype, device=device).requires_grad_()
            for s, h in ((sq, heads), (sk, heads_k), (sk, heads_k))]


def definition(q, k, v, kept, p, dtype=torch.float64, causal=False, window_size=(-1, -1)):
    """Attention with the probabilities of `kept` (b, h, sq, sk) alone, in `dtype`."""
    group = q.shape[2] // k.shape[2]
    q, k, v = (t.to(dtype).transpose(1, 2) for t in (q, k, v))
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    s = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    seen = mask(*s.shape[-2:], causal, window_size, s.device)
    probs = s.masked_fill(~seen, float("-inf")).softmax(-1).masked_fill(~seen.any(-1)[:, None], 0.0)
    return (probs * kept.to(s.device, dtype) / (1 - p) @ v).transpose(1, 2)


def drawn(seed, p, q, sk, heads=None):
    """The mask that a forward draws after manual_seed(seed)."""
    torch.manual_seed(seed)
    return dropout.mask(dropout.draw(q), p, q.shape[0], q.shape[2], q.shape[1], sk)


def close(got, exact, naive, what):
    floor = torch.finfo(got.dtype).eps * exact.abs().max().item() * (16 if got.dtype == torch.float32 else 1)
    assert got.dtype == naive.dtype and not got.isnan().any()
    assert (got.double() - exact).abs().max() <= 3 * (naive.double() - exact).abs().max() + floor, what


CASES = {
    "full": (dict(), dict(), 0.1),
    "causal": (dict(sk=131), dict(causal=True), 0.5),
    "window": (dict(sq=150, sk=150), dict(window_size=(20, 5)), 0.2),
    "one row": (dict(sq=1, heads=8, heads_k=2), dict(), 0.3),
    "head dim 128": (dict(d=128), dict(causal=True), 0.1),
    "odd head dim": (dict(d=59, heads_k=4), dict(), 0.9),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("case", CASES)
def test_against_the_definition(device, case, dtype):
    sizes, options, p = CASES[case]
    q, k, v = inputs(device, dtype, **sizes)
    kept = drawn(5, p, q, k.shape[1])
    torch.manual_seed(5)
    out = flash_attn_func(q, k, v, dropout_p=p, **options)
    dout = torch.randn_like(out)
    grads = torch.autograd.grad(out, (q, k, v), dout)
    results = []
    for kind in (torch.float64, q.dtype):
        leaves = [t.detach().to(kind).requires_grad_() for t in (q, k, v)]
        o = definition(*leaves, kept, p, kind, **options)
        results.append((o.detach(), *torch.autograd.grad(o, leaves, dout.to(kind))))
    for name, got, exact, naive in zip(("out", "dq", "dk", "dv"), (out.detach(), *grads), *results):
        close(got, exact, naive, name)


def test_the_generator(device):
    q, k, v = (t.detach() for t in inputs(device))
    call = lambda: flash_attn_func(q, k, v, dropout_p=0.3)
    torch.manual_seed(1)
    first, second = call(), call()
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(call(), first)
    with torch.random.fork_rng():
        call()
    assert torch.equal(call(), second)
    torch.manual_seed(2)
    assert not torch.equal(call(), first)


def test_how_many_are_kept(device):
    q, k, v = (t.detach() for t in inputs(device, sq=256, sk=256))
    for p in (0.1, 0.5, 0.9):
        share = drawn(3, p, q, 256).double().mean().item()
        assert abs(share - (1 - p)) < 0.005
    # with q = 0 and v = 1 a row is the share of its keys that is kept, by 1 / (1 - p)
    out = flash_attn_func(torch.zeros_like(q), k, torch.ones_like(v), dropout_p=0.5).float()
    assert abs(out.mean().item() - 1) < 0.01


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing(device, reentrant):
    q, k, v = inputs(device)

    def loss(function):
        torch.manual_seed(7)
        torch.autograd.backward(function().square().sum())
        grads = [t.grad for t in (q, k, v)]
        q.grad = k.grad = v.grad = None
        return grads

    call = lambda q, k, v: flash_attn_func(q, k, v, dropout_p=0.4, causal=True)
    plain = loss(lambda: call(q, k, v))
    again = loss(lambda: checkpoint(call, q, k, v, use_reentrant=reentrant))
    for a, b in zip(plain, again):
        assert torch.equal(a, b)


def test_packed(device):
    q, k, v = inputs(device, sk=70, heads_k=4)
    dout = torch.randn_like(q)

    def run(function, *leaves):
        torch.manual_seed(3)
        out = function(*leaves, dropout_p=0.2)
        return out, torch.autograd.grad(out, leaves, dout.reshape(out.shape))

    out, grads = run(flash_attn_func, q, k, v)
    qkv = torch.stack((q, k, v), 2).detach().requires_grad_()
    kv = torch.stack((k, v), 2).detach().requires_grad_()
    out_qkv, (dqkv,) = run(flash_attn_qkvpacked_func, qkv)
    out_kv, (dq, dkv) = run(flash_attn_kvpacked_func, q, kv)
    assert torch.equal(out_qkv, out) and torch.equal(dqkv, torch.stack(grads, 2))
    assert torch.equal(out_kv, out) and torch.equal(dq, grads[0]) and torch.equal(dkv, torch.stack(grads[1:], 2))
    # a sequence of a packed batch draws what an entry of a dense one does
    cu = torch.tensor([0, 70, 140], dtype=torch.int32, device=device)
    flat = lambda t: t.detach().flatten(0, 1).requires_grad_()
    varlen = lambda q, k, v, **o: flash_attn_varlen_func(q, k, v, cu, cu, 70, 70, **o)
    out_varlen, grads_varlen = run(varlen, flat(q), flat(k), flat(v))
    assert torch.equal(out_varlen, out.flatten(0, 1))
    for a, b in zip(grads_varlen, grads):
        assert torch.equal(a, b.flatten(0, 1))
    out_qkv, (dqkv,) = run(lambda t, **o: flash_attn_varlen_qkvpacked_func(t, cu, 70, **o), flat(qkv))
    assert torch.equal(out_qkv, out_varlen) and torch.equal(dqkv, torch.stack(grads_varlen, 1))
    out_kv, _ = run(lambda q, t, **o: flash_attn_varlen_kvpacked_func(q, t, cu, cu, 70, 70, **o), flat(q), flat(kv))
    assert torch.equal(out_kv, out_varlen)


def test_sequences_of_any_length(device):
    lengths_q, lengths_k = [0, 7, 40, 5], [3, 0, 33, 70]
    cu_q, cu_k = (torch.tensor([0, *torch.tensor(n).cumsum(0)], dtype=torch.int32, device=device)
                  for n in (lengths_q, lengths_k))
    q, k, v = (t[0].detach().requires_grad_() for t in inputs(device, batch=1, sq=sum(lengths_q), sk=sum(lengths_k)))
    torch.manual_seed(9)
    kept = dropout.mask(dropout.draw(q), 0.3, 4, q.shape[1], 40, 70)
    torch.manual_seed(9)
    out = flash_attn_varlen_func(q, k, v, cu_q, cu_k, 40, 70, dropout_p=0.3, causal=True)
    dout = torch.randn_like(out)
    grads = torch.autograd.grad(out, (q, k, v), dout)
    for b, (n, m) in enumerate(zip(lengths_q, lengths_k)):
        rows, keys = slice(cu_q[b], cu_q[b + 1]), slice(cu_k[b], cu_k[b + 1])
        results = []
        for kind in (torch.float64, q.dtype):
            leaves = [t[part].detach()[None].to(kind).requires_grad_() for t, part in ((q, rows), (k, keys), (v, keys))]
            o = definition(*leaves, kept[b:b + 1, :, :n, :m], 0.3, kind, causal=True)
            results.append((o.detach(), *torch.autograd.grad(o, leaves, dout[rows][None].to(kind))))
        for got, exact, naive in zip((out.detach()[rows], grads[0][rows], grads[1][keys], grads[2][keys]), *results):
            if got.numel():
                close(got[None], exact, naive, b)


def _both(function, q, k, v, dout):
    """out and gradients, eager and compiled, from the same state of the generator."""
    results = []
    for run in (function, torch.compile(function, fullgraph=True, backend="aot_eager")):
        torch.manual_seed(11)
        out = run(q, k, v)
        results.append((out, *torch.autograd.grad(out, (q, k, v), dout)))
    return results


def test_compiled(device):
    q, k, v = inputs(device)
    layers = lambda q, k, v: flash_attn_func(flash_attn_func(q, k, v, dropout_p=0.25), k, v, dropout_p=0.5, causal=True)
    for a, b in zip(*_both(layers, q, k, v, torch.randn_like(q))):
        assert torch.equal(a, b)


@pytest.mark.skipif("is_impure" not in inspect.getsource(torch._functorch.compile_utils.fx_graph_cse),
                    reason="this PyTorch makes one of two equal calls in a graph, whatever an operator's tags say")
def test_compiled_calls_of_equal_arguments_have_masks_of_their_own(device):
    q, k, v = inputs(device)
    twice = lambda q, k, v: flash_attn_func(q, k, v, dropout_p=0.25) - flash_attn_func(q, k, v, dropout_p=0.25)
    plain, compiled = _both(twice, q, k, v, torch.randn_like(q))
    assert plain[0].abs().max() > 0
    for a, b in zip(plain, compiled):
        assert torch.equal(a, b)


def test_by_position(device):
    q, k, v = inputs(device)
    torch.manual_seed(4)
    expected = flash_attn_func(q, k, v, dropout_p=0.3, causal=True)
    dout = torch.randn_like(expected)
    grads = torch.autograd.grad(expected, (q, k, v), dout)
    q, k, v = (t.detach() for t in (q, k, v))
    scale = q.shape[-1] ** -0.5
    torch.manual_seed(4)
    out, lse, empty, rng_state = _flash_attn_forward(q, k, v, 0.3, scale, True, -1, -1, 0.0, None, False)
    assert torch.equal(out, expected) and empty.numel() == 0
    assert rng_state.dtype == torch.int64 and rng_state.shape == (2,) and rng_state.device == q.device
    buffers = [torch.empty_like(t) for t in (q, k, v)]
    call = lambda state: _flash_attn_backward(dout, q, k, v, out, lse, *buffers, 0.3, scale, True, -1, -1, 0.0, None,
                                              False, state)
    call(rng_state)
    for a, b in zip(buffers, grads):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="rng_state is None; with dropout_p 0.3 it must be what the forward returned"):
        call(None)
    for wrong in (rng_state.int(), rng_state[:1]):
        with pytest.raises(RuntimeError, match="rng_state must be int64 of shape"):
            call(wrong)


def test_probabilities(device):
    """S_dmask: signs are the mask, and what is left of the values by their row's sum the softmax."""
    q, k, v = (t.detach() for t in inputs(device))
    slopes = torch.rand(4, device=device)
    for options in (dict(), dict(causal=True), dict(window_size=(20, 5), alibi_slopes=slopes)):
        kept = drawn(6, 0.3, q, k.shape[1])
        torch.manual_seed(6)
        out, lse, probs = flash_attn_func(q, k, v, dropout_p=0.3, return_attn_probs=True, **options)
        assert probs.shape == (2, 4, 128, 128) and probs.dtype == q.dtype
        inside = probs[:, :, :70, :90].double()
        assert (probs.double().abs().sum() - inside.abs().sum()).abs() < 1e-3 * inside.abs().sum()
        assert torch.equal((inside > 0) & kept.to(device), inside > 0)
        assert torch.equal((inside < 0) & ~kept.to(device), inside < 0)
        softmax = inside.abs() / inside.abs().sum(-1, keepdim=True).clamp_min(1e-30)
        again = (softmax * (inside > 0) / 0.7 @ v.double().transpose(1, 2).repeat_interleave(2, 1)).transpose(1, 2)
        assert (again - out.double()).abs().max() < (2e-5 if q.dtype == torch.float32 else 3e-2)
    cu_q, cu_k = (torch.tensor([0, n, 2 * n], dtype=torch.int32, device=device) for n in (70, 90))
    torch.manual_seed(6)
    packed = _flash_attn_varlen_forward(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), cu_q, cu_k, 70, 90, 0.3,
                                        q.shape[-1] ** -0.5, False, return_softmax=True)[2]
    torch.manual_seed(6)
    dense = flash_attn_func(q, k, v, dropout_p=0.3, return_attn_probs=True)[2]
    assert torch.equal(packed, dense)
    assert flash_attn_func(q, k, v, return_attn_probs=True)[2].numel() == 0


def test_what_is_refused(device):
    q, k, v = (t.detach() for t in inputs(device))
    for p, error, text in ((1.0, ValueError, "dropout_p is 1.0; it must be at least 0 and less than 1"),
                           (-0.1, ValueError, "dropout_p is -0.1"), (float("nan"), ValueError, "dropout_p is nan"),
                           (0.999, ValueError, "255/256"), ("0.1", TypeError, "dropout_p is '0.1'")):
        with pytest.raises(error, match=text):
            flash_attn_func(q, k, v, dropout_p=p)
    with pytest.raises(RuntimeError, match="Softcapping does not support dropout"):
        flash_attn_func(q, k, v, dropout_p=0.1, softcap=3.0)


def test_replays_of_a_graph_draw_anew(device):
    if device != "cuda":
        pytest.skip("graphs are CUDA's")
    q, k, v = (t.detach() for t in inputs(device))
    flash_attn_func(q, k, v, dropout_p=0.3)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = flash_attn_func(q, k, v, dropout_p=0.3)
    results = []
    for _ in range(2):
        graph.replay()
        results.append(out.clone())
    assert not torch.equal(*results)
