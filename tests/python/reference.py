# SPDX-License-Identifier: BSD-3-Clause
"""Attention as it is defined, in fp64, and as PyTorch would do it in the storage dtype: errors are compared with
errors.

The rule is the original's (its tests/test_flash_attn.py): the error of a kernel is at most twice that of the same maths
done naively in the dtype of the tensors. There the maxima are compared; `check` compares the root mean squares as
well, which vary less: with a factor of 1.1 in fp16 and bf16, where the rounding of P decides, and of 2 in fp32,
where the exponential does."""

import torch


def mask(seqlen_q, seqlen_k, causal=False, window_size=(-1, -1), device="cpu"):
    """True where query row i sees key j; aligned at the bottom right."""
    left, right = window_size
    if causal:
        right = 0
    p = torch.arange(seqlen_q, device=device)[:, None] + seqlen_k - seqlen_q
    j = torch.arange(seqlen_k, device=device)[None, :]
    seen = torch.ones(seqlen_q, seqlen_k, dtype=torch.bool, device=device)
    if left >= 0:
        seen &= j >= p - left
    if right >= 0:
        seen &= j <= p + right
    return seen


def attention(q, k, v, dtype=torch.float64, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
              alibi_slopes=None):
    """(out, lse) in `dtype`; q (b, sq, h, d), k and v (b, sk, hk, d). Naive: every step rounds to `dtype`."""
    scale = q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale
    group = q.shape[2] // k.shape[2]
    q, k, v = (t.to(dtype).transpose(1, 2) for t in (q, k, v))
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    s = (q * scale) @ k.transpose(-1, -2)
    if softcap > 0:
        s = softcap * torch.tanh(s / softcap)
    seqlen_q, seqlen_k = s.shape[-2:]
    if alibi_slopes is not None:
        slopes = alibi_slopes.to(dtype).reshape(-1, s.shape[1], 1, 1)
        p = torch.arange(seqlen_q, device=s.device)[:, None] + seqlen_k - seqlen_q
        s = s - slopes * (p - torch.arange(seqlen_k, device=s.device)[None, :]).abs().to(dtype)
    seen = mask(seqlen_q, seqlen_k, causal, window_size, s.device)
    s = s.masked_fill(~seen, float("-inf"))
    lse = s.logsumexp(-1) if seqlen_k else s.new_full(s.shape[:-1], float("-inf"))
    none = ~seen.any(-1)
    p = s.softmax(-1).masked_fill(none[:, None], 0.0)
    return (p @ v).transpose(1, 2), lse.masked_fill(none, float("inf"))


def check(out, q, k, v, lse=None, **options):
    """Compares a result with the definition."""
    exact, exact_lse = attention(q, k, v, torch.float64, **options)
    naive, naive_lse = attention(q, k, v, q.dtype, **options)
    assert out.shape == exact.shape and out.dtype == q.dtype
    difference, allowed = (out.double() - exact).abs(), (naive.double() - exact).abs()
    assert not out.isnan().any()
    if out.numel():
        # What is exact in both is compared with the rounding of the result itself.
        ulp = torch.finfo(q.dtype).eps * exact.abs().max().item()
        assert difference.max() <= 2 * allowed.max() + 0.01 * ulp, (difference.max().item(), allowed.max().item())
        rms, rms_naive = difference.square().mean().sqrt(), allowed.square().mean().sqrt()
        factor = 2 if q.dtype == torch.float32 else 1.1
        assert rms <= factor * rms_naive + 0.01 * ulp, (rms.item(), rms_naive.item())
    if lse is not None:
        assert lse.dtype == torch.float32 and lse.shape == exact_lse.shape
        finite = exact_lse.isfinite()
        assert torch.equal(finite, lse.isfinite()) and (lse[~finite] == float("inf")).all()
        if finite.any():
            # Scores are fp32 sums of products of the inputs; the LSE is an fp32 number.
            assert (lse.double()
                    - exact_lse)[finite].abs().max() <= 4e-6 * max(1.0, exact_lse[finite].abs().max().item())


def random(*shape, dtype=torch.float16, device="cpu"):
    return torch.randn(*shape, dtype=torch.float32).to(dtype).to(device)
