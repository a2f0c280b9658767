# SPDX-License-Identifier: BSD-3-Clause
"""Bad input: the original's words where it has some, and what is not there yet."""

import os
import subprocess
import sys

import numpy
import pytest
import torch
from reference import random

import flash_attn
import flash_attn_interface
import flashplus
from flash_attn import flash_attn_func, flash_attn_qkvpacked_func, flash_attn_varlen_func
from flash_attn.flash_attn_interface import _flash_attn_forward, _flash_attn_varlen_forward


def tensors(device, **changes):
    shapes = {"q": (2, 20, 4, 64), "k": (2, 30, 2, 64), "v": (2, 30, 2, 64), **changes}
    return [random(*shapes[name], device=device) for name in "qkv"]


def refused(kind, text, call, *args, **options):
    with pytest.raises(kind) as caught:
        call(*args, **options)
    assert text in str(caught.value), str(caught.value)


def test_dtypes(device):
    q, k, v = tensors(device)
    refused(RuntimeError, "FlashAttention only support fp16 and bf16 data type", flash_attn_func, q.double(), k, v)
    refused(RuntimeError, "FlashAttention only support fp16 and bf16 data type", flash_attn_func, q.int(), k.int(),
            v.int())
    refused(RuntimeError, "query and key must have the same dtype", flash_attn_func, q, k.bfloat16(), v)
    refused(RuntimeError, "query and value must have the same dtype", flash_attn_func, q, k, v.bfloat16())
    if device == "cuda":
        refused(RuntimeError, "FlashAttention only support fp16 and bf16 data type", flash_attn_func, q.float(),
                k.float(), v.float())


def test_shapes(device):
    q, k, v = tensors(device)
    for call in (flash_attn_func, flash_attn_interface.flash_attn_func, flashplus.attention):
        refused(ValueError, "q has head_dim 0; it must be 1 to 256", call, *(t[..., :0] for t in (q, k, v)))
    refused(RuntimeError, "k must have shape (batch_size, seqlen_k, num_heads_k, head_size)", flash_attn_func,
            q, k[:1], v)
    refused(RuntimeError, "v must have shape (batch_size, seqlen_k, num_heads_k, head_size)", flash_attn_func,
            q, k, v[:, :3])
    refused(RuntimeError, "k must have shape (batch_size, seqlen_k, num_heads_k, head_size)", flash_attn_func,
            q, k[..., :32], v)
    refused(RuntimeError, "q must have shape (batch_size, seqlen, num_heads, head_size)", flash_attn_func, q[0], k, v)
    refused(RuntimeError, "Number of heads in key/value must divide number of heads in query", flash_attn_func,
            *tensors(device, q=(2, 20, 3, 64)))
    wide = {name: (1, 4, 1, 264) for name in "qkv"}
    refused(RuntimeError, "FlashAttention forward only supports head dimension at most 256", flash_attn_func,
            *tensors(device, **wide))
    refused(RuntimeError, "batch size must be positive", flash_attn_func, q[:0], k[:0], v[:0])
    refused(RuntimeError, "qkv must have shape", flash_attn_qkvpacked_func, q)


def test_devices(device):
    q, k, v = tensors(device)
    refused(RuntimeError, "k must be on", flash_attn_func, q, k.to("meta"), v)
    if device == "cuda":
        refused(RuntimeError, "k must be on CUDA", flash_attn_func, q, k.cpu(), v)
        refused(RuntimeError, "v must be on the device of q, cpu", flash_attn_func, q.cpu(), k.cpu(), v)


def test_alibi(device):
    q, k, v = tensors(device)
    slopes = torch.ones(4, device=device)
    refused(RuntimeError, "ALiBi slopes must have dtype fp32", flash_attn_func, q, k, v, alibi_slopes=slopes.half())
    refused(RuntimeError, "ALiBi slopes tensor must have contiguous last dimension", flash_attn_func, q, k, v,
            alibi_slopes=torch.ones(2, 8, device=device)[:, ::2])
    refused(RuntimeError, "alibi_slopes must have shape", flash_attn_func, q, k, v, alibi_slopes=slopes[:3])
    refused(RuntimeError, "alibi_slopes must have shape", flash_attn_func, q, k, v,
            alibi_slopes=torch.ones(3, 4, device=device))


