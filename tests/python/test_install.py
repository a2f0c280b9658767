# SPDX-License-Identifier: BSD-3-Clause
"""The wheel in fresh virtual environments: alone, beside an original, and after either is uninstalled.

The original is a stand-in wheel with the layout of flash-attn 2.8: a package `flash_attn`, a top-level module
`flash_attn_2_cuda` and a distribution of its own. The wheel is $FLASHPLUS_TEST_WHEEL, or packed here from the libraries
beside $FLASHPLUS_LIBRARY by the same pyproject.toml that people install with."""

import base64
import hashlib
import os
import pathlib
import subprocess
import sys
import sysconfig
import zipfile

import pytest

import flashplus

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT_MIB = 25
SONAME = "libflashplus.so." + ".".join(flashplus.__version__.split(".")[:2])


def environment():
    """Without what makes the tree's package visible."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and not k.startswith("FLASH")}
    return {
        **kept, "FLASHPLUS_CACHE_DIR": os.environ.get("FLASHPLUS_CACHE_DIR", ""), "PIP_DISABLE_PIP_VERSION_CHECK": "1"
    }


def run(*command, **more):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, cwd="/",
                          env={**environment(), **more})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def packed_wheel(out):
    """$FLASHPLUS_TEST_WHEEL, or one packed into the folder `out`. Tests take the fixture `wheel` (conftest.py)."""
    if given := os.environ.get("FLASHPLUS_TEST_WHEEL"):
        return pathlib.Path(given)
    library = os.environ.get("FLASHPLUS_LIBRARY")
    folder = library and pathlib.Path(library).parent
    if not folder or not all(
        (folder / name).exists() for name in ("libflashplus-compiler.so", "flashplus-compile-helper",
                                              "libflashplus-emulator.so", "flashplus")):
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("no built libraries to pack: set FLASHPLUS_LIBRARY or FLASHPLUS_TEST_WHEEL")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", out, ROOT,
        "-C", f"cmake.define.FLASHPLUS_PREBUILT={folder.resolve()}", "-C", f"build-dir={out / 'build'}")
    (path,) = out.glob("*.whl")
    return path


ORIGINAL = {
    "flash_attn/__init__.py": "__version__ = '2.8.4'\nfrom flash_attn.flash_attn_interface import flash_attn_func\n",
    "flash_attn/flash_attn_interface.py":
        "import flash_attn_2_cuda as flash_attn_gpu\n"
        "def flash_attn_func(q, k, v, **options): return flash_attn_gpu.fwd(q, k, v, *[None] * 10)[0]\n",
    "flash_attn/bert_padding.py": "def unpad_input(): pass\n",
    "flash_attn/models/__init__.py": "",
    "flash_attn/models/gpt.py": "from flash_attn import flash_attn_func\nMARK = 'original'\n",
    "flash_attn/modules/__init__.py": "",
    "flash_attn/modules/mha.py": "MARK = 'original'\n",
    "flash_attn/ops/__init__.py": "",
    "flash_attn/ops/triton/__init__.py": "",
    "flash_attn/ops/triton/layer_norm.py": "MARK = 'original'\n",
    "flash_attn_2_cuda.py":
        "def fwd(q, k, v, out, alibi, p, scale, causal, left, right, softcap, return_softmax, gen):\n"
        "    return [q * 0 + 42, q.new_zeros(1).float(), q.new_empty(0), q.new_zeros(2).long()]\n",
}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    files = {
        **ORIGINAL, "flash_attn-2.8.4.dist-info/METADATA":
            "Metadata-Version: 2.1\nName: flash_attn\nVersion: 2.8.4\nRequires-Dist: torch\n",
        "flash_attn-2.8.4.dist-info/WHEEL":
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "flash_attn-2.8.4.dist-info/top_level.txt":
            "flash_attn\nflash_attn_2_cuda\n"
    }
    record = "flash_attn-2.8.4.dist-info/RECORD"
    lines = []
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        lines.append(f"{name},sha256={digest},{len(text)}")
    files[record] = "\n".join([*lines, f"{record},,", ""])
    path = tmp_path_factory.mktemp("original") / "flash_attn-2.8.4-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


class Venv:
    def __init__(self, path):
        run(sys.executable, "-m", "venv", "--without-pip", path)
        self.python = path / "bin" / "python"
        self.site = path / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
        # pip, torch and einops are those of the environment that the tests run in; torch is large.
        (self.site / "zz_test_environment.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    def pip(self, *arguments):
        return run(self.python, "-m", "pip", *arguments)

    def install(self, wheel):
        self.pip("install", "--no-deps", "--no-index", wheel)

    def uninstall(self, name):
        self.pip("uninstall", "-y", name)

    def check(self):
        assert "No broken requirements found" in self.pip("check")

    def run(self, code, **more):
        return run(self.python, "-c", code, **more).split()

    def files(self):
        """Content of everything but byte code."""
        return {str(p.relative_to(self.site)): p.read_bytes() for p in self.site.rglob("*")
                if p.is_file() and "__pycache__" not in p.parts}

    def serves(self, backend="flashplus", **more):
        got = self.run("import torch, flash_attn; q = torch.ones(1, 4, 1, 32).half(); "
                       "print(flash_attn.backend(), flash_attn.flash_attn_func(q, q, q).flatten()[0].item())", **more)
        assert got == [backend, "1.0" if backend == "flashplus" else "42.0"]


@pytest.fixture
def venv(tmp_path):
    return Venv(tmp_path / "venv")


def original_works(venv):
    assert venv.run(
        "import torch, flash_attn; q = torch.ones(1, 4, 1, 32).half(); "
        "print(flash_attn.__version__, flash_attn.__file__, flash_attn.flash_attn_func(q, q, q).flatten()[0].item())"
    ) == ["2.8.4", str(venv.site / "flash_attn/__init__.py"), "42.0"]


def test_the_wheel(wheel):
    assert wheel.name.startswith("flash_attn_plus-") and wheel.name.endswith("-py3-none-linux_x86_64.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops - {n for n in tops if n.endswith(".dist-info")} == {
            "flashplus", "flash_attn_plus.pth", "flash_attn-stubs", "flash_attn_interface-stubs"}
    for name in (SONAME, "libflashplus-compiler.so", "flashplus-compile-helper", "libflashplus-emulator.so",
                 "flashplus"):
        assert f"flashplus/lib/{name}" in names
    assert "flashplus/licenses/llvm-22-dev.txt" in names
    for name in ("flashplus/py.typed", "flashplus/interface.pyi", "flash_attn-stubs/__init__.pyi",
                 "flash_attn-stubs/py.typed", "flash_attn_interface-stubs/__init__.pyi",
                 "flashplus/hub/flash_attn2/metadata.json", "flashplus/hub/flash_attn3/__init__.py"):
        assert name in names, name
    assert any(name.endswith("LICENSE") and ".dist-info/" in name for name in names)
    assert not any("flash_attn_2_cuda" in name for name in names)
    assert wheel.stat().st_size <= LIMIT_MIB * 2**20


def test_the_wheel_looks_for_libraries_beside_its_own_only(tmp_path, wheel):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    sys.path.insert(0, str(ROOT / "tests" / "install"))
    import runpath
    files, wrong = runpath.check([tmp_path])
    assert {f.name for f in files} >= {
        SONAME, "libflashplus-compiler.so", "flashplus-compile-helper", "libflashplus-emulator.so", "flashplus"}
    assert wrong == []


def test_the_wheel_asks_for_no_newer_system(tmp_path, wheel):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    sys.path.insert(0, str(ROOT / "tests" / "install"))
    import symbols
    files, wrong = symbols.check([tmp_path])
    assert {f.name for f in files} >= {SONAME, "libflashplus-emulator.so", "flashplus"}
    assert wrong == []


def test_alone(venv, wheel):
    before = venv.files()
    venv.install(wheel)
    venv.check()
    venv.serves()
    code = ("import importlib.metadata as m, importlib.util as u, flash_attn; "
            "print(flash_attn.__version__, m.version('flash-attn'), m.version('flash-attn-plus'), "
            "u.find_spec('flash_attn_2_cuda'), *m.packages_distributions()['flash_attn'])")
    assert venv.run(code) == ["2.8.3", "2.8.3", flashplus.__version__, "None", "flash-attn"]
    assert venv.run("import flash_attn.modules.mha, flash_attn_interface; print('ok')") == ["ok"]
    assert "warmup" in run(venv.python, "-m", "flash_attn", "--help")
    assert "warmup" in run(venv.python.with_name("flashplus"), "--help")
    listed = venv.pip("list")
    assert "flash-attn-plus" in listed and "flash-attn " not in listed
    venv.uninstall("flash-attn-plus")
    assert venv.files() == before
    assert venv.run("import importlib.util as u; print(u.find_spec('flash_attn'), u.find_spec('flashplus'))") == [
        "None", "None"
    ]


def test_alone_as_transformers_sees_it(venv, wheel):
    pytest.importorskip("transformers")
    venv.install(wheel)
    assert venv.run("import torch; from importlib.metadata import packages_distributions; "
                    "from transformers.utils.import_utils import _is_package_available; "
                    "print(*_is_package_available('flash_attn', return_version=True), "
                    "*set(packages_distributions()['flash_attn']))") == ["True", "2.8.3", "flash-attn"]


@pytest.mark.parametrize("first", ["original", "ours"])
def test_beside_the_original(venv, wheel, original, first):
    if first == "original":
        venv.install(original)
        theirs = venv.files()
        venv.install(wheel)
    else:
        bare = venv.files()
        venv.install(original)
        theirs = venv.files()
        venv.uninstall("flash-attn")
        assert venv.files() == bare
        venv.install(wheel)
        venv.install(original)
    venv.check()
    now = venv.files()
    assert {name: now[name] for name in theirs} == theirs
    venv.serves("flashplus")
    venv.serves("flash_attn_2_cuda", FLASH_ATTENTION_USE_FLAGGEMS="FALSE")
    # What only the original has is found in its files; the distribution is the original's own; and it can be had whole.
    code = ("import flash_attn.models.gpt as a, flash_attn.modules.mha as b, flash_attn.ops.triton.layer_norm as c, "
            "importlib.metadata as m, flash_attn.flash_attn_interface as f; "
            "print(a.MARK, b.MARK, c.MARK, m.version('flash-attn'), 'flashplus' in f.__file__)")
    assert venv.run(code) == ["original", "original", "original", "2.8.4", "True"]
    assert venv.run("import flash_attn; print(flash_attn.__version__)", FLASHPLUS_FACE="OFF") == ["2.8.4"]
    # Changed at run time.
    assert venv.run("import torch, flash_attn; q = torch.ones(1, 4, 1, 32).half(); f = flash_attn.flash_attn_func\n"
                    "for name in ('flashplus', 'flash_attn_2_cuda', 'flashplus'):\n"
                    "  flash_attn.set_backend(name); print(f(q, q, q).flatten()[0].item())") == ["1.0", "42.0", "1.0"]
    # Ours uninstalled: the original as before.
    venv.uninstall("flash-attn-plus")
    venv.check()
    assert venv.files() == theirs
    original_works(venv)


def test_the_original_uninstalled(venv, wheel, original):
    venv.install(original)
    venv.install(wheel)
    venv.uninstall("flash-attn")
    venv.check()
    venv.serves()
    assert venv.run("import importlib.metadata as m; print(m.version('flash-attn'))") == ["2.8.3"]


def test_a_target_folder(tmp_path, wheel):
    """`pip install --target` and PYTHONPATH read no .pth; one import does the same."""
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", tmp_path, wheel)
    out = run(sys.executable, "-c", "import flashplus.startup, flash_attn; print(flash_attn.backend())",
              PYTHONPATH=str(tmp_path))
    assert out.split() == ["flashplus"]
