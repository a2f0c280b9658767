# SPDX-License-Identifier: BSD-3-Clause
"""flashplus.merge_states: results over different keys become one."""

import pytest
import torch

import flashplus
from flash_attn import flash_attn_func

INF = float("inf")


def rows(t):
    """lse (batch, heads, seqlen) or (heads, total) as out's rows."""
    return t.transpose(-1, -2).unsqueeze(-1)


def reference(out_a, lse_a, out_b, lse_b):
    """In fp64; sides without a key are said by -inf or +inf, their out is not used."""
    a, b = (torch.where(t.isinf(), -INF, t.double()) for t in (lse_a, lse_b))
    lse = torch.logaddexp(a, b)
    weights = [torch.exp(t - torch.where(lse.isinf(), 0.0, lse)) for t in (a, b)]
    out = sum(torch.where(rows(t.isinf()), 0.0, rows(w) * o.double()) for t, w, o in ((a, weights[0], out_a),
                                                                                      (b, weights[1], out_b)))
    return out, torch.where(lse.isinf(), lse_a.double(), lse)


def sides(device, dtype=torch.float32, shape=(2, 9, 3, 24), empty=False, seed=0):
    torch.manual_seed(seed)
    result = []
    for _ in range(2):
        result.append(torch.randn(shape, device=device).to(dtype))
        result.append(torch.randn(*shape[:-3], shape[-2], shape[-3], device=device) * 3)
    if empty:
        out_a, lse_a, out_b, lse_b = result
        for row, (a, b) in enumerate(((-INF, None), (INF, None), (None, -INF), (None, INF), (-INF, INF), (INF, -INF))):
            for lse, out, value in ((lse_a, out_a, a), (lse_b, out_b, b)):
                if value is not None:
                    lse[..., row] = value
                    out.narrow(-3, row, 1).fill_(float("nan"))
    return result


