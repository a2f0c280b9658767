# SPDX-License-Identifier: BSD-3-Clause
"""Gradients: every public function under autograd against the definition in fp64, and all that a training loop does
with them."""

import copy

import pytest
import torch
from reference import attention, random
from torch.utils.checkpoint import checkpoint

import flashplus
from flash_attn import flash_attn_func, flash_attn_kvpacked_func, flash_attn_qkvpacked_func, flash_attn_varlen_func
from flash_attn.flash_attn_interface import _flash_attn_backward, _flash_attn_varlen_backward, flash_attn_gpu

HALVES = [torch.float16, torch.bfloat16]


def inputs(device, dtype=torch.float32, batch=2, sq=70, sk=70, heads=4, heads_k=2, d=64, dv=None):
    if device == "cuda" and dtype == torch.float32:
        dtype = torch.bfloat16
    return [random(batch, s, h, n, dtype=dtype, device=device).requires_grad_()
            for s, h, n in ((sq, heads, d), (sk, heads_k, d), (sk, heads_k, dv or d))]


def gradients(tensors, dout, dtype, dlse=None, **options):
    leaves = [t.detach().to(dtype).requires_grad_() for t in tensors]
    out, lse = attention(*leaves, dtype=dtype, **options)
    loss = (out * dout.to(dtype)).sum()
    if dlse is not None:
        loss = loss + (lse.masked_fill(lse.isinf(), 0.0) * dlse.to(dtype)).sum()
    return torch.autograd.grad(loss, leaves)


def check(grads, tensors, dout, dlse=None, **options):
    """The original's rule: at most 3 times the error of the same maths in the dtype of the tensors, and what fp32
    sums in another
    order than PyTorch's may differ by: some roundings of the result, and, where dP and delta cancel, of the products
    in them."""
    exact = gradients(tensors, dout, torch.float64, dlse, **options)
    naive = gradients(tensors, dout, tensors[0].dtype, dlse, **options)
    q, k, v = (t.detach().double() for t in tensors)
    largest = [t.abs().max().item() if t.numel() else 0.0 for t in (q, k)]
    products = v.shape[-1] * dout.double().abs().max().item() * v.abs().max().item() if v.numel() and dout.numel(
    ) else 0.0
    cancelled = 2 ** -24 * products * q.shape[-1] ** -0.5 * max(largest)
    for name, grad, t, e, n in zip("qkv", grads, tensors, exact, naive):
        assert grad.shape == t.shape and grad.dtype == t.dtype and not grad.isnan().any()
        if t.numel():
            floor = torch.finfo(t.dtype).eps * e.abs().max().item() * (16 if t.dtype == torch.float32 else 1)
            floor += 0 if name == "v" else cancelled
            assert (grad.double() - e).abs().max() <= 3 * (n.double() - e).abs().max() + floor, "d" + name


CASES = {
    "full": (dict(), dict()),
    "causal": (dict(), dict(causal=True)),
    "more keys, causal": (dict(sk=131), dict(causal=True)),
    "more queries, causal": (dict(sq=131), dict(causal=True)),  # rows that see no key
    "window": (dict(sq=150, sk=150), dict(window_size=(20, 5))),
    "one side": (dict(sq=150, sk=140), dict(window_size=(-1, 3))),
    "MQA": (dict(heads=5, heads_k=1), dict(causal=True)),
    "MHA": (dict(heads=3, heads_k=3), dict(softmax_scale=0.3)),
    "odd head dim": (dict(d=59), dict(causal=True)),
    "head dim 128": (dict(d=128), dict(causal=True)),
    "head dim 256": (dict(d=256, heads=2, heads_k=1), dict()),
    "v of another head dim": (dict(d=96, dv=40), dict(causal=True)),
    "one row": (dict(sq=1, sk=1), dict()),
    "softcap": (dict(), dict(softcap=2.0, causal=True)),
}


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("case", CASES)
def test_gradients(device, case, dtype):
    if device == "cuda" and dtype == torch.float32:
        pytest.skip("fp32 is for the CPU")
    sizes, options = CASES[case]
    q, k, v = inputs(device, dtype, **sizes)
    out = flash_attn_func(q, k, v, **options)
    dout = torch.randn_like(out)
    check(torch.autograd.grad(out, (q, k, v), dout), (q, k, v), dout, **options)


