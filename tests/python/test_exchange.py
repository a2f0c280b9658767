# SPDX-License-Identifier: BSD-3-Clause
"""Calls through DLPack's C exchange API (exchange.py, PyTorch 2.10 and later) give the bits and the errors of those
that describe their tensors from Python (forward.py)."""

import pytest
import torch
from reference import check, random

from flash_attn import flash_attn_func, flash_attn_kvpacked_func, flash_attn_qkvpacked_func
from flashplus import exchange, forward, interface, library

pytestmark = pytest.mark.skipif(exchange._API is None, reason="this PyTorch has no DLPack exchange API")


@pytest.fixture
def served(monkeypatch):
    """Statuses of the calls that went through the exchange API."""
    library.get()
    statuses, real = [], library._library.forward_python

    def spy(*arguments):
        statuses.append(real(*arguments))
        return statuses[-1]

    monkeypatch.setattr(library._library, "forward_python", spy)
    exchange.calls.clear()
    yield statuses
    exchange.calls.clear()


@pytest.fixture
def portable(monkeypatch):
    """Runs a call without the exchange API."""

    def run(function, *args, **options):
        with monkeypatch.context() as patch:
            patch.setattr(interface, "_calls", {})
            patch.setattr(exchange, "_API", None)
            return function(*args, **options)

    return run


def layouts(device):
    q, k, v = (random(2, 48, 4, 64, device=device) for _ in range(3))
    qkv, kv = random(2, 40, 3, 4, 64, device=device), random(2, 40, 2, 2, 64, device=device)
    yield "plain", (q, k, v)
    yield "short keys", (q, k[:, :31], v[:, :31])
    yield "grouped", (q, k[:, :, :2], v[:, :, :2])
    yield "heads first", tuple(t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v))
    yield "packed", qkv.unbind(2)
    yield "packed keys", (q, *kv.unbind(2))
    yield "one row", (q[:, :1], k, v)
    yield "expanded", (q, k[:, :1].expand(-1, 20, -1, -1), v[:, :1].expand(-1, 20, -1, -1))
    yield "bf16", tuple(t.bfloat16() for t in (q, k, v))
    yield "odd", tuple(t[..., :59] for t in (q, k, v))
    if device == "cpu":
        yield "fp32", tuple(t.float() for t in (q, k, v))


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"softmax_scale": 0.3}, {"softcap": 5.0, "causal": True}],
                         ids=str)
def test_same_bits(device, served, portable, options):
    flash_attn_func(*next(layouts(device))[1], **options)  # the first of a kind is looked at from Python
    for name, tensors in layouts(device):
        before = len(served)
        out = flash_attn_func(*tensors, **options)
        assert served[before:] == [0], name
        expected = portable(flash_attn_func, *tensors, **options)
        assert torch.equal(out, expected) and out.stride() == expected.stride() and out.device == expected.device, name
        check(out, *tensors, **options)


@pytest.mark.parametrize("options", [{}, {"causal": True, "window_size": (20, -1)}, {"softcap": 5.0},
                                     {"dropout_p": 0.2}, {"alibi": True}], ids=str)
def test_a_training_step_has_the_same_bits(device, monkeypatch, options):
    library.get()
    real = library._library.forward_python_tuple, library._library.backward_python_tuple
    statuses = []
    for name, function in zip(("forward_python_tuple", "backward_python_tuple"), real):
        monkeypatch.setattr(library._library, name,
                            lambda *a, function=function: statuses.append(function(*a)) or statuses[-1])
    options = dict(options)
    if options.pop("alibi", False):
        options["alibi_slopes"] = torch.rand(4, device=device).requires_grad_()

    def step(tensors, dout):
        torch.manual_seed(0)
        leaves = [t.detach().requires_grad_() for t in tensors]
        wanted = [*leaves, *(t for t in options.values() if isinstance(t, torch.Tensor))]
        out = flash_attn_func(*leaves, **options, deterministic=True)
        return [out, *torch.autograd.grad(out, wanted, dout)]

    for name, tensors in layouts(device):
        dout = random(*tensors[0].shape[:-1], tensors[2].shape[-1], device=device).to(tensors[0].dtype)
        step(tensors, dout)  # the first of a kind is looked at from Python
        before = len(statuses)
        got = step(tensors, dout)
        assert statuses[before:] == [0, 0], name
        with monkeypatch.context() as patch:
            patch.setattr(exchange, "training_calls", {})
            patch.setattr(exchange, "backward_calls", {})
            patch.setattr(exchange, "_API", None)
            expected = step(tensors, dout)
        for a, b in zip(got, expected):
            assert torch.equal(a, b) if device == "cpu" else torch.allclose(a, b, atol=1e-3), name
            assert a.stride() == b.stride() and a.device == b.device, name


