# SPDX-License-Identifier: BSD-3-Clause
"""Warm-up: after it a first call compiles nothing."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from reference import random

import flash_attn
import flashplus

START = "import flashplus.finder; flashplus.finder.install()\n"
LENGTHS = "(1, 3, 40, 200, 600)"
CALLS = START + """
import torch, flash_attn, flashplus
for n in (1, 3, 40, 200, 600):
    q, k, v = (torch.randn(2, n, 4, 32).half() for _ in range(3))
    flash_attn.flash_attn_func(q, k, v)
    flash_attn.flash_attn_func(q, k, v, causal=True)
    flash_attn.flash_attn_func(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), causal=True)
    cu = torch.tensor([0, n, 2 * n], dtype=torch.int32)
    flash_attn.flash_attn_varlen_func(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), cu, cu, n, n, causal=True)
print("compiles", flashplus.counters()["compiles"])
"""


def run(*command, **environment):
    done = subprocess.run(command, capture_output=True, text=True,
                          env={**os.environ, **{k: str(v) for k, v in environment.items()}})
    return done.returncode, done.stdout, done.stderr


def test_a_first_call_compiles_nothing(tmp_path):
    """After the function, to which the command has nothing to add; and without the warm-up it does compile."""
    code, out, err = run(sys.executable, "-c", START + "import flash_attn\n"
                         "flash_attn.warmup(head_dim=32, dtype=['fp16'], target='cpu', jobs=2)",
                         FLASHPLUS_CACHE_DIR=tmp_path)
    assert code == 0 and re.search("[1-9][0-9]* compiled", out), out + err
    code, out, err = run(
        sys.executable, "-c", START + "import runpy, sys; sys.argv[1:] = ['warmup', '--head-dim', '32', "
        "'--dtype', 'fp16', '--target', 'cpu', '--jobs', '2']; runpy.run_module('flash_attn', run_name='__main__')",
        FLASHPLUS_CACHE_DIR=tmp_path)
    assert code == 0 and re.search(r"\b0 compiled", out), out + err
    code, out, err = run(sys.executable, "-c", CALLS, FLASHPLUS_CACHE_DIR=tmp_path)
    assert out.split() == ["compiles", "0"], out + err
    code, out, err = run(sys.executable, "-c", CALLS.replace(LENGTHS, "(1,)"), FLASHPLUS_CACHE_DIR=tmp_path / "cold")
    assert int(out.split()[1]) > 0, out + err


def test_a_models_config_says_what_is_warmed(tmp_path, monkeypatch):
    command = tmp_path / "flashplus"
    command.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n')
    command.chmod(0o700)
    monkeypatch.setenv("FLASHPLUS_COMMAND", str(command))
    flash_attn.warmup(model=tmp_path / "config.json", target="sm_90a", backward=True)
    assert (tmp_path / "arguments").read_text().split() == [
        "warmup", "--model", str(tmp_path / "config.json"), "--backward", "--target", "sm_90a"]
    flash_attn.warmup(model="config.json", dtype=torch.bfloat16, causal=True)
    assert (tmp_path / "arguments").read_text().split() == [
        "warmup", "--model", "config.json", "--dtype", "bf16", "--causal", "yes"]
    with pytest.raises(ValueError, match="model and head_dim are given"):
        flash_attn.warmup(model="config.json", head_dim=64)
    with pytest.raises(ValueError, match="softcap is 'yes', and no head_dim .* with model only dtype and causal may"):
        flash_attn.warmup(model="config.json", softcap=True)


def test_the_command_that_is_named_is_the_one_or_none(tmp_path):
    main = START + "import runpy, sys; sys.argv[1:] = {}; runpy.run_module('flash_attn', run_name='__main__')"
    (tmp_path / "no-program").write_text("")
    for name in ("absent", "no-program"):
        code, out, err = run(sys.executable, "-c", main.format(["devices"]), FLASHPLUS_COMMAND=tmp_path / name)
        assert (code, out) == (1, "") and f"FLASHPLUS_COMMAND is '{tmp_path / name}'; it must be" in err, err
        assert "Traceback" not in err
    code, out, err = run(sys.executable, "-c", main.format([]), FLASHPLUS_LIBRARY=tmp_path / "absent.so")
    assert code == 1 and err.startswith("flash_attn: libflashplus.so can't be opened: ") and "Traceback" not in err, err
    code, out, err = run(sys.executable, "-c", main.format(["local_kernels"]))
    assert (code, err) == (1, "flash_attn: unknown subcommand 'local_kernels'; did you mean local-kernels?\n")


def test_what_chooses_kernels_is_understood_or_refused(tmp_path, monkeypatch):
    command = tmp_path / "flashplus"
    command.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n')
    command.chmod(0o700)
    monkeypatch.setenv("FLASHPLUS_COMMAND", str(command))
    numpy = pytest.importorskip("numpy")
    flash_attn.warmup(numpy.int64(64), numpy.dtype("float16"), numpy.bool_(True), jobs=numpy.int32(2))
    assert (tmp_path / "arguments").read_text().split() == [
        "warmup", "--head-dim", "64", "--dtype", "fp16", "--causal", "yes", "--window", "no", "--softcap", "no",
        "--alibi", "none", "--jobs", "2"]
    flash_attn.warmup(dtype=["bf16", "fp16"])  # as it is by default
    assert (tmp_path / "arguments").read_text().split() == ["warmup"]
    for name, value in (("causal", True), ("dtype", "fp32"), ("window", "both"), ("alibi", ["heads", "batch"])):
        with pytest.raises(ValueError, match=f"{name} is '.*', and no head_dim is given for which it would choose"):
            flash_attn.warmup(**{name: value})
    for name in ("causal", "softcap", "alibi", "dtype"):
        with pytest.raises(ValueError, match=rf"{name} is \[?'?None'?\]?; it must be of "):
            flash_attn.warmup(64, **{name: None})
    with pytest.raises(TypeError):  # not cut off
        flash_attn.warmup(64, jobs=2.5)


def test_marked_ready_a_compile_warns_or_fails(tmp_path):
    code, out, err = run(sys.executable, "-c", START + '''
import logging, torch, flash_attn, flashplus
lines = []
handler = logging.Handler()
handler.emit = lambda record: lines.append(record.getMessage())
logging.getLogger("flashplus").addHandler(handler)
q = torch.randn(1, 8, 2, 32).half()
flash_attn.flash_attn_func(q, q, q)
flashplus.mark_ready()
flash_attn.flash_attn_func(q, q, q)
assert not lines and flashplus.counters()["late_compiles"] == 0, lines
flash_attn.flash_attn_func(q, q, q, causal=True)
assert len(lines) == 1 and "right=1" in lines[0] and "marked ready" in lines[0], lines
flashplus.mark_ready("error")
try:
    flash_attn.flash_attn_func(q, q, q, softcap=3.0)
except flashplus.Error as error:
    assert "tanh" in str(error) and "marked ready" in str(error), error
else:
    raise AssertionError("compiled")
assert flashplus.counters()["late_compiles"] == 2
try:
    flashplus.mark_ready("loudly")
except ValueError as error:
    assert "on_compile is 'loudly'" in str(error)
print("good")
''', FLASHPLUS_CACHE_DIR=tmp_path)
    assert code == 0 and out.split() == ["good"], out + err


def test_idle_kernels_are_dropped_and_come_back(tmp_path):
    code, out, err = run(sys.executable, "-c", START + '''
import torch, flash_attn, flashplus
q = torch.randn(1, 8, 2, 32).half()
first = flash_attn.flash_attn_func(q, q, q)
flash_attn.flash_attn_func(q, q, q, causal=True)
assert flashplus.drop_idle_kernels() == 0
flash_attn.flash_attn_func(q, q, q, causal=True)
assert flashplus.drop_idle_kernels() == 1
before = flashplus.counters()
assert torch.equal(flash_attn.flash_attn_func(q, q, q), first)
after = flashplus.counters()
assert after["disk_hits"] == before["disk_hits"] + 1 and after["compiles"] == before["compiles"]
print("good")
''', FLASHPLUS_CACHE_DIR=tmp_path)
    assert code == 0 and out.split() == ["good"], out + err


def test_equal_calls_give_equal_bits_whatever_the_thread_has_set(tmp_path):
    """Denormals and the rounding mode of the caller, and of whoever made the workers."""
    code, out, err = run(sys.executable, "-c", START + '''
import ctypes, math, threading, torch, flash_attn
libm = ctypes.CDLL("libm.so.6")
q, k, v = (torch.randn(2, 300, 4, 64) for _ in range(3))
v[:, :, 0] *= 1e-39  # denormals, which a kernel that flushes them would lose
call = lambda: flash_attn.flash_attn_func(q, k, v, causal=True)
results = []
def odd(mode):
    assert libm.fesetround(mode) == 0 and torch.set_flush_denormal(True)
    results.append(call())
    assert libm.fegetround() == mode
for mode in (0x400, 0x800, 0xc00):  # down, up, towards zero
    thread = threading.Thread(target=odd, args=(mode,))
    thread.start()  # the first makes the kernel and the workers
    thread.join()
results.append(call())
assert all(torch.equal(r, results[0]) for r in results)
assert results[0][:, :, 0].abs().max() > 0
print("good")
''', FLASHPLUS_CACHE_DIR=tmp_path)
    assert code == 0 and out.split() == ["good"], out + err


TRAINING = START + """
import torch, flash_attn, flashplus
for n in (1, 3, 40, 200, 600):
    q, k, v = (torch.randn(2, n, 4, 32).half().requires_grad_() for _ in range(3))
    flash_attn.flash_attn_func(q, k, v, causal=True).sum().backward()
    cu = torch.tensor([0, n, 2 * n], dtype=torch.int32)
    packed = (t.detach().flatten(0, 1).requires_grad_() for t in (q, k, v))
    flash_attn.flash_attn_varlen_func(*packed, cu, cu, n, n, causal=True).sum().backward()
