# SPDX-License-Identifier: BSD-3-Clause
"""Training as others do it: Hugging Face models, DistributedDataParallel, ring attention over processes."""

import os
import pathlib
import socket
import subprocess
import sys

import pytest
import torch
import torch.distributed.fsdp

import flashplus

STEPS = 30


def losses(model, batches):
    """The losses of some optimiser steps."""
    model.train()
    optimizer, record = torch.optim.AdamW(model.parameters(), lr=2e-3), []
    for batch in batches:
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        record.append(loss.item())
    return torch.tensor(record)


def check(make, batches, device):
    """Losses in bf16 with our attention, with eager in bf16, and with eager in fp32: ours are as far from the last
    as eager's are."""
    transformers = pytest.importorskip("transformers", reason="transformers is only in the environment 'newest'")
    del transformers
    from test_transformers import implementation

    calls = flashplus.counters()["memory_hits"]
    ours = losses(make(implementation(device), torch.bfloat16), batches)
    assert flashplus.counters()["memory_hits"] > calls + STEPS
    noisy, exact = losses(make("eager", torch.bfloat16), batches), losses(make("eager", torch.float32), batches)
    assert ours[-1] < ours[0]
    noise = (noisy - exact).abs()
    assert ((ours - exact).abs() <= 2 * noise.max() + 1e-3).all(), ((ours - exact).abs().max(), noise.max())
    assert (ours - exact).abs().mean() <= 2 * noise.mean() + 1e-3


@pytest.mark.parametrize("name", ["Llama", "Mistral with a window", "Gemma2 with softcap", "Qwen2"])
def test_models(device, name):
    pytest.importorskip("transformers")
    from test_transformers import both

    tokens = torch.randint(2, 99, (4, 40), device=device)
    check(lambda attention, dtype: both(name, attention, device, dtype),
          [{"input_ids": tokens, "labels": tokens}] * STEPS, device)


def test_packed_sequences(device):
    """Documents laid end to end, told apart by their positions."""
    pytest.importorskip("transformers")
    from test_transformers import both

    tokens = torch.randint(2, 99, (1, 48), device=device)
    positions = torch.cat([torch.arange(n) for n in (11, 25, 12)])[None].to(device)
    batch = {"input_ids": tokens, "labels": tokens, "position_ids": positions}

    def make(attention, dtype):
        model = both("Qwen2", attention, device, dtype)
        if attention != "eager":
            return model
        # Eager attention knows documents only by a mask.
        seen = torch.block_diag(*(torch.ones(n, n) for n in (11, 25, 12))).tril().bool().to(device)
        bias = torch.zeros(1, 1, 48, 48, dtype=dtype, device=device).masked_fill(~seen, torch.finfo(dtype).min)
        forward = model.forward
        model.forward = lambda **given: forward(**given, attention_mask=bias)
        return model

    check(make, [batch] * STEPS, device)


def test_bert_with_padding(device):
    transformers = pytest.importorskip("transformers")
    tokens = torch.randint(2, 99, (4, 24), device=device)
    mask = torch.ones_like(tokens)
    for i, n in enumerate((24, 9, 17, 3)):
        mask[i, n:] = 0
    labels = tokens.masked_fill(mask == 0, -100)

    def make(attention, dtype):
        config = transformers.BertConfig(vocab_size=99, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                                         num_attention_heads=4, max_position_embeddings=64, initializer_range=0.2,
                                         hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        torch.manual_seed(7)
        return transformers.BertForMaskedLM._from_config(config, attn_implementation=attention, dtype=dtype).to(device)

    check(make, [{"input_ids": tokens, "attention_mask": mask, "labels": labels}] * STEPS, device)


def spawn(code, processes=2, device="cpu"):
    """Runs `code` in some processes of one group, with `device` in it, on CUDA a GPU each; returns what they print."""
    if device == "cuda" and torch.cuda.device_count() < processes:
        pytest.skip(f"{torch.cuda.device_count()} CUDA devices")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    start = (
        "import sys, torch, torch.distributed as dist\nimport flashplus.finder; flashplus.finder.install()\n"
        "from flash_attn import flash_attn_func\ntorch.set_num_threads(1); "
        f"device = '{device}'\n"
        "if device == 'cuda': torch.cuda.set_device(int(__import__('os').environ['RANK']))\n"
        f"dist.init_process_group('{'nccl' if device == 'cuda' else 'gloo'}')\nrank = dist.get_rank()\n"
    )
    folder = pathlib.Path(__file__).parent
    running = [
        subprocess.Popen(
            [sys.executable, "-c", start + code + "\ndist.destroy_process_group()"], stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, env={
                **os.environ, "RANK": str(r), "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port), "PYTHONPATH": os.pathsep.join([str(folder),
                                                                         os.environ.get("PYTHONPATH", "")])
            }) for r in range(processes)
    ]
    outputs = [p.communicate(timeout=300)[0] for p in running]
    assert all(p.returncode == 0 for p in running), "\n".join(outputs)
    return outputs


