# SPDX-License-Identifier: BSD-3-Clause
"""Who serves with us: transformers' continuous batching by the string "flash_attention_2", with its own paged cache,
and generation with static and dynamic caches; and attention as vLLM's and SGLang's backends call it (their layouts,
strides and arguments)."""

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="transformers is only in the environment 'newest'")
continuous = pytest.importorskip("transformers.generation.continuous_batching")

import flash_attn  # noqa: E402
import flash_attn_interface  # noqa: E402
import flashplus.interface  # noqa: E402
from reference import check  # noqa: E402
from test_kvcache import ints, random  # noqa: E402
from test_transformers import MODELS, implementation, tiny, told_of_a_gpu, used  # noqa: E402, F401

PROMPTS = [[1, 5, 7, 9], [2, 3], [4] * 20, [11, 12, 13, 14, 15, 16, 17], [8]]


def served(model, dtype_config):
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    sampling = transformers.GenerationConfig(max_new_tokens=12, do_sample=False, eos_token_id=98, pad_token_id=0,
                                             bos_token_id=1)
    batching = ContinuousBatchingConfig(page_size=16, num_blocks=64, max_batch_tokens=32, use_async_batching=False,
                                        use_cuda_graph=False, auto_switch_to_flash=False, **dtype_config)
    done = model.generate_batch(inputs=PROMPTS, generation_config=sampling, continuous_batching_config=batching)
    assert len(done) == len(PROMPTS) and all(r.error is None for r in done.values())
    return [done[name].generated_tokens for name in sorted(done)]


@pytest.mark.parametrize("blocks", [0, 8])
def test_continuous_batching(device, blocks, monkeypatch, told_of_a_gpu):  # noqa: F811
    """The same tokens as sdpa's; with `blocks` decode steps read pages and append (flash_attn_with_kvcache), which
    transformers does on the CPU only if it takes it for something else."""
    calls = []
    whole = flashplus.interface.on_cache

    def counted(*arguments):
        calls.append(arguments[0].shape)
        return whole(*arguments)

    monkeypatch.setattr(flashplus.interface, "on_cache", counted)
    from transformers.generation.continuous_batching import initialization

    if device == "cpu":
        monkeypatch.setattr(initialization, "is_torch_xpu_available", lambda: True)
    tokens = [
        served(tiny("Llama", name, device, torch.float16), {"max_blocks_per_request": blocks})
        for name in ("sdpa", "flash_attention_2")
    ]
    assert tokens[0] == tokens[1]
    assert bool(calls) == bool(blocks)
    assert all(shape[1] == 1 for shape in calls)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("name", ["Llama", "Mistral with a window"])
def test_generation_with_a_cache(device, name, cache):
    tokens = torch.randint(2, 99, (2, 14), device=device)
    mask = torch.ones_like(tokens)
    mask[0, :5] = 0
    options = {"max_new_tokens": 12, "do_sample": False, "cache_implementation": cache, "attention_mask": mask}
    expected, got = (
        tiny(name.split()[0], attention, device, torch.float32 if device == "cpu" else torch.float16, **MODELS[name])
        for attention in ("sdpa", implementation(device)))
    expected = expected.generate(tokens, **options)
    got = used(lambda: got.generate(tokens, **options))
    assert torch.equal(got, expected)


def test_vllms_layout(device):
    """vLLM 0.33: K and V of a token side by side, (blocks, heads, page, 2 d), seen as (blocks, page, heads, d) each; a
    ragged step of prefill, a chunk and decode in one call, the block table padded with what was there before."""
    page, d, heads_k, heads = 16, 64, 2, 8
    pool = random(40, heads_k, page, 2 * d, device=device)
    k, v = (t.transpose(1, 2) for t in pool.split(d, dim=-1))
    lengths, rows = [200, 33, 70, 1], [1, 33, 6, 1]
    table = torch.randperm(40)[:4 * 10].reshape(4, 10).int()
    stale = table.clone()
    for b, n in enumerate(lengths):
        if n <= 160:
            stale[b, -(-n // page):] = 12345678
    lengths[0] = 160  # as many as its ten pages hold
    cu = ints([0, *torch.tensor(rows).cumsum(0).tolist()], device)
    q = random(sum(rows), heads, d, device=device)
    out, _, _, _ = flash_attn.flash_attn_interface._flash_attn_varlen_forward(
        q, k, v, cu, cu, 33, 200, 0.0, d**-0.5, True, block_table=stale.to(device), seqused_k=ints(lengths, device))
    at = 0
    for b, n in enumerate(lengths):
        mine = table[b].long().to(device)
        check(out[None, at:at + rows[b]], q[None, at:at + rows[b]], k[mine].flatten(0, 1)[None, :n],
              v[mine].flatten(0, 1)[None, :n], causal=True)
        at += rows[b]


def test_sglangs_call(device):
    """SGLang 0.5: a pool of tokens seen as pages of one, a page table per request, ragged queries."""
    pool_k, pool_v = (random(300, 2, 64, device=device) for _ in range(2))
    lengths = [70, 129, 3]
    table = torch.randperm(300)[:3 * 100].reshape(3, 100).int()
    table = torch.cat((table, table.flip(0)), 1)[:, :130].contiguous()
    q = random(3, 8, 64, device=device)
    out = flash_attn_interface.flash_attn_with_kvcache(
        q=q, k_cache=pool_k[:, None], v_cache=pool_v[:, None], page_table=table.to(device),
        cache_seqlens=ints(lengths, device), cu_seqlens_q=ints([0, 1, 2, 3], device), max_seqlen_q=1, causal=True,
        softmax_scale=0.125, window_size=(-1, -1), softcap=0.0, num_splits=0)
    for b, n in enumerate(lengths):
        mine = table[b, :n].long().to(device)
        check(out[None, b:b + 1], q[None, b:b + 1], pool_k[mine][None], pool_v[mine][None], causal=True)