print("compiles", flashplus.counters()["compiles"])
"""


def test_a_first_step_of_training_compiles_nothing(tmp_path):
    """With backward=True, which adds to what the forward's warm-up made; without it does."""
    warm = START + ("import flash_attn\nflash_attn.warmup(head_dim=32, dtype='fp16', causal='yes', target='cpu', "
                    "jobs=2, backward=%s)")
    forward, both = tmp_path / "forward", tmp_path / "both"
    code, out, err = run(sys.executable, "-c", warm % False, FLASHPLUS_CACHE_DIR=forward)
    assert code == 0, out + err
    shutil.copytree(forward, both)
    code, out, err = run(sys.executable, "-c", TRAINING.replace(LENGTHS, "(1,)"), FLASHPLUS_CACHE_DIR=forward)
    assert int(out.split()[1]) > 0, out + err
    code, out, err = run(sys.executable, "-c", warm % True, FLASHPLUS_CACHE_DIR=both)
    assert code == 0, out + err
    code, out, err = run(sys.executable, "-c", TRAINING, FLASHPLUS_CACHE_DIR=both)
    assert out.split() == ["compiles", "0"], out + err


def test_the_loop_of_the_migration_guide(device):
    """Calls with q[:1] are enough for the full batch."""
    q, k, v = (random(4, 50, 4, 96, device=device) for _ in range(3))
    for _ in range(3):
        flash_attn.flash_attn_func(q[:1], k[:1], v[:1], causal=True)
    before = flashplus.counters()
    flash_attn.flash_attn_func(q, k, v, causal=True)
    after = flashplus.counters()
    assert after["compiles"] == before["compiles"] and after["disk_hits"] == before["disk_hits"]


