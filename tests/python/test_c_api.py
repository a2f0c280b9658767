# SPDX-License-Identifier: BSD-3-Clause
"""The ctypes structs against the headers, and the library's life in a process."""

import ctypes
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from flashplus import c_api

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_structs_are_laid_out_as_in_the_headers(tmp_path):
    compiler = shutil.which("clang-22") or shutil.which("cc")
    if not compiler or not (ROOT / "runtime/include").exists():
        pytest.skip("no C compiler, or no runtime/include")
    if subprocess.run([compiler, "-E", "-x", "c", "-"], input="#include <dlpack/dlpack.h>", capture_output=True,
                      text=True).returncode:
        pytest.skip("dlpack/dlpack.h is not installed")
    structs = {"DLTensor": c_api.DLTensor, "flashplus_context_options": c_api.ContextOptions,
               "flashplus_counters": c_api.Counters, "flashplus_forward_args": c_api.ForwardArgs,
               "flashplus_backward_args": c_api.BackwardArgs, "flashplus_merge_args": c_api.MergeArgs,
               "flashplus_score_tensor": c_api.ScoreTensor, "flashplus_score_scalar": c_api.ScoreScalar,
               "flashplus_score_gradient": c_api.ScoreGradient,
               "flashplus_dropout_mask_args": c_api.DropoutMaskArgs, "flashplus_python_call": c_api.PythonCall}
    nested = {"device_type": "device.device_type", "device_id": "device.device_id", "code": "dtype.code",
              "bits": "dtype.bits", "lanes": "dtype.lanes"}
    lines, expected = [], []
    for c_name, struct in structs.items():
        for field, kind in struct._fields_:
            path = nested.get(field, field) if c_name == "DLTensor" else field
            lines.append(f'printf("%zu %zu\\n", offsetof({c_name}, {path}), sizeof((({c_name} *)0)->{path}));')
            expected.append((c_name, field, getattr(struct, field).offset, ctypes.sizeof(kind)))
        lines.append(f'printf("%zu 0\\n", sizeof({c_name}));')
        expected.append((c_name, "", ctypes.sizeof(struct), 0))
    source = tmp_path / "layout.c"
    source.write_text("#include <stdio.h>\n#include <flashplus/flashplus.h>\nint main(void) {" + "\n".join(lines) + "}")
    subprocess.run([compiler, "-I", ROOT / "runtime/include", "-o", tmp_path / "layout", source], check=True)
    output = subprocess.run([tmp_path / "layout"], check=True, capture_output=True, text=True).stdout
    for line, (c_name, field, *ours) in zip(output.splitlines(), expected):
        if field or c_name == "DLTensor":
            assert [int(n) for n in line.split()] == ours, f"{c_name}.{field}"
        else:  # what the header has more than this is left to its default
            assert int(line.split()[0]) >= ours[0]


def python(code, **environment):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**os.environ, **{k: str(v) for k, v in environment.items()}})
    return done.returncode, done.stdout + done.stderr


START = "import flashplus.finder; flashplus.finder.install()\n"


def test_importing_opens_no_library():
    code, text = python(START + "import torch, flash_attn, flash_attn.flash_attn_interface\n"
                                "maps = open('/proc/self/maps').read(); assert 'libflashplus' not in maps, maps")
    assert code == 0, text


def test_a_missing_library_is_said_on_the_first_call():
    code, text = python(START + "import torch, flash_attn; q = torch.zeros(1, 4, 1, 32).half(); "
                                "flash_attn.flash_attn_func(q, q, q)", FLASHPLUS_LIBRARY="/nowhere/libflashplus.so")
    assert code == 1 and "ImportError: libflashplus.so can't be opened: /nowhere/libflashplus.so" in text
    assert "FLASHPLUS_LIBRARY names another one" in text


def test_a_warm_process_never_opens_the_compiler(tmp_path):
    call = START + ("import torch, flash_attn, flashplus; q = torch.ones(1, 4, 1, 32).half()\n"
                    "flash_attn.flash_attn_func(q, q, q); c = flashplus.counters()\n"
                    "print(c['compiles'], c['disk_hits'], 'flashplus-compiler' in open('/proc/self/maps').read())")
    here = {"FLASHPLUS_COMPILE_IN_PROCESS": "1"}  # so that the check can fail; else a process of its own has it
    assert python(call, FLASHPLUS_CACHE_DIR=tmp_path / "here", **here)[1].split()[-3:] == ["1", "0", "True"]
    assert python(call, FLASHPLUS_CACHE_DIR=tmp_path)[1].split()[-3:] == ["1", "0", "False"]
    assert python(call, FLASHPLUS_CACHE_DIR=tmp_path)[1].split()[-3:] == ["0", "1", "False"]


def test_the_first_call_imports_nothing_of_torch(tmp_path):
    """Some corners of PyTorch (meta tensors, decompositions) take seconds when they are first used."""
    code, text = python("import torch, sys; before = set(sys.modules)\n" + START +
                        "import flash_attn; q = torch.ones(1, 4, 1, 32).half(); flash_attn.flash_attn_func(q, q, q)\n"
                        "flash_attn.flash_attn_func(q, q, q, return_attn_probs=True)\n"
                        "print('new:', *(m for m in set(sys.modules) - before if not m.startswith('flash')))",
                        FLASHPLUS_CACHE_DIR=tmp_path)
    assert code == 0 and "torch" not in text.partition("new:")[2], text


def test_a_cache_that_cannot_be_used_is_warned_of(tmp_path):
    """The kernel is compiled, runs, and is not kept."""
    (tmp_path / "file").write_text("")
    code, text = python(START + "import torch, flash_attn; q = torch.ones(1, 4, 1, 32).half()\n"
                                "print(flash_attn.flash_attn_func(q, q, q).sum().item())",
                        FLASHPLUS_CACHE_DIR=tmp_path / "file" / "cache")
    assert code == 0 and "128.0" in text and str(tmp_path / "file") in text, text


@pytest.mark.parametrize("order", ["torch first", "flashplus first"])
def test_beside_torch_and_triton(order, tmp_path):
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is only in the environment 'newest'")
    compile_one = (START + "import flash_attn; q = torch.ones(1, 4, 1, 32).half(); "
                   "assert (flash_attn.flash_attn_func(q, q, q) == 1).all()")
    imports = ["import torch, triton, triton._C.libtriton", "import torch\n" + compile_one]
    if order == "flashplus first":
        imports.reverse()
    maps = "\nmaps = open('/proc/self/maps').read(); assert 'libtriton' in maps and 'flashplus-compiler' in maps"
    # cold: both copies of LLVM are in use
    code, text = python("\n".join(imports) + maps, FLASHPLUS_CACHE_DIR=tmp_path, FLASHPLUS_COMPILE_IN_PROCESS="1")
    assert code == 0, text


def test_cuda_tensors_without_a_driver_cannot_exist_but_the_device_says_why():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a driver")
    import flashplus

    missing = {row["name"]: row["reason"] for row in flashplus.describe()["missing"]}
    assert "cuda" in missing and missing["cuda"]
