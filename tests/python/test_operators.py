# SPDX-License-Identifier: BSD-3-Clause
"""torch.compile, torch.export, fakes, dispatch modes, the low-level functions and the positional face."""

import inspect
import os
import shutil
import subprocess
import sysconfig

import pytest
import torch
from reference import check, random

import flash_attn
from flash_attn import flash_attn_func, flash_attn_varlen_func, flash_attn_interface
from flash_attn.flash_attn_interface import (
    _flash_attn_backward,
    _flash_attn_forward,
    _flash_attn_varlen_forward,
    _get_block_size_n,
    _wrapped_flash_attn_forward,
    flash_attn_gpu,
)


def inputs(device, n=40):
    return [random(2, n, 4, 64, device=device) for _ in range(3)]


def test_compile_without_a_graph_break(device):
    q, k, v = inputs(device)

    def model(q, k, v):
        x = flash_attn_func(q * 2, k, v, causal=True, window_size=(20, 0))
        out, lse, _ = flash_attn_func(x, k, v, return_attn_probs=True)
        return out + 1, lse

    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=False)
    for got, expected in zip(compiled(q, k, v), model(q, k, v)):
        assert torch.equal(got, expected)


@pytest.fixture
def inductor(device, tmp_path, monkeypatch):
    """The default backend of torch.compile; on the CPU it writes C++, on CUDA Triton."""
    if device == "cuda":
        pytest.importorskip("triton")
        named, usual, suffix, flags, source = "CC", ("gcc", "clang"), "c", (), "#include <Python.h>\n"
    else:
        named, usual, suffix, flags = "CXX", ("g++", "clang++", "clang++-22"), "cpp", ("-fopenmp",)
        source = "#include <Python.h>\n#include <omp.h>\nextern \"C\" int f() { return omp_get_max_threads(); }"
    compiler = next((path for name in (os.environ.get(named, ""), *usual) if name and (path := shutil.which(name))),
                    None)
    if not compiler:
        pytest.skip(
            f"no compiler for {'Triton' if device == 'cuda' else 'inductor'}: none of ${named}, {', '.join(usual)}")
    probe = tmp_path / f"probe.{suffix}"
    probe.write_text(source)
    done = subprocess.run([compiler, "-shared", "-fPIC", *flags, f"-I{sysconfig.get_paths()['include']}", "-o",
                           tmp_path / "probe.so", probe], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{compiler} can't build for torch.compile: {done.stderr.splitlines()[0]}")
    if device == "cpu":
        from torch._inductor import config

        monkeypatch.setattr(config.cpp, "cxx", (None, compiler))
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no pool of processes for three kernels
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch._dynamo.reset()


def test_compile_with_inductor(device, inductor):
    """What `torch.compile(model)` does by default: kernels of its own around ours."""
    weight = random(64, 64, device=device) * 0.1

    def model(q, k, v):
        x = flash_attn_func(q * 2, k @ weight, v, causal=True)
        out, lse, _ = flash_attn_func(x, k, v, window_size=(20, 0), return_attn_probs=True)
        return torch.relu(out) + x, lse * 2

    inputs_ = inputs(device)
    expected = model(*inputs_)
    with torch.inference_mode():
        got = torch.compile(model, fullgraph=True)(*inputs_)
    for g, e in zip(got, expected):
        assert (g.float() - e.float()).abs().max() <= 4 * torch.finfo(torch.float16).eps * e.float().abs().max()


def test_compile_of_packed_sequences(device):
    q, k, v = (random(90, 4, 64, device=device) for _ in range(3))
    cu = torch.tensor([0, 30, 90], dtype=torch.int32, device=device)
    model = lambda q, k, v, cu: flash_attn_varlen_func(q + 0, k, v, cu, cu, 60, 60, causal=True) * 2
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(q, k, v, cu), model(q, k, v, cu))


def test_compile_with_changing_sizes(device):
    compiled = torch.compile(lambda q, k, v: flash_attn_func(q, k, v) + 1, fullgraph=True, backend="aot_eager",
                             dynamic=True)
    for n in (17, 33, 64):
        q, k, v = inputs(device, n)
        assert torch.equal(compiled(q, k, v), flash_attn_func(q, k, v) + 1)


def test_compile_keeps_the_strides_of_the_output(device):
    q, k, v = (random(2, 4, 40, 64, device=device).transpose(1, 2) for _ in range(3))
    compiled = torch.compile(lambda q, k, v: flash_attn_func(q, k, v), fullgraph=True, backend="aot_eager")
    assert compiled(q, k, v).stride() == flash_attn_func(q, k, v).stride() == q.stride()


@pytest.mark.parametrize("strict", [False, True])
def test_export(device, strict):
    class Model(torch.nn.Module):
        def forward(self, q, k, v):
            return flash_attn_func(q, k, v, causal=True)

    q, k, v = inputs(device)
    program = torch.export.export(Model(), (q, k, v), strict=strict)
    assert any("_flash_attn_forward" in str(node.target) for node in program.graph.nodes)
    assert torch.equal(program.module()(q, k, v), flash_attn_func(q, k, v, causal=True))


@pytest.mark.parametrize("transposed", [False, True])
def test_fakes_agree_with_the_kernels(device, transposed):
    from torch._subclasses import FakeTensorMode

    q, k, v = inputs(device)
    if transposed:
        q = random(2, 4, 40, 64, device=device).transpose(1, 2)
    real = _wrapped_flash_attn_forward(q, k, v, 0.0, 0.125, True, -1, -1, 0.0, None, False)
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(t) for t in (q, k, v)]
        fake = _wrapped_flash_attn_forward(*fakes, 0.0, 0.125, True, -1, -1, 0.0, None, False)
    for r, f in zip(real, fake):
        assert r.shape == f.shape and r.dtype == f.dtype and r.device == f.device and r.stride() == f.stride()


