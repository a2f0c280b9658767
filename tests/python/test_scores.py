# SPDX-License-Identifier: BSD-3-Clause
"""flashplus.attention: scores from Python, against plain PyTorch in fp64."""

import math
import os
import pathlib
import re
import subprocess

import flash_attn
import flashplus
import pytest
import torch
from flashplus import attention_ops
from reference import mask, random


def expected(q, k, v, score=lambda s, i: s, **options):
    """(out, lse) of a score that is a function of the fp64 scores (b, h, sq, sk) and a dict of indices."""
    group = q.shape[2] // k.shape[2]
    q, k, v = (t.double().transpose(1, 2) for t in (q, k, v))
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    s = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)
    (b, h, sq, sk), ar = s.shape, lambda n: torch.arange(n, device=s.device)
    index = {"b": ar(b).view(-1, 1, 1, 1), "h": ar(h).view(-1, 1, 1), "q": ar(sq).view(-1, 1), "k": ar(sk), "sq": sq,
             "sk": sk}
    s = score(s, index).masked_fill(~mask(sq, sk, device=s.device, **options), -math.inf)
    return (s.softmax(-1).nan_to_num(0.0) @ v).transpose(1, 2), s.logsumexp(-1)


def close(got, wanted, tolerance=2e-3):
    assert got.shape == wanted.shape and (got.double() - wanted).abs().max() <= tolerance * wanted.abs().max()


def inputs(device, grad=False, dtype=torch.float16, n=60):
    sizes = (2, n, 4, 64), (2, n + 30, 2, 64), (2, n + 30, 2, 64)
    return [random(*size, device=device, dtype=dtype).requires_grad_(grad) for size in sizes]


@pytest.mark.skipif(not hasattr(torch.library, "register_vmap"),
                    reason="this PyTorch takes no rule for an operator with lists of tensors, and says so")
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap(device):
    """Tensors of a score, batched or not, and gradients of all."""
    many, bias = random(3, 2, 20, 4, 64, device=device), torch.randn(3, 4, device=device)
    k, v = (random(2, 30, 2, 64, device=device) for _ in range(2))
    call = lambda q, bias: flashplus.attention(q, k, v, "s * bias[h]", tensors={"bias": bias})
    for dims in ((0, 0), (0, None), (None, 0)):
        given = [t if dim == 0 else t[0] for t, dim in zip((many, bias), dims)]
        leaves = [t.clone().requires_grad_() for t in given]
        out = torch.func.vmap(call, in_dims=dims)(*leaves)
        one = [t.clone().requires_grad_() for t in given]
        wanted = torch.stack([call(*(t[i] if dim == 0 else t for t, dim in zip(one, dims))) for i in range(3)])
        assert torch.equal(out, wanted)
        for got, exact in zip(*(torch.autograd.grad(o.float().square().sum(), l) for o, l in ((out, leaves),
                                                                                            (wanted, one)))):
            assert torch.allclose(got, exact, rtol=1e-3, atol=1e-3)
    assert torch.equal(torch.func.vmap(lambda q: flashplus.attention(q, k, v, "s"))(many)[1],
                       flashplus.attention(many[1], k, v, "s"))


