# SPDX-License-Identifier: BSD-3-Clause
"""The switch between our kernels and the original's compiled extension."""

from flashplus import environment

OURS = "flashplus"
ORIGINAL = "flash_attn_2_cuda"

ours = environment.use_our_kernels()


def backend_name():
    """Which kernels serve a call: "flashplus" or "flash_attn_2_cuda"."""
    return OURS if ours else ORIGINAL


def set_backend(name):
    """Chooses the kernels for all later calls in this process.

    name: "flashplus" or "flash_attn_2_cuda"; with the latter, ImportError if the original is not installed.
    ValueError for another one."""
    global ours
    if name == ORIGINAL:
        original()
    elif name != OURS:
        raise ValueError(f"set_backend: name is {name!r}; it must be {OURS!r} or {ORIGINAL!r}")
    ours = name == OURS


def original():
    """The original's extension module."""
    try:
        import flash_attn_2_cuda
    except ImportError as error:
        raise ImportError(
            "FLASH_ATTENTION_USE_FLAGGEMS=FALSE (or set_backend) asks for the kernels of the original flash-attn, and "
            f"its extension 'flash_attn_2_cuda' can't be imported ({error}). Install it beside this package with "
            "`pip install flash-attn --no-build-isolation` (it needs an NVIDIA GPU, a CUDA toolkit and time to "
            "compile), or leave FLASH_ATTENTION_USE_FLAGGEMS unset to use the kernels of flash-attn-plus") from None
    return flash_attn_2_cuda
