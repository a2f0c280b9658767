# SPDX-License-Identifier: BSD-3-Clause
"""Attention sinks: `s_aux` of the faces and `sinks` of flashplus.attention, against the definition and with gradients,
and models that have them."""

import pytest
import torch
from reference import mask, random

import flash_attn_interface as fa3
import flashplus
from flash_attn import flash_attn_func, flash_attn_varlen_func, flash_attn_with_kvcache

HALVES = [torch.float16, torch.bfloat16]


def definition(q, k, v, sinks, dtype=torch.float64, causal=False, window_size=(-1, -1), softcap=0.0, scale=None):
    """(out, lse) in `dtype`: the sink is a column more of the scores, which is dropped after the softmax."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    group = q.shape[2] // k.shape[2]
    q, k, v = (t.to(dtype).transpose(1, 2) for t in (q, k, v))
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    s = (q * scale) @ k.transpose(-1, -2)
    if softcap:
        s = softcap * torch.tanh(s / softcap)
    s = s.masked_fill(~mask(*s.shape[-2:], causal, window_size, s.device), float("-inf"))
    column = sinks.to(dtype).view(1, -1, 1, 1).expand(*s.shape[:-1], 1)
    s = torch.cat((s, column), -1)
    return (s.softmax(-1)[..., :-1] @ v).transpose(1, 2), s.logsumexp(-1)


def inputs(device, dtype=torch.float32, batch=2, sq=70, sk=90, heads=4, heads_k=2, d=64, sinks=torch.float32):
    if device == "cuda" and dtype == torch.float32:
        dtype = torch.bfloat16
    made = [random(batch, n, h, d, dtype=dtype, device=device) for n, h in ((sq, heads), (sk, heads_k), (sk, heads_k))]
    return (*made, (2 * random(heads, dtype=torch.float32, device=device)).to(sinks))


def close(got, exact, naive):
    assert got.shape == exact.shape and not got.isnan().any()
    floor = torch.finfo(got.dtype).eps * exact.abs().max().item()
    assert (got.double() - exact).abs().max() <= 2 * (naive.double() - exact).abs().max() + floor


CASES = {"full": {}, "causal": dict(causal=True), "window": dict(window_size=(30, 0)),
         "softcap": dict(softcap=3.0, causal=True)}


@pytest.mark.parametrize("case, dtype", [*((case, torch.float32) for case in CASES),
                                         *(("causal", dtype) for dtype in HALVES)])
def test_dense(device, case, dtype):
    q, k, v, s_aux = inputs(device, dtype, sinks=dtype)
    options = CASES[case]
    exact, exact_lse = definition(q, k, v, s_aux, **options)
    naive = definition(q, k, v, s_aux, q.dtype, **options)[0]
    out, lse, _ = flash_attn_func(q, k, v, s_aux=s_aux, return_attn_probs=True, **options)
    close(out, exact, naive)
    assert (lse - exact_lse).abs().max() < 1e-5 * exact_lse.abs().max()
    assert torch.equal(flash_attn_func(q, k, v, s_aux=s_aux, **options), out)
    assert torch.equal(fa3.flash_attn_func(q, k, v, s_aux=s_aux, **options), out)
    ours = dict(options, window=options.get("window_size", (-1, -1)))
    ours.pop("window_size", None)
    assert torch.equal(flashplus.attention(q, k, v, sinks=s_aux, **ours), out)
    assert not torch.equal(flash_attn_func(q, k, v, **options), out)


def test_rows_without_a_key(device):
    q, k, v, s_aux = inputs(device, sq=90, sk=20)
    out, lse, _ = flash_attn_func(q, k, v, causal=True, s_aux=s_aux, return_attn_probs=True)
    assert (out[:, :70] == 0).all()
    assert (lse[:, :, :70] - s_aux[:, None]).abs().max() < 1e-6
    assert lse.isfinite().all()


def test_varlen(device):
    lengths, keys = [5, 0, 64, 1], [70, 3, 64, 300]
    q, k, v = (random(sum(n), h, 64, device=device) for n, h in ((lengths, 4), (keys, 2), (keys, 2)))
    s_aux = random(4, dtype=torch.float32, device=device)
    cu_q, cu_k = (torch.tensor([0, *n], device=device).cumsum(0).int() for n in (lengths, keys))
    for function in (flash_attn_varlen_func, fa3.flash_attn_varlen_func):
        out = function(q, k, v, cu_q, cu_k, 64, 300, causal=True, s_aux=s_aux)
        for i, n in enumerate(lengths):
            if n:
                part = [t[a[i]:a[i + 1]][None] for t, a in ((q, cu_q), (k, cu_k), (v, cu_k))]
                close(out[cu_q[i]:cu_q[i + 1]][None], definition(*part, s_aux, causal=True)[0],
                      definition(*part, s_aux, torch.float16, causal=True)[0])


@pytest.mark.parametrize("face", ["flash_attn", "flash_attn_interface"])
@pytest.mark.parametrize("sq", [1, 3, 40])
def test_kvcache(device, sq, face):
    """Paged and not, with an append; the second call goes through the exchange API where PyTorch has it."""
    batch, page, heads = 2, 16, 4
    cache = [random(8, page, 2, 64, device=device) for _ in range(2)]
    table = torch.randperm(8, device=device).int().view(batch, 4)
    used = torch.tensor([20, 3], dtype=torch.int32, device=device)
    q = random(batch, sq, heads, 64, device=device)
    s_aux = random(heads, dtype=torch.bfloat16, device=device)
    new = [random(batch, 2, 2, 64, device=device) for _ in range(2)]
    function = flash_attn_with_kvcache if face == "flash_attn" else fa3.flash_attn_with_kvcache
    name = "block_table" if face == "flash_attn" else "page_table"
    for _ in range(2):
        out, lse, *_ = function(q, *cache, *new, cache_seqlens=used, causal=True, return_softmax_lse=True, s_aux=s_aux,
                                **{name: table})
        for b in range(batch):
            n = int(used[b]) + 2
            k, v = (c[table[b].long()].reshape(-1, 2, 64)[:n][None] for c in cache)
            assert torch.equal(k[0, -2:], new[0][b])
            exact, exact_lse = definition(q[b:b + 1], k, v, s_aux, causal=True)
            close(out[b:b + 1], exact, definition(q[b:b + 1], k, v, s_aux, torch.float16, causal=True)[0])
            assert (lse[b] - exact_lse[0]).abs().max() < 1e-5 * exact_lse.abs().max()


def gradients(tensors, dout, dlse, dtype, **options):
    leaves = [t.detach().to(dtype).requires_grad_() for t in tensors]
    out, lse = definition(*leaves, dtype=dtype, **options)
    return torch.autograd.grad((out * dout.to(dtype)).sum() + (lse * dlse.to(dtype)).sum(), leaves)


@pytest.mark.parametrize("case, sinks", [("full", torch.bfloat16), *((case, torch.float32) for case in CASES)])
def test_gradients(device, case, sinks):
    tensors = [t.requires_grad_() for t in inputs(device, sq=100, sk=80, sinks=sinks)]
    options = CASES[case]
    q, k, v, s_aux = tensors
    out, lse, _ = flash_attn_func(q, k, v, s_aux=s_aux, return_attn_probs=True, **options)
    dout, dlse = torch.randn_like(out), torch.randn_like(lse)
    got = torch.autograd.grad((out, lse), tensors, (dout, dlse))
    exact, naive = (gradients(tensors, dout, dlse, t, **options) for t in (torch.float64, q.dtype))
    for name, g, t, e, n in zip(("q", "k", "v", "s_aux"), got, tensors, exact, naive):
        assert g.dtype == t.dtype and g.shape == t.shape
        floor = 16 * torch.finfo(t.dtype).eps * e.abs().max().item()
        assert (g.double() - e).abs().max() <= 3 * (n.double() - e).abs().max() + floor, name


def test_gradients_of_packed_sequences_and_of_one_tensor_alone(device):
    q, k, v, s_aux = inputs(device, batch=1, sq=64, sk=64)
    cu = torch.tensor([0, 24, 60], dtype=torch.int32, device=device)  # rows behind the last belong to none
    s_aux.requires_grad_()
    out = flash_attn_varlen_func(q[0], k[0], v[0], cu, cu, 36, 36, causal=True, s_aux=s_aux)
    dout = torch.randn_like(out)
    got, = torch.autograd.grad(out, s_aux, dout)
    exact = sum(
        gradients([t[:, a:b] for t in (q, k, v)] + [s_aux], dout[None, a:b], torch.zeros(4, b - a, device=device),
                  torch.float64, causal=True)[3] for a, b in ((0, 24), (24, 60)))
    assert (got.double() - exact).abs().max() <= 2e-2 * exact.abs().max() * (1 if device == "cuda" else 1e-3)


def test_slopes_have_a_gradient_beside_sinks(device):
    """By flashplus::attention, without a score of one's own."""
    q, k, v, s_aux = inputs(device)
    slopes = torch.rand(4, device=device, requires_grad=True)
    s_aux.requires_grad_()
    flash_attn_func(q, k, v, alibi_slopes=slopes, s_aux=s_aux).sum().backward()
    assert slopes.grad is not None and slopes.grad.abs().max() > 0 and s_aux.grad is not None


