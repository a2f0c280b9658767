# SPDX-License-Identifier: BSD-3-Clause
"""Attention on a cache through DLPack's C exchange API (exchange.py) gives the bits, the caches and the errors of calls
that describe their tensors from Python (kvcache.py)."""

import math

import pytest
import torch

import flash_attn_interface
from flash_attn import flash_attn_varlen_func, flash_attn_with_kvcache
from flashplus import exchange, interface, library

pytestmark = pytest.mark.skipif(exchange._API is None, reason="this PyTorch has no DLPack exchange API")


@pytest.fixture
def served(monkeypatch):
    """Statuses of the calls that went through the exchange API."""
    library.get()
    statuses, real = [], library._library.forward_python_tuple

    def spy(*arguments):
        statuses.append(real(*arguments))
        return statuses[-1]

    monkeypatch.setattr(library._library, "forward_python_tuple", spy)
    exchange.cache_calls.clear()
    yield statuses
    exchange.cache_calls.clear()


@pytest.fixture
def portable(monkeypatch):
    """Runs a call without the exchange API."""

    def run(function, *args, **options):
        with monkeypatch.context() as patch:
            patch.setattr(interface, "_cache_calls", {})
            patch.setattr(exchange, "_API", None)
            return function(*args, **options)

    return run


def random(*shape, device):
    return torch.randn(*shape, device=device).bfloat16()


def ints(values, device):
    return torch.tensor(values, dtype=torch.int32, device=device)


def problem(device, paged=True, new=2, rotary=0):
    """q and options of a call with 2 sequences, 4 heads on 2 and room for 64 keys."""
    cache = (6, 16, 2, 64) if paged else (2, 64, 2, 64)
    options = {"k_cache": random(*cache, device=device), "v_cache": random(*cache, device=device),
               "cache_seqlens": ints([33, 7], device)}
    if paged:
        options["block_table"] = ints([[5, 1, 0, 3], [2, 4, 0, 0]], device)
    if new:
        options["k"], options["v"] = random(2, new, 2, 64, device=device), random(2, new, 2, 64, device=device)
    if rotary:
        options["rotary_cos"], options["rotary_sin"] = (random(80, rotary // 2, device=device) for _ in range(2))
    return random(2, 2, 4, 64, device=device), options


def both(portable, function, q, options, **more):
    """Runs a call twice, once each way, on caches of its own; returns what each returned and wrote."""
    results = []
    for run in (lambda *a, **o: function(*a, **o), lambda *a, **o: portable(function, *a, **o)):
        mine = {**options, **more, "k_cache": options["k_cache"].clone(), "v_cache": options["v_cache"].clone()}
        result = run(q, **mine)
        results.append([t for t in (result if isinstance(result, tuple) else (result,)) if t is not None] +
                       [mine["k_cache"], mine["v_cache"]])
    return results


def same(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) and x.stride() == y.stride() for x, y in zip(a, b))


@pytest.mark.parametrize("paged, new, rotary", [(True, 0, 0), (True, 2, 0), (True, 2, 32), (False, 2, 64),
                                                (False, 0, 0)])
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "window_size": (20, 0)},
                                     {"window_size": (63, 1)}, {"softcap": 5.0, "return_softmax_lse": True},
                                     {"softmax_scale": 0.3, "rotary_interleaved": False, "num_splits": 2}], ids=str)
def test_same_bits(device, served, portable, paged, new, rotary, options):
    q, given = problem(device, paged, new, rotary)
    both(portable, flash_attn_with_kvcache, q, given, **options)  # the first of a kind is looked at from Python
    flash_attn_with_kvcache(q, **given, **options)
    before = len(served)
    ours, expected = both(portable, flash_attn_with_kvcache, q, given, **options)
    assert served[before:] == [0]
    assert same(ours, expected)


