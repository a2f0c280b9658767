# SPDX-License-Identifier: BSD-3-Clause
"""attention_chunk of FlashAttention 3's face: against the definition in dense, packed and cached calls, with gradients,
and what is refused."""

import numpy
import pytest
import torch
from reference import mask, random

import flash_attn_interface as fa3


def definition(q, k, v, chunk, causal=False, window_size=(-1, -1), dtype=torch.float64):
    """(out, lse) in `dtype`; rows that see no key are 0 and -inf."""
    group = q.shape[2] // k.shape[2]
    q, k, v = (t.to(dtype).transpose(1, 2) for t in (q, k, v))
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    s = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    rows, keys = s.shape[-2:]
    p, j = torch.arange(rows, device=s.device)[:, None] + keys - rows, torch.arange(keys, device=s.device)
    seen = mask(rows, keys, causal, window_size, s.device) & (p.div(chunk, rounding_mode="floor") == j // chunk)
    s = s.masked_fill(~seen, float("-inf"))
    none = ~seen.any(-1, keepdim=True)
    return (s.softmax(-1).masked_fill(none, 0.0) @ v).transpose(1, 2), s.logsumexp(-1)


def qkv(device, sq, sk, batch=2, heads=4, heads_k=2, d=64):
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return [random(batch, n, h, d, dtype=dtype, device=device) for n, h in ((sq, heads), (sk, heads_k), (sk, heads_k))]


def close(got, exact):
    assert got.shape == exact.shape and not got.isnan().any()
    limit = {torch.bfloat16: 2e-2, torch.float32: 2e-5}[got.dtype]
    assert (got.double() - exact).abs().max() <= limit * max(1.0, exact.abs().max().item())


CASES = {"causal": dict(causal=True), "full": {}, "window": dict(window_size=(10, 3)),
         "causal window": dict(causal=True, window_size=(20, -1))}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sq, sk, chunk", [(90, 90, 16), (70, 130, 33), (100, 40, 8), (50, 50, 1), (33, 33, 64)])
def test_dense(device, case, sq, sk, chunk):
    q, k, v = qkv(device, sq, sk)
    exact, exact_lse = definition(q, k, v, chunk, **CASES[case])
    out, lse = fa3.flash_attn_func(q, k, v, attention_chunk=chunk, return_attn_probs=True, **CASES[case])
    close(out, exact)
    assert torch.equal(lse.isinf(), exact_lse.isinf())
    torch.testing.assert_close(lse.double(), exact_lse, atol=1e-2 if device == "cuda" else 1e-5, rtol=1e-5)
    lone, same = fa3._flash_attn_forward(q, k, v, attention_chunk=chunk, **{
        "causal": CASES[case].get("causal", False), **dict(zip(("window_size_left", "window_size_right"),
                                                               CASES[case].get("window_size", (-1, -1))))})[:2]
    assert torch.equal(lone, out) and torch.equal(same, lse)


def test_packed(device):
    lengths = [40, 0, 17, 75]
    parts = [qkv(device, n, n, batch=1) for n in lengths]
    q, k, v = (torch.cat([part[i][0] for part in parts]) for i in range(3))
    cu = torch.tensor([0, 40, 40, 57, 132], dtype=torch.int32, device=device)
    for options in (dict(causal=True), {}):
        out = fa3.flash_attn_varlen_func(q, k, v, cu, cu, 75, 75, attention_chunk=16, **options)
        close(out, torch.cat([definition(*part, 16, **options)[0][0] for part in parts if part[0].numel()]))


@pytest.mark.parametrize("rows", [1, 5])
def test_cache(device, rows):
    """Lengths of the device, one of them a whole number of chunks, so that a new row begins the next; new keys too."""
    used = [31, 64, 100]
    q, k_cache, v_cache = qkv(device, rows, 128, batch=3)
    new = [random(3, rows, 2, 64, dtype=q.dtype, device=device) for _ in range(2)]
    lengths = torch.tensor(used, dtype=torch.int32, device=device)
    page_table = torch.arange(24, dtype=torch.int32, device=device).reshape(3, 8).flip(1).contiguous()
    pools = [torch.empty(24, 16, 2, 64, dtype=q.dtype, device=device) for _ in range(2)]
    for pool, cache in zip(pools, (k_cache, v_cache)):
        pool[page_table.flatten().long()] = cache.reshape(24, 16, 2, 64)
    paged = fa3.flash_attn_with_kvcache(q, *pools, *new, cache_seqlens=lengths, page_table=page_table, causal=True,
                                        attention_chunk=32)
    out = fa3.flash_attn_with_kvcache(q, k_cache, v_cache, *new, cache_seqlens=lengths, causal=True, attention_chunk=32)
    again = fa3.flash_attn_with_kvcache(q, k_cache, v_cache, cache_seqlens=lengths + rows, causal=True,
                                        attention_chunk=32)
    plain = fa3.flash_attn_with_kvcache(q, k_cache, v_cache, cache_seqlens=lengths + rows, causal=True)
    assert not torch.equal(plain, out)
    for i, n in enumerate(used):
        exact = definition(q[i:i + 1], *(t[i:i + 1, :n + rows] for t in (k_cache, v_cache)), 32, causal=True)[0][0]
        for got in (out, again, paged):
            close(got[i], exact)


def test_gradients(device):
    q, k, v = (t.requires_grad_() for t in qkv(device, 60, 80))
    dout = random(2, 60, 4, 64, dtype=q.dtype, device=device)
    for options in (dict(causal=True), {}):
        grads = torch.autograd.grad(fa3.flash_attn_func(q, k, v, attention_chunk=24, **options), (q, k, v), dout)
        exact = torch.autograd.grad(definition(q, k, v, 24, **options)[0], (q, k, v), dout.double())
        for got, wanted in zip(grads, exact):
            close(got, wanted.double())


def test_compiled(device):
    q, k, v = qkv(device, 40, 70)
    lengths = torch.tensor([50, 64], dtype=torch.int32, device=device)

    def function(q, k, v):
        return (fa3.flash_attn_func(q, k, v, causal=True, attention_chunk=16),
                fa3.flash_attn_with_kvcache(q, k, v, cache_seqlens=lengths, causal=True, attention_chunk=16))

    for got, eager in zip(torch.compile(function, fullgraph=True, backend="aot_eager")(q, k, v), function(q, k, v)):
        assert torch.equal(got, eager)


def test_one_kernel_for_all_chunks(device):
    import flashplus

    q, k, v = qkv(device, 64, 64)
    fa3.flash_attn_func(q, k, v, causal=True, attention_chunk=16)
    compiled = flashplus.counters()["compiles"]
    fa3.flash_attn_func(q, k, v, causal=True, attention_chunk=numpy.int64(24))
    assert flashplus.counters()["compiles"] == compiled


@pytest.mark.parametrize("chunk, error, words", [
    (-1, ValueError, "attention_chunk is -1; it must be from 1 to 4194304, or 0 for none"),
    (2**22 + 1, ValueError, "attention_chunk is 4194305"), (2.0, TypeError, "attention_chunk is 2.0"),
    (None, TypeError, "attention_chunk is None"), ("8", TypeError, "attention_chunk is '8'")])
def test_refused(device, chunk, error, words):
    q, k, v = qkv(device, 4, 4)
    cu = torch.tensor([0, 4], dtype=torch.int32, device=device)
    for call in (lambda: fa3.flash_attn_func(q, k, v, attention_chunk=chunk),
                 lambda: fa3.flash_attn_varlen_func(q[0], k[0], v[0], cu, cu, 4, 4, attention_chunk=chunk),
                 lambda: fa3.flash_attn_with_kvcache(q, k, v, attention_chunk=chunk)):
        with pytest.raises(error, match=words):
            call()
