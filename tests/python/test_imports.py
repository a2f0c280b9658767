# SPDX-License-Identifier: BSD-3-Clause
"""What can be imported, and how clients find us."""

import ast
import importlib
import importlib.metadata
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

import flashplus
from flashplus import absent, finder

PACKAGE = pathlib.Path(flashplus.__file__).parent

# Reference: who imports what (transformers, vLLM, diffusers, TransformerEngine, MSLK, Megatron-LM, axolotl, unsloth,
# verl).
CLIENTS = [
    "from flash_attn import flash_attn_func, flash_attn_varlen_func, flash_attn_with_kvcache, __version__",
    "from flash_attn import flash_attn_kvpacked_func, flash_attn_qkvpacked_func",
    "from flash_attn import flash_attn_varlen_kvpacked_func, flash_attn_varlen_qkvpacked_func",
    "from flash_attn.bert_padding import index_first_axis, pad_input, unpad_input, rearrange",
    "from flash_attn.flash_attn_interface import flash_attn_gpu",
    "from flash_attn.flash_attn_interface import flash_attn_cuda",
    "from flash_attn.flash_attn_interface import _wrapped_flash_attn_forward, _wrapped_flash_attn_backward",
    "from flash_attn.flash_attn_interface import _flash_attn_forward, _flash_attn_backward",
    "from flash_attn.flash_attn_interface import _flash_attn_varlen_forward, _flash_attn_varlen_backward",
    "from flash_attn.flash_attn_interface import _get_block_size_n, USE_TRITON_ROCM, flash_attn_varlen_qkvpacked_func",
    "from flash_attn.flash_attn_interface import FlashAttnFunc, FlashAttnVarlenFunc, FlashAttnQKVPackedFunc",
    "from flash_attn.layers.rotary import RotaryEmbedding, apply_rotary_emb, apply_rotary_emb_func",
    "from flash_attn.layers.rotary import apply_rotary_emb_qkv_, apply_rotary_emb_kv_, apply_rotary_emb_torch",
    "from flash_attn.ops.triton.rotary import apply_rotary",
    "from flash_attn.ops.triton.cross_entropy import cross_entropy_loss",
    "from flash_attn.losses.cross_entropy import CrossEntropyLoss",
    "from flash_attn.ops.triton.layer_norm import layer_norm_fn, rms_norm_fn, RMSNorm",
    "from flash_attn.ops.rms_norm import RMSNorm, rms_norm",
    "from flash_attn.ops.fused_dense import FusedDense",
    "from flash_attn.ops.activations import swiglu",
    "from flash_attn.modules.mha import MHA, FlashSelfAttention, FlashCrossAttention, get_alibi_slopes",
    "from flash_attn.modules.mlp import Mlp, GatedMlp",
    "from flash_attn.utils.testing import attention_ref",
    "from flash_attn_interface import flash_attn_func, flash_attn_varlen_func, flash_attn_with_kvcache",
]


@pytest.mark.parametrize("statement", CLIENTS)
def test_clients_can_import(statement):
    exec(statement, {})


def test_the_module_is_an_attribute():
    """`import flash_attn` alone, as with the original."""
    code = ("import flashplus.finder; flashplus.finder.install(); import flash_attn; "
            "print(flash_attn.flash_attn_interface._flash_attn_forward.__name__)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["_flash_attn_forward"], done.stderr


@pytest.mark.parametrize("module", sorted(absent.TABLE))
def test_absent_modules_refuse_when_called(module):
    loaded = importlib.import_module("flash_attn." + module)
    for name in absent.TABLE[module]:
        with pytest.raises(NotImplementedError, match=f"flash_attn.{module}.{name}"):
            getattr(loaded, name)(1, x=2)


def test_what_is_nowhere_is_a_module_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("flash_attn.nothing")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("flash_attn_2_cuda")
    assert importlib.util.find_spec("flash_attn_2_cuda") is None and importlib.util.find_spec("flash_attn_3") is None


def test_version_and_distribution():
    import flash_attn

    assert flash_attn.__version__ == "2.8.3" and [int(part) for part in flash_attn.__version__.split(".")]
    for name in ("flash-attn", "flash_attn"):
        assert importlib.metadata.version(name) == "2.8.3"
    assert importlib.metadata.distribution("flash-attn").metadata["Name"] == "flash-attn"
    if sys.version_info >= (3, 10):
        assert importlib.metadata.packages_distributions()["flash_attn"] == ["flash-attn"]
    assert importlib.util.find_spec("flash_attn") is not None


def test_pip_is_not_told_of_a_distribution_that_no_folder_holds():
    paths = [p for p in sys.path if p]
    names = {d.metadata["Name"] for p in paths for d in importlib.metadata.distributions(path=[p])}
    assert "flash-attn" not in names


def test_other_names_are_left_alone():
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("flash-attn-4")
    assert finder.Face.find_spec("flash_attn_2_cuda") is None and finder.Rest.find_spec("flash_attention") is None


def run_with(path, code):
    """In a new process whose path begins with a folder of the test's."""
    start = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); sys.path.insert(0, {str(path)!r}); "
    done = subprocess.run([sys.executable, "-c", start + "import flashplus.startup; " + code], capture_output=True,
                          text=True)
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["module", "package"])
def test_a_users_own_flash_attn_is_not_hidden(tmp_path, kind):
    file = tmp_path / ("flash_attn.py" if kind == "module" else "flash_attn/__init__.py")
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine = 7\n")
    said = run_with(tmp_path, "import flash_attn; print(flash_attn.mine, hasattr(flash_attn, 'flash_attn_func')); "
                              "import importlib.util as u; print(u.find_spec('flash_attn').origin)\n"
                              "try: import flash_attn.losses\nexcept ModuleNotFoundError: print('none')")
    assert said.split() == ["7", "False", str(file), "none"]


