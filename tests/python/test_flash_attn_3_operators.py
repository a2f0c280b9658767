# SPDX-License-Identifier: BSD-3-Clause
"""What FlashAttention 3 has below its functions: torch.ops.flash_attn_3, _flash_attn_forward, FlashAttnFunc, ..."""

import os
import subprocess
import sys

import flash_attn_interface as fa3
import pytest
import torch
from reference import random

operators = torch.ops.flash_attn_3


def _fwd(q, k, v, out=None, cu_q=None, cu_k=None, used_k=None, max_q=None, max_k=None, pages=None, causal=False,
         k_new=None, v_new=None):
    """By position, as PyTorch's own face on FlashAttention 3 calls it (torch.nn.attention._fa3)."""
    return operators.fwd(q, k, v, k_new, v_new, None, out, cu_q, cu_k, None, None, used_k, max_q, max_k, pages, None,
                         None, None, None, None, None, None, None, None, causal, -1, -1, 0, 0.0, True, None, 0, None,
                         0)


def _qkv(device, grad=False):
    q = random(2, 60, 4, 64, device=device)
    return [t.requires_grad_(grad) for t in (q, *(random(2, 90, 2, 64, device=device) for _ in range(2)))]


def _packed(device):
    cu_q, cu_k = (torch.tensor(c, dtype=torch.int32, device=device) for c in ([0, 20, 50], [0, 30, 70]))
    q = random(50, 4, 64, device=device)
    return q, random(70, 2, 64, device=device), random(70, 2, 64, device=device), cu_q, cu_k


def test_the_order_of_arguments():
    """The extension's, as positional callers have it."""
    fwd = ("q k v k_new v_new q_v out cu_seqlens_q cu_seqlens_k cu_seqlens_k_new seqused_q seqused_k max_seqlen_q "
           "max_seqlen_k page_table kv_batch_idx leftpad_k rotary_cos rotary_sin seqlens_rotary q_descale k_descale "
           "v_descale softmax_scale is_causal window_size_left window_size_right attention_chunk softcap "
           "is_rotary_interleaved scheduler_metadata num_splits pack_gqa sm_margin")
    bwd = ("dout q k v out softmax_lse dq dk dv cu_seqlens_q cu_seqlens_k seqused_q seqused_k max_seqlen_q "
           "max_seqlen_k softmax_scale is_causal window_size_left window_size_right softcap deterministic sm_margin")
    for operator, names, results in ((operators.fwd, fwd, 4), (operators.bwd, bwd, 5),
                                     (operators.fwd_combine, "out_partial lse_partial out out_dtype", 2)):
        schema = operator.default._schema
        assert [a.name for a in schema.arguments] == names.split() and len(schema.returns) == results


def test_fwd(device):
    q, k, v = _qkv(device)
    expected, expected_lse = fa3.flash_attn_func(q, k, v, causal=True, return_attn_probs=True)
    out, lse, *partial = _fwd(q, k, v, causal=True)
    assert torch.equal(out, expected) and torch.equal(lse, expected_lse) and all(t.numel() == 0 for t in partial)
    given = torch.empty_like(out)
    assert _fwd(q, k, v, given, causal=True)[0] is given and torch.equal(given, expected)
    q, k, v, cu_q, cu_k = _packed(device)
    expected = fa3.flash_attn_varlen_func(q, k, v, cu_q, cu_k, 30, 40)
    assert torch.equal(_fwd(q, k, v, None, cu_q, cu_k, None, 30, 40)[0], expected)
    assert torch.equal(_fwd(q, k, v, None, cu_q, cu_k)[0], expected)


def test_fwd_on_a_cache(device):
    """Pages, lengths in use, new keys: flash_attn_with_kvcache, which the original makes of the same operator."""
    q, pool_k, pool_v = random(2, 3, 4, 64, device=device), *(random(8, 16, 2, 64, device=device) for _ in range(2))
    pages = torch.tensor([[3, 1, 0], [5, 2, 7]], dtype=torch.int32, device=device)
    used = torch.tensor([20, 33], dtype=torch.int32, device=device)
    new_k, new_v = (random(2, 3, 2, 64, device=device) for _ in range(2))
    caches = [pool_k.clone(), pool_v.clone()]
    expected = fa3.flash_attn_with_kvcache(q, *caches, new_k, new_v, cache_seqlens=used, page_table=pages, causal=True)
    out, *_ = _fwd(q, pool_k, pool_v, used_k=used, pages=pages, causal=True, k_new=new_k, v_new=new_v)
    assert torch.equal(out, expected) and torch.equal(pool_k, caches[0]) and torch.equal(pool_v, caches[1])
    read = fa3._flash_attn_forward(q, pool_k, pool_v, seqused_k=used + 3, page_table=pages, causal=True)[0]
    # Without new keys a GPU may take another kernel.
    assert torch.equal(read, expected) if device == "cpu" else (read - expected).abs().max() < 4e-3
    with pytest.raises(ValueError, match="k_new is given"):
        operators._flash_attn_forward(q, pool_k, pool_v, new_k, new_v)