def test_other_arguments(device, served, portable):
    q, given = problem(device, paged=False)
    cases = {"rows of a larger cache": {"cache_batch_idx": ints([4, 1], device),
                                        "k_cache": random(5, 64, 2, 64, device=device),
                                        "v_cache": random(5, 64, 2, 64, device=device)},
             "left padding": {"cache_leftpad": ints([3, 0], device)},
             "a length": {"cache_seqlens": 9},
             "slopes": {"alibi_slopes": torch.rand(4, device=device)},
             "columns of a cache": {"k_cache": random(2, 2, 64, 64, device=device).transpose(1, 2)}}
    flash_attn_with_kvcache(q, **given)
    for name, more in cases.items():
        before = len(served)
        ours, expected = both(portable, flash_attn_with_kvcache, q, {**given, **more})
        assert served[before:] == [0], name
        assert same(ours, expected), name


def test_flash_attention_3s_face(device, served, portable):
    q, given = problem(device, rotary=32)
    given["page_table"] = given.pop("block_table")
    packed = {**given, "cu_seqlens_q": ints([0, 3, 3], device), "max_seqlen_q": 3,
              "rotary_seqlens": ints([5, 6], device), "cu_seqlens_k_new": ints([0, 1, 3], device),
              "k": random(3, 2, 64, device=device), "v": random(3, 2, 64, device=device)}
    function = flash_attn_interface.flash_attn_with_kvcache
    for queries, options in ((q, given), (random(5, 4, 64, device=device), packed)):
        for want in (False, True):
            function(queries, **options, causal=True, return_softmax_lse=want)
            before = len(served)
            ours, expected = both(portable, function, queries, options, causal=True, return_softmax_lse=want)
            assert served[before:] == [0]
            assert same(ours, expected)
    out, lse, *_ = function(random(5, 4, 64, device=device), **packed, causal=True, return_softmax_lse=True)
    assert out[3:].count_nonzero() == 0 and (lse[:, 3:] == -math.inf).all()


def test_what_goes_the_other_way(device, served):
    """Right answers where one call alone has none, and what others must see."""
    q, given = problem(device, rotary=32)
    out = flash_attn_with_kvcache(q, **given)
    columns = q.transpose(1, 3).contiguous().transpose(1, 3)
    assert torch.equal(flash_attn_with_kvcache(columns, **given), out)
    wide = {**given, "v_cache": random(6, 16, 2, 128, device=device), "v": random(2, 2, 2, 128, device=device)}
    assert flash_attn_with_kvcache(q, **wide).shape == (2, 2, 4, 128)
    assert 0 not in served
    before = len(served)

    class Subclass(torch.Tensor):
        pass

    for name in ("k", "rotary_cos", "cache_seqlens", "k_cache"):
        flash_attn_with_kvcache(q, **{**given, name: given[name].as_subclass(Subclass)})
    assert torch.equal(flash_attn_with_kvcache(q, **{**given, "k": torch._neg_view(-given["k"])}), out)
    with torch.profiler.profile() as profile:
        flash_attn_with_kvcache(q, **given)
    assert any("kvcache_append" in event.key for event in profile.key_averages())
    for name in ("k", "rotary_cos"):
        wants = flash_attn_with_kvcache(q, **{**given, name: given[name].clone().requires_grad_()})
        with pytest.raises(RuntimeError, match="gradient"):
            wants.sum().backward()
    assert len(served) == before


@pytest.mark.parametrize("face", ["2", "3"])
def test_a_compiler_sees_the_operator(device, served, face):
    q, given = problem(device, rotary=32)
    if face == "3":
        given["page_table"] = given.pop("block_table")
    function = flash_attn_with_kvcache if face == "2" else flash_attn_interface.flash_attn_with_kvcache
    wanted = function(q, **given, causal=True)
    before = len(served)
    torch._dynamo.reset()
    compiled = torch.compile(lambda q: function(q, **given, causal=True), backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(q), wanted) and len(served) == before