def test_alibi(device):
    q, k, v = inputs(device, sk=90)
    slopes = torch.rand(2, 4, device=device)
    out = flash_attn_func(q, k, v, causal=True, alibi_slopes=slopes)
    dout = torch.randn_like(out)
    check(torch.autograd.grad(out, (q, k, v), dout), (q, k, v), dout, causal=True, alibi_slopes=slopes)


def slopes_gradient(q, k, v, slopes, dout, **options):
    """In fp64, and as eager attention in q's dtype has it."""
    grads = []
    for dtype in (torch.float64, q.dtype):
        leaf = slopes.detach().to(torch.float64 if dtype == torch.float64 else slopes.dtype).requires_grad_()
        out, _ = attention(q.detach(), k.detach(), v.detach(), dtype, alibi_slopes=leaf, **options)
        grads.append(torch.autograd.grad(out, leaf, dout.to(dtype))[0].double())
    return grads


@pytest.mark.parametrize("per_batch", [False, True], ids=["heads", "batch"])
def test_slopes_have_a_gradient(device, per_batch):
    """Which the original never gives."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    q, k, v = inputs(device, dtype, sk=90)
    slopes = torch.rand((2, 4) if per_batch else (4, ), device=device, requires_grad=True)
    out = flash_attn_func(q, k, v, causal=True, alibi_slopes=slopes)
    dout = torch.randn_like(out)
    *grads, dslopes = torch.autograd.grad(out, (q, k, v, slopes), dout)
    check(grads, (q, k, v), dout, causal=True, alibi_slopes=slopes.detach())
    exact, eager = slopes_gradient(q, k, v, slopes, dout, causal=True)
    assert dslopes.shape == slopes.shape and dslopes.dtype == torch.float32
    bound = 2 * (eager - exact).abs().max() + 1e-5 * exact.abs().max()
    assert (dslopes.double() - exact).abs().max() <= bound

    # Alone, through a view, packed.
    base = torch.stack((slopes.detach(), slopes.detach())).requires_grad_()
    packed = [t.detach().flatten(0, 1) for t in (q, k, v)]
    cu_q, cu_k = (torch.arange(3, dtype=torch.int32, device=device) * t.shape[1] for t in (q, k))
    again = flash_attn_varlen_func(*packed, cu_q, cu_k, q.shape[1], k.shape[1], causal=True, alibi_slopes=base[1])
    again.backward(dout.flatten(0, 1))
    assert (base.grad[0] == 0).all()
    assert (base.grad[1].double() - exact).abs().max() <= bound


def test_slopes_by_differences(device):
    if device == "cuda":
        pytest.skip("fp32 is for the CPU")
    q, k, v = (t.detach() for t in inputs(device, torch.float32, sq=9, sk=12))
    slopes = torch.rand(4, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: flash_attn_func(q, k, v, alibi_slopes=s), slopes, eps=1e-2, atol=2e-3,
                                    rtol=1e-2)


def test_no_keys_and_no_queries(device):
    for sizes in (dict(sk=0), dict(sq=0)):
        q, k, v = inputs(device, **sizes)
        for grad, t in zip(torch.autograd.grad(flash_attn_func(q, k, v).sum(), (q, k, v)), (q, k, v)):
            assert grad.shape == t.shape and (grad == 0).all()


def test_the_gradient_that_reaches_lse(device):
    """Which the original drops: a loss on the LSE alone, and together with the output."""
    q, k, v = inputs(device)
    out, lse, _ = flash_attn_func(q, k, v, causal=True, return_attn_probs=True)
    dout, dlse = torch.randn_like(out), torch.randn_like(lse)
    both = torch.autograd.grad((out, lse), (q, k, v), (dout, dlse), retain_graph=True)
    check(both, (q, k, v), dout, dlse, causal=True)
    alone = torch.autograd.grad(lse, (q, k, v), dlse)
    check(alone, (q, k, v), torch.zeros_like(dout), dlse, causal=True)


def test_packed(device):
    q, k, v = inputs(device, heads=2, heads_k=2)
    dout = torch.randn_like(q)
    expected = torch.autograd.grad(flash_attn_func(q, k, v, causal=True), (q, k, v), dout)
    qkv = torch.stack((q, k, v), 2).detach().requires_grad_()
    flash_attn_qkvpacked_func(qkv, causal=True).backward(dout)
    kv = torch.stack((k, v), 2).detach().requires_grad_()
    flash_attn_kvpacked_func(q, kv, causal=True).backward(dout)
    assert torch.equal(qkv.grad, torch.stack(expected, 2))
    assert torch.equal(q.grad, expected[0]) and torch.equal(kv.grad, torch.stack(expected[1:], 2))


def test_variable_length(device):
    """Sequences of no queries or no keys, rows of no sequence: their gradients are 0."""
    lengths_q, lengths_k = [0, 7, 40, 5], [3, 0, 33, 70]
    cu_q, cu_k = (torch.tensor([0, *torch.tensor(n).cumsum(0)], dtype=torch.int32, device=device)
                  for n in (lengths_q, lengths_k))
    q, k, v = (t[0].detach().requires_grad_()
               for t in inputs(device, batch=1, sq=sum(lengths_q) + 3, sk=sum(lengths_k) + 2))
    out = flash_attn_varlen_func(q, k, v, cu_q, cu_k, 64, 100, causal=True)
    dout = torch.randn_like(out)
    grads = torch.autograd.grad(out, (q, k, v), dout)
    for b in range(4):
        rows, keys = slice(*cu_q[b:b + 2].tolist()), slice(*cu_k[b:b + 2].tolist())
        one = [t.detach()[None, s] for t, s in zip((q, k, v), (rows, keys, keys))]
        check([g[None, s] for g, s in zip(grads, (rows, keys, keys))], one, dout[None, rows], causal=True)
    assert (grads[0][cu_q[-1]:] == 0).all() and (grads[1][cu_k[-1]:] == 0).all() and (grads[2][cu_k[-1]:] == 0).all()


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_a_training_loop_does(device, reentrant):
    """Checkpoints, accumulation, views that are no leaves, a dout without strides of its own, autocast."""
    q, k, v = inputs(device)
    expected = torch.autograd.grad(flash_attn_func(q, k, v, causal=True).sum(), (q, k, v))
    checkpoint(lambda *t: flash_attn_func(*t, causal=True), q, k, v, use_reentrant=reentrant).sum().backward()
    assert all(torch.equal(t.grad, e) for t, e in zip((q, k, v), expected))
    flash_attn_func(q, k, v, causal=True).sum().backward()
    assert all(torch.equal(t.grad, 2 * e) for t, e in zip((q, k, v), expected))
    x = torch.cat((q, k.repeat(1, 1, 2, 1)), -1).detach().requires_grad_()
    a, b = x.transpose(1, 2).transpose(1, 2).split(64, -1)
    with torch.autocast(device, torch.bfloat16):
        out = flash_attn_func(a.to(torch.bfloat16), b.to(torch.bfloat16), b.to(torch.bfloat16))
    out.float().square().mean().backward()
    assert x.grad.shape == x.shape and x.grad.abs().sum() > 0


def test_inputs_that_are_changed_meanwhile(device):
    q, k, v = inputs(device)
    x = q * 1.0
    out = flash_attn_func(x, k, v)
    x.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_only_some_gradients(device):
    q, k, v = inputs(device)
    expected = torch.autograd.grad(flash_attn_func(q, k, v).sum(), (q, k, v))
    for i in range(3):
        some = [t.detach().requires_grad_(i == j) for j, t in enumerate((q, k, v))]
        flash_attn_func(*some).sum().backward()
        assert torch.equal(some[i].grad, expected[i]) and all(t.grad is None for j, t in enumerate(some) if j != i)


def test_refused_in_words(device):
    q, k, v = inputs(device)
    grad, = torch.autograd.grad(flash_attn_func(q, k, v).sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match="double backward"):
        grad.sum().backward()
    with pytest.raises(NotImplementedError, match="torch.func"):
        torch.func.grad(lambda x: flash_attn_func(x, k.detach(), v.detach()).sum())(q.detach())
    out = torch.randn_like(q)
    lse = torch.zeros(2, 4, 70, device=device)
    arguments = [
        torch.zeros_like(q),
        q.detach(),
        k.detach(),
        v.detach(), out, lse, None, None, None, 0.0, 0.125, False, -1, -1, 0.0, None, False
    ]
    for index, bad, words in ((0, torch.zeros(2, 70, 4, 32, device=device, dtype=q.dtype),
                               "dout"), (0, torch.zeros_like(q, dtype=torch.float64), "dout"), (5, lse[:, :2], "lse"),
                              (5, lse.double(), "softmax_lse"), (6, arguments[1], "dq has the memory of q"),
                              (6, torch.zeros(3, device=device), "dq"), (0, None, "dout is NoneType"),
                              (0, torch.tensor(1.0, device=device,
                                               dtype=q.dtype), "dout"), (4, None, "out is NoneType"),
                              (5, None, "softmax_lse is NoneType"), (5, torch.tensor(0.0,
                                                                                     device=device), "softmax_lse")):
        with pytest.raises((RuntimeError, ValueError, TypeError), match=words):
            _flash_attn_backward(*arguments[:index], bad, *arguments[index + 1:])


def test_compiled(device):
    q, k, v = inputs(device)
    dout = torch.randn_like(q)
    expected = torch.autograd.grad(flash_attn_func(q, k, v, causal=True), (q, k, v), dout)
    compiled = torch.compile(lambda q, k, v: flash_attn_func(q, k, v, causal=True), fullgraph=True, backend="aot_eager")
    got = torch.autograd.grad(compiled(q, k, v), (q, k, v), dout)
    assert all(torch.equal(a, b) for a, b in zip(got, expected))


def test_every_device_of_several():
    """Tensors of one that is not the current one, in both directions."""
    if torch.cuda.device_count() < 2:
        pytest.skip("fewer than two CUDA devices")
    current = torch.cuda.current_device()
    q, k, v = inputs("cpu", torch.bfloat16)
    dout = torch.randn_like(q)
    expected = torch.autograd.grad(flash_attn_func(q, k, v, causal=True), (q, k, v), dout)
    for index in range(torch.cuda.device_count()):
        for dropout_p in (0.0, 0.1):
            moved = [t.detach().to(f"cuda:{index}").requires_grad_() for t in (q, k, v)]
            out = flash_attn_func(*moved, dropout_p, causal=True)
            grads = torch.autograd.grad(out, moved, dout.to(out.device))
            assert all(g.get_device() == index for g in grads) and torch.cuda.current_device() == current
        grads = torch.autograd.grad(flash_attn_func(*moved, causal=True), moved, dout.to(out.device))
        assert all(torch.allclose(g.cpu().float(), e.float(), atol=3e-2) for g, e in zip(grads, expected))


def test_a_step_in_a_graph(device):
    """Forward and backward are captured, and replayed on other values."""
    if device == "cpu":
        pytest.skip("graphs are CUDA's")
    q, k, v = inputs(device)
    dout = torch.randn_like(q)

    def step():
        return torch.autograd.grad(flash_attn_func(q, k, v, causal=True, deterministic=True), (q, k, v), dout)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        q.copy_(torch.randn_like(q))
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(captured, step()))


def test_same_bits_every_time(device):
    q, k, v = inputs(device, torch.bfloat16, sq=300, sk=300)
    dout = torch.randn_like(q)
    out = flash_attn_func(q, k, v, causal=True, deterministic=True)
    first = torch.autograd.grad(out, (q, k, v), dout, retain_graph=True)
    for _ in range(20):
        assert all(
            torch.equal(a, b) for a, b in zip(torch.autograd.grad(out, (q, k, v), dout, retain_graph=True), first))


def test_the_positional_functions(device):
    """As ring-flash-attention, yunchang and DeepSpeed call them: plain functions, gradients into buffers of the
    caller's."""
    q, k, v = inputs(device)
    out, lse, _ = flash_attn_func(q, k, v, causal=True, return_attn_probs=True)
    dout = torch.randn_like(q)
    expected = torch.autograd.grad(out, (q, k, v), dout)
    q, k, v, out, lse = (t.detach() for t in (q, k, v, out, lse))
    buffers = [torch.full_like(t, float("nan")) for t in (q, k, v)]
    d = _flash_attn_backward(dout=dout, q=q, k=k, v=v, out=out, softmax_lse=lse, dq=buffers[0], dk=buffers[1],
                             dv=buffers[2], dropout_p=0.0, softmax_scale=64**-0.5, causal=True, window_size_left=-1,
                             window_size_right=-1, softcap=0.0, alibi_slopes=None, deterministic=False, rng_state=None)
    assert all(torch.equal(a, b) for a, b in zip(buffers, expected))
    assert d.shape == (2, 4, 128) and torch.allclose(d[..., :70], (out.double() * dout.double()).sum(-1).transpose(
        1, 2).float(), atol=1e-4)
    turned = [torch.full_like(t.transpose(1, 3).contiguous(), float("nan")).transpose(1, 3)
              for t in (q, k, v)]  # no last stride of 1
    assert turned[0].stride(-1) != 1
    _flash_attn_backward(dout, q, k, v, out, lse, *turned, 0.0, 64 ** -0.5, True, -1, -1, 0.0, None, False)
    assert all(torch.equal(a, b) for a, b in zip(turned, expected))
    dq, dk, dv, _ = flash_attn_gpu.bwd(dout, q, k, v, out, lse, None, None, None, None, 0.0, 64**-0.5, True, -1, -1,
                                       0.0, True, None, None)
    assert torch.equal(dq, expected[0]) and torch.equal(dk, expected[1]) and torch.equal(dv, expected[2])
    cu = torch.tensor([0, 70, 140], dtype=torch.int32, device=device)
    flat = [t.flatten(0, 1) for t in (dout, q, k, v, out)]
    grads = [torch.empty_like(t) for t in flat[1:4]]
    _flash_attn_varlen_backward(*flat,
                                lse.transpose(0, 1).reshape(4, 140), *grads, cu, cu, 70, 70, 0.0, 64**-0.5, True, -1,
                                -1, 0.0, None, False)
    assert all(torch.equal(a, b.flatten(0, 1)) for a, b in zip(grads, expected))