def test_torch_dtypes_and_refusals(monkeypatch, tmp_path):
    seen = tmp_path / "arguments"
    command = tmp_path / "flashplus"
    command.write_text(f'#!/bin/sh\necho "$@" > {seen}\n[ "$3" != 13 ] || {{ echo broken >&2; exit 1; }}\n')
    command.chmod(0o755)
    monkeypatch.setenv("FLASHPLUS_COMMAND", str(command))
    flash_attn.warmup(head_dim=[64, 128], dtype=[torch.bfloat16, "fp16"], causal="yes", target="sm_80", arch="sm_90",
                      jobs=3, quiet=True)
    assert seen.read_text().split() == (
        "warmup --head-dim 64,128 --dtype bf16,fp16 --causal yes --window no --softcap no "
        "--alibi none --target sm_80 --arch sm_90 --jobs 3").split()
    flash_attn.warmup(quiet=True)
    assert seen.read_text().split() == ["warmup"]
    flash_attn.warmup(backward=True, quiet=True)
    assert seen.read_text().split() == ["warmup", "--backward"]
    flash_attn.warmup(head_dim=64, dtype="fp16", target="cpu", backward=True, quiet=True)
    assert seen.read_text().split()[-3:] == ["--backward", "--target", "cpu"]
    with pytest.raises(ValueError, match="causal is 'maybe'"):
        flash_attn.warmup(head_dim=64, causal="maybe")
    with pytest.raises(ValueError, match=r"head_dim is \[\]; it must have at least one value"):
        flash_attn.warmup(head_dim=[])
    with pytest.raises(ValueError, match="dtype is"):
        flash_attn.warmup(head_dim=64, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="broken"):
        flash_attn.warmup(head_dim=13, quiet=True)
    monkeypatch.setenv("FLASHPLUS_COMMAND", "/nowhere/flashplus")
    monkeypatch.setenv("FLASHPLUS_LIBRARY", "/nowhere/libflashplus.so")
    if not os.path.exists(os.path.join(os.path.dirname(flashplus.__file__), "lib", "flashplus")):
        with pytest.raises(FileNotFoundError, match="FLASHPLUS_COMMAND"):
            flash_attn.warmup(head_dim=64)