def test_opcheck(device):
    q, k, v = inputs(device)
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.flash_attn._flash_attn_forward.default,
                          (q, k, v, 0.0, 0.125, True, -1, -1, 0.0, None, False), test_utils=tests)
    cu = torch.tensor([0, 10, 80], dtype=torch.int32, device=device)
    flat = [t.flatten(0, 1) for t in (q, k, v)]
    torch.library.opcheck(torch.ops.flash_attn._flash_attn_varlen_forward.default,
                          (*flat, cu, cu, 70, 70, 0.0, 0.125, True), test_utils=tests)


def test_a_dispatch_mode_sees_the_operator(device):
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Spy(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    q, k, v = inputs(device)
    with Spy():
        out = flash_attn_func(q, k, v)
    assert any("_flash_attn_forward" in name for name in seen)
    seen.clear()
    assert torch.equal(out, flash_attn_func(q, k, v)) and not seen


def test_low_level_forward(device):
    q, k, v = inputs(device)
    out, lse, dmask, rng = _flash_attn_forward(q, k, v, 0.0, 0.125, True, window_size_left=-1, window_size_right=-1,
                                               softcap=0.0, alibi_slopes=None, return_softmax=False)
    check(out, q, k, v, lse, causal=True)
    assert dmask.numel() == 0 and rng.shape == (2,)
    for got, expected in zip(_wrapped_flash_attn_forward(q, k, v, 0.0, 0.125, True, -1, -1, 0.0, None, False),
                             (out, lse)):
        assert torch.equal(got, expected)


def test_positional_face(device):
    q, k, v = inputs(device)
    buffer = torch.empty_like(q)
    out, lse, _, _ = flash_attn_gpu.fwd(q, k, v, buffer, None, 0.0, 0.125, True, -1, -1, 0.0, False, None)
    assert out is buffer
    check(out, q, k, v, lse, causal=True)
    flat = [t.flatten(0, 1) for t in (q, k, v)]
    cu = torch.tensor([0, 40, 80], dtype=torch.int32, device=device)
    arguments = (*flat, None, cu, cu, None, None, None, None, 40, 40, 0.0, 0.125, False, True, -1, -1, 0.0, False, None)
    assert len(arguments) == 21  # before 2.8.4; then num_splits was added
    for call in (arguments, (*arguments, 0)):
        assert torch.equal(flash_attn_gpu.varlen_fwd(*call)[0], out.flatten(0, 1))


def test_the_generator_must_be_none(device):
    q, k, v = inputs(device)
    generator = torch.Generator()
    n = None
    calls = [
        lambda: flash_attn_gpu.fwd(q, k, v, n, n, 0.0, 1.0, False, -1, -1, 0.0, False, generator),
        lambda: flash_attn_gpu.varlen_fwd(q, k, v, n, n, n, n, n, n, n, 1, 1, 0.0, 1.0, False, False, -1, -1, 0.0,
                                          False, generator, 0),
        lambda: flash_attn_gpu.bwd(q, q, k, v, q, q, n, n, n, n, 0.0, 1.0, False, -1, -1, 0.0, False, generator, n),
        lambda: flash_attn_gpu.varlen_bwd(q, q, k, v, q, q, n, n, n, n, n, n, 1, 1, 0.0, 1.0, False, False, -1, -1, 0.0,
                                          False, generator, n),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="generator` argument is no longer supported"):
            call()


def test_signatures_are_those_of_2_8_3_with_s_aux_behind_them():
    tail = ("dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None, "
            "deterministic=False, return_attn_probs=False")
    lengths = "cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k"
    expected = {
        "flash_attn_func": f"(q, k, v, {tail})",
        "flash_attn_kvpacked_func": f"(q, kv, {tail})",
        "flash_attn_qkvpacked_func": f"(qkv, {tail})",
        "flash_attn_varlen_func": f"(q, k, v, {lengths}, {tail}, block_table=None)",
        "flash_attn_varlen_kvpacked_func": f"(q, kv, {lengths}, {tail})",
        "flash_attn_varlen_qkvpacked_func": f"(qkv, cu_seqlens, max_seqlen, {tail})",
        "flash_attn_with_kvcache":
            "(q, k_cache, v_cache, k=None, v=None, rotary_cos=None, rotary_sin=None, cache_seqlens=None, "
            "cache_batch_idx=None, cache_leftpad=None, block_table=None, softmax_scale=None, causal=False, "
            "window_size=(-1, -1), softcap=0.0, rotary_interleaved=True, alibi_slopes=None, num_splits=0, "
            "return_softmax_lse=False)",
    }
    for name, signature in expected.items():
        if "packed" not in name:  # where transformers looks for it
            signature = signature[:-1] + ", s_aux=None)"
        assert str(inspect.signature(getattr(flash_attn, name))) == signature
        assert getattr(flash_attn_interface, name) is getattr(flash_attn, name)
    assert str(inspect.signature(_flash_attn_varlen_forward)) == (
        f"(q, k, v, {lengths}, dropout_p, softmax_scale, causal, window_size_left=-1, window_size_right=-1, "
        "softcap=0.0, "
        "alibi_slopes=None, return_softmax=False, block_table=None, leftpad_k=None, seqused_k=None, "
        "zero_tensors=False, "
        "num_splits=0)")
    assert str(inspect.signature(_flash_attn_backward)).startswith(
        "(dout, q, k, v, out, softmax_lse, dq, dk, dv, dropout_p, softmax_scale, causal, window_size_left")
    assert _get_block_size_n(torch.device("cpu"), 64, False, True) > 0
