# SPDX-License-Identifier: BSD-3-Clause
"""flash_attn.bert_padding and flash_attn.layers.rotary."""

import pytest
import torch

from flash_attn.bert_padding import (
    index_first_axis,
    index_first_axis_residual,
    pad_input,
    unpad_input,
    unpad_input_for_concatenated_sequences,
)
from flash_attn.layers.rotary import (
    RotaryEmbedding,
    apply_rotary_emb,
    apply_rotary_emb_kv_,
    apply_rotary_emb_qkv_,
    apply_rotary_emb_torch,
)
from flash_attn.ops.triton.rotary import apply_rotary


def test_unpad_and_pad(device):
    mask = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], device=device)
    x = torch.randn(3, 4, 2, 5, device=device, requires_grad=True)
    tokens, indices, cu, longest, used = unpad_input(x, mask)
    assert torch.equal(tokens, x.reshape(12, 2, 5)[mask.flatten().bool()]) and longest == 4 and type(longest) is int
    assert cu.tolist() == [0, 3, 3, 7] and cu.dtype == used.dtype == torch.int32 and used.tolist() == [3, 0, 4]
    back = pad_input(tokens, indices, 3, 4)
    assert torch.equal(back, x * mask[:, :, None, None])
    weight = torch.randn_like(back)
    (grad,) = torch.autograd.grad((back * weight).sum(), x)
    assert torch.equal(grad, weight * mask[:, :, None, None])


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64])
def test_unused_tokens_are_kept_but_not_counted(device, dtype):
    mask = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]], device=device).to(dtype)
    unused = torch.tensor([[0, 0, 1, 0], [0, 0, 0, 0]], device=device).to(dtype)
    tokens, indices, cu, longest, used = unpad_input(torch.arange(8, device=device).reshape(2, 4, 1), mask, unused)
    assert tokens.flatten().tolist() == [0, 1, 2, 4] and cu.tolist() == [0, 3, 4
                                                                         ] and used.tolist() == [2, 1] and longest == 3


def test_unpad_of_concatenated_sequences(device):
    lengths = torch.tensor([[2, 1, 0, 0], [4, 0, 0, 0]], device=device)
    tokens, indices, cu, longest = unpad_input_for_concatenated_sequences(
        torch.arange(8, device=device).reshape(2, 4, 1), lengths)
    assert tokens.flatten().tolist() == [0, 1, 2, 4, 5, 6, 7] and cu.tolist() == [0, 2, 3, 7] and longest == 4


def test_index_gradients(device):
    x = torch.randn(6, 3, device=device, dtype=torch.float64, requires_grad=True)
    indices = torch.tensor([4, 0, 3], device=device)
    assert torch.autograd.gradcheck(lambda x: index_first_axis(x, indices), x)
    assert torch.autograd.gradcheck(lambda x: index_first_axis_residual(x, indices), x)


def table(rows, half, device, dtype=torch.float32):
    angle = torch.rand(rows, half, device=device) * 6
    return angle.cos().to(dtype), angle.sin().to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("rotary_dim", [64, 32])