def test_compile(device):
    if torch.__version__ < "2.5":
        pytest.skip("this PyTorch's compiler has trouble of its own")
    q, k, v, s_aux = inputs(device)
    s_aux.requires_grad_()

    def step(q, k, v, s_aux):
        return flash_attn_func(q, k, v, causal=True, s_aux=s_aux).square().sum()

    expected, = torch.autograd.grad(step(q, k, v, s_aux), s_aux)
    got, = torch.autograd.grad(torch.compile(step, fullgraph=True, backend="aot_eager")(q, k, v, s_aux), s_aux)
    assert torch.equal(got, expected)
    fake = torch._subclasses.FakeTensorMode()
    made = [fake.from_tensor(t.detach()) for t in (q, k, v, s_aux)]
    with fake:
        out = flash_attn_func(*made[:3], s_aux=made[3])
    assert out.shape == q.shape
    with torch.no_grad():
        meta = flash_attn_func(*(t.to("meta") for t in (q, k, v)), s_aux=s_aux.to("meta"))
    assert meta.shape == q.shape and meta.is_meta


BAD = {
    "another number": (lambda s: torch.zeros(3), RuntimeError,
                       r"s_aux must have shape \(num_heads\); it has \(3\).*\(4\)"),
    "a matrix": (lambda s: torch.zeros(1, 4), RuntimeError, r"s_aux must have shape \(num_heads\)"),
    "integers": (lambda s: torch.zeros(4, dtype=torch.int32), RuntimeError, "s_aux must have dtype fp16, bf16 or fp32"),
    "fp64": (lambda s: torch.zeros(4, dtype=torch.float64), RuntimeError, "s_aux must have dtype fp16, bf16 or fp32"),
    "another device": (lambda s: torch.zeros(4, device="meta"), RuntimeError, "s_aux must be on the device of q, cpu"),
    "no tensor": (lambda s: [1.0] * 4, TypeError, "s_aux"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said(case):
    make, kind, words = BAD[case]
    q, k, v, s_aux = inputs("cpu")
    bad = make(s_aux)
    calls = [lambda: flash_attn_func(q, k, v, s_aux=bad), lambda: fa3.flash_attn_func(q, k, v, s_aux=bad),
             lambda: flash_attn_with_kvcache(q, k, v, s_aux=bad),
             lambda: fa3.flash_attn_with_kvcache(q, k, v, s_aux=bad)]
    for call in calls:
        with pytest.raises(kind, match=words):
            call()
    with pytest.raises(kind, match=words.replace("s_aux", "sinks")):
        flashplus.attention(q, k, v, sinks=bad)


def test_dropout_has_no_s_dmask():
    q, k, v, s_aux = inputs("cpu")
    with pytest.raises(NotImplementedError, match="S_dmask"):
        flash_attn_func(q, k, v, dropout_p=0.5, s_aux=s_aux, return_attn_probs=True)


# ------------------------------------------------------------------------------------------------- transformers ----


def gpt_oss(attention, dtype, device):
    transformers = pytest.importorskip("transformers", reason="transformers is only in the environment 'newest'")
    if not hasattr(transformers, "GptOssConfig"):
        pytest.skip("this transformers has no gpt-oss")
    config = transformers.GptOssConfig(
        vocab_size=99, hidden_size=64, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=256, num_local_experts=2, num_experts_per_tok=1,
        sliding_window=9, pad_token_id=0, eos_token_id=None, initializer_range=0.2,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    torch.manual_seed(7)
    model = transformers.GptOssForCausalLM._from_config(config, attn_implementation=attention, dtype=dtype)
    for layer in model.model.layers:
        with torch.no_grad():
            layer.self_attn.sinks.normal_(0, 2)
    return model.to(device).eval()


def implementation(device):
    import flash_attn

    return "flash_attention_2" if device == "cuda" else flash_attn.register_transformers()


def test_gpt_oss(device):
    """Logits, greedy generation and the gradient of the sinks against eager attention."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    ours, eager = (gpt_oss(a, dtype, device) for a in (implementation(device), "eager"))
    ours.load_state_dict(eager.state_dict())
    tokens = torch.randint(2, 99, (2, 40), device=device)
    mask = torch.ones_like(tokens)
    bound = 0.3 if device == "cuda" else 1e-3
    with torch.inference_mode():
        got, expected = ours(tokens).logits, eager(tokens).logits
        assert (got - expected).abs().max() <= bound
        if device == "cpu":
            options = dict(attention_mask=mask, max_new_tokens=12, do_sample=False)
            assert torch.equal(ours.generate(tokens, **options), eager.generate(tokens, **options))
    for model in (ours, eager):
        model.train()
        model(tokens, labels=tokens).loss.backward()
    for a, b in zip(ours.model.layers, eager.model.layers):
        a, b = a.self_attn.sinks.grad, b.self_attn.sinks.grad
        assert b.abs().max() > 0
        assert (a - b).abs().max() <= (0.1 if device == "cuda" else 1e-3) * b.abs().max() + 1e-6


def test_transformers_finds_s_aux():
    import inspect

    for function in (flash_attn_func, flash_attn_varlen_func, flash_attn_with_kvcache, fa3.flash_attn_func,
                     fa3.flash_attn_varlen_func, fa3.flash_attn_with_kvcache):
        assert "s_aux" in inspect.signature(function).parameters