@pytest.mark.parametrize("how", ["DDP", "FSDP2"])
def test_several_processes(device, how):
    """Two processes with half of the batch each have the losses of one with all of it."""
    if how == "FSDP2" and not hasattr(torch.distributed.fsdp, "fully_shard"):
        pytest.skip("this PyTorch has no fully_shard")
    spawn(f"how = '{how}'" + """
from test_training import Block
from torch.distributed.device_mesh import init_device_mesh
attention = lambda q, k, v: flash_attn_func(q.to(kind), k.to(kind), v.to(kind), causal=True).to(q.dtype)
kind = torch.float32 if device == 'cpu' else torch.bfloat16
torch.manual_seed(3)
x, y = torch.randn(2, 4, 16, 32).to(device)
def fsdp(model):
    from torch.distributed.fsdp import fully_shard
    fully_shard(model, mesh=init_device_mesh(device, (dist.get_world_size(),)))
    return model
def run(wrap, rows):
    torch.manual_seed(4)
    model = wrap(Block(attention).to(device))
    optimizer, record = torch.optim.SGD(model.parameters(), lr=0.1), []
    for _ in range(10):
        loss = (model(x[rows]) - y[rows]).square().mean()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        record.append(loss.detach())
    return torch.stack(record)
alone = run(lambda m: m, slice(0, 4))
together = run(torch.nn.parallel.DistributedDataParallel if how == 'DDP' else fsdp, slice(2 * rank, 2 * rank + 2))
dist.all_reduce(together)
assert torch.allclose(together / 2, alone, rtol=1e-4 if device == 'cpu' else 2e-3), (together / 2, alone)
assert alone[-1] < alone[0]
""", device=device)


def test_ring_attention():
    """Keys go round two processes; out and LSE are merged (flashplus.merge_states, and the formula of
    ring_flash_attn.utils gives the same), and the backward gets the merged ones: ring-flash-attention's pattern."""
    spawn("""
import flashplus
from flash_attn.flash_attn_interface import _flash_attn_backward, _flash_attn_forward
torch.manual_seed(5)
q, k, v, dout = (torch.randn(1, 32, 2, 16) for _ in range(4))
leaves = [t.clone().requires_grad_() for t in (q, k, v)]
expected_out = flash_attn_func(*leaves)
expected = torch.autograd.grad(expected_out, leaves, dout)
mine = slice(16 * rank, 16 * rank + 16)
q, dout = q[:, mine].contiguous(), dout[:, mine].contiguous()
def part(owner): return [t[:, 16 * owner:16 * owner + 16].contiguous() for t in (k, v)]
numbers = dict(dropout_p=0.0, softmax_scale=0.25, causal=False, window_size_left=-1, window_size_right=-1,
               softcap=0.0, alibi_slopes=None)
out = lse = None
for step in range(2):
    o, l, *_ = _flash_attn_forward(q, *part((rank + step) % 2), **numbers, return_softmax=False)
    if out is None:
        out, lse = o, l
        continue
    rows = [t.transpose(1, 2).unsqueeze(-1) for t in (lse, l)]
    theirs = out - torch.sigmoid(rows[1] - rows[0]) * (out - o)
    their_lse = rows[0] - torch.nn.functional.logsigmoid(rows[0] - rows[1])
    flashplus.merge_states(out, lse, o, l, out=out, lse=lse)
    assert torch.allclose(out, theirs, atol=1e-6)
    assert torch.allclose(lse, their_lse.squeeze(-1).transpose(1, 2), atol=1e-6)
assert torch.allclose(out, expected_out[:, mine], atol=1e-5)
dq, dk, dv = torch.zeros_like(q), torch.zeros(1, 32, 2, 16), torch.zeros(1, 32, 2, 16)
for step in range(2):
    owner = (rank + step) % 2
    pair = part(owner)
    grads = [torch.empty_like(t) for t in (q, *pair)]
    _flash_attn_backward(dout, q, *pair, out, lse, *grads, **numbers, deterministic=False)
    dq += grads[0]
    dk[:, 16 * owner:16 * owner + 16] += grads[1]
    dv[:, 16 * owner:16 * owner + 16] += grads[2]
dist.all_reduce(dk); dist.all_reduce(dv)
assert torch.allclose(dq, expected[0][:, mine], atol=1e-5)
assert torch.allclose(dk, expected[1], atol=1e-5) and torch.allclose(dv, expected[2], atol=1e-5)
""")