def test_types():
    q = torch.zeros(1, 1, 1, 8).half()
    refused(TypeError, "k is list; it must be a torch.Tensor", flash_attn_func, q, [1], q)
    refused(TypeError, "q is NoneType; it must be a torch.Tensor", flash_attn_func, None, q, q)
    cu = torch.tensor([0, 1], dtype=torch.int32)
    refused(TypeError, "max_seqlen_q is 'x'", flash_attn_varlen_func, q[0], q[0], q[0], cu, cu, "x", 1)
    refused(TypeError, "cu_seqlens_k is list", flash_attn_varlen_func, q[0], q[0], q[0], cu, [0, 1], 1, 1)
    for call in (flash_attn_func, flashplus.attention):
        refused(TypeError, "alibi_slopes is list; it must be a torch.Tensor", call, q, q, q, alibi_slopes=[1.0])
    refused(TypeError, "alibi_slopes is list", flash_attn_varlen_func, q[0], q[0], q[0], cu, cu, 1, 1,
            alibi_slopes=[1.0])
    refused(TypeError, "cu_seqlens_q is list", flashplus.attention, q[0], q[0], q[0], cu_seqlens_q=[0, 1],
            cu_seqlens_k=cu)
    for nothing in (None, "", []):
        words = f"dropout_p is {nothing!r}; it must be a number"
        refused(TypeError, words, flash_attn_func, q, q, q, dropout_p=nothing)
        refused(TypeError, words, flash_attn_varlen_func, q[0], q[0], q[0], cu, cu, 1, 1, dropout_p=nothing)
        refused(TypeError, words, flash_attn_varlen_func, q[0], q, q, cu, cu, 1, 1, dropout_p=nothing,
                block_table=torch.zeros(1, 1, dtype=torch.int32))


def test_types_of_flags(device):
    q, k, v = tensors(device)
    refused(TypeError, "causal is 'yes'; it must be True or False", flash_attn_func, q, k, v, causal="yes")
    refused(TypeError, "causal is None", flash_attn_func, q, k, v, causal=None)
    refused(TypeError, "softcap is '3'; it must be a number", flash_attn_func, q, k, v, softcap="3")
    refused(TypeError, "softmax_scale is [1]; it must be a number", flash_attn_func, q, k, v, softmax_scale=[1])
    for window in (5, (1, 2, 3), (None, 1), (0.5, 1), "ab"):
        refused(TypeError, f"window_size is {window!r}; it must be two integers", flash_attn_func, q, k, v,
                window_size=window)


def numbers_of(kind):
    """max_seqlen, softmax_scale, softcap and causal as a caller may have them."""
    return {"tensors": (torch.tensor(20), torch.tensor(0.5), torch.tensor(2.0), torch.tensor(True)),
            "tensors of one": (torch.tensor([20]), torch.tensor([0.5]), torch.tensor([2.0]), torch.tensor([1])),
            "numpy": (numpy.int64(20), numpy.float64(0.5), numpy.float32(2), numpy.bool_(True)),
            "plain": (20, 0.5, 2, 1)}[kind]


@pytest.mark.parametrize("kind", ["tensors", "tensors of one", "numpy", "plain"])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("face", [flash_attn, flash_attn_interface], ids=["2", "3"])
def test_numbers_of_any_kind(kind, compiled, face):
    """One policy, the original's bindings': what is a number of that kind is taken, by all faces, compiled or not."""
    q, k, v = (random(30, 2, 64, device="cpu") for _ in range(3))
    cu = torch.tensor([0, 10, 30], dtype=torch.int32)
    longest, scale, cap, causal = numbers_of(kind)

    def call(q, k, v):
        return face.flash_attn_varlen_func(q, k, v, cu, cu, longest, longest, softmax_scale=scale, softcap=cap,
                                           causal=causal, window_size=(longest, 0))

    wanted = face.flash_attn_varlen_func(q, k, v, cu, cu, 20, 20, softmax_scale=0.5, softcap=2.0, causal=True)
    torch._dynamo.reset()
    run = (lambda f: torch.compile(f, backend="aot_eager", fullgraph=True)) if compiled else lambda f: f
    assert torch.equal(run(call)(q, k, v), wanted)
    dense = lambda *a, **o: face.flash_attn_func(q[None], k[None], v[None], **o)
    wanted = dense(softmax_scale=0.5, softcap=2.0, causal=True)
    assert torch.equal(run(lambda: dense(softmax_scale=scale, softcap=cap, causal=causal))(), wanted)


