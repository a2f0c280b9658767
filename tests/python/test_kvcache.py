# SPDX-License-Identifier: BSD-3-Clause
"""flash_attn_with_kvcache and varlen calls with a block table: what the original's tests ask (append, rotary, pages,
cache_batch_idx, left padding, splits, grouped heads, windows), against the definition in fp64, with the whole cache
compared outside of the new slots and garbage where nothing may be read."""

import math

import flash_attn
import flash_attn_interface
import numpy
import pytest
import torch
from flash_attn.flash_attn_interface import _flash_attn_varlen_forward, flash_attn_gpu

from reference import attention, check

pytestmark = pytest.mark.usefixtures("ours")


def random(*shape, device, dtype=torch.bfloat16):
    return torch.randn(*shape, device=device, dtype=torch.float32).to(dtype)


def ints(values, device):
    return torch.tensor(values, dtype=torch.int32, device=device)


def rotated(x, cos, sin, positions, interleaved):
    """x (s, heads, d) in fp32, rounded once to its dtype."""
    half = cos.shape[1]
    c, s = (t[positions].float()[:, None] for t in (cos, sin))
    y = x.float().clone()
    at = (slice(0, 2 * half, 2), slice(1, 2 * half, 2)) if interleaved else (slice(0, half), slice(half, 2 * half))
    a, b = (x.float()[..., i] for i in at)
    y[..., at[0]], y[..., at[1]] = a * c - b * s, a * s + b * c
    return y.to(x.dtype)


