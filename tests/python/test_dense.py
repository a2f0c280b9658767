# SPDX-License-Identifier: BSD-3-Clause
"""flash_attn_func and its packed forms against the definition."""

import pytest
import torch
from reference import attention, check, random

from flash_attn import flash_attn_func, flash_attn_kvpacked_func, flash_attn_qkvpacked_func

HALF = [torch.float16, torch.bfloat16]


def dtypes(device):
    return HALF + ([torch.float32] if device == "cpu" else [])


def run(q, k, v, **options):
    out, lse, probs = flash_attn_func(q, k, v, return_attn_probs=True, **options)
    assert probs.shape == (0,) and probs.dtype == q.dtype
    check(out, q, k, v, lse, **options)
    assert torch.equal(out, flash_attn_func(q, k, v, **options))
    return out


@pytest.mark.parametrize("dtype", [*HALF, torch.float32], ids=["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("head_dim", [32, 64, 80, 128, 256])
@pytest.mark.parametrize("causal", [False, True])
def test_head_dims(device, dtype, head_dim, causal):
    if dtype == torch.float32 and device != "cpu":
        pytest.skip("fp32 is for the CPU")
    q, k, v = (random(2, 130, 4, head_dim, dtype=dtype, device=device) for _ in range(3))
    run(q, k, v, causal=causal)


@pytest.mark.parametrize("head_dim", [1, 7, 59, 111])
def test_head_dims_that_are_no_multiple_of_8(device, head_dim):
    q, k, v = (random(1, 40, 2, head_dim, device=device) for _ in range(3))
    run(q, k, v)


@pytest.mark.parametrize("seqlen_q, seqlen_k", [(1, 1), (1, 200), (3, 5), (127, 129), (113, 203), (256, 17), (64, 1),
                                                (300, 300)])
@pytest.mark.parametrize("causal", [False, True])
def test_lengths(device, seqlen_q, seqlen_k, causal):
    """Also more queries than keys: the first rows see nothing."""
    q = random(2, seqlen_q, 4, 64, device=device)
    k, v = (random(2, seqlen_k, 4, 64, device=device) for _ in range(2))
    out = run(q, k, v, causal=causal)
    if causal and seqlen_q > seqlen_k:
        assert (out[:, :seqlen_q - seqlen_k] == 0).all()


@pytest.mark.parametrize("heads_k", [1, 2, 3, 6])
def test_grouped_heads(device, heads_k):
    q = random(2, 70, 6, 64, device=device)
    k, v = (random(2, 90, heads_k, 64, device=device) for _ in range(2))
    run(q, k, v, causal=True)


@pytest.mark.parametrize("window", [(0, 0), (7, 0), (16, 3), (-1, 5), (20, -1), (-1, 0), (1000, 1000), (500, 2)])
@pytest.mark.parametrize("causal", [False, True])
def test_windows(device, window, causal):
    q = random(1, 100, 2, 64, device=device)
    k, v = (random(1, 120, 2, 64, device=device) for _ in range(2))
    run(q, k, v, causal=causal, window_size=window)


def test_a_left_window_alone_is_unbounded_on_the_right(device):
    """Where the original cuts at seqlen_k more keys to the right (docs/migration.md, differences)."""
    q = random(1, 100, 2, 64, device=device)
    k, v = (random(1, 10, 2, 64, device=device) for _ in range(2))
    run(q, k, v, window_size=(5, -1))


@pytest.mark.parametrize("window", [torch.tensor([3, 4]), (torch.tensor(3), torch.tensor(4))],
                         ids=["tensor", "0-d tensors"])
def test_window_given_as_tensors(device, window):
    q, k, v = (random(1, 30, 2, 64, device=device) for _ in range(3))
    assert torch.equal(flash_attn_func(q, k, v, window_size=window), flash_attn_func(q, k, v, window_size=(3, 4)))


@pytest.mark.parametrize("softcap", [5.0, 30.0])
def test_softcap(device, softcap):
    q, k, v = (random(2, 90, 4, 64, device=device) for _ in range(3))
    run(q * 4, k, v, softcap=softcap, causal=True)


@pytest.mark.parametrize("per_batch", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_alibi(device, per_batch, causal):
    q = random(2, 60, 4, 64, device=device)
    k, v = (random(2, 90, 4, 64, device=device) for _ in range(2))
    slopes = torch.rand(*([2] if per_batch else []), 4, device=device) * 0.3
    run(q, k, v, causal=causal, alibi_slopes=slopes)


@pytest.mark.parametrize("scale", [0.0, 0.3, -0.2])
def test_softmax_scale(device, scale):
    q, k, v = (random(1, 50, 2, 64, device=device) for _ in range(3))
    run(q, k, v, softmax_scale=scale)


def test_value_head_dim_may_differ(device):
    q, k = (random(1, 50, 2, 64, device=device) for _ in range(2))
    v = random(1, 50, 2, 32, device=device)
    out = flash_attn_func(q, k, v)
    check(out, q, k, v)


@pytest.mark.parametrize("view", ["transposed", "sliced", "expanded", "last dim strided", "flipped heads",
                                  "overlapping rows"])
def test_strides(device, view):
    """Inputs are read where they are; only a last stride other than 1 makes a copy."""
    def make():
        if view == "transposed":
            return random(2, 4, 50, 64, device=device).transpose(1, 2)
        if view == "sliced":
            return random(2, 80, 9, 200, device=device)[:, 10:60, 2:6, 8:72]
        if view == "expanded":
            return random(1, 50, 1, 64, device=device).expand(2, 50, 4, 64)
        if view == "overlapping rows":  # a signal's windows, one a row; PyTorch would lay such an output out anew
            return random(2, 113, 4, device=device).transpose(1, 2).contiguous().unfold(2, 64, 1).transpose(1, 2)
        if view == "last dim strided":
            return random(2, 64, 4, 50, device=device).transpose(1, 3)
        return random(4, 2, 50, 64, device=device).permute(1, 2, 0, 3)

    q, k, v = make(), make(), make()
    out = run(q, k, v, causal=True)
    if view == "transposed":
        assert out.stride() == q.stride()
    leaves = [t.clone(memory_format=torch.contiguous_format).requires_grad_() for t in (q, k, v)]
    wanted = torch.autograd.grad(flash_attn_func(*leaves, causal=True).float().square().sum(), leaves)
    views = [t.detach().requires_grad_() for t in (q, k, v)]
    got = torch.autograd.grad(flash_attn_func(*views, causal=True).float().square().sum(), views)
    for a, b in zip(got, wanted):
        # A GPU has another kernel for strides that its copies can't take, whose sums have another order.
        error = 0 if device == "cpu" else 2**-7 * b.abs().max()
        assert (a - b).abs().max() <= error


def test_packed(device):
    qkv = random(2, 60, 3, 4, 64, device=device)
    q, k, v = qkv.unbind(2)
    expected = flash_attn_func(q, k, v, causal=True)
    out, lse, _ = flash_attn_qkvpacked_func(qkv, causal=True, return_attn_probs=True)
    assert torch.equal(out, expected) and lse.shape == (2, 4, 60)
    check(out, q, k, v, lse, causal=True)
    assert torch.equal(flash_attn_kvpacked_func(q, qkv[:, :, 1:], causal=True), expected)


def test_nothing_to_see(device):
    q = random(2, 5, 4, 64, device=device)
    empty = q[:, :0]
    out, lse, _ = flash_attn_func(q, empty, empty, return_attn_probs=True)
    assert (out == 0).all() and (lse == float("inf")).all()
    assert flash_attn_func(empty, q, q).shape == (2, 0, 4, 64)


def test_same_bits_every_time(device):
    q, k, v = (random(2, 200, 4, 64, device=device) for _ in range(3))
    first = flash_attn_func(q, k, v, causal=True, deterministic=True)
    for _ in range(5):
        assert torch.equal(flash_attn_func(q, k, v, causal=True, deterministic=True), first)


@pytest.mark.parametrize("mode", ["no_grad", "inference_mode", "autocast", "detached"])
def test_modes(device, mode):
    q, k, v = (random(1, 30, 2, 64, device=device) for _ in range(3))
    expected = flash_attn_func(q, k, v)
    if mode == "no_grad":
        with torch.no_grad():
            out = flash_attn_func(q.requires_grad_(), k, v)
    elif mode == "inference_mode":
        with torch.inference_mode():
            out = flash_attn_func(q.clone(), k.clone(), v.clone())
    elif mode == "autocast":
        with torch.autocast(device, dtype=torch.bfloat16):
            layer = torch.nn.Linear(64, 64, device=device).requires_grad_(False)
            x = layer(q.float())
            assert x.dtype == torch.bfloat16
            check(flash_attn_func(x, x, x), x, x, x)
            out = flash_attn_func(q, k, v)
    else:
        out = flash_attn_func(q.requires_grad_().detach(), k, v)
    assert torch.equal(out, expected) and not out.requires_grad


def test_parameters_as_inputs(device):
    q = torch.nn.Parameter(random(1, 30, 2, 64, device=device), requires_grad=False)
    check(flash_attn_func(q, q, q), q, q, q)


def test_no_dropout_is_what_1e_minus_30_means(device):
    q, k, v = (random(1, 30, 2, 64, device=device) for _ in range(3))
    assert torch.equal(flash_attn_func(q, k, v, dropout_p=1e-30), flash_attn_func(q, k, v))


def test_threads(device):
    """Each call has argument memory of its own while the interpreter lock is released."""
    from concurrent.futures import ThreadPoolExecutor

    def work(i):
        n = 20 + i
        generator = torch.Generator().manual_seed(i)
        q, k, v = (torch.randn(1, n, 2, 64, generator=generator).half().to(device) for _ in range(3))
        for _ in range(20):
            out = flash_attn_func(q, k, v, causal=i % 2 == 0)
        expected, _ = attention(q, k, v, causal=i % 2 == 0)
        return (out.double() - expected).abs().max().item()

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(work, range(16))) < 2e-3


def test_a_call_within_a_call_has_memory_of_its_own(device, monkeypatch):
    """As a finaliser or a signal handler may make one, between the arguments and the kernel."""
    from flashplus import interface, library

    lib, addresses = library.get(), []
    real, real_python = lib.forward, lib.forward_python

    def nested(address):
        addresses.append(address)
        if len(addresses) == 1:
            check(flash_attn_func(q + 1, k - 1, k - 1, causal=True), q + 1, k - 1, k - 1, causal=True)

    def interrupted(context, address, stream):
        nested(address)
        return real(context, address, stream)

    def interrupted_python(address, *objects):
        nested(address)
        return real_python(address, *objects)

    q = random(1, 30, 2, 64, device=device)
    k = random(1, 50, 2, 64, device=device)
    flash_attn_func(q, k, k, causal=True)
    monkeypatch.setattr(lib, "forward_python", interrupted_python)
    monkeypatch.setattr(lib, "forward", interrupted)
    check(flash_attn_func(q, k, k, causal=True), q, k, k,
          causal=True)  # only reads its memory, if PyTorch has an exchange API
    monkeypatch.setattr(interface, "_calls", {})
    addresses.clear()
    check(flash_attn_func(q, k, k, causal=True), q, k, k, causal=True)
    assert len(set(addresses)) == 2


def test_what_differs_between_calls_is_not_mixed_up(device):
    """Calls are remembered by all they say but their pointers; one that differs in one thing is another call."""
    base = {name: random(2, 48, 4, 64, device=device) for name in "qkv"}
    wide = {name: random(2, 48, 4, 128, device=device) for name in "qkv"}
    calls = [
        (base, {}),
        (base, {"causal": True}),
        (base, {"window_size": (5, 0)}),
        (base, {"window_size": (5, -1)}),
        (base, {"softcap": 2.0}),
        (base, {"softmax_scale": 0.5}),
        (base, {"alibi_slopes": torch.rand(4, device=device)}),
        (base, {"alibi_slopes": torch.rand(4, device=device)}),
        (base, {"alibi_slopes": torch.rand(2, 4, device=device)}),
        ({**base, "k": base["k"][:, :31], "v": base["v"][:, :31]}, {}),
        ({**base, "k": base["k"][:, :, :2], "v": base["v"][:, :, :2]}, {}),
        ({name: t.transpose(1, 2).contiguous().transpose(1, 2)
          for name, t in base.items()}, {}),
        ({name: t.transpose(1, 3).contiguous().transpose(1, 3)
          for name, t in base.items()}, {}),
        ({**base, "v": base["v"].transpose(1, 3).contiguous().transpose(1, 3)}, {}),
        ({name: t.bfloat16()
          for name, t in base.items()}, {}),
        (wide, {}),
        ({**base, "v": wide["v"]}, {}),
    ]
    for _ in range(2):
        for inputs, options in calls:
            out, lse, _ = flash_attn_func(*inputs.values(), return_attn_probs=True, **options)
            check(out, *inputs.values(), lse, **options)
            assert torch.equal(flash_attn_func(*inputs.values(), **options), out)


def test_a_scale_that_changes_in_place(device):
    q = random(1, 20, 2, 64, device=device)
    scale = torch.tensor(0.1)
    flash_attn_func(q, q, q, softmax_scale=scale)
    scale.fill_(0.3)
    check(flash_attn_func(q, q, q, softmax_scale=scale), q, q, q, softmax_scale=0.3)


def test_what_is_remembered_is_bounded(device, monkeypatch):
    from flashplus import forward, frames, interface

    monkeypatch.setattr(interface, "_calls", {})
    monkeypatch.setattr(frames, "_KEPT", 4)
    forward._frames.clear()
    for n in (*range(1, 12), 3):
        q = random(1, n, 1, 64, device=device)
        check(flash_attn_func(q, q, q), q, q, q)
    assert len(forward._frames) == 4


def test_after_fork(device):
    """Data loaders fork; the CPU's workers are started again in the child."""
    if device == "cuda":
        pytest.skip("CUDA can't be used after a fork")
    import os

    q, k, v = (random(1, 300, 4, 64, device=device) for _ in range(3))
    expected = flash_attn_func(q, k, v)
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # torch's own OpenMP threads don't survive a fork
        os._exit(0 if torch.equal(flash_attn_func(q, k, v), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_streams_and_graphs(device):
    if device != "cuda":
        pytest.skip("CPU tensors have no stream")
    q, k, v = (random(2, 200, 4, 64, device=device) for _ in range(3))
    expected = flash_attn_func(q, k, v, causal=True)
    before = torch.cuda.current_stream()
    side = torch.cuda.Stream()
    side.wait_stream(before)
    with torch.cuda.stream(side):
        # The producer is on the side stream and slow: a call on another stream would read too early.
        torch.cuda._sleep(10_000_000)
        out = flash_attn_func(q + 0, k, v, causal=True)
    side.synchronize()
    assert torch.equal(out, expected) and torch.cuda.current_stream() == before

    static = q.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = flash_attn_func(static, k, v, causal=True)
    static.copy_(k)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(captured, flash_attn_func(k, k, v, causal=True))


def test_every_device_of_several():
    if torch.cuda.device_count() < 2:
        pytest.skip("fewer than two CUDA devices")
    current = torch.cuda.current_device()
    q, k, v = (random(2, 100, 4, 64) for _ in range(3))
    for index in range(torch.cuda.device_count()):
        out = flash_attn_func(*(t.to(f"cuda:{index}") for t in (q, k, v)))
        assert out.get_device() == index and torch.cuda.current_device() == current
        check(out.cpu(), q, k, v)