def test_what_is_no_integer():
    """Nothing is cut off in silence."""
    q = random(30, 2, 64, device="cpu")
    cu = torch.tensor([0, 10, 30], dtype=torch.int32)
    cache = random(2, 16, 2, 64, device="cpu")
    row = cache[:, :1].clone()
    for value in (16.9, 16.0, torch.tensor(16.9), numpy.float64(16.9), torch.tensor([16, 17]), None, "16"):
        for face in (flash_attn, flash_attn_interface):
            for name in ("max_seqlen_q", "max_seqlen_k"):
                lengths = {"max_seqlen_q": 20, "max_seqlen_k": 20, name: value}
                refused(TypeError, f"{name} is {value!r}; it must be an integer", face.flash_attn_varlen_func, q, q, q,
                        cu, cu, **lengths)
            refused(TypeError, f"num_splits is {value!r}; it must be an integer", face.flash_attn_with_kvcache, row,
                    cache, cache, num_splits=value)
            if not isinstance(value, (torch.Tensor, type(None))):
                refused(TypeError, f"cache_seqlens is {value!r}; it must be an integer", face.flash_attn_with_kvcache,
                        row, cache, cache, cache_seqlens=value)
    for value in ("no", None, 0.5):
        refused(TypeError, f"rotary_interleaved is {value!r}; it must be True or False",
                flash_attn.flash_attn_with_kvcache, row, cache, cache, rotary_interleaved=value)


def test_meta_tensors_have_shapes():
    """Nothing of the library is asked: the operators' fakes answer, for every function."""
    q, k = (torch.empty(2, n, 4, 64, dtype=torch.float16, device="meta") for n in (5, 7))
    cu = torch.zeros(3, dtype=torch.int32, device="meta")
    flat = q.flatten(0, 1)
    assert flash_attn_func(q, k, k).shape == q.shape and flash_attn_interface.flash_attn_func(q, k, k).shape == q.shape
    for face in (flash_attn, flash_attn_interface):
        assert face.flash_attn_varlen_func(flat, flat, flat, cu, cu, 5, 5).shape == flat.shape
        out, lse, *_ = face.flash_attn_with_kvcache(q, k, k, q, q, cache_seqlens=cu[:2], return_softmax_lse=True)
        assert out.is_meta and out.shape == q.shape and lse.shape == (2, 4, 5)
        assert face.flash_attn_with_kvcache(q, k, k, cache_seqlens=3).shape == q.shape
    out, lse, *_ = _flash_attn_forward(q, k, k, 0.0, 0.1, False, -1, -1, 0.0, None, False)
    assert out.is_meta and lse.shape == (2, 4, 5)
    out, lse, *_ = _flash_attn_varlen_forward(flat, flat, flat, cu, cu, 5, 5, 0.0, 0.1, False)
    assert out.is_meta and lse.shape == (4, 10)


def test_output_of_the_caller(device):
    q, k, v = tensors(device)
    call = lambda out: flash_attn.flash_attn_interface.flash_attn_gpu.fwd(q, k, v, out, None, 0.0, 1.0, False, -1, -1,
                                                                          0.0, False, None)
    refused(RuntimeError, "Output must have the same dtype as inputs", call, torch.empty_like(q, dtype=torch.float32))
    refused(RuntimeError, "out must have shape (batch_size, seqlen_q, num_heads, head_size)", call,
            torch.empty_like(q[:1]))
    refused(RuntimeError, "out must be on", call, torch.empty_like(q, device="meta"))
    refused(RuntimeError, "Output tensor must have contiguous last dimension", call,
            torch.empty_like(q.transpose(1, 3).contiguous()).transpose(1, 3))


def test_varlen(device):
    q, k, v = (random(30, 2, 64, device=device) for _ in range(3))
    cu = torch.tensor([0, 10, 30], dtype=torch.int32, device=device)
    call = flash_attn_varlen_func
    refused(RuntimeError, "cu_seqlens_q must have dtype int32", call, q, k, v, cu.long(), cu, 20, 20)
    refused(RuntimeError, "cu_seqlens_k must have dtype int32", call, q, k, v, cu, cu.float(), 20, 20)
    refused(RuntimeError, "cu_seqlens_k must be contiguous", call, q, k, v, cu,
            torch.zeros(6, dtype=torch.int32, device=device)[::2], 20, 20)
    refused(RuntimeError, "cu_seqlens_k must have shape (batch_size + 1)", call, q, k, v, cu, cu[:2], 20, 20)
    refused(RuntimeError, "q must have shape (total, num_heads, head_size)", call, q[None], k, v, cu, cu, 20, 20)
    refused(RuntimeError, "seqused_k must have dtype int32", _flash_attn_varlen_forward, q, k, v, cu, cu, 20, 20, 0.0,
            1.0, False, seqused_k=torch.ones(2, device=device))
    if device == "cpu":  # values are only looked at where that does not wait for the device
        refused(ValueError, "cu_seqlens_q[0] is 3; it must be 0", call, q, k, v, cu + 3, cu, 20, 20)
        refused(ValueError, "max_seqlen_k is 5", call, q, k, v, cu, cu, 20, 5)
        refused(ValueError, "cu_seqlens_k ends at 40", call, q, k, v, cu, torch.tensor([0, 20, 40], dtype=torch.int32),
                20, 20)