@pytest.mark.parametrize("shape", [(2, 9, 3, 24), (9, 3, 24), (1, 17, 2, 256), (7, 1, 8), (0, 9, 3, 24), (0, 3, 24)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_values(device, dtype, shape):
    given = sides(device, dtype, shape, empty=shape[-3] > 6 and 0 not in shape)
    out, lse = flashplus.merge_states(*given)
    expected, expected_lse = reference(*given)
    assert out.dtype == dtype and out.shape == shape and lse.dtype == torch.float32
    assert torch.allclose(out.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-5)
    assert torch.allclose(lse.double(), expected_lse, rtol=1e-6, atol=1e-6)


def test_strides_and_in_place(device):
    given = sides(device, torch.bfloat16, empty=True)
    expected = flashplus.merge_states(*given)
    out_a, lse_a, out_b, lse_b = given
    heads_first = out_b.transpose(1, 2).contiguous().transpose(1, 2)
    columns_first = out_a.transpose(-1, -2).contiguous().transpose(-1, -2)
    lse_rows = lse_b.transpose(1, 2).contiguous().transpose(1, 2)  # its last stride is not 1
    for got, wanted in zip(flashplus.merge_states(columns_first, lse_a, heads_first, lse_rows), expected):
        assert torch.equal(got, wanted)
    for to_out, to_lse in ((columns_first, lse_rows), (out_a, lse_b), (torch.empty_like(out_a), None), (None, lse_a)):
        out, lse = to_out, to_lse
        if to_out is columns_first:
            out, lse = flashplus.merge_states(columns_first, lse_a, heads_first, lse_rows, out=to_out, lse=to_lse)
        else:
            copies = [t.clone() for t in given]
            place = {id(t): c for t, c in zip(given, copies)}
            to_out, to_lse = place.get(id(to_out), to_out), place.get(id(to_lse), to_lse)
            out, lse = flashplus.merge_states(*copies, out=to_out, lse=to_lse)
        assert to_out is None or out is to_out
        assert to_lse is None or lse is to_lse
        assert torch.equal(out, expected[0]) and torch.equal(lse, expected[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_halves_of_a_forward(device, dtype):
    if dtype == torch.float32 and device != "cpu":
        pytest.skip("a forward in fp32 is the CPU's")
    torch.manual_seed(1)
    q, k, v = (torch.randn(2, n, 2, 64, device=device, dtype=dtype) for n in (20, 50, 50))
    whole, whole_lse, _ = flash_attn_func(q, k, v, return_attn_probs=True)
    parts = [flash_attn_func(q, k[:, s], v[:, s], return_attn_probs=True)[:2]
             for s in (slice(0, 13), slice(13, 31), slice(31, 50))]
    out, lse = parts[0]
    for part in parts[1:]:
        out, lse = flashplus.merge_states(out, lse, *part)
    assert torch.allclose(out.float(), whole.float(), atol=2 * torch.finfo(dtype).eps + 1e-6)
    assert torch.allclose(lse, whole_lse, atol=1e-5)


def formula(out_a, lse_a, out_b, lse_b):
    """Differentiable, of rows that both sides saw."""
    lse = torch.logaddexp(lse_a, lse_b)
    return rows(torch.exp(lse_a - lse)) * out_a + rows(torch.exp(lse_b - lse)) * out_b, lse


@pytest.mark.parametrize("shape", [(2, 9, 3, 24), (9, 3, 24)])
@pytest.mark.parametrize("which", ["out", "lse", "both"])
def test_gradients(device, which, shape):
    given = [t.requires_grad_() for t in sides(device, shape=shape)]
    results, wanted = flashplus.merge_states(*given), formula(*given)
    chosen = {"out": slice(0, 1), "lse": slice(1, 2), "both": slice(0, 2)}[which]
    seeds = [torch.randn_like(t) for t in wanted[chosen]]
    got = torch.autograd.grad(results[chosen], given, seeds, allow_unused=True, create_graph=True)
    expected = torch.autograd.grad(wanted[chosen], given, seeds, allow_unused=True, create_graph=True)
    for g, e in zip(got, expected):
        assert (g is None) == (e is None)
        if g is not None:
            assert torch.allclose(g, e, atol=1e-5)
    twice = [torch.autograd.grad(sum(t.square().sum() for t in grads if t is not None), given[1])[0]
             for grads in (got, expected)]
    assert torch.allclose(*twice, atol=1e-4)


def test_gradients_of_rows_without_a_key(device):
    given = [t.requires_grad_() for t in sides(device, empty=True)]
    out, lse = flashplus.merge_states(*given)
    dout, dlse = torch.randn_like(out), torch.randn_like(lse)
    grads = torch.autograd.grad((out, lse), given, (dout, dlse))
    assert all(t.isfinite().all() for t in grads)
    d_out_a, d_lse_a, d_out_b, d_lse_b = grads
    for a, b, row in ((0, 1, 0), (0, 1, 1), (1, 0, 2), (1, 0, 3), (0, 0, 4), (0, 0, 5)):
        assert torch.equal(d_out_a[:, row], a * dout[:, row]) and torch.equal(d_out_b[:, row], b * dout[:, row])
        assert torch.equal(d_lse_a[..., row], a * dlse[..., row])
        assert torch.equal(d_lse_b[..., row], b * dlse[..., row])
    assert (d_lse_a[..., 6:] != 0).all()


def test_operators(device):
    given = sides(device, torch.bfloat16)
    leaves = [t.clone().requires_grad_() for t in sides(device)]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(torch.ops.flashplus.merge_states.default, tuple(given), test_utils=checks)
    torch.library.opcheck(torch.ops.flashplus.merge_states.default, tuple(leaves), test_utils=checks)
    places = torch.empty_like(given[0]), torch.empty_like(given[1])
    torch.library.opcheck(torch.ops.flashplus.merge_states_out.default, (*given, *places), test_utils=checks)


def test_compile(device):
    def step(out_a, lse_a, out_b, lse_b):
        out, lse = flashplus.merge_states(out_a * 2, lse_a, out_b, lse_b)
        return out.square().sum() + lse.sum()

    def in_place(out_a, lse_a, out_b, lse_b):
        flashplus.merge_states(out_a, lse_a, out_b, lse_b, out=out_a, lse=lse_a)
        return out_a + 1

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    given = [t.requires_grad_() for t in sides(device)]
    for n in (given, [t.requires_grad_() for t in sides(device, shape=(2, 11, 3, 24))]):
        got, expected = (torch.autograd.grad(f(*n), n) for f in (compiled, step))
        assert all(torch.allclose(g, e, atol=1e-5) for g, e in zip(got, expected))
    one, other = ([t.detach().clone() for t in given] for _ in range(2))
    assert torch.equal(torch.compile(in_place, fullgraph=True, backend="aot_eager")(*one), in_place(*other))
    assert all(torch.equal(a, b) for a, b in zip(one, other))


def test_refusals(device):
    out_a, lse_a, out_b, lse_b = sides(device)
    for arguments, sentence in (
            ((out_a, lse_a, None, lse_b), "out_b is NoneType; it must be a torch.Tensor"),
            ((out_a.int(), lse_a, out_b, lse_b), r"out_a has dtype torch.int32; it must be torch.float16"),
            ((out_a, lse_a, out_b.half(), lse_b), r"out_b has dtype torch.float16; it must be torch.float32, out_a's"),
            ((out_a, lse_a, out_b, lse_b.double()), "lse_b has dtype torch.float64; it must be torch.float32"),
            ((out_a, lse_a, out_b[0], lse_b), r"out_b has shape \(9, 3, 24\); it must have 4 dimensions"),
            ((out_a[0, 0], lse_a, out_b, lse_b), r"out_a has shape \(3, 24\); it must be \(batch, seqlen"),
            ((out_a, lse_a, out_b[:, 1:], lse_b), r"out_b has shape \(2, 8, 3, 24\); it must be that of out_a = "),
            ((out_a, lse_a.transpose(1, 2), out_b, lse_b), r"lse_a has shape \(2, 9, 3\); it must be "),
            ((torch.empty(2, 9, 3, 300, device=device), lse_a, out_b, lse_b), "out_a has head_dim 300; it must be "),
    ):
        with pytest.raises((TypeError, ValueError, RuntimeError), match=sentence):
            flashplus.merge_states(*arguments)
    with pytest.raises(ValueError, match="out has shape .2, 8, 3, 24.; it must be that of out_a"):
        flashplus.merge_states(out_a, lse_a, out_b, lse_b, out=out_a[:, 1:].clone())
    with pytest.raises(ValueError, match="out has the memory of out_a and stride"):
        flashplus.merge_states(out_a[:, :3], lse_a[..., :3], out_b[:, :3], lse_b[..., :3],
                               out=out_a.as_strided((2, 3, 3, 24), (216, 24, 72, 1)))
    with pytest.raises(RuntimeError, match="has no gradient and out_b requires one"):
        flashplus.merge_states(out_a, lse_a, out_b.clone().requires_grad_(), lse_b, out=out_a)
    with pytest.raises(NotImplementedError, match="torch.func"):
        torch.func.grad(lambda t: flashplus.merge_states(t, lse_a, out_b, lse_b)[0].sum())(out_a)