def test_gradients(device):
    """Of _flash_attn_forward and FlashAttnFunc, and by _flash_attn_backward and bwd: one and the same."""
    q, k, v = _qkv(device, True)
    out = fa3.flash_attn_func(q, k, v, causal=True)
    dout = torch.randn_like(out)
    expected = torch.autograd.grad(out, (q, k, v), dout)
    out, lse, *_ = fa3._flash_attn_forward(q, k, v, causal=True)
    for made in (out, fa3.FlashAttnFunc.apply(q, k, v, None, True)):
        assert all(torch.equal(a, b) for a, b in zip(torch.autograd.grad(made, (q, k, v), dout), expected))
    with torch.no_grad():
        grads = [torch.empty_like(t) for t in (q, k, v)]
        delta = fa3._flash_attn_backward(dout, q, k, v, out, lse, None, None, None, None, None, None, *grads, 0.125,
                                         True, -1, -1, 0.0, False, 0)
        assert all(torch.equal(a, b) for a, b in zip(grads, expected))
        sums = (dout.float() * out.float()).sum(-1).transpose(1, 2)
        assert delta.shape == (2, 4, 128) and (delta[..., :60] - sums).abs().max() < 1e-2 * sums.abs().max()
        grads = [torch.empty_like(t) for t in (q, k, v)]
        _, log2, *_ = operators.bwd(dout, q, k, v, out, lse, *grads, None, None, None, None, None, None, None, True)
        assert all(torch.equal(a, b) for a, b in zip(grads, expected))
        assert torch.allclose(log2[..., :60].exp2(), lse.exp(), rtol=1e-4)


def test_gradients_of_packed_sequences(device):
    q, k, v, cu_q, cu_k = _packed(device)
    q, k, v = (t.requires_grad_() for t in (q, k, v))
    used = torch.tensor([30, 25], dtype=torch.int32, device=device)
    out = fa3.flash_attn_varlen_func(q, k, v, cu_q, cu_k, 30, 40, seqused_k=used)
    dout = torch.randn_like(out)
    expected = torch.autograd.grad(out, (q, k, v), dout)
    for made in (fa3._flash_attn_forward(q, k, v, cu_seqlens_q=cu_q, cu_seqlens_k=cu_k, seqused_k=used,
                                         max_seqlen_q=30, max_seqlen_k=40)[0],
                 fa3.FlashAttnVarlenFunc.apply(q, k, v, cu_q, cu_k, None, used, 30, 40, None, False)):
        assert all(torch.equal(a, b) for a, b in zip(torch.autograd.grad(made, (q, k, v), dout), expected))
    assert (expected[1][55:] == 0).all()


def test_packed_func(device):
    qkv = random(1, 30, 3, 4, 64, device=device).requires_grad_()
    out = fa3.FlashAttnQKVPackedFunc.apply(qkv, None, True)
    assert torch.equal(out, fa3.flash_attn_func(*qkv.unbind(2), causal=True))
    out.sum().backward()
    assert qkv.grad.abs().sum() > 0


def test_what_has_no_gradient_says_so(device):
    q, k, v = _qkv(device, True)
    used = torch.tensor([50, 90], dtype=torch.int32, device=device)
    with pytest.raises(NotImplementedError, match="KV cache"):
        fa3._flash_attn_forward(q, k, v, seqused_k=used)[0].sum().backward()
    with pytest.raises(NotImplementedError, match="_flash_attn_forward"):
        _fwd(q, k, v)[0].sum().backward()
    out, lse, *_ = fa3._flash_attn_forward(q, k, v)
    with pytest.raises(NotImplementedError, match="double backward"):
        fa3._flash_attn_backward(out, q, k, v, out, lse, dq=q, dk=k, dv=v)
    with pytest.raises(NotImplementedError, match="attention_chunk"):
        fa3._flash_attn_forward(q, k, v, attention_chunk=8)[0].sum().backward()


def test_compiled(device):
    q, k, v = _qkv(device, True)

    def function(q, k, v):
        out, lse, *_ = fa3._flash_attn_forward(q, k, v, causal=True)
        return fa3.FlashAttnFunc.apply(q, k, v, None, True).sum() + out.sum() + lse.logsumexp(-1).sum()

    expected = torch.autograd.grad(function(q, k, v), (q, k, v))
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    assert all(torch.equal(a, b) for a, b in zip(torch.autograd.grad(compiled(q, k, v), (q, k, v)), expected))


@pytest.mark.skipif(not hasattr(torch.library, "opcheck"), reason="an older PyTorch")
def test_the_operators_are_what_they_say(device):
    q, k, v = _qkv(device)
    torch.library.opcheck(operators._flash_attn_forward.default, (q, k, v), {"causal": True, "num_splits": 1})
    tests = "test_schema", "test_faketensor"
    out, lse, *_ = operators.fwd(q, k, v)
    torch.library.opcheck(operators.fwd.default, (q, k, v), test_utils=tests)
    grads = [torch.empty_like(t) for t in (q, k, v)]
    torch.library.opcheck(operators.bwd.default, (out, q, k, v, out, lse, *grads), test_utils=tests)
    torch.library.opcheck(operators._flash_attn_backward.default,
                          (out, q, k, v, out, lse, None, None, None, None, None, None, *grads), test_utils=tests)


def test_an_empty_batch(device):
    q = random(0, 5, 2, 64, device=device)
    out, lse, *_ = _fwd(q, q, q)
    assert out.shape == q.shape and lse.shape == (0, 2, 5)
    assert operators.bwd(out, q, q, q, out, lse, *(torch.empty_like(q) for _ in range(3)))[0].shape == (0, 2, 128)


def test_beside_the_original(tmp_path):
    """Which defines the operators itself, whenever it is imported: ours have another name then."""
    (tmp_path / "flash_attn_3").mkdir()
    (tmp_path / "flash_attn_3" / "__init__.py").write_text("")
    code = ("import flashplus.finder; flashplus.finder.install(); import torch, flash_attn_interface as f\n"
            "torch.library.define('flash_attn_3::fwd', '(Tensor q) -> Tensor')\n"
            "q = torch.randn(1, 4, 2, 16)\n"
            "assert torch.equal(f._flash_attn_forward(q, q, q)[0], f.flash_attn_func(q, q, q))")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path})
