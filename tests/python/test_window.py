# SPDX-License-Identifier: BSD-3-Clause
"""Sliding windows by the rule of the docstring, on every way to our kernels: query i of sq sees, of sk keys, those from
i + sk - sq - left to i + sk - sq + right, -1 being unbounded. Small random shapes with sides below, at and beyond
both lengths."""

import random

import pytest
import torch
from reference import attention, mask

import flash_attn
import flash_attn_interface
from flash_attn import flash_attn_interface as low_level

HUGE = (2 ** 31 - 1, 2 ** 31, 2 ** 40)


def shapes(count, seed):
    """(sq, sk, left, right); two in three have more queries than keys."""
    draw = random.Random(seed)
    for _ in range(count):
        sq, sk = draw.randint(1, 40), draw.randint(1, 40)
        if draw.random() < 0.5:
            sq, sk = max(sq, sk), min(sq, sk)
        sides = [-1, 0, 1, sk - 2, sk - 1, sk, sk + 1, sq - 2, sq - 1, sq, sq + 1, draw.randint(0, 50), *HUGE]
        yield sq, sk, max(-1, draw.choice(sides)), max(-1, draw.choice(sides))
    yield 90, 5, -1, 7  # 78 rows see nothing
    yield 90, 5, 7, -1
    yield 5, 90, 4, 89


def tensors(sq, sk, device, batch=1):
    return torch.randn(batch, sq, 2, 16,
                       device=device), *(torch.randn(batch, sk, 1, 16, device=device) for _ in range(2))


def expected(q, k, v, left, right, empty):
    out, lse = attention(q, k, v, window_size=(left, right))
    return out, lse.masked_fill(lse == float("inf"), empty)


def assert_right(got, wanted, said):
    out, lse = got[0], got[1]
    assert torch.allclose(out.double(), wanted[0], atol=3e-3 if out.dtype == torch.float16 else 2e-5), said
    assert torch.equal(lse.isfinite(), wanted[1].isfinite()), said
    assert torch.equal(lse[~lse.isfinite()].double(), wanted[1][~lse.isfinite()]), said
    finite = lse.isfinite()
    assert torch.allclose(lse[finite].double(), wanted[1][finite],
                          atol=3e-3 if out.dtype == torch.float16 else 2e-5), said


def cumulative(*lengths, device):
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32, device=device)


def dense(q, k, v, w):
    return flash_attn.flash_attn_func(q, k, v, window_size=w, return_attn_probs=True)[:2]


def kvpacked(q, k, v, w):
    return flash_attn.flash_attn_kvpacked_func(q, torch.stack([k, v], 2), window_size=w, return_attn_probs=True)[:2]


def positional(q, k, v, w):
    return low_level._flash_attn_forward(q, k, v, 0.0, q.shape[-1] ** -0.5, False, *w, 0.0, None, False)[:2]


def extension(q, k, v, w):
    return low_level.flash_attn_gpu.fwd(q, k, v, None, None, 0.0, q.shape[-1] ** -0.5, False, *w, 0.0, False, None)[:2]


def operator(q, k, v, w):
    return torch.ops.flash_attn._flash_attn_forward(q, k, v, 0.0, q.shape[-1] ** -0.5, False, *w, 0.0, None, False)[:2]


def varlen(q, k, v, w, extra=0):
    cu_q, cu_k = cumulative(q.shape[1], device=q.device), cumulative(k.shape[1], device=q.device)
    out, lse, _ = flash_attn.flash_attn_varlen_func(q[0], k[0], v[0], cu_q, cu_k, q.shape[1] + extra,
                                                    k.shape[1] + extra, window_size=w, return_attn_probs=True)
    return out[None], lse[None]


def loose_varlen(q, k, v, w):
    return varlen(q, k, v, w, extra=1000)


def third(q, k, v, w):
    return flash_attn_interface.flash_attn_func(q, k, v, window_size=w, return_attn_probs=True)


