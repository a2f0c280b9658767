# SPDX-License-Identifier: BSD-3-Clause
"""What an editor and a type checker see: docstrings that name every parameter, stubs that are the functions'."""

import ast
import importlib
import inspect
import pathlib
import re
import subprocess
import sys

import flashplus
import pytest

PACKAGE = pathlib.Path(flashplus.__file__).parent
STUBS = PACKAGE.parent  # beside the package, in the tree as in site-packages
FACES = ("flash_attn", "flash_attn_interface", "flash_attn.flash_attn_interface", "flash_attn.bert_padding",
         "flash_attn.layers.rotary", "flash_attn.ops.triton.rotary")
PUBLIC = {f"{name}.{key}": value for name in (*FACES, "flashplus") for module in [importlib.import_module(name)]
          for key in dir(module) for value in [getattr(module, key)]
          if inspect.isfunction(value) and not key.startswith("_") and value.__module__.startswith("flashplus.")
          and key not in ("maybe_contiguous", "round_multiple")}


def test_there_is_something():
    assert len(PUBLIC) > 40 and "flash_attn.warmup" in PUBLIC and "flashplus.attention" in PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_docstring_names_every_parameter(name):
    function = PUBLIC[name]
    text = inspect.getdoc(function) or ""
    missing = [p for p in inspect.signature(function).parameters if not re.search(rf"\b{p}\b", text)]
    assert text and not missing, missing


@pytest.mark.parametrize("module", ["interface", "interface3", "score_attention"])
def test_stubs_have_the_functions_signatures(module):
    """Every overload: the same names, in the same order, and defaults where the function has some; but for the flag
    that says which overload it is."""
    tree, source = ast.parse((PACKAGE / f"{module}.pyi").read_text()), importlib.import_module(f"flashplus.{module}")
    stubs = [node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    assert {node.name for node in stubs} >= {name for name, f in vars(source).items() if inspect.isfunction(f)
                                             and f.__module__ == source.__name__ and not name.startswith("_")} - {
                                                 "remember_cache", "through_exchange", "checked_cache", "on_cache"}
    for node in stubs:
        parameters, a = inspect.signature(getattr(source, node.name)).parameters, node.args
        assert [x.arg for x in a.args + a.kwonlyargs] == list(parameters), node.name
        defaults = [None] * (len(a.args) - len(a.defaults)) + a.defaults + a.kw_defaults
        for (name, parameter), default in zip(parameters.items(), defaults):
            required = parameter.default is inspect.Parameter.empty
            assert (default is None) == required or "return" in name, (node.name, name)


def _stub(name):
    top, _, rest = name.partition(".")
    folder = STUBS / f"{top}-stubs"
    found = folder.joinpath(*rest.split(".")).with_suffix(".pyi") if rest else folder / "__init__.pyi"
    return found.read_text()


@pytest.mark.parametrize("name", FACES)
def test_the_faces_stubs_name_what_is_there(name):
    module = importlib.import_module(name)
    for source, theirs, ours in re.findall(r"^from (\S+) import (\w+) as (\w+)$", _stub(name), flags=re.M):
        package = importlib.import_module(source)
        value = getattr(package, theirs) if hasattr(package, theirs) else importlib.import_module(f"{source}.{theirs}")
        there = getattr(module, ours)
        assert there is value or inspect.signature(there) == inspect.signature(value), ours
        assert theirs == ours, f"{name}: 'import {theirs} as {ours}' is private to a stub"
    aliases = dict(re.findall(r"^(\w+) = (\w+)$", _stub(name), flags=re.M))
    for source, theirs in re.findall(r"^from (\S+) import (\w+)$", _stub(name), flags=re.M):
        value = getattr(importlib.import_module(source), theirs)
        for ours in (ours for ours, of in aliases.items() if of == theirs):
            assert getattr(module, ours) is value, ours
    named = set(re.findall(r" as (\w+)$", _stub(name), flags=re.M)) | aliases.keys()
    functions = {key for key, value in vars(module).items() if callable(value) and not key.startswith("__")
                 and key not in ("extend_path",)}
    assert functions <= named, functions - named


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").exists()
    for face in ("flash_attn", "flash_attn_interface"):  # what an original beside ours has more is found there
        assert (STUBS / f"{face}-stubs" / "py.typed").read_text() == "partial\n"
    lazy = re.findall(r" as (\w+)$", (PACKAGE / "__init__.pyi").read_text(), flags=re.M)
    assert set(lazy) == set(flashplus._LAZY)


def test_mypy(tmp_path):
    pytest.importorskip("mypy")
    code = tmp_path / "code.py"
    code.write_text("import flash_attn, flashplus, torch\nq = torch.ones(1)\n"
                    "a: int = flash_attn.flash_attn_func(q, q, q, return_attn_probs=True)\n"
                    "b: int = flashplus.attention(q, q, q, return_lse=True)\n"
                    "flash_attn.flash_attn_func(q, q, q, causl=True)\n")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    site, = (tmp_path / "venv" / "lib").glob("python3*/site-packages")
    for folder in (PACKAGE, STUBS / "flash_attn-stubs", STUBS / "flash_attn_interface-stubs"):
        (site / folder.name).symlink_to(folder)
    done = subprocess.run([sys.executable, "-m", "mypy", "--python-executable", tmp_path / "venv" / "bin" / "python",
                           "--ignore-missing-imports", "--cache-dir", tmp_path / "cache", code], text=True,
                          capture_output=True)
    wrong = re.findall(r":(\d+): error", done.stdout)
    assert wrong == ["3", "4", "5", "5"], done.stdout
