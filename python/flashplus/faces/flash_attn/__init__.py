# SPDX-License-Identifier: BSD-3-Clause
"""The face of FlashAttention-Plus that is called as the original flash-attn is. The code is in the package `flashplus`.

Beyond the original: set_backend and backend (which kernels serve), warmup, register_transformers.
"""

from pkgutil import extend_path

# On into the folders of an original, or of another distribution (flash-attn-4's flash_attn.cute), beside this one.
__path__ = extend_path(__path__, __name__)

import flashplus
from flash_attn import flash_attn_interface  # the original's has it as an attribute, and nothing else
from flashplus import FLASH_ATTN_VERSION as __version__
from flashplus.backend import backend_name as backend
from flashplus.backend import set_backend
from flashplus.command import warmup
from flashplus.interface import (
    flash_attn_func,
    flash_attn_kvpacked_func,
    flash_attn_qkvpacked_func,
    flash_attn_varlen_func,
    flash_attn_varlen_kvpacked_func,
    flash_attn_varlen_qkvpacked_func,
    flash_attn_with_kvcache,
)

__flashplus_version__ = flashplus.__version__


def register_transformers(name="attention_plus"):
    """See flashplus.transformers_attention; imports transformers only when called."""
    from flashplus.transformers_attention import register_transformers

    return register_transformers(name)
