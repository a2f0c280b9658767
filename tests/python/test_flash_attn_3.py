# SPDX-License-Identifier: BSD-3-Clause
"""The functions of FlashAttention 3, `import flash_attn_interface`."""

import pytest
import torch
from reference import attention, check, random

import flash_attn_interface as fa3


def test_func(device):
    q = random(2, 60, 4, 64, device=device)
    k, v = (random(2, 90, 2, 64, device=device) for _ in range(2))
    out, lse = fa3.flash_attn_func(q, k, v, causal=True, window_size=(20, 0), softcap=10.0, return_attn_probs=True)
    check(out, q, k, v, lse, causal=True, window_size=(20, 0), softcap=10.0)
    assert torch.equal(fa3.flash_attn_func(q, k, v, causal=True, window_size=(20, 0), softcap=10.0), out)


def test_rows_that_see_nothing_have_lse_minus_infinity(device):
    q = random(1, 9, 2, 64, device=device)
    out, lse = fa3.flash_attn_func(q, q[:, :4], q[:, :4], causal=True, return_attn_probs=True)
    assert (lse[:, :, :5] == -float("inf")).all() and (out[:, :5] == 0).all() and lse[:, :, 5:].isfinite().all()


def test_packed(device):
    qkv = random(1, 30, 3, 4, 64, device=device)
    expected = fa3.flash_attn_func(*qkv.unbind(2))
    assert torch.equal(fa3.flash_attn_qkvpacked_func(qkv), expected)
    assert torch.equal(fa3.flash_attn_qkvpacked_func(qkv.flatten(2, 3), num_heads_q=4), expected)


@pytest.mark.parametrize("heads, error, text", [
    (None, ValueError, "num_heads_q is None"), (5, ValueError, "num_heads_q is 5; of the 8 heads of qkv"),
    (0, ValueError, "num_heads_q is 0"), (8, ValueError, "num_heads_q is 8"), (-2, ValueError, "num_heads_q is -2"),
    (4.5, TypeError, "num_heads_q is 4.5; it must be an integer")])
def test_packed_heads_that_do_not_fit_are_named(device, heads, error, text):
    """By the face and by the rotary embedding, which takes the same."""
    from flash_attn.layers.rotary import apply_rotary_emb_qkv_
    qkv, cos = random(1, 4, 8, 32, device=device), torch.ones(4, 16, device=device)
    for call in (lambda t: fa3.flash_attn_qkvpacked_func(t, num_heads_q=heads),
                 lambda t: apply_rotary_emb_qkv_(t, cos, cos, num_heads_q=heads)):
        with pytest.raises(error, match=text):
            call(qkv)
        with pytest.raises(RuntimeError, match=r"qkv has shape \(1, 4, 8\); it must be"):
            call(qkv[..., 0])



def test_varlen_with_seqused(device):
    q, k, v = (random(50, 2, 64, device=device) for _ in range(3))
    cu = torch.tensor([0, 20, 50], dtype=torch.int32, device=device)
    used = torch.tensor([20, 11], dtype=torch.int32, device=device)
    out = fa3.flash_attn_varlen_func(q, k, v, cu, cu, 30, 30, seqused_k=used, seqused_q=used, causal=True)
    check(out[None, :20], q[None, :20], k[None, :20], v[None, :20], causal=True)
    check(out[None, 20:31], q[None, 20:31], k[None, 20:31], v[None, 20:31], causal=True)
    assert (out[31:] == 0).all()


def test_combine_has_a_gradient(device):
    parts = torch.randn(3, 2, 5, 2, 4, device=device, dtype=torch.float64).requires_grad_()
    lse = torch.randn(3, 2, 5, 2, device=device, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(fa3.flash_attn_combine, (parts, lse))
    nothing = torch.full_like(lse, -float("inf")).requires_grad_()
    out, _ = fa3.flash_attn_combine(parts, nothing)
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), (parts, nothing)))


