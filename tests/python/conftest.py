# SPDX-License-Identifier: BSD-3-Clause
"""Every test that takes `device` runs on the CPU and on CUDA; without a GPU the second is skipped by name.

The package under test is the installed one, or, with PYTHONPATH=python and FLASHPLUS_LIBRARY, the one in the tree."""

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))

import flashplus.finder  # noqa: E402

flashplus.finder.install()

import torch  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--device", choices=["cpu", "cuda"], help="leave out what runs on the other one")


def pytest_collection_modifyitems(config, items):
    wanted = config.getoption("--device")
    others = [item for item in items if wanted and hasattr(item, "callspec")
              and item.callspec.params.get("device", wanted) != wanted]
    if others:
        items[:] = [item for item in items if item not in set(others)]
        config.hook.pytest_deselected(items=others)


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.manual_seed(0)
    return request.param


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel, packed once a process."""
    from test_install import packed_wheel

    return packed_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def ours():
    """The switch on our kernels, and put back afterwards."""
    from flashplus import backend

    backend.set_backend(backend.OURS)
    yield
    backend.set_backend(backend.OURS)


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"torch {torch.__version__}, flashplus from {os.path.dirname(flashplus.__file__)}")