def third_varlen(q, k, v, w):
    cu_q, cu_k = cumulative(q.shape[1], device=q.device), cumulative(k.shape[1], device=q.device)
    out, lse = flash_attn_interface.flash_attn_varlen_func(q[0], k[0], v[0], cu_q, cu_k, q.shape[1], k.shape[1],
                                                           window_size=w, return_attn_probs=True)
    return out[None], lse[None]


@pytest.mark.parametrize("call",
                         [dense, kvpacked, positional, extension, operator, varlen, loose_varlen, third, third_varlen])
def test_windows(device, call):
    dtype = torch.float32 if device == "cpu" else torch.float16
    for sq, sk, left, right in shapes(60, seed=call.__name__):
        q, k, v = (t.to(dtype) for t in tensors(sq, sk, device))
        empty = -float("inf") if call in (third, third_varlen) else float("inf")
        assert_right(call(q, k, v, (left, right)), expected(q, k, v, left, right, empty), (sq, sk, left, right))


def test_qkvpacked(device):
    dtype = torch.float32 if device == "cpu" else torch.float16
    for s, _, left, right in shapes(20, seed=3):
        q, k, v = (torch.randn(1, s, 2, 16, device=device, dtype=dtype) for _ in range(3))
        got = flash_attn.flash_attn_qkvpacked_func(torch.stack([q, k, v], 2), window_size=(left, right),
                                                   return_attn_probs=True)
        assert_right(got, expected(q, k, v, left, right, float("inf")), (s, left, right))


def test_max_seqlen_changes_no_bit(device):
    """Sequences of several lengths, each by its own rule, whatever upper bound is said."""
    dtype = torch.float32 if device == "cpu" else torch.float16
    lengths_q, lengths_k = (90, 3, 0, 17), (5, 40, 6, 17)
    q = torch.randn(sum(lengths_q), 2, 16, device=device, dtype=dtype)
    k, v = (torch.randn(sum(lengths_k), 2, 16, device=device, dtype=dtype) for _ in range(2))
    cu_q, cu_k = cumulative(*lengths_q, device=device), cumulative(*lengths_k, device=device)
    for window in ((-1, 7), (7, -1), (4, 4), (39, 5), (5, 39), (40, 89), (89, 40), (10, 60)):
        results = [flash_attn.flash_attn_varlen_func(q, k, v, cu_q, cu_k, max_q, max_k, window_size=window,
                                                     return_attn_probs=True)[:2]
                   for max_q, max_k in ((90, 40), (91, 41), (4096, 40), (90, 4096), (130, 130))]
        for out, lse in results[1:]:
            assert torch.equal(out, results[0][0]) and torch.equal(lse, results[0][1])
        out, at_q, at_k = results[0][0], 0, 0
        for sq, sk in zip(lengths_q, lengths_k):
            exact, _ = attention(q[None, at_q:at_q + sq], k[None, at_k:at_k + sk], v[None, at_k:at_k + sk],
                                 window_size=window)
            assert torch.allclose(out[at_q:at_q + sq].double(), exact[0], atol=3e-3 if dtype == torch.float16 else 2e-5)
            at_q, at_k = at_q + sq, at_k + sk


def test_the_rows_of_the_report(device):
    q, k, v = (t.to(torch.float16) for t in tensors(90, 5, device))
    out, lse = dense(q, k, v, (-1, 7))
    assert (~mask(90, 5, window_size=(-1, 7)).any(-1)).sum() == 78
    assert (out[0].abs().amax((-1, -2)) == 0).sum() == 78 and (lse == float("inf")).sum() == 2 * 78


@pytest.mark.parametrize("side", [-2, -2 ** 31 - 1, -2 ** 32, -2 ** 40])
def test_sides_below_minus_one_are_refused(side):
    q, k, v = tensors(4, 4, "cpu")
    for call in (dense, varlen, third, third_varlen):
        with pytest.raises(ValueError, match=f"window_left is {side}; it must be -1"):
            call(q, k, v, (side, 0))
        with pytest.raises(ValueError, match=f"window_right is {side}; it must be -1"):
            call(q, k, v, (0, side))
