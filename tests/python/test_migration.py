# SPDX-License-Identifier: BSD-3-Clause
"""docs/migration.md: every snippet runs, every test that a row names is there.

The Python blocks of one section are one script, run in a process of its own: as it is, and with a stand-in for the
original's extension on the path. The shell blocks run in a fresh virtual environment with the wheel."""

import os
import pathlib
import re
import subprocess
import sys

import pytest
from test_install import Venv, environment

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "migration.md").read_text()
SECTIONS = dict(zip(*[iter(re.split(r"^## (.*)$", TEXT, flags=re.M)[1:])] * 2))


def blocks(language):
    return {title: "\n".join(found) for title, body in SECTIONS.items()
            if (found := re.findall(rf"^```{language}\n(.*?)^```$", body, flags=re.M | re.S))}


def test_every_block_is_of_a_language_that_is_run():
    assert set(re.findall(r"^```(\w*)$", TEXT, flags=re.M)) == {"python", "bash", ""}
    assert len(blocks("python")) >= 4 and len(blocks("bash")) >= 2


@pytest.mark.parametrize("original", [False, True], ids=["alone", "beside an original"])
@pytest.mark.parametrize("section", blocks("python"))
def test_python_snippets(section, original, tmp_path):
    if "transformers" in section:
        pytest.importorskip("transformers")
    if original:
        if "set_backend" not in blocks("python")[section]:
            pytest.skip("the section does not use the original")
        (tmp_path / "flash_attn_2_cuda.py").write_text(
            "def fwd(q, *rest): print('STAND-IN'); return [q, q.new_zeros(1), q.new_empty(0), q.new_zeros(2)]\n")
    # The guide is read by people who have installed the package: the finder is there, as the .pth file puts it.
    (tmp_path / "sitecustomize.py").write_text("import flashplus.startup\n")
    script = tmp_path / "snippet.py"
    script.write_text(blocks("python")[section])
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, script], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": path, "FLASHPLUS_CACHE_DIR": str(tmp_path / "cache")})
    assert done.returncode == 0, done.stdout + done.stderr
    if "set_backend" in script.read_text():
        assert ("STAND-IN" in done.stdout) == original and ("pip install flash-attn" in done.stdout) != original


@pytest.mark.parametrize("section", blocks("bash"))
def test_shell_snippets(section, wheel, tmp_path):
    venv = Venv(tmp_path / "venv")
    (tmp_path / "bin").mkdir()
    # the checkout's own build takes minutes, so `.` is the wheel that is already packed
    shim = tmp_path / "bin" / "pip"
    shim.write_text(f'#!/bin/sh\nif [ "$*" = "install ." ]; then set -- install --no-deps --no-index {wheel}; fi\n'
                    f'exec {venv.python} -m pip "$@"\n')
    shim.chmod(0o755)
    done = subprocess.run(
        ["bash", "-euc", blocks("bash")[section]], capture_output=True, text=True, cwd=tmp_path,
        env={**environment(), "PATH": f"{tmp_path / 'bin'}:{venv.python.parent}:{os.environ['PATH']}"})
    assert done.returncode == 0, done.stdout + done.stderr


def test_rows_name_tests_that_exist():
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", TEXT)
    rows = [line for line in SECTIONS["Features"].splitlines() if line.startswith("|")][2:]
    assert len(named) == len(rows) > 20
    for file, test in named:
        assert f"def {test}(" in (pathlib.Path(__file__).parent / file).read_text(), (file, test)


def test_settings_are_those_that_are_read():
    from flashplus import environment as module

    documented = set(re.findall(r"`(FLASH\w+)`", SECTIONS["Settings"]))
    read = set(re.findall(r'"(FLASH\w+)"', pathlib.Path(module.__file__).read_text()))
    library = (ROOT / "runtime" / "environment.cpp").read_text()  # where others that it knows are listed, too
    read |= set(re.findall(r'\bv\.\w+\(\s*"(FLASHPLUS_\w+)"', library))
    assert documented == read