def test_what_a_backward_was_told_reaches_the_library(device):
    """On the CPU the same bits come out whatever is said of their order: what is said is looked at."""
    q, k, v = (random(1, 20, 2, 32, device=device).requires_grad_() for _ in range(3))
    exchange.backward_calls.clear()
    said = [(False, 0.0), (True, 0.0), (False, 0.25), (True, 0.25)]
    for deterministic, dropout_p in said:
        torch.autograd.grad(flash_attn_func(q, k, v, dropout_p, 0.3, deterministic=deterministic).float().sum(), q)
    told = [(not call.block.args.any_order, call.block.args.dropout_p) for call in exchange.backward_calls.values()]
    assert told == said


def test_a_backward_that_goes_the_other_way(device):
    """What the library alone has no answer to, or no words for."""
    q, k, v = (random(2, 30, 4, 64, device=device) for _ in range(3))
    for _ in range(2):
        leaves = [t.transpose(1, 3).contiguous().transpose(1, 3).requires_grad_() for t in (q, k, v)]
        plain = [t.clone().requires_grad_() for t in (q, k, v)]
        dout = random(2, 30, 4, 64, device=device)
        got = torch.autograd.grad(flash_attn_func(*leaves, deterministic=True), leaves, dout)
        wanted = torch.autograd.grad(flash_attn_func(*plain, deterministic=True), plain, dout)
        assert all(torch.equal(a, b) for a, b in zip(got, wanted))
    from flashplus import kernels
    out, lse = kernels.dense(q, k, v, None, None, 0.125, False, -1, -1, 0.0, True)
    call = {"softmax_scale": 0.125, "causal": False, "window_left": -1, "window_right": -1, "softcap": 0.0}
    kernels.gradients(out, q, k, v, out, lse, **call)
    with pytest.raises(RuntimeError, match="softmax_lse must have dtype torch.float32"):
        kernels.gradients(out, q, k, v, out, lse.half(), **call)
    with pytest.raises(TypeError, match="dout is list"):
        kernels.gradients([1], q, k, v, out, lse, **call)
    with pytest.raises(ValueError, match="dq has the memory of q"):
        kernels.gradients(out, q, k, v, out, lse, dq=q, **call)
    with pytest.raises(RuntimeError, match="batch size must be positive"):
        kernels.gradients(*(t[:0] for t in (out, q, k, v, out, lse)), **call)


def test_packed_forms(device, served, portable):
    qkv, q, kv = random(2, 40, 3, 4, 64, device=device), random(2, 30, 4, 64,
                                                                device=device), random(2, 40, 2, 2, 64, device=device)
    for _ in range(2):
        assert torch.equal(flash_attn_qkvpacked_func(qkv), portable(flash_attn_qkvpacked_func, qkv))
        assert torch.equal(flash_attn_kvpacked_func(q, kv), portable(flash_attn_kvpacked_func, q, kv))
    assert served == [0] * 3


