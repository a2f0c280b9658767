# SPDX-License-Identifier: BSD-3-Clause
"""FlashAttention 3's functions as a kernel of the `kernels` hub; see flash_attn2 beside this."""

from flashplus.interface3 import (  # noqa: F401
    _flash_attn_backward,
    _flash_attn_forward,
    flash_attn_combine,
    flash_attn_func,
    flash_attn_qkvpacked_func,
    flash_attn_varlen_func,
    flash_attn_with_kvcache,
    get_scheduler_metadata,
)