def test_errors_are_the_same(device, served, portable):
    q, given = problem(device, rotary=32)
    flash_attn_with_kvcache(q, **given)
    flat, plain = problem(device, paged=False)
    d = device
    wrong = {
        "dtype": {"k_cache": given["k_cache"].half()},
        "no sequence": {"q": q[:0]},
        "dtype of lengths": {"cache_seqlens": given["cache_seqlens"].long()},
        "number of lengths": {"cache_seqlens": ints([3], d)},
        "rows and pages": {"cache_batch_idx": ints([0, 1], d)},
        "table": {"block_table": given["block_table"][:1]},
        "keys alone": {"v": None},
        "values alone": {"k": None},
        "no lengths": {"cache_seqlens": None},
        "sine alone": {"rotary_cos": None},
        "rotary_dim": {"rotary_cos": random(80, 12, device=d), "rotary_sin": random(80, 12, device=d)},
        "too wide": {"rotary_cos": random(80, 40, device=d), "rotary_sin": random(80, 40, device=d)},
        "short": {"rotary_cos": given["rotary_cos"][:63], "rotary_sin": given["rotary_sin"][:63]},
        "columns": {"rotary_cos": random(80, 32, device=d)[:, :16], "rotary_sin": random(80, 32, device=d)[:, :16]},
        "dtype of cosines": {"rotary_cos": given["rotary_cos"].float(), "rotary_sin": given["rotary_sin"].float()},
        "more than fits": {"k": random(2, 65, 2, 64, device=d), "v": random(2, 65, 2, 64, device=d)},
        "heads": {"q": q[:, :, :3]},
        "slopes": {"alibi_slopes": torch.rand(3, device=d)},
        "no tensor": {"block_table": [[0]]},
        "meta": {"block_table": given["block_table"].to("meta")},
    }
    cases = [(name, {"q": q, **given, **more}) for name, more in wrong.items()]
    cases += [("a larger cache", {"q": flat[:1], **plain, "k": None, "v": None, "cache_seqlens": ints([5], d)})]
    for name, options in cases:
        errors = []
        for run in (lambda: flash_attn_with_kvcache(**options), lambda: portable(flash_attn_with_kvcache, **options)):
            with pytest.raises(Exception) as caught:
                run()
            errors.append((caught.type, str(caught.value)))
        assert errors[0] == errors[1], name
    assert 0 not in served


def test_what_is_remembered_is_bounded(device, served, monkeypatch):
    monkeypatch.setattr(exchange, "_KEPT", 4)
    q, given = problem(device)
    for scale in (*(1 / n for n in range(1, 9)), 1 / 3):
        for _ in range(2):
            flash_attn_with_kvcache(q, **given, softmax_scale=scale)
    assert len(exchange.cache_calls) == 4 and served == [0] * 9


@pytest.mark.parametrize("options", [
    {}, {"causal": True, "window_size": (9, -1)}, {"softcap": 3.0, "softmax_scale": 0.2},
    {"alibi": True, "causal": True}, {"return_attn_probs": True}], ids=str)
def test_packed_queries_on_pages(device, served, portable, options):
    """flash_attn_varlen_func(block_table=...), which says the lengths by cu_seqlens_k."""
    options = dict(options)
    q, k, v = random(7, 4, 64, device=device), *(random(6, 16, 2, 64, device=device) for _ in range(2))
    cu_q, table = ints([0, 3, 7], device), ints([[5, 1, 0, -1], [2, 4, 3, 9]], device)
    if options.pop("alibi", False):
        options["alibi_slopes"] = torch.rand(4, device=device)
    for lengths in ((33, 7), (1, 48)):  # other lengths are no other call
        cu_k = ints([0, lengths[0], sum(lengths)], device)
        call = lambda: flash_attn_varlen_func(q, k, v, cu_q, cu_k, 4, 48, block_table=table, **options)
        expected = portable(call)
        for got in (call(), call()):
            for a, b in zip(*(x if isinstance(x, tuple) else (x,) for x in (got, expected))):
                assert torch.equal(a, b) and a.stride() == b.stride()
    assert served.count(0) == 3  # all but the first, which is remembered
    with pytest.raises((ValueError, RuntimeError)):  # two ranks that don't fit
        flash_attn_varlen_func(q[None], k, v, cu_q, cu_k, 4, 48, block_table=table, **options)
    if device == "cpu":
        with pytest.raises(RuntimeError, match="block_table"):
            flash_attn_varlen_func(q, k, v, cu_q, ints([0, 33, 133], device), 4, 100, block_table=table, **options)
        with pytest.raises(ValueError, match="max_seqlen_q"):
            flash_attn_varlen_func(q, k, v, cu_q, cu_k, 1, 48, block_table=table, **options)