def test_the_output_is_what_it_was(device, served):
    q = random(1, 20, 2, 64, device=device)
    weight = torch.nn.Parameter(q.clone())  # its type is another
    flash_attn_func(q, q, q)
    with torch.inference_mode():
        assert flash_attn_func(q, q, q).is_inference()
    with torch.no_grad():
        wants = q.clone().requires_grad_()
        for t in (wants, weight):
            out = flash_attn_func(t, t, t)
            assert torch.equal(out, flash_attn_func(q, q, q)) and not out.requires_grad
    assert served and set(served) == {0}


def test_what_goes_the_other_way(device, served):
    """Right answers where the library alone has none: copies, another head dim, nothing to do."""
    q, k, v = (random(2, 30, 4, 64, device=device) for _ in range(3))
    flash_attn_func(q, k, v)
    columns = [t.transpose(1, 3).contiguous().transpose(1, 3) for t in (q, k, v)]
    check(flash_attn_func(*columns), *columns)
    wide = random(2, 30, 4, 128, device=device)
    check(flash_attn_func(q, k, wide), q, k, wide)
    assert len(served) == 2 and 0 not in served
    assert flash_attn_func(q[:, :0], k, v).shape == (2, 0, 4, 64)
    for options in ({"window_size": [-1, -1]}, {"window_size": (3, 0)}, {"softmax_scale": torch.tensor(0.125)},
                    {"alibi_slopes": torch.rand(4, device=device)}, {"return_attn_probs": True}):
        for _ in range(2):
            flash_attn_func(q, k, v, **options)
    assert len(served) == 2


def test_errors_are_the_same(device, served, portable):
    q, k, v = (random(2, 30, 4, 64, device=device) for _ in range(3))
    flash_attn_func(q, k, v)
    wrong = {
        "dtype": (q, k.bfloat16(), v),
        "rank": (q[0], k, v),
        "no batch": (q[:0], k[:0], v[:0]),
        "batch": (q, k[:1], v[:1]),
        "heads": (q, k[:, :, :3], v[:, :, :3]),
        "integers": (q.int(), k.int(), v.int()),
        "double": (q.double(), k.double(), v.double()),
        "a meta key": (q, k.to("meta"), v),
        "lengths": (q, k, v[:, :20]),
        "head dims": (q, k[..., :32], v),
        "sparse": (q, k.to_sparse(), v),
        "complex": (q, torch.view_as_complex(k.float().unflatten(-1, (-1, 2))), v),
    }
    if device == "cuda":
        wrong["devices"] = (q, k.cpu(), v)
        wrong["fp32"] = (q.float(), k.float(), v.float())
    for name, tensors in wrong.items():
        errors = []
        for run in (lambda: flash_attn_func(*tensors), lambda: portable(flash_attn_func, *tensors)):
            with pytest.raises(Exception) as caught:
                run()
            errors.append((caught.type, str(caught.value)))
        assert errors[0] == errors[1], name
    assert 0 not in served


def test_what_is_remembered_is_bounded(device, served, monkeypatch):
    monkeypatch.setattr(exchange, "_KEPT", 4)
    q = random(1, 9, 1, 64, device=device)
    for scale in (*(1 / n for n in range(1, 12)), 1 / 3):
        for _ in range(2):
            check(flash_attn_func(q, q, q, softmax_scale=scale), q, q, q, softmax_scale=scale)
    assert len(exchange.calls) == 4 and served == [0] * 12


def test_the_interpreter_runs_on(served):
    """Another thread computes while a long call is in the kernel."""
    import sys
    import threading

    q = random(1, 2048, 4, 64)
    flash_attn_func(q, q, q)
    counted, stop = 0, threading.Event()

    def count():
        nonlocal counted
        while not stop.is_set():
            counted += 1

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=count)
    real, seen = library._library.forward_python, []

    def around(*arguments):
        before = counted
        status = real(*arguments)
        seen.append(counted - before)
        return status

    library._library.forward_python = around
    try:
        thread.start()
        for _ in range(3):
            flash_attn_func(q, q, q)
    finally:
        library._library.forward_python = real
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert max(seen) > 1000
