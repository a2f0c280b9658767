# SPDX-License-Identifier: BSD-3-Clause
"""The functions of the original FlashAttention 3 (`import flash_attn_interface`), found where it is not installed."""

from flashplus.interface3 import (
    flash_attn_combine,
    flash_attn_func,
    flash_attn_qkvpacked_func,
    flash_attn_varlen_func,
    flash_attn_with_kvcache,
    get_scheduler_metadata,
)