def test_values(device):
    q, k, v = tensors(device)
    refused(ValueError, "window_left is -2; it must be -1 (unbounded) or more", flash_attn_func, q, k, v,
            window_size=(-2, 0))
    refused(ValueError, "softmax_scale", flash_attn_func, q, k, v, softmax_scale=float("nan"))
    refused(ValueError, "dropout_p is 1.5", flash_attn_func, q, k, v, dropout_p=1.5)
    refused(RuntimeError, "Softcapping does not support dropout for now", flash_attn_func, q, k, v, dropout_p=0.1,
            softcap=3.0)
    refused(RuntimeError, "return_softmax is only supported when p_dropout > 0.0", _flash_attn_forward, q, k, v, 0.0,
            1.0, False, -1, -1, 0.0, None, True)


def test_what_is_not_there_yet(device):
    q, k, v = tensors(device)
    cu = torch.tensor([0, 20, 40], dtype=torch.int32, device=device)
    flat = [t.flatten(0, 1) for t in (q, k, v)]
    table = torch.zeros(2, 1, dtype=torch.int32, device=device)
    refused(NotImplementedError, "dropout of attention on a KV cache", flash_attn_varlen_func, flat[0], k, v, cu, cu,
            20, 20, dropout_p=0.1, block_table=table)
    refused(NotImplementedError, "leftpad_k", _flash_attn_varlen_forward, *flat, cu, cu, 20, 20, 0.0, 1.0, False,
            leftpad_k=cu[1:])
    refused(RuntimeError, "num_splits > 1 is not supported", _flash_attn_varlen_forward, *flat, cu, cu, 20, 20, 0.0,
            1.0, False, block_table=cu[None], num_splits=2)


def test_a_refused_call_leaves_nothing_behind(device):
    """The memory of a call that failed is not used again with what it held."""
    q, k, v = tensors(device)
    expected = flash_attn_func(q, k, v)
    for _ in range(3):
        refused(RuntimeError, "alibi_slopes must have shape", flash_attn_func, q, k, v,
                alibi_slopes=torch.ones(3, device=device))
        assert torch.equal(flash_attn_func(q, k, v), expected)
    biased = flash_attn_func(q, k, v, alibi_slopes=torch.ones(4, device=device))
    assert not torch.equal(biased, expected) and torch.equal(flash_attn_func(q, k, v), expected)


def test_the_current_device_stays(device):
    if device != "cuda":
        pytest.skip("the CPU is one device")
    before = torch.cuda.current_device(), torch.cuda.current_stream()
    q, k, v = tensors(device)
    flash_attn_func(q, k, v)
    refused(RuntimeError, "k must be on CUDA", flash_attn_func, q, k.cpu(), v)
    assert (torch.cuda.current_device(), torch.cuda.current_stream()) == before


def test_a_misspelt_variable_is_said():
    """Once a process, on the first call; what only Python or a test reads is known."""
    code = "from flashplus import library; library.get(); library.get(); print(library.get().describe()['warnings'])"
    known = {"FLASHPLUS_FACE": "ON", "FLASHPLUS_TEST_ENVS": "x", "FLASHPLUS_SOAK": "0"}

    def said(**more):
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True,
                              env={**os.environ, **known, **more})
        return [line for line in done.stderr.splitlines() if "FLASHPLUS_" in line], done.stdout

    assert said() == ([], "[]\n")
    lines, warnings = said(FLASHPLUS_CACHE_DRI="/somewhere", FLASHPLUS_FASE="OFF")
    nearest = {"FLASHPLUS_CACHE_DRI": "FLASHPLUS_CACHE_DIR", "FLASHPLUS_FASE": "FLASHPLUS_FACE"}
    wanted = {f"${name} is set, and nothing reads a variable of that name; the nearest is ${known}"
              for name, known in nearest.items()}
    assert len(lines) == 2 and set(lines) == wanted and all(line in warnings for line in wanted)