def test_combine(device):
    """Attention over two halves of the keys is put together to that over all."""
    q, k, v = (random(2, 24, 3, 32, device=device) for _ in range(3))
    parts = [attention(q, k[:, a:b], v[:, a:b], torch.float32) for a, b in ((0, 10), (10, 24))]
    out_partial = torch.stack([out for out, _ in parts])
    lse_partial = torch.stack([lse.transpose(1, 2) for _, lse in parts])
    out, lse = fa3.flash_attn_combine(out_partial, lse_partial, out_dtype=torch.float16)
    exact, exact_lse = attention(q, k, v)
    assert out.dtype == torch.float16 and (out.double() - exact).abs().max() < 1e-3
    assert (lse.transpose(1, 2).double() - exact_lse).abs().max() < 1e-5
    nothing = torch.full_like(lse_partial, -float("inf"))
    assert (fa3.flash_attn_combine(torch.zeros_like(out_partial), nothing)[0] == 0).all()


def test_an_empty_batch(device):
    """Which the original 2 refuses, and 3 answers with nothing."""
    q = random(0, 5, 2, 64, device=device).requires_grad_()
    out, lse = fa3.flash_attn_func(q, q, q, return_attn_probs=True)
    assert out.shape == q.shape and lse.shape == (0, 2, 5)
    out.sum().backward()
    assert q.grad.shape == q.shape
    flat, cu = random(0, 2, 64, device=device), torch.zeros(1, dtype=torch.int32, device=device)
    for t in (flat, flat.clone().requires_grad_()):
        assert fa3.flash_attn_varlen_func(t, t, t, cu, cu, 0, 0).shape == (0, 2, 64)
    with torch.no_grad():
        assert fa3.flash_attn_func(q, q, q).shape == q.shape
        for lengths in (cu[:0], 3, None):
            out, lse, *_ = fa3.flash_attn_with_kvcache(q, q, q, cache_seqlens=lengths, return_softmax_lse=True)
            assert out.shape == q.shape and lse.shape == (0, 2, 5)
    with pytest.raises(RuntimeError, match="same dtype"):
        fa3.flash_attn_func(q, q.bfloat16(), q.bfloat16())


def test_any_stride_of_what_is_empty(device):
    import flash_attn

    q, empty = random(2, 5, 2, 16, device=device), random(2, 16, 2, 0, device=device).transpose(1, 3)
    assert empty.shape == (2, 0, 2, 16) and empty.stride(-1) != 1
    for face in (flash_attn, fa3):
        assert face.flash_attn_func(empty, q, q).shape == empty.shape
        assert (face.flash_attn_func(q, empty, empty) == 0).all()
        assert (face.flash_attn_with_kvcache(q, empty, empty) == 0).all()
        assert face.flash_attn_with_kvcache(empty, q, q).shape == empty.shape
        cu, none = torch.zeros(2, dtype=torch.int32, device=device), empty[:1].squeeze(0)
        assert face.flash_attn_varlen_func(none, none, none, cu, cu, 0, 0).shape == none.shape


def test_what_is_not_there_yet(device):
    q = random(1, 9, 2, 64, device=device)
    with pytest.raises(NotImplementedError, match="q_descale"):
        fa3.flash_attn_func(q, q, q, q_descale=torch.zeros(1, 2, device=device))
    with pytest.raises(NotImplementedError, match="qv"):
        fa3.flash_attn_with_kvcache(q, q, q, qv=q)


def test_gradients(device):
    """Those of the other face; where rows see no key the LSE is -inf here and changes nothing."""
    import flash_attn

    q, k, v = (random(1, n, 2, 64, device=device).requires_grad_() for n in (60, 40, 40))
    out = flash_attn.flash_attn_func(q, k, v, causal=True)
    dout = torch.randn_like(out)
    expected = torch.autograd.grad(out, (q, k, v), dout)
    got = torch.autograd.grad(fa3.flash_attn_func(q, k, v, causal=True), (q, k, v), dout)
    assert all(torch.equal(a, b) for a, b in zip(got, expected))
    cu = [torch.tensor([0, n], dtype=torch.int32, device=device) for n in (60, 40)]
    used = torch.tensor([50], dtype=torch.int32, device=device)
    out = fa3.flash_attn_varlen_func(*(t[0] for t in (q, k, v)), *cu, 60, 40, seqused_q=used, causal=True)
    dq, = torch.autograd.grad(out, q, dout[0])
    assert (dq[0, 50:] == 0).all() and dq[0, 30:50].abs().sum() > 0