def test_parts_of_a_longer_softmax(device):
    """Ring attention: each step has some of the keys; its gradients from the out and LSE of all of them add up."""
    q, k, v = inputs(device, batch=1, sq=64, sk=96)
    out, lse, _ = flash_attn_func(q, k, v, return_attn_probs=True)
    dout = torch.randn_like(out)
    expected = torch.autograd.grad(out, (q, k, v), dout)
    total, parts = torch.zeros_like(q, dtype=torch.float32), []
    for keys in (slice(0, 32), slice(32, 96)):
        some = [t.detach()[:, keys].contiguous() for t in (k, v)]
        grads = [torch.empty_like(t) for t in (q, *some)]
        _flash_attn_backward(dout, q.detach(), *some, out.detach(), lse.detach(), *grads, 0.0, 64**-0.5, False, -1, -1,
                             0.0, None, False)
        total += grads[0]
        parts.append(grads[1:])
    tolerance = 1e-5 if q.dtype == torch.float32 else 3e-2
    assert torch.allclose(total, expected[0].float(), atol=tolerance)
    for i in (0, 1):
        assert torch.allclose(torch.cat([p[i] for p in parts], 1), expected[1 + i], atol=tolerance)


def test_the_switch_between_forward_and_backward(device, ours):
    """A graph that began with our kernels ends with them."""
    from flashplus import backend

    q, k, v = inputs(device)
    expected = torch.autograd.grad(flash_attn_func(q, k, v).sum(), (q, k, v))
    out = flash_attn_func(q, k, v)
    backend.ours = False
    try:
        assert all(torch.equal(a, b) for a, b in zip(torch.autograd.grad(out.sum(), (q, k, v)), expected))
    finally:
        backend.ours = True


