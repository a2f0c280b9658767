# SPDX-License-Identifier: BSD-3-Clause
"""flash_attn_varlen_func and its packed forms against the definition, sequence by sequence."""

import numpy as np
import pytest
import torch
from reference import check, random

from flash_attn import flash_attn_varlen_func, flash_attn_varlen_kvpacked_func, flash_attn_varlen_qkvpacked_func
from flash_attn.flash_attn_interface import _flash_attn_varlen_forward


def cumulative(lengths, device):
    return torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32, device=device)


def check_sequences(out, lse, q, k, v, lengths_q, lengths_k, alibi_slopes=None, **options):
    at_q = at_k = 0
    for b, (nq, nk) in enumerate(zip(lengths_q, lengths_k)):
        if alibi_slopes is not None:
            options["alibi_slopes"] = alibi_slopes[b] if alibi_slopes.dim() == 2 else alibi_slopes
        part = lambda t, at, n: t[at:at + n].unsqueeze(0)
        if nq:
            check(part(out, at_q, nq), part(q, at_q, nq), part(k, at_k, nk), part(v, at_k, nk),
                  lse[:, at_q:at_q + nq].unsqueeze(0), **options)
        at_q, at_k = at_q + nq, at_k + nk
    assert (out[at_q:] == 0).all() and (lse[:, at_q:] == float("inf")).all()


LENGTHS = {
    "equal": ([40, 40], [40, 40]),
    "ragged": ([1, 70, 33, 128], [90, 70, 40, 300]),
    "empty queries": ([0, 50, 0, 20, 0], [10, 60, 0, 20, 30]),
    "empty keys": ([20, 50, 3], [0, 60, 0]),
    "decode": ([1, 1, 1], [17, 300, 5]),
    "decode with an empty query": ([1, 0, 1], [17, 300, 5]),
    "more queries than keys": ([60, 100], [30, 7]),
}


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_lengths(device, lengths, causal, dtype):
    lengths_q, lengths_k = lengths
    spare = 11  # rows that belong to no sequence
    q = random(sum(lengths_q) + spare, 4, 64, dtype=dtype, device=device)
    k, v = (random(sum(lengths_k) + spare, 2, 64, dtype=dtype, device=device) for _ in range(2))
    k[sum(lengths_k):] = float("nan")
    v[sum(lengths_k):] = float("nan")
    out, lse, probs = flash_attn_varlen_func(
        q, k, v, cumulative(lengths_q, device), cumulative(lengths_k, device), max(lengths_q), max(lengths_k),
        causal=causal, return_attn_probs=True)
    assert lse.shape == (4, q.shape[0]) and probs.shape == (0,)
    check_sequences(out, lse, q, k, v, lengths_q, lengths_k, causal=causal)


@pytest.mark.parametrize("options", [
    {"window_size": (9, 4)}, {"window_size": (9, -1)}, {"causal": True, "window_size": (12, 0)},
    {"causal": True, "softcap": 8.0}, {"softmax_scale": 0.21}], ids=str)
def test_options(device, options):
    lengths_q, lengths_k = [30, 5, 61], [80, 5, 61]
    q = random(96, 4, 64, device=device)
    k, v = (random(146, 4, 64, device=device) for _ in range(2))
    out, lse, _ = flash_attn_varlen_func(q, k, v, cumulative(lengths_q, device), cumulative(lengths_k, device), 61, 80,
                                         return_attn_probs=True, **options)
    check_sequences(out, lse, q, k, v, lengths_q, lengths_k, **options)


@pytest.mark.parametrize("per_batch", [False, True])
def test_alibi(device, per_batch):
    lengths = [30, 5, 61]
    q, k, v = (random(96, 4, 64, device=device) for _ in range(3))
    slopes = torch.rand(*([3] if per_batch else []), 4, device=device) * 0.3
    cu = cumulative(lengths, device)
    out, lse, _ = flash_attn_varlen_func(q, k, v, cu, cu, 61, 61, causal=True, alibi_slopes=slopes,
                                         return_attn_probs=True)
    check_sequences(out, lse, q, k, v, lengths, lengths, causal=True, alibi_slopes=slopes)


@pytest.mark.parametrize("kind", ["larger", "numpy", "0-d tensor"])
def test_max_seqlen_is_a_bound(device, kind):
    q, k, v = (random(90, 2, 64, device=device) for _ in range(3))
    cu = cumulative([30, 60], device)
    expected = flash_attn_varlen_func(q, k, v, cu, cu, 60, 60, causal=True)
    bound = {"larger": 100_000, "numpy": np.int64(60), "0-d tensor": cu.diff().max()}[kind]
    assert torch.equal(flash_attn_varlen_func(q, k, v, cu, cu, bound, bound, causal=True), expected)


def test_packed(device):
    qkv = random(90, 3, 2, 64, device=device)
    q, k, v = qkv.unbind(1)
    cu = cumulative([30, 60], device)
    expected = flash_attn_varlen_func(q, k, v, cu, cu, 60, 60, causal=True)
    assert torch.equal(flash_attn_varlen_qkvpacked_func(qkv, cu, 60, causal=True), expected)
    assert torch.equal(flash_attn_varlen_kvpacked_func(q, qkv[:, 1:], cu, cu, 60, 60, causal=True), expected)


def test_seqused_k(device):
    lengths_k, used = [50, 20, 33], [7, 20, 0]
    q = random(40, 2, 64, device=device)
    k, v = (random(103, 2, 64, device=device) for _ in range(2))
    cu_q, cu_k = cumulative([10, 10, 20], device), cumulative(lengths_k, device)
    out, lse, _, rng = _flash_attn_varlen_forward(
        q, k, v, cu_q, cu_k, 20, 50, 0.0, 0.125, True, seqused_k=torch.tensor(used, dtype=torch.int32, device=device))
    assert rng.shape == (2,) and rng.dtype == torch.int64
    kept = torch.cat([torch.arange(a, a + n) for a, n in zip([0, 50, 70], used)]).to(device)
    check_sequences(out, lse, q, k[kept], v[kept], [10, 10, 20], used, causal=True, softmax_scale=0.125)


def test_zero_tensors(device):
    q, k, v = (random(50, 2, 64, device=device) for _ in range(3))
    cu = cumulative([30], device)
    out, lse, *_ = _flash_attn_varlen_forward(q, k, v, cu, cu, 30, 30, 0.0, 0.125, False, zero_tensors=True)
    assert (out[30:] == 0).all() and (lse[:, 30:] == -float("inf")).all()
