# SPDX-License-Identifier: BSD-3-Clause
# The face `flash_attn`, which has no file of that name at run time (flashplus/finder.py), for type checkers.
from flashplus.backend import set_backend as set_backend
from flashplus.backend import backend_name
from flashplus.command import warmup as warmup
from flashplus.interface import flash_attn_func as flash_attn_func
from flashplus.interface import flash_attn_kvpacked_func as flash_attn_kvpacked_func
from flashplus.interface import flash_attn_qkvpacked_func as flash_attn_qkvpacked_func
from flashplus.interface import flash_attn_varlen_func as flash_attn_varlen_func
from flashplus.interface import flash_attn_varlen_kvpacked_func as flash_attn_varlen_kvpacked_func
from flashplus.interface import flash_attn_varlen_qkvpacked_func as flash_attn_varlen_qkvpacked_func
from flashplus.interface import flash_attn_with_kvcache as flash_attn_with_kvcache
from flashplus.transformers_attention import register_transformers as register_transformers

backend = backend_name
__version__: str
__flashplus_version__: str