class Cache:
    """Keys and values of a batch in a dense cache or in pages, whose free places hold NaN and free entries nonsense."""

    def __init__(self, lengths, capacity, device, heads=2, d=64, dv=None, page=0, dtype=torch.bfloat16, rows=None,
                 hnd=False):
        self.lengths, self.page, self.device = lengths, page, device
        batch = len(lengths)
        nan = float("nan")
        if page:
            blocks = math.ceil(capacity / page)
            pool = batch * blocks + 3
            shape = (pool, heads, page) if hnd else (pool, page, heads)
            self.k, self.v = (torch.full((*shape, n), nan, device=device, dtype=dtype) for n in (d, dv or d))
            if hnd:
                self.k, self.v = self.k.transpose(1, 2), self.v.transpose(1, 2)
            self.pages = torch.randperm(pool)[:batch * blocks].reshape(batch, blocks).int()
            self.table = self.pages.clone().to(device)
        else:
            self.k, self.v = (torch.full((rows or batch, capacity, heads, n), nan, device=device, dtype=dtype)
                              for n in (d, dv or d))
            self.table = None
        self.rows = list(range(batch))
        for b, length in enumerate(lengths):
            k, v = (random(length, heads, n, device=device, dtype=dtype) for n in (d, dv or d))
            self.put(b, 0, k, v)

    def slots(self, b, first, count):
        """(row or page, offset) of the tokens of sequence b."""
        t = torch.arange(first, first + count)
        return (self.pages[b, t // self.page].long(), t % self.page) if self.page else (self.rows[b], t)

    def put(self, b, first, k, v):
        at = self.slots(b, first, len(k))
        self.k[at], self.v[at] = k, v

    def get(self, b, count, first=0):
        at = self.slots(b, first, count - first)
        return self.k[at], self.v[at]

    def forget(self, used):
        """Entries that no length reaches say nonsense."""
        for b, n in enumerate(used):
            self.table[b, math.ceil(n / self.page):] = [-1, 2 ** 31 - 1, 10 ** 6][b % 3]


def compare(out, q, k, v, **options):
    """One sequence."""
    if k.shape[0]:
        check(out[None], q[None], k[None], v[None], **options)
    else:
        assert (out == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("page", [0, 1, 16, 48, 256])
@pytest.mark.parametrize("seqlen_q, causal, window", [(1, True, (-1, -1)), (3, True, (-1, -1)), (5, False, (-1, -1)),
                                                      (70, True, (20, 0)), (1, False, (33, -1))])
def test_read(device, dtype, page, seqlen_q, causal, window):
    lengths = [0, 1, 130, 257, 256, 255]
    cache = Cache(lengths, 300, device, page=page, dtype=dtype)
    if page:
        cache.forget(lengths)
    q = random(len(lengths), seqlen_q, 6, 64, device=device, dtype=dtype)
    before = cache.k.clone(), cache.v.clone()
    out, lse = flash_attn.flash_attn_with_kvcache(q, cache.k, cache.v, cache_seqlens=ints(lengths, device),
                                                  block_table=cache.table, causal=causal, window_size=window,
                                                  return_softmax_lse=True)
    assert lse.shape == (len(lengths), 6, seqlen_q) and lse.dtype == torch.float32
    for b, n in enumerate(lengths):
        compare(out[b], q[b], *cache.get(b, n), causal=causal, window_size=window)
        if n:
            _, expected = attention(q[b][None], *(t[None] for t in cache.get(b, n)), causal=causal, window_size=window)
            assert torch.allclose(lse[b].double(), expected[0], atol=3e-3)
        else:
            assert (lse[b] == float("inf")).all()
    assert all(torch.equal(a.nan_to_num(7), b.nan_to_num(7)) for a, b in zip(before, (cache.k, cache.v)))


@pytest.mark.parametrize("page", [0, 1, 24, 64])
@pytest.mark.parametrize("seqlen_q, new", [(1, 1), (4, 4), (3, 17), (1, 0), (40, 40)])
@pytest.mark.parametrize("rotary, interleaved", [(0, True), (32, True), (64, False), (16, False)])
@pytest.mark.parametrize("causal", [True, False])
def test_append(device, page, seqlen_q, new, rotary, interleaved, causal):
    lengths = [0, 5, 127, 200 - new, 64]
    cache = Cache(lengths, 240 if page else 200, device, page=page)
    old = [cache.get(b, n) for b, n in enumerate(lengths)]
    if page:
        cache.forget([n + new for n in lengths])
    batch = len(lengths)
    q = random(batch, seqlen_q, 4, 64, device=device)
    k, v = (random(batch, new, 2, 64, device=device) for _ in range(2))
    cos = sin = None
    if rotary:
        angle = torch.rand(320, rotary // 2, device=device) * 6
        cos, sin = angle.cos().bfloat16(), angle.sin().bfloat16()
    copies = cache.k.clone(), cache.v.clone()
    out = flash_attn.flash_attn_with_kvcache(q, cache.k, cache.v, k, v, rotary_cos=cos, rotary_sin=sin,
                                             cache_seqlens=ints(lengths, device), block_table=cache.table,
                                             causal=causal, rotary_interleaved=interleaved)
    written = torch.zeros(cache.k.shape[:2], dtype=torch.bool)
    for b, n in enumerate(lengths):
        turned_k, turned_q = k[b], q[b]
        if rotary:
            turned_k = rotated(k[b], cos, sin, torch.arange(n, n + new), interleaved)
            turned_q = rotated(q[b], cos, sin, n + torch.arange(seqlen_q) * int(causal), interleaved)
        got_k, got_v = cache.get(b, n + new, n)
        assert torch.allclose(got_k.float(), turned_k.float(), rtol=1e-2, atol=1e-3) and torch.equal(got_v, v[b])
        written[cache.slots(b, n, new)] = True
        compare(out[b], turned_q, torch.cat((old[b][0], got_k)), torch.cat((old[b][1], v[b])), causal=causal)
    kept = ~written.to(device)
    for now, before in zip((cache.k, cache.v), copies):
        assert torch.equal(now[kept].nan_to_num(7), before[kept].nan_to_num(7))


@pytest.mark.parametrize("new", [0, 3])
def test_rows_of_the_cache_and_left_padding(device, new):
    lengths, pads, rows = [40, 90, 64, 7], [0, 33, 63, 7], [5, 0, 3, 6]
    cache = Cache(lengths, 100, device, rows=7)
    cache.rows = rows
    cache.k.fill_(float("nan"))
    cache.v.fill_(float("nan"))
    for b, (n, pad) in enumerate(zip(lengths, pads)):
        cache.put(b, pad, *(random(n - pad, 2, 64, device=device) for _ in range(2)))
    q = random(4, 2, 4, 64, device=device)
    k, v = (random(4, new, 2, 64, device=device) if new else None for _ in range(2))
    out = flash_attn.flash_attn_with_kvcache(q, cache.k, cache.v, k, v, cache_seqlens=ints(lengths, device),
                                             cache_batch_idx=ints(rows, device), cache_leftpad=ints(pads, device),
                                             causal=True)
    for b, (n, pad) in enumerate(zip(lengths, pads)):
        compare(out[b], q[b], *cache.get(b, n + new, pad), causal=True)


@pytest.mark.parametrize("d, dv", [(40, 40), (128, 64), (256, 256), (96, 96)])
@pytest.mark.parametrize("page", [0, 16])
@pytest.mark.parametrize("splits", [0, 1, 4])
def test_head_dims_and_splits(device, d, dv, page, splits):
    lengths = [700, 31]
    cache = Cache(lengths, 704, device, d=d, dv=dv, page=page)
    q = random(2, 1, 8, d, device=device)
    slopes = torch.rand(8, device=device)
    out = flash_attn.flash_attn_with_kvcache(q, cache.k, cache.v, cache_seqlens=ints(lengths, device),
                                             block_table=cache.table, causal=True, softcap=8.0, alibi_slopes=slopes,
                                             num_splits=splits)
    for b, n in enumerate(lengths):
        compare(out[b], q[b], *cache.get(b, n), causal=True, softcap=8.0, alibi_slopes=slopes)


def test_lengths_as_int_and_none(device):
    cache = Cache([50, 50], 50, device)
    q = random(2, 1, 2, 64, device=device)
    whole = flash_attn.flash_attn_with_kvcache(q, cache.k, cache.v)
    part = flash_attn.flash_attn_with_kvcache(q, cache.k, cache.v, cache_seqlens=20)
    for length in (numpy.int64(20), torch.tensor(20), torch.tensor(20, device=device)):
        assert torch.equal(part, flash_attn.flash_attn_with_kvcache(q, cache.k, cache.v, cache_seqlens=length))
    for length in (20.0, torch.tensor(20.0)):
        refused(r"cache_seqlens is .*20\.", q, cache.k, cache.v, cache_seqlens=length, kind=TypeError)
    for b in range(2):
        compare(whole[b], q[b], *cache.get(b, 50))
        compare(part[b], q[b], *cache.get(b, 20))


@pytest.mark.parametrize("hnd", [False, True])
@pytest.mark.parametrize("used", ["cu_seqlens_k", "seqused_k"])
def test_varlen_with_pages(device, hnd, used):
    lengths, rows = [70, 1, 0, 256], [3, 1, 0, 130]
    cache = Cache(lengths, 256, device, page=16, hnd=hnd)
    cache.forget(lengths)
    cu_q, cu_k = ([0, *torch.tensor(n).cumsum(0).tolist()] for n in (rows, lengths))
    q = random(cu_q[-1], 4, 64, device=device)
    if used == "cu_seqlens_k":
        out, lse, _ = flash_attn.flash_attn_varlen_func(q, cache.k, cache.v, ints(cu_q, device), ints(cu_k, device),
                                                        130, 256, causal=True, block_table=cache.table,
                                                        return_attn_probs=True)
    else:
        out, lse, _, _ = _flash_attn_varlen_forward(q, cache.k, cache.v, ints(cu_q, device),
                                                    torch.zeros(5, dtype=torch.int32, device=device), 130, 256, 0.0,
                                                    0.125, True, block_table=cache.table,
                                                    seqused_k=ints(lengths, device))
    assert lse.shape == (4, cu_q[-1])
    for b, n in enumerate(lengths):
        if rows[b]:
            compare(out[cu_q[b]:cu_q[b + 1]], q[cu_q[b]:cu_q[b + 1]], *cache.get(b, n), causal=True)


def test_interleaved_keys_and_values(device):
    """vLLM's cache: K and V of a token side by side, (num_blocks, heads, page, 2 d)."""
    lengths, page, d = [33, 100], 16, 32
    joint = random(20, 2, page, 2 * d, device=device)
    k, v = (t.transpose(1, 2) for t in joint.split(d, dim=-1))
    pages = torch.randperm(20)[:14].reshape(2, 7)
    q = random(2, 1, 4, d, device=device)
    out = flash_attn.flash_attn_with_kvcache(q, k, v, cache_seqlens=ints(lengths, device),
                                             block_table=pages.int().to(device), causal=True)
    for b, n in enumerate(lengths):
        at = pages[b].to(device)
        compare(out[b], q[b], k[at].flatten(0, 1)[:n], v[at].flatten(0, 1)[:n], causal=True)


def test_the_extension_by_position(device):
    cache = Cache([20, 9], 32, device)
    q = random(2, 1, 2, 64, device=device)
    given = torch.empty_like(q)
    n = None
    out, lse = flash_attn_gpu.fwd_kvcache(q, cache.k, cache.v, n, n, ints([20, 9], device), n, n, n, n, n, n, given,
                                          0.125, True, -1, -1, 0.0, True, 0)
    assert out.data_ptr() == given.data_ptr() and lse.shape == (2, 2, 1)
    for b, length in enumerate((20, 9)):
        compare(out[b], q[b], *cache.get(b, length))


def test_flash_attention_3s_face(device):
    lengths, rows, news = [70, 1, 0, 250], [3, 1, 0, 5], [2, 1, 0, 4]
    cache = Cache(lengths, 256, device, page=8)
    cu_q, cu_new = ([0, *torch.tensor(n).cumsum(0).tolist()] for n in (rows, news))
    q = random(cu_q[-1], 4, 64, device=device)
    k, v = (random(cu_new[-1], 2, 64, device=device) for _ in range(2))
    metadata = flash_attn_interface.get_scheduler_metadata(4, 5, 256, 4, 2, 64, ints(lengths, device))
    out, lse, *accumulated = flash_attn_interface.flash_attn_with_kvcache(
        q, cache.k, cache.v, k, v, cache_seqlens=ints(lengths, device), page_table=cache.table,
        cu_seqlens_q=ints(cu_q, device), cu_seqlens_k_new=ints(cu_new, device), max_seqlen_q=5, causal=True,
        scheduler_metadata=metadata, return_softmax_lse=True)
    assert lse.shape == (4, cu_q[-1]) and accumulated == [None, None]
    for b, n in enumerate(lengths):
        if rows[b]:
            assert torch.equal(cache.get(b, n + news[b], n)[1], v[cu_new[b]:cu_new[b + 1]])
            compare(out[cu_q[b]:cu_q[b + 1]], q[cu_q[b]:cu_q[b + 1]], *cache.get(b, n + news[b]), causal=True)


def test_rotation_at_positions_of_its_own(device):
    cache = Cache([12], 32, device)
    angle = torch.rand(64, 16, device=device)
    cos, sin = angle.cos().bfloat16(), angle.sin().bfloat16()
    q, k, v = (random(1, 2, 2, 64, device=device) for _ in range(3))
    out = flash_attn_interface.flash_attn_with_kvcache(q, cache.k, cache.v, k, v, rotary_cos=cos, rotary_sin=sin,
                                                       cache_seqlens=ints([12], device), causal=True,
                                                       rotary_seqlens=ints([40], device))
    positions = torch.arange(40, 42)
    assert torch.allclose(cache.get(0, 14, 12)[0].float(), rotated(k[0], cos, sin, positions, True).float(), rtol=1e-2,
                          atol=1e-3)
    compare(out[0], rotated(q[0], cos, sin, positions, True), *cache.get(0, 14), causal=True)


def test_operators_say_what_they_do(device):
    """torch.compile keeps the append, opcheck finds the schemas true, and a gradient is refused in words."""
    cache = Cache([20, 9], 32, device)
    other = Cache([20, 9], 32, device)
    other.k.copy_(cache.k)
    other.v.copy_(cache.v)
    lengths = ints([20, 9], device)
    q, k, v = (random(2, 1, 2, 64, device=device) for _ in range(3))

    def call(k_cache, v_cache):
        return flash_attn.flash_attn_with_kvcache(q, k_cache, v_cache, k, v, cache_seqlens=lengths, causal=True)

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)(other.k, other.v)
    assert torch.equal(call(cache.k, cache.v), compiled)
    assert torch.equal(cache.k.nan_to_num(7), other.k.nan_to_num(7))
    n = None
    numbers = (0, 0, 0.125, True, -1, -1, 0.0, float("inf"), 0, True)
    rows = torch.zeros_like(cache.k), torch.zeros_like(cache.v)
    torch.library.opcheck(torch.ops.flashplus.kvcache.default,
                          (q, *rows, lengths, n, n, n, n, n, n, n, *numbers),
                          test_utils=("test_schema", "test_faketensor"))
    torch.library.opcheck(torch.ops.flashplus.kvcache_append.default,
                          (q, *rows, lengths, n, n, n, n, n, n, n, k, v, n, n, n, n, *numbers),
                          test_utils=("test_schema", "test_faketensor"))
    q.requires_grad_()
    out = call(cache.k, cache.v)
    with pytest.raises(NotImplementedError, match="KV cache"):
        out.sum().backward()


@pytest.mark.parametrize("appends", [False, True])
@pytest.mark.parametrize("face", [flash_attn, flash_attn_interface])
def test_one_graph_with_numbers_as_tensors(device, face, appends):
    """A scale, a mask's sides and a number of parts that the graph works out; a length that is NumPy's."""
    cache, other = Cache([20, 20], 32, device), Cache([20, 20], 32, device)
    q = random(2, 3, 2, 64, device=device)
    new = [random(2, 3, 2, 64, device=device) for _ in range(2)] if appends else []
    other.k.copy_(cache.k)
    other.v.copy_(cache.v)

    def call(c, scale, causal, left, cap, splits, lengths):
        return face.flash_attn_with_kvcache(q, c.k, c.v, *new, cache_seqlens=lengths, softmax_scale=scale,
                                            causal=causal, window_size=(left, -1), softcap=cap, num_splits=splits,
                                            rotary_interleaved=causal)

    function = lambda t, n: call(other, t[0], t[1] > 0, t[2].long(), t[1], t.long().min() + 2, n)
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    t = torch.tensor([0.25, 3.0, 9.0], device=device)
    expected = call(cache, 0.25, True, 9, 3.0, 2, 20)
    assert torch.equal(compiled(t, numpy.int64(20)), expected)
    assert torch.equal(other.k.nan_to_num(7), cache.k.nan_to_num(7))
    if not appends:
        assert not torch.equal(compiled(2 * t, ints([20, 20], device)), expected)
        with pytest.raises(Exception, match="num_splits"):
            compiled(t * 1e6, ints([20, 20], device))


def test_one_graph_of_pages_with_numbers_as_tensors(device):
    """flash_attn_varlen_func with block_table, whose longest sequences the graph finds; FlashAttention 3's, too."""
    cache = Cache([20, 9], 32, device, page=16)
    cu_q, cu_k = ints([0, 3, 5], device), ints([0, 20, 29], device)
    q = random(5, 2, 64, device=device)
    call = lambda q, cu_q, cu_k, causal: flash_attn.flash_attn_varlen_func(
        q, cache.k, cache.v, cu_q, cu_k, cu_q.diff().max(), cu_k.diff().max(), causal=causal, block_table=cache.table)
    three = lambda q, cu_q, cu_k, causal: flash_attn_interface.flash_attn_with_kvcache(
        q, cache.k, cache.v, page_table=cache.table, cu_seqlens_q=cu_q, max_seqlen_q=cu_q.diff().max(),
        cache_seqlens=cu_k.diff(), causal=causal)
    for function in (call, three):
        torch._dynamo.reset()
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(q, cu_q, cu_k, cu_q[1] > 0), function(q, cu_q, cu_k, True))


def refused(match, *arguments, kind=RuntimeError, **options):
    with pytest.raises(kind, match=match):
        flash_attn.flash_attn_with_kvcache(*arguments, **options)


def test_refused_in_words(device):
    cache = Cache([20, 9], 32, device)
    paged = Cache([20, 9], 32, device, page=16)
    q, k, v = (random(2, 1, 2, 64, device=device) for _ in range(3))
    lengths = ints([20, 9], device)
    before = cache.k.clone(), cache.v.clone()
    refused("value must also be passed in", q, cache.k, cache.v, k, None, cache_seqlens=lengths)
    refused("seqlens_k must also be passed in", q, cache.k, cache.v, k, v)
    refused("seqlen <= the seqlen of the KV cache", q, cache.k, cache.v, random(2, 33, 2, 64, device=device),
            random(2, 33, 2, 64, device=device), cache_seqlens=lengths)
    refused("does not support cache_batch_idx", q, paged.k, paged.v, cache_seqlens=lengths, block_table=paged.table,
            cache_batch_idx=lengths)
    refused("seqlens_k must have dtype int32; it is torch.int64", q, cache.k, cache.v, cache_seqlens=lengths.long())
    refused("block_table must have dtype torch.int32", q, paged.k, paged.v, cache_seqlens=lengths,
            block_table=paged.table.long())
    refused("block_table must have shape", q, paged.k, paged.v, cache_seqlens=lengths, block_table=paged.table[:1])
    refused("same dtype", q.float().half(), cache.k, cache.v, cache_seqlens=lengths)
    refused("k_cache must have shape", q, cache.k[:1], cache.v[:1], cache_seqlens=lengths)
    refused("must have contiguous last dimension", q, cache.k.transpose(2, 3), cache.v, kind=AssertionError)
    for name, bad in (("cache_seqlens", "many"), ("block_table", [[0]]), ("k", 1.0), ("cache_batch_idx", (1, 2))):
        refused(name, q, cache.k, cache.v, kind=TypeError, **{name: bad})
    refused("k_cache has no dimension", q, torch.tensor(1.0), cache.v)
    cos = torch.zeros(40, 16, device=device, dtype=torch.bfloat16)
    refused("must also be provided", q, cache.k, cache.v, rotary_cos=cos, rotary_sin=cos, cache_seqlens=lengths)
    for bad, words in ((cos[:, :5].contiguous(), "divisible by 16"), (cos[:20], "at least the seqlen of KV cache"),
                       (cos.float(), "same dtype"), (cos.repeat(1, 3), "must be <= headdim")):
        refused(words, q, cache.k, cache.v, k, v, rotary_cos=bad, rotary_sin=bad, cache_seqlens=lengths)
    refused("rotary sin must also be provided", q, cache.k, cache.v, k, v, rotary_cos=cos, cache_seqlens=lengths)
    if device == "cpu":  # what only who reads the lists can say; nothing is written
        full = ints([32, 9], device)
        refused("room for 32", q, cache.k, cache.v, k, v, cache_seqlens=full, kind=ValueError)
        words = r"cache_seqlens \(seqused_k\)\[1\] is -1; it must not be negative"
        refused(words, q, cache.k, cache.v, cache_seqlens=ints([32, -1], device), kind=ValueError)
        options = {"causal": True, "cache_seqlens": ints([32, 40], device)}
        there = flash_attn.flash_attn_with_kvcache(q, cache.k, cache.v, **options)  # more than there are is all of them
        options["cache_seqlens"] = ints([32, 32], device)
        assert torch.equal(there.nan_to_num(7), flash_attn.flash_attn_with_kvcache(q, cache.k, cache.v,
                                                                                   **options).nan_to_num(7))
        wrong = paged.table.clone()
        wrong[0, 1] = 77
        refused("77", q, paged.k, paged.v, cache_seqlens=lengths, block_table=wrong, kind=ValueError)
        refused("block_table", q, paged.k, paged.v, k, v, cache_seqlens=ints([32, 9], device), block_table=paged.table)
    assert all(torch.equal(a.nan_to_num(7), b.nan_to_num(7)) for a, b in zip(before, (cache.k, cache.v)))


def test_replay_of_a_graph_follows_lengths_and_pages():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.manual_seed(0)
    lengths = [200, 40, 0, 0]
    cache = Cache([255, 255, 255, 255], 256, "cuda", page=16)
    q = random(4, 1, 8, 64, device="cuda")
    k, v = (random(4, 1, 2, 64, device="cuda") for _ in range(2))
    used = ints(lengths, "cuda")

    def step():
        return flash_attn.flash_attn_with_kvcache(q, cache.k, cache.v, k, v, cache_seqlens=used,
                                                  block_table=cache.table, causal=True)

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step()
    for lengths in ([1, 254, 77, 130], [0, 0, 255, 16], [31, 32, 33, 0]):
        used.copy_(ints(lengths, "cuda"))
        old = [cache.get(b, n) for b, n in enumerate(lengths)]
        graph.replay()
        for b, n in enumerate(lengths):
            compare(out[b], q[b], torch.cat((old[b][0], k[b])), torch.cat((old[b][1], v[b])), causal=True)
