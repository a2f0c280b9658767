# SPDX-License-Identifier: BSD-3-Clause
"""The functions of the original FlashAttention 3 (`import flash_attn_interface`), found where it is not installed."""

from flashplus.interface3 import (
    FlashAttnFunc,
    FlashAttnQKVPackedFunc,
    FlashAttnVarlenFunc,
    _flash_attn_backward,
    _flash_attn_forward,
    flash_attn_3_gpu,
    flash_attn_combine,
    flash_attn_func,
    flash_attn_qkvpacked_func,
    flash_attn_varlen_func,
    flash_attn_with_kvcache,
    get_scheduler_metadata,
    maybe_contiguous,
    round_multiple,
)