@pytest.mark.parametrize("inplace", [False, True])
def test_rotary(device, dtype, interleaved, rotary_dim, inplace):
    x = torch.randn(2, 20, 3, 64, device=device).to(dtype)
    cos, sin = table(40, rotary_dim // 2, device, dtype)
    expected = apply_rotary_emb_torch(x.double(), cos[3:23].double(), sin[3:23].double(), interleaved)
    given = x.clone()
    out = apply_rotary_emb(given, cos, sin, interleaved=interleaved, inplace=inplace, seqlen_offsets=3)
    assert (out is given) == inplace or out.data_ptr() == given.data_ptr() and inplace
    assert inplace or torch.equal(given, x)
    assert (out.double() - expected).abs().max() <= torch.finfo(dtype).eps * expected.abs().max()
    assert torch.equal(out[..., rotary_dim:], x[..., rotary_dim:])


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_gradient(device, interleaved):
    x = torch.randn(1, 5, 2, 16, device=device, requires_grad=True)
    cos, sin = table(5, 6, device)
    out = apply_rotary_emb(x, cos, sin, interleaved)
    weight = torch.randn_like(out)
    (grad,) = torch.autograd.grad(out, x, weight)
    (expected,) = torch.autograd.grad(apply_rotary_emb_torch(x, cos, sin, interleaved), x, weight)
    assert torch.allclose(grad, expected, atol=1e-6)


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_under_transforms(device, interleaved):
    """torch.func's vmap, jvp and grad."""
    x = torch.randn(3, 2, 20, 4, 32, device=device)
    cos, sin = (torch.randn(20, 8, device=device) for _ in range(2))
    call = lambda x: apply_rotary_emb(x, cos, sin, interleaved)
    wanted = torch.stack([call(one) for one in x])
    assert torch.equal(torch.func.vmap(call)(x), wanted)
    assert torch.allclose(torch.func.jvp(call, (x[0],), (x[1],))[1], wanted[1], atol=1e-5)  # it is linear
    leaf = x[0].clone().requires_grad_()
    grad, = torch.autograd.grad(call(leaf).square().sum(), leaf)
    assert torch.allclose(torch.func.grad(lambda x: call(x).square().sum())(x[0]), grad, atol=1e-4)


def test_rotary_of_packed_sequences_and_offsets(device):
    cos, sin = table(30, 8, device)
    lengths, offsets = [4, 0, 9], torch.tensor([2, 0, 15], device=device)
    cu = torch.tensor([0, 4, 4, 13], dtype=torch.int32, device=device)
    x = torch.randn(15, 2, 16, device=device)
    out = apply_rotary(x, cos, sin, seqlen_offsets=offsets, cu_seqlens=cu, max_seqlen=9)
    at = 0
    for n, offset in zip(lengths, offsets.tolist()):
        expected = apply_rotary_emb_torch(x[None, at:at + n], cos[offset:offset + n], sin[offset:offset + n])
        assert torch.allclose(out[at:at + n], expected[0], atol=1e-6)
        at += n
    assert torch.equal(out[at:], x[at:])
    batched = torch.randn(3, 4, 2, 16, device=device)
    out = apply_rotary(batched, cos, sin, seqlen_offsets=torch.tensor([0, 5, 28], device=device))
    for b, offset in enumerate([0, 5]):
        assert torch.allclose(
            out[b],
            apply_rotary_emb_torch(batched[b:b + 1], cos[offset:offset + 4], sin[offset:offset + 4])[0], atol=1e-6)
    # Beyond the table nothing is rotated.
    assert torch.equal(out[2, 2:], batched[2, 2:]) and not torch.equal(out[2, :2], batched[2, :2])


def test_conjugate_is_the_inverse(device):
    x = torch.randn(1, 9, 2, 32, device=device)
    cos, sin = table(9, 16, device)
    assert torch.allclose(apply_rotary(apply_rotary(x, cos, sin), cos, sin, conjugate=True), x, atol=1e-5)


def test_rotary_of_packed_tensors(device):
    cos, sin = table(8, 16, device)
    qkv = torch.randn(2, 8, 3, 2, 32, device=device)
    rotate = lambda t: apply_rotary_emb_torch(t, cos, sin)
    expected = torch.stack((rotate(qkv[:, :, 0]), rotate(qkv[:, :, 1]), qkv[:, :, 2]), 2)
    given = qkv.clone()
    assert apply_rotary_emb_qkv_(given, cos, sin) is given and torch.allclose(given, expected, atol=1e-6)
    flat = torch.cat((qkv[:, :, 0], qkv[:, :, 1, :1], qkv[:, :, 2, :1]), 2)
    out = apply_rotary_emb_qkv_(flat.clone(), cos, sin, num_heads_q=2)
    assert torch.allclose(out[:, :, :2], expected[:, :, 0], atol=1e-6) and torch.equal(out[:, :, 3], flat[:, :, 3])
    kv = qkv[:, :, 1:].clone()
    assert torch.allclose(apply_rotary_emb_kv_(kv, cos, sin), expected[:, :, 1:], atol=1e-6)


@pytest.mark.parametrize("scale_base", [None, 512])
def test_rotary_embedding(device, scale_base):
    layer = RotaryEmbedding(32, scale_base=scale_base, device=device, pos_idx_in_fp32=True)
    qkv = torch.randn(1, 10, 3, 2, 32, device=device)
    out = layer(qkv.clone(), seqlen_offset=4)
    q, kv = layer(qkv[:, :, 0].clone(), qkv[:, :, 1:].clone(), seqlen_offset=4)
    assert torch.equal(out[:, :, 0], q) and torch.equal(out[:, :, 1:], kv) and torch.equal(kv[:, :, 1], qkv[:, :, 2])
    # The scores of queries and keys depend on their distance alone.
    same = qkv[:, :1].expand(1, 10, 3, 2, 32).clone()
    rotated = layer(same)
    scores = torch.einsum("bqhd,bkhd->bhqk", rotated[:, :, 0], rotated[:, :, 1])
    assert torch.allclose(scores[..., 5, 3], scores[..., 8, 6], atol=1e-3)


def packed_forms(device, wants):
    cos, sin = table(8, 16, device)
    rotate = lambda t: apply_rotary_emb_torch(t, cos, sin)
    whole = torch.randn(2, 8, 3, 2, 32, device=device)
    flat = torch.randn(2, 8, 6, 32, device=device)
    forms = {"x": (whole[:, :, 0].clone(), lambda t: apply_rotary_emb(t, cos, sin, inplace=True), rotate),
             "qkv": (whole, lambda t: apply_rotary_emb_qkv_(t, cos, sin),
                     lambda t: torch.stack((rotate(t[:, :, 0]), rotate(t[:, :, 1]), t[:, :, 2]), 2)),
             "qkv in heads": (flat, lambda t: apply_rotary_emb_qkv_(t, cos, sin, num_heads_q=4),
                              lambda t: torch.cat((rotate(t[:, :, :5]), t[:, :, 5:]), 2)),
             "kv": (whole[:, :, 1:].clone(), lambda t: apply_rotary_emb_kv_(t, cos, sin),
                    lambda t: torch.stack((rotate(t[:, :, 0]), t[:, :, 1]), 2))}
    return {name: (t.requires_grad_(wants), *rest) for name, (t, *rest) in forms.items()}


@pytest.mark.parametrize("form", ["x", "qkv", "qkv in heads", "kv"])
@pytest.mark.parametrize("kind", ["no gradient", "leaf", "not a leaf", "view", "a part"])
def test_in_place_is_in_place(device, form, kind):
    """As the original does it: also where a gradient is wanted, x is rotated and what is returned has the gradient."""
    leaf, call, expected = packed_forms(device, kind != "no gradient")[form]
    wanted = expected(leaf).detach()
    given = {"not a leaf": lambda: leaf * 1, "view": lambda: leaf.view(leaf.shape),
             "a part": lambda: leaf.unsqueeze(0)[0]}.get(kind, lambda: leaf)()
    before = leaf.detach().clone()
    out = call(given)
    assert torch.allclose(out, wanted, atol=1e-6) and torch.allclose(given, wanted, atol=1e-6)
    assert out.data_ptr() == given.data_ptr()
    if kind != "no gradient":
        weight = torch.randn_like(out)
        (grad,) = torch.autograd.grad(out, leaf, weight)
        again = before.requires_grad_()
        (right,) = torch.autograd.grad(expected(again), again, weight)
        assert torch.allclose(grad, right, atol=1e-6)


def test_rotary_embedding_trains(device):
    layer = RotaryEmbedding(32, device=device)
    q, kv = torch.randn(1, 6, 2, 32, device=device), torch.randn(1, 6, 2, 2, 32, device=device)
    out, pair = layer(q.clone().requires_grad_(), kv.clone().requires_grad_())
    plain, plain_pair = layer(q.clone(), kv.clone())
    assert torch.equal(out, plain) and torch.equal(pair, plain_pair) and out.requires_grad and pair.requires_grad
    with pytest.raises(ValueError, match="max_seqlen is None"):
        RotaryEmbedding(32, device=device)(q, kv, seqlen_offset=torch.zeros(1, dtype=torch.int32, device=device))


def test_a_table_has_a_row_for_every_token(device):
    cos, sin = table(4, 8, device)
    x = torch.randn(2, 5, 2, 16, device=device)
    offsets, cu = torch.zeros(2, dtype=torch.int32, device=device), torch.tensor([0, 5, 10]).int().to(device)
    for call in (lambda: apply_rotary(x, cos, sin, seqlen_offsets=offsets),
                 lambda: apply_rotary_emb(x, cos, sin, inplace=True, seqlen_offsets=offsets),
                 lambda: apply_rotary(x.flatten(0, 1), cos, sin, cu_seqlens=cu, max_seqlen=5),
                 lambda: apply_rotary_emb_qkv_(x.unsqueeze(2).repeat(1, 1, 3, 1, 1), cos, sin, seqlen_offsets=offsets),
                 lambda: apply_rotary_emb_kv_(x.unsqueeze(2).repeat(1, 1, 2, 1, 1), cos, sin, seqlen_offsets=offsets)):
        with pytest.raises(ValueError, match="longest sequence has 5 rows; cos and sin, which have 4"):
            call()


def test_no_sequence_is_longer_than_it_is_said_to_be():
    """Its last rows would stay as they are, without a word. Lengths on a GPU are not read."""
    cos, sin = table(4, 8, "cpu")
    x, cu = torch.randn(7, 2, 16), torch.tensor([0, 3, 7]).int()
    for call in (apply_rotary, apply_rotary_emb):
        with pytest.raises(ValueError, match="max_seqlen is 2, but cu_seqlens holds a sequence of 4 rows"):
            call(x, cos[:2], sin[:2], cu_seqlens=cu, max_seqlen=2)
        assert call(x, cos, sin, cu_seqlens=cu, max_seqlen=4).shape == x.shape
        compiled = torch.compile(lambda *a: call(*a, cu_seqlens=cu, max_seqlen=4), backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x, cos, sin), call(x, cos, sin, cu_seqlens=cu, max_seqlen=4))