def test_one_tensor_as_slopes_and_in_a_score(device):
    """Each use has its own share of the gradient."""
    q, k, v = inputs(device, n=20)
    w = torch.rand(4, device=device)
    one = w.clone().requires_grad_()
    two = [w.clone().requires_grad_() for _ in range(2)]
    for in_score, slopes in ((one, one), two):
        out = flashplus.attention(q, k, v, "s + 0.1 * w[h] * k", tensors={"w": in_score}, alibi_slopes=slopes)
        out.float().square().sum().backward()
    assert all(t.grad.abs().max() > 0 for t in two)
    assert torch.allclose(one.grad, two[0].grad + two[1].grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", attention_ops.NUMBERS)
def test_a_scalar_may_have_the_name_of_an_argument(device, name):
    q, k, v = inputs(device, n=20)
    plain = flashplus.attention(q, k, v, f"s * {name}", scalars={name: 0.5})
    scalar = torch.tensor(0.5, device=device, requires_grad=True)
    out = flashplus.attention(q, k, v, f"s * {name}", scalars={name: scalar})
    assert torch.equal(out, plain)
    assert torch.autograd.grad(out.float().square().sum(), scalar)[0] != 0


def test_without_a_score(device):
    """What flash_attn_func does, bit for bit."""
    q, k, v = inputs(device)
    slopes = torch.rand(4, device=device)
    assert torch.equal(flashplus.attention(q, k, v), flash_attn.flash_attn_func(q, k, v))
    out, lse = flashplus.attention(q, k, v, causal=True, window=(20, -1), softcap=5.0, softmax_scale=0.2,
                                   alibi_slopes=slopes, return_lse=True)
    wanted = flash_attn.flash_attn_func(q, k, v, softmax_scale=0.2, causal=True, window_size=(20, -1), softcap=5.0,
                                        alibi_slopes=slopes, return_attn_probs=True)
    assert torch.equal(out, wanted[0]) and torch.equal(lse, wanted[1])


def test_tensors_and_scalars(device):
    q, k, v = inputs(device)
    bias, weight = torch.randn(4, 60, 90, device=device), torch.randn(90, 2, device=device).t()
    text = "tau * s + bias[h, q, k] - weight[b, k] * abs(q + sk - sq - k) / sk"

    def score(s, i):
        return 0.7 * s + bias.double() - (weight.double()[:, None, None] * (i["q"] + 30 - i["k"]).abs()) / i["sk"]

    for causal in (False, True):
        out, lse = flashplus.attention(q, k, v, text, tensors={"bias": bias, "weight": weight}, scalars={"tau": 0.7},
                                       causal=causal, return_lse=True)
        wanted, wanted_lse = expected(q, k, v, score, causal=causal)
        close(out, wanted), close(lse, wanted_lse, 1e-4)
    before = flashplus.counters()["compiles"]
    for tau in (1.5, torch.tensor(1.5), 2):  # a value is no other kernel, nor is another tensor
        flashplus.attention(q, k, v, text, tensors={"bias": bias * 2, "weight": weight.contiguous()},
                            scalars={"tau": tau}, causal=True)
    assert flashplus.counters()["compiles"] == before


def test_another_value_is_another_result(device):
    """Also where the rest of the call was seen before, and with another schedule."""
    q, k, v = inputs(device)
    results = [flashplus.attention(q, k, v, "s * tau", scalars={"tau": tau}) for tau in (1.0, 2.0, 1.0)]
    assert torch.equal(results[0], results[2]) and not torch.equal(results[0], results[1])
    close(results[1], expected(q, k, v, lambda s, i: 2 * s)[0])
    one, two = torch.randn(2, 4, device=device)
    results = [flashplus.attention(q, k, v, "s * t[h]", tensors={"t": t}) for t in (one, two, one.clone())]
    assert torch.equal(results[0], results[2]) and not torch.equal(results[0], results[1])


def test_packed_sequences(device):
    """q and k count from the start of a sequence, and sq and sk are its own."""
    q, k, v = (random(50, 4, 64, device=device) for _ in range(3))
    cu = torch.tensor([0, 20, 50], dtype=torch.int32, device=device)
    table = torch.randn(2, 30, device=device)
    out, lse = flashplus.attention(q, k, v, "s + table[b, k] * q / sq", tensors={"table": table}, cu_seqlens_q=cu,
                                   cu_seqlens_k=cu, max_seqlen_q=30, max_seqlen_k=30, return_lse=True)
    for b, (start, stop) in enumerate(((0, 20), (20, 50))):
        n = stop - start
        wanted, wanted_lse = expected(*(t[None, start:stop] for t in (q, k, v)),
                                      lambda s, i: s + table[b, :n].double() * i["q"] / n)
        close(out[None, start:stop], wanted), close(lse[None, :, start:stop], wanted_lse, 1e-4)
    unknown = flashplus.attention(q, k, v, "s + table[b, k] * q / sq", tensors={"table": table}, cu_seqlens_q=cu,
                                  cu_seqlens_k=cu)
    assert torch.equal(unknown, out)


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients(device, compiled):
    """Of q, k, v and of all that the score reads, that which reaches lse included."""
    torch._dynamo.reset()
    q, k, v = inputs(device, True, torch.float32 if device == "cpu" else torch.float16)
    bias = torch.randn(4, 90, 60, device=device).mT.requires_grad_()
    fixed = torch.randn(2, 90, device=device)
    tau = torch.tensor(0.7, device=device, requires_grad=True)
    slopes = torch.rand(4, device=device, requires_grad=True)
    given = q, k, v, bias, tau, slopes

    def ours(q, k, v, bias, tau, slopes):
        out, lse = flashplus.attention(
            q, k, v, "cap * tanh(tau * s / cap) + bias[h, q, k] + fixed[b, k]", tensors={"fixed": fixed, "bias": bias},
            scalars={"tau": tau, "cap": 3.0}, causal=True, alibi_slopes=slopes, return_lse=True)
        return out.double(), lse.double()

    def theirs(q, k, v, bias, tau, slopes):
        def score(s, i):
            s = 3 * torch.tanh(tau.double() * s / 3) + bias.double() + fixed.double()[:, None, None]
            return s - slopes.double().view(-1, 1, 1) * (i["q"] + 30 - i["k"]).abs()

        return expected(q, k, v, score, causal=True)

    dout, dlse = torch.randn(2, 60, 4, 64, device=device).double(), torch.randn(2, 4, 60, device=device).double()
    grads = []
    for function in (torch.compile(ours, fullgraph=True, backend="aot_eager") if compiled else ours, theirs):
        out, lse = function(*given)
        grads.append(torch.autograd.grad((out * dout).sum() + (lse * dlse).sum(), given))
    for got, wanted in zip(*grads):
        assert got.dtype == wanted.dtype
        close(got, wanted.double(), 1e-4 if device == "cpu" else 1e-2)


def test_gradients_of_one_tensor_under_two_names(device):
    q, k, v = inputs(device)
    t = torch.randn(4, device=device, requires_grad=True)
    q.requires_grad_()
    out = flashplus.attention(q, k, v, "one[h] * s + two[h] * k / sk", tensors={"one": t, "two": t})
    out.double().square().sum().backward()
    got, t.grad = t.grad, None
    e = t.double().view(-1, 1, 1)
    expected(q, k, v, lambda s, i: e * s + e * i["k"] / i["sk"])[0].square().sum().backward()
    close(got, t.grad.double(), 1e-2)


def test_dropout_and_checkpointing(device):
    """The gradient is of the mask that the forward drew."""
    q, k, v = inputs(device, True)
    bias = torch.randn(60, 90, device=device, requires_grad=True)

    def run():
        return flashplus.attention(q, k, v, "s + bias[q, k]", tensors={"bias": bias}, dropout_p=0.3).float().sum()

    torch.manual_seed(1)
    plain = torch.autograd.grad(run(), (q, bias))
    torch.manual_seed(1)
    again = torch.autograd.grad(torch.utils.checkpoint.checkpoint(run, use_reentrant=False), (q, bias))
    assert torch.equal(plain[0], again[0]) and torch.allclose(plain[1], again[1], rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        assert not torch.equal(run(), run())
    grads = []
    for function in (flashplus.attention, flash_attn.flash_attn_func):
        torch.manual_seed(1)
        grads.append(torch.autograd.grad(function(q, k, v, dropout_p=0.3).float().sum(), (q, k, v)))
    assert all(torch.equal(a, b) for a, b in zip(*grads))


def test_operators(device):
    q, k, v = inputs(device, True, torch.float32 if device == "cpu" else torch.float16, 20)
    bias = torch.randn(4, device=device, requires_grad=True)
    arguments = (q, k, v, [bias], None, None, None, None, None, 0, 0, 0.125, True, -1, -1, 0.0, 0.0, math.inf, 0,
                 "s + bias[h]", "bias", "", [], "", True)
    if hasattr(torch.library, "opcheck"):
        torch.library.opcheck(torch.ops.flashplus.attention.default, arguments,
                              test_utils=("test_schema", "test_faketensor", "test_autograd_registration"))


def test_meta_tensors_and_traces(device):
    q, k, v = (t.to("meta") for t in inputs(device))
    out, lse = flashplus.attention(q, k, v, "s", return_lse=True)
    assert out.is_meta and out.shape == q.shape and lse.shape == (2, 4, 60)
    from torch.fx.experimental.proxy_tensor import make_fx

    given, bias = inputs(device), torch.randn(4, device=device)
    call = lambda q, k, v, bias: flashplus.attention(q, k, v, "s * bias[h]", tensors={"bias": bias})
    traced = make_fx(call)(*given, bias)
    assert torch.equal(traced(*given, 2 * bias), call(*given, 2 * bias))


def test_one_graph_with_numbers_as_tensors():
    """A scale that a graph works out, a window that is a tensor."""
    q, k, v = inputs("cpu")
    function = lambda q, k, v, t: flashplus.attention(q, k, v, "s * tau", scalars={"tau": t.max()}, softmax_scale=t[0],
                                                      causal=t[1] > 0, window=(t[2].long(), -1), softcap=t[1])
    t = torch.tensor([0.25, 3.0, 40.0])
    torch._dynamo.reset()
    got = torch.compile(function, fullgraph=True, backend="aot_eager")(q, k, v, t)
    assert torch.equal(got, flashplus.attention(q, k, v, "s * tau", scalars={"tau": 40.0}, softmax_scale=0.25,
                                                causal=True, window=(40, -1), softcap=3.0))


def test_schedules(device):
    q, k, v = inputs(device)
    with pytest.raises((ValueError, RuntimeError), match="nonsense"):
        flashplus.attention(q, k, v, schedule="nonsense")
    with pytest.raises(TypeError, match="schedule is 3"):
        flashplus.attention(q, k, v, schedule=3)


@pytest.mark.parametrize("kind, words, options", [
    (ValueError, "score does not parse at column 5", {"score": "s + "}),
    (ValueError, "score has a NUL at column 2; it must have none", {"score": "s\0 + 1"}),
    (ValueError, "schedule has a NUL at column 1", {"score": "s", "schedule": "\0"}),
    (ValueError, "scalars has the name 'inf'", {"score": "s + inf", "scalars": {"inf": 1.0}}),
    (ValueError, "tensors has the name 'not'", {"score": "s", "tensors": {"not": torch.zeros(4)}}),
    (ValueError, "'floor' is a function; expected", {"score": "s + floor", "scalars": {"floor": 1.0}}),
    (ValueError, "tensor 'bias', which tensors does not give", {"score": "s + bias[h]"}),
    (ValueError, "scalar 'tau', which scalars does not give", {"score": "s + tau"}),
    (ValueError, "tensors gives 'x', which the score does not use", {"score": "s", "tensors": {"x": torch.zeros(4)}}),
    (ValueError, "scalars gives 'x', which the score does not use", {"score": "s", "scalars": {"x": 1}}),
    (ValueError, "the score reads it with 2 indices", {"score": "s + x[h, q]", "tensors": {"x": torch.zeros(4)}}),
    (ValueError, "must be at least 4", {"score": "s + x[h]", "tensors": {"x": torch.zeros(3)}}),
    (RuntimeError, r"tensors\['x'\] must have dtype torch.float32; it has torch.int64",
     {"score": "s + x[h]", "tensors": {"x": torch.zeros(4, dtype=torch.int64)}}),
    (RuntimeError, r"tensors\['x'\] must have 1 to 4 dimensions",
     {"score": "s + x[h]", "tensors": {"x": torch.zeros(1, 1, 1, 1, 4)}}),
    (RuntimeError, r"tensors\['x'\] has no dimension; give it in scalars",
     {"score": "s + x", "tensors": {"x": torch.tensor(1.0)}}),
    (TypeError, r"tensors\['x'\] is float; it must be a torch.Tensor", {"score": "s", "tensors": {"x": 1.0}}),
    (TypeError, "tensors is list; it must be a dict", {"score": "s", "tensors": [1]}),
    (TypeError, r"scalars\['x'\] has shape \(2,\)", {"score": "s * x", "scalars": {"x": torch.zeros(2)}}),
    (TypeError, r"scalars\['x'\] is 'a'; it must be a number", {"score": "s * x", "scalars": {"x": "a"}}),
    (ValueError, "tensors has the name 'q'", {"score": "s", "tensors": {"q": torch.zeros(4)}}),
    (ValueError, "scalars has the name 'a-b'", {"score": "s", "scalars": {"a-b": 1}}),
    (ValueError, "'x' is in tensors and in scalars",
     {"score": "s", "tensors": {"x": torch.zeros(4)}, "scalars": {"x": 1}}),
    (TypeError, "score is 3; it must be text", {"score": 3}),
    (ValueError, "one of cu_seqlens_q and cu_seqlens_k is given",
     {"cu_seqlens_q": torch.zeros(2, dtype=torch.int32)}),
    (TypeError, "window_size is 3", {"window": 3}),
    (RuntimeError, "Number of heads", {"k": torch.zeros(2, 90, 3, 64, dtype=torch.float16)}),
])
def test_errors(kind, words, options):
    given = dict(zip("qkv", inputs("cpu")))
    if "k" in options:
        given["v"] = options["k"]
    for grad in (False, True):  # straight, and through the operator
        q = given["q"].requires_grad_(grad)
        with pytest.raises(kind, match=words):
            flashplus.attention(**{**given, "q": q, **options})


PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "scores.md"


def test_the_page_of_examples(tmp_path):
    """docs/scores.md: what is typed there runs, in order."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), flags=re.M | re.S)
    assert {language for language, _ in blocks} == {"python", "bash"} and len(blocks) >= 10
    namespace = {}
    for language, text in blocks:
        if language == "python":
            exec(compile(text, str(PAGE), "exec"), namespace)
        else:
            from flashplus import command

            folder = os.path.dirname(command.path())
            subprocess.run(["bash", "-euc", text], check=True, stdout=subprocess.DEVNULL,
                           env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"})


def test_slopes_have_a_gradient_without_a_score(device):
    q, k, v = (torch.randn(1, 8, 2, 16, device=device).to(torch.float16 if device == "cuda" else torch.float32)
               for _ in range(3))
    slopes = torch.rand(2, device=device, requires_grad=True)
    out = flashplus.attention(q, k, v, alibi_slopes=slopes)
    dout = torch.randn_like(out)
    got, = torch.autograd.grad(out, slopes, dout)
    expected, = torch.autograd.grad(flash_attn.flash_attn_func(q, k, v, alibi_slopes=slopes), slopes, dout)
    assert torch.equal(got, expected) if device == "cpu" else torch.allclose(got, expected)
