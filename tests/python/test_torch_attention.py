# SPDX-License-Identifier: BSD-3-Clause
"""Our kernels under PyTorch's own attention: flashplus.register_torch()."""

import flash_attn
import flashplus
import pytest
import torch
import torch.nn.functional as F
from reference import random

attention = torch.nn.attention
if not hasattr(attention, "register_flash_attention_impl"):
    def test_an_older_pytorch_says_so():
        with pytest.raises(NotImplementedError, match="no registry"):
            flashplus.register_torch()
else:
    from torch.nn.attention.varlen import varlen_attn

    @pytest.fixture
    def active():
        attention.activate_flash_attention_impl(flashplus.register_torch())
        yield
        attention.restore_flash_attention_impl(_raise_warn=False)

    def ours(call):
        """call(), and how many of our launches it made."""
        from flashplus import library

        lib, count = library.get(), []
        whole = {name: getattr(lib, name) for name in ("forward", "backward", "backward_python_tuple")}
        for name, f in whole.items():
            setattr(lib, name, lambda *a, f=f: (count.append(f(*a)), count[-1])[1])
        try:
            return call(), count.count(0)
        finally:
            for name, f in whole.items():
                setattr(lib, name, f)

    def grads_of(call, *tensors):
        tensors = [t.detach().requires_grad_() for t in tensors]
        out = call(*tensors)
        torch.manual_seed(1)
        return [out.detach(), *torch.autograd.grad(out, tensors, torch.randn(out.shape).to(out))]

    CASES = {
        "full": lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
        "scale": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.3),
        "causal": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        "causal, more queries": lambda q, k, v: F.scaled_dot_product_attention(q, k[:, :, :9], v[:, :, :9],
                                                                               is_causal=True),
        "causal, more keys": lambda q, k, v: F.scaled_dot_product_attention(q[:, :, :9], k, v, is_causal=True),
        "mask": lambda q, k, v: F.scaled_dot_product_attention(
            q, k, v, attn_mask=torch.arange(30) < torch.arange(5, 35).view(-1, 1)),
        "float mask": lambda q, k, v: F.scaled_dot_product_attention(
            q, k, v, attn_mask=torch.linspace(-1, 1, 900).view(1, 1, 30, 30).to(q.dtype)),
        "heads in groups": lambda q, k, v: F.scaled_dot_product_attention(q, k[:, :2], v[:, :2], enable_gqa=True),
        "strides": lambda q, k, v: F.scaled_dot_product_attention(
            *(t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v))),
    }

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("case", CASES)
    def test_sdpa_on_the_cpu(case, dtype):
        """What PyTorch itself computes, forward and backward, and by us."""
        given = [torch.randn(2, 4, 30, 32).to(dtype) for _ in range(3)]
        wanted = grads_of(CASES[case], *given)
        attention.activate_flash_attention_impl(flashplus.register_torch())
        try:
            got, launches = ours(lambda: grads_of(CASES[case], *given))
        finally:
            attention.restore_flash_attention_impl()
        assert launches == 2
        for a, b in zip(got, wanted):
            tolerance = 1e-5 if dtype == torch.float32 else 4e-2
            assert a.shape == b.shape and (a - b).abs().max() <= tolerance * b.abs().max()
        assert ours(lambda: CASES[case](*given))[1] == 0  # restored

    def test_rows_that_overlap(active):
        """Windows of a signal as queries, whose output PyTorch's own kernel leaves in part as it was."""
        signal, k = torch.randn(2, 4, 61), torch.randn(2, 4, 30, 32)
        case = lambda q, k: CASES["full"](q.unfold(2, 32, 1), k, k)
        got, launches = ours(lambda: grads_of(case, signal, k))
        wanted = grads_of(lambda q, k: CASES["full"](q.unfold(2, 32, 1).contiguous(), k, k), signal, k)
        assert launches == 2 and all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(got, wanted))

    def test_what_is_not_ours_is_pytorchs(active):
        for given in ([torch.randn(1, 2, 5, 32, dtype=torch.double)] * 3, [torch.randn(1, 2, 5, 300)] * 3):
            got, launches = ours(lambda: grads_of(CASES["full"], *given))
            t = given[0].double()
            exact = (t @ t.mT * t.shape[-1] ** -0.5).softmax(-1) @ t
            assert launches == 0 and torch.allclose(got[0].double(), exact, atol=1e-5)

    def test_varlen_attn(active, device):
        """Which PyTorch has on CUDA only."""
        q = random(50, 4, 64, device=device)
        k, v = (random(50, 2, 64, device=device) for _ in range(2))
        cu = torch.tensor([0, 20, 50], dtype=torch.int32, device=device)
        for window, options in (((-1, -1), {}), ((-1, 0), {"causal": True}), ((7, 0), {"window_size": (7, 0)})):
            got = grads_of(lambda q, k, v: varlen_attn(q, k, v, cu, cu, 30, 30, window_size=window, enable_gqa=True), q,
                           k, v)
            wanted = grads_of(lambda q, k, v: flash_attn.flash_attn_varlen_func(q, k, v, cu, cu, 30, 30, **options), q,
                              k, v)
            assert all(torch.equal(a, b) for a, b in zip(got, wanted))

    def test_varlen_attn_on_pages(active, device):
        q = random(7, 4, 64, device=device)
        k, v = (random(8, 16, 2, 64, device=device) for _ in range(2))
        cu = torch.tensor([0, 3, 7], dtype=torch.int32, device=device)
        pages = torch.tensor([[3, 1, 0], [5, 2, 7]], dtype=torch.int32, device=device)
        used = torch.tensor([20, 33], dtype=torch.int32, device=device)
        with torch.no_grad():
            got = varlen_attn(q, k, v, cu, None, 4, 33, window_size=(-1, 0), seqused_k=used, block_table=pages,
                              enable_gqa=True)
        cu_k = torch.tensor([0, 20, 53], dtype=torch.int32, device=device)
        wanted = flash_attn.flash_attn_varlen_func(q, k, v, cu, cu_k, 4, 33, causal=True, block_table=pages)
        assert torch.equal(got, wanted)

    def test_compiled(active):
        q, k, v = (torch.randn(2, 4, 30, 32) for _ in range(3))
        cu = torch.tensor([0, 10, 30], dtype=torch.int32)

        def function(q, k, v):
            dense = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return dense.sum() + varlen_attn(*(t[0].transpose(0, 1) for t in (q, k, v)), cu, cu, 20, 20).sum()

        compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
        assert all(torch.allclose(a, b) for a, b in zip(grads_of(compiled, q, k, v), grads_of(function, q, k, v)))

    def test_a_name_of_ones_own_and_nothing_active():
        before = attention.current_flash_attention_impl()
        assert flashplus.register_torch("MINE") == "MINE" and "MINE" in attention.list_flash_attention_impls()
        assert attention.current_flash_attention_impl() == before

    def test_cudnn_is_off_while_ours_is_active():
        on = torch.backends.cuda.cudnn_sdp_enabled()
        attention.activate_flash_attention_impl(flashplus.register_torch())
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        attention.restore_flash_attention_impl()
        assert torch.backends.cuda.cudnn_sdp_enabled() == on

    def test_sdpa_on_cuda(active, device):
        if device == "cpu":
            pytest.skip("the operators of CUDA")
        given = [random(2, 4, 30, 64, device=device) for _ in range(3)]
        got, launches = ours(lambda: grads_of(CASES["causal"], *given))
        wanted = grads_of(lambda q, k, v: flash_attn.flash_attn_func(
            *(t.transpose(1, 2) for t in (q, k, v)), causal=True).transpose(1, 2), *given)
        assert launches == 2 and all(torch.equal(a, b) for a, b in zip(got, wanted))