def test_rotary_refuses(device):
    cos, sin = table(4, 8, device)
    x = torch.randn(1, 5, 2, 16, device=device)
    for match, call in [("longest sequence has 5 rows", lambda: apply_rotary(x, cos, sin)),
                        ("seqlen_offsets is 2 and the longest", lambda: apply_rotary(x[:, :3], cos, sin, 2)),
                        ("seqlen_offsets is -1; it must not be negative", lambda: apply_rotary(x[:, :3], cos, sin, -1)),
                        ("must be equal", lambda: apply_rotary(x, cos, sin[:3])),
                        ("head_dim, 8", lambda: apply_rotary(x[..., :8], cos, sin)),
                        ("max_seqlen is None", lambda: apply_rotary(x[0], cos, sin, cu_seqlens=torch.zeros(2).int()))]:
        with pytest.raises(ValueError, match=match):
            call()
    for match, call in [("x is torch.int32", lambda: apply_rotary(x[:, :3].int(), cos, sin)),
                        ("sin is torch.int64", lambda: apply_rotary_emb(x[:, :3], cos, sin.long()))]:
        with pytest.raises(TypeError, match=match):
            call()


def test_offsets_that_lead_out_of_the_table(device):
    """A tensor of them is not read on the host; what it moves outside, on either side, is not rotated."""
    cos, sin = table(4, 8, device)
    x = torch.randn(2, 3, 2, 16, device=device)
    got = apply_rotary(x, cos, sin, torch.tensor([-2, 2], dtype=torch.int32, device=device))
    assert torch.equal(got[0, :2], x[0, :2]) and torch.equal(got[1, 2], x[1, 2])
    assert torch.equal(got[0, 2:], apply_rotary(x[:1, 2:], cos, sin)[0])
    assert torch.equal(got[1, :2], apply_rotary(x[1:, :2], cos, sin, 2)[0])


def test_a_mask_of_another_shape_is_refused(device):
    """It would take other tokens than it means."""
    x = torch.randn(2, 5, 3, device=device)
    good, bad = (torch.ones(2, n, dtype=torch.int32, device=device) for n in (5, 4))
    for call, name in ((lambda: unpad_input(x, bad), "attention_mask"),
                       (lambda: unpad_input(x, good, bad), "unused_mask"),
                       (lambda: unpad_input_for_concatenated_sequences(x, bad), "attention_mask_in_length")):
        with pytest.raises(ValueError, match=rf"{name} has shape \(2, 4\); it must be .*\(2, 5\)"):
            call()