def test_without_arguments_the_module_says_what_there_is(tmp_path):
    code, out, err = run(sys.executable, "-c", START + "import runpy, sys; sys.argv[1:] = []; "
                         "runpy.run_module('flash_attn', run_name='__main__')", FLASHPLUS_CACHE_DIR=tmp_path)
    assert code == 0, err
    for text in (f"flash-attn-plus {flashplus.__version__}, as flash_attn 2.8.3", "backend   ", "device    cpu: x86-64",
                 f"cache     {tmp_path}"):
        assert text in out, out


@pytest.mark.parametrize("dtype", [torch.float16, "float16", "torch.float16", "fp16"])
def test_flags_and_dtypes_of_any_kind(dtype, monkeypatch):
    from flashplus import command

    given = []
    monkeypatch.setattr(command, "_run", lambda arguments, quiet: (given.append(arguments), (0, "", ""))[1])
    command.warmup(32, dtype=dtype, causal=True, softcap=False, quiet=True)
    (arguments,) = given
    for flag, value in (("--dtype", "fp16"), ("--causal", "yes"), ("--softcap", "no"), ("--window", "no")):
        assert arguments[arguments.index(flag) + 1] == value
    with pytest.raises(ValueError, match="dtype is .*; it must be of fp16, bf16, fp32"):
        command.warmup(32, dtype="int8")


@pytest.mark.parametrize("quiet", [False, True])
def test_a_failure_says_why(quiet, capfd):
    with pytest.raises(RuntimeError, match="flashplus warmup failed: .*sm_1"):
        flash_attn.warmup(32, target="sm_1", quiet=quiet)
    assert ("sm_1" in capfd.readouterr().err) != quiet