def test_flash_attention_4_beside_us(tmp_path):
    """Its distribution has flash_attn/cute and no flash_attn/__init__.py; beside the original it has one."""
    cute = tmp_path / "flash_attn" / "cute"
    cute.mkdir(parents=True)
    (cute / "__init__.py").write_text("from flash_attn.cute.interface import which\n")
    (cute / "interface.py").write_text("import flash_attn\nwhich = 4\n")
    code = ("from flash_attn.cute import which; import flash_attn.cute.interface; from flash_attn import "
            "flash_attn_func; print(which, flash_attn_func.__module__)")
    assert run_with(tmp_path, code).split() == ["4", "flashplus.interface"]
    (tmp_path / "flash_attn" / "__init__.py").write_text("raise RuntimeError\n")
    (tmp_path / "flash_attn" / "flash_attn_interface.py").write_text("raise RuntimeError\n")
    assert run_with(tmp_path, code).split() == ["4", "flashplus.interface"]


@pytest.mark.parametrize("cleared", ["flash_attn", "flashplus", ""])
def test_importing_again_after_modules_were_cleared(tmp_path, cleared):
    said = run_with(tmp_path, f"""
import torch, flash_attn, flash_attn_interface
q = torch.ones(1, 3, 2, 16).half()
for i in range(2):
    out = flash_attn.flash_attn_func(q, q, q)
    # Through the operator, the fake and the gradient too
    x = q.clone().requires_grad_()
    flash_attn.flash_attn_func(x, x, x).sum().backward()
    with torch._subclasses.FakeTensorMode() as mode:
        assert flash_attn.flash_attn_func(*[mode.from_tensor(q)] * 3).shape == q.shape
    for name in [name for name in sys.modules if name.startswith(({cleared!r} or "flash",))]:
        if name.split(".")[0] in ("flash_attn", "flashplus", "flash_attn_interface"):
            del sys.modules[name]
    import flash_attn, flash_attn_interface
    from flashplus import finder
    finder.install()
    print(bool(out.eq(1).all()), sum(getattr(f, "__module__", "") == "flashplus.finder" for f in sys.meta_path))
""")
    assert said.split() == ["True", "2"] * 2


def test_the_face_can_be_off():
    code = "import flashplus.startup, sys; from flashplus import finder; assert finder.Face not in sys.meta_path"
    subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); " + code],
                   check=True, env={**os.environ, "FLASHPLUS_FACE": "OFF"})


def test_interpreter_start_imports_next_to_nothing():
    code = (
        f"import os, sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); before = set(sys.modules); import "
        "flashplus.startup; "
        "print(*sorted(set(sys.modules) - before))")
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["flashplus", "flashplus.environment", "flashplus.finder", "flashplus.startup"]


def test_the_library_has_the_version_of_the_package():
    # The build reads python/flashplus/__init__.py; a library of another version is one that was built before a change.
    assert flashplus.describe()["version"] == flashplus.__version__


def imported(path):
    """Modules of the package that a file names in imports, wherever they stand in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def test_the_start_and_what_it_leads_to_import_in_no_circle():
    modules = {f"flashplus.{path.stem}": path for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    arrows = {name: imported(path) & set(modules) - {name} for name, path in modules.items()}
    reached, circles = {}, []

    def follow(name, trail):
        if name in trail:
            circles.append([*trail[trail.index(name):], name])
        elif name not in reached:
            reached[name] = True
            for other in sorted(arrows[name]):
                follow(other, [*trail, name])

    follow("flashplus.startup", [])
    assert "flashplus.distribution" in reached and not circles


def test_sources_are_python_3_9():
    for path in PACKAGE.rglob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 9))


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.11", "3.12", "3.13", "3.14"])
def test_other_interpreters(version, tmp_path):
    """What needs no PyTorch runs on every Python that is here: start, finders, metadata, the library over ctypes,
    the command; and everything else compiles."""
    found = [
        shutil.which("python" + version), *pathlib.Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}")
    ]
    # A name may be on the path for a version that is not there (pyenv's shims).
    works = [path for path in found if path and not subprocess.run([path, "-c", ""], capture_output=True).returncode]
    if not works:
        pytest.skip(f"no Python {version} here")
    interpreter = works[0]
    code = f"""
import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); assert sys.version.startswith({version!r})
import flashplus.startup, pathlib, importlib.metadata, importlib.util
for path in pathlib.Path({str(PACKAGE)!r}).rglob("*.py"):
    compile(path.read_text(), str(path), "exec")
assert importlib.metadata.version("flash-attn") == "2.8.3"
assert importlib.util.find_spec("flash_attn").origin.startswith({str(PACKAGE)!r})
assert sys.version_info < (3, 10) or importlib.metadata.packages_distributions()["flash_attn"] == ["flash-attn"]
import flashplus, flashplus.command
assert flashplus.counters()["compiles"] == 0 and flashplus.describe()["devices"][0]["name"] == "cpu"
flashplus.command.main(["--help"])
"""
    done = subprocess.run([interpreter, "-c", code], capture_output=True, text=True,
                          env={**os.environ, "FLASHPLUS_CACHE_DIR": str(tmp_path), "PYTHONPATH": ""})
    assert done.returncode == 0 and "warmup" in done.stdout, done.stdout + done.stderr


def test_the_environment_is_read_in_one_place():
    for path in PACKAGE.rglob("*.py"):
        if path.name != "environment.py":
            text = path.read_text()
            assert "environ[" not in text and "getenv" not in text and "environ.get" not in text, path