class Block(torch.nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.attention = attention
        self.qkv, self.out = torch.nn.Linear(32, 96), torch.nn.Linear(32, 32)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 16)).unbind(2)
        return x + self.out(self.attention(q, k, v).flatten(2))


def eager(q, k, v):
    return torch.nn.functional.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)),
                                                            is_causal=True).transpose(1, 2)


def test_training_steps(device):
    """30 optimiser steps: the losses are those of eager attention, and after the first nothing is compiled."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    torch.manual_seed(1)
    first = torch.nn.Sequential(*(Block(lambda q, k, v: flash_attn_func(q, k, v, causal=True))
                                  for _ in range(2))).to(device)
    second = copy.deepcopy(first)
    for block in second:
        block.attention = eager
    x, y = torch.randn(2, 4, 24, 32, device=device)
    losses = []
    for model in (first, second):
        optimizer, record = torch.optim.Adam(model.parameters(), lr=3e-3), []
        for step in range(30):
            if step == 1:
                before = flashplus.counters()["compiles"]
            with torch.autocast(device, dtype, enabled=dtype != torch.float32):
                loss = (model(x).float() - y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            record.append(loss.item())
        assert flashplus.counters()["compiles"] == before
        losses.append(torch.tensor(record))
    assert losses[0][-1] < 0.9 * losses[0][0]
    assert torch.allclose(*losses, rtol=1e-3 if dtype == torch.float32 else 3e-2)
