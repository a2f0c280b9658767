# SPDX-License-Identifier: BSD-3-Clause
"""FlashAttention-Plus for Python: attention kernels that are compiled when they are needed.

`flash_attn` and (without the original FlashAttention 3) `flash_attn_interface` are faces on this package; see
finder.py for how they are found. This file is imported at the start of every interpreter (flash_attn_plus.pth), so it
imports nothing.
"""

# The version of everything: CMakeLists.txt and pyproject.toml read this line.
__version__ = "0.1.0"

# What the face `flash_attn` says it is: plain integers, since clients parse it; at least 2.3.3 for transformers, less
# than 2.8.4 for TransformerEngine.
FLASH_ATTN_VERSION = "2.8.3"

_LAZY = {
    "Error": "library",
    "counters": "library",
    "describe": "library",
    "drop_idle_kernels": "library",
    "mark_ready": "library",
    "set_backend": "backend",
    "backend_name": "backend",
    "attention": "score_attention",
    "warmup": "command",
    "merge_states": "merge",
    "register_torch": "torch_attention",
    "register_transformers": "transformers_attention",
}


def __getattr__(name):
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module("flashplus." + _LAZY[name]), name)
    raise AttributeError(f"module 'flashplus' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_LAZY])
