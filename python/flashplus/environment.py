# SPDX-License-Identifier: BSD-3-Clause
"""The one place where the Python packages read the environment. docs/migration.md lists the same for users.

| variable | meaning | read |
|---|---|---|
| FLASH_ATTENTION_USE_FLAGGEMS | TRUE (default): ours; FALSE: the original's extension | on `import flash_attn` |
| FLASH_ATTENTION_DETERMINISTIC | 1: gradients of transformers' models are the same bits every time | on each call |
| FLASHPLUS_FACE | OFF: `flash_attn` is not ours in this process. Default ON | at interpreter start |
| FLASHPLUS_LIBRARY | path of libflashplus.so, instead of the one inside the package | on the first call |
| FLASHPLUS_COMMAND | path of the command, instead of that in the package or beside the library | on warm-up |

libflashplus.so itself reads FLASHPLUS_CACHE_DIR, FLASHPLUS_CACHE_PATH, FLASHPLUS_CACHE_SIZE,
FLASHPLUS_RECORD_MISSES, FLASHPLUS_COMPILER, FLASHPLUS_NVJITLINK, FLASHPLUS_PTXAS,
FLASHPLUS_CPU_TARGET, FLASHPLUS_CUDA_TARGET, FLASHPLUS_CUDA_SHARED_MEMORY, FLASHPLUS_TUNING, FLASHPLUS_NUM_THREADS,
FLASHPLUS_LATE_COMPILE, FLASHPLUS_COMPILE_SECONDS, FLASHPLUS_COMPILE_MEMORY, FLASHPLUS_COMPILE_IN_PROCESS,
FLASHPLUS_LOG, FLASHPLUS_DEBUG_VALUES and FLASHPLUS_DEBUG_KERNELS (runtime/environment.h) when its context is made,
which is on the first call.
"""

import os

_TRUE = ("1", "TRUE", "ON", "YES")
_FALSE = ("0", "FALSE", "OFF", "NO")


def _switch(name, default):
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if text.upper() in _TRUE:
        return True
    if text.upper() in _FALSE:
        return False
    raise ValueError(f"{name} is {text!r} in the environment; it must be TRUE or FALSE")


def use_our_kernels():
    return _switch("FLASH_ATTENTION_USE_FLAGGEMS", True)


def deterministic():
    """What transformers takes where nobody says it, by its own rule."""
    return os.environ.get("FLASH_ATTENTION_DETERMINISTIC", "0") == "1"


def face():
    # Asked at the start of every interpreter, where an error would be in everybody's way: what is not clear means yes.
    try:
        return _switch("FLASHPLUS_FACE", True)
    except ValueError:
        return True


def library():
    """Path, or "" for the one in the package."""
    return os.environ.get("FLASHPLUS_LIBRARY", "")


def command():
    return os.environ.get("FLASHPLUS_COMMAND", "")


def has_num_threads():
    return bool(os.environ.get("FLASHPLUS_NUM_THREADS"))
