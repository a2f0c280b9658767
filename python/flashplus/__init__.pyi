# SPDX-License-Identifier: BSD-3-Clause
# What flashplus/__init__.py gives when it is asked.
from typing import Final

from flashplus.backend import set_backend as set_backend
from flashplus.backend import backend_name as backend_name
from flashplus.command import warmup as warmup
from flashplus.library import Error as Error
from flashplus.library import counters as counters
from flashplus.library import describe as describe
from flashplus.library import drop_idle_kernels as drop_idle_kernels
from flashplus.library import mark_ready as mark_ready
from flashplus.merge import merge_states as merge_states
from flashplus.score_attention import attention as attention
from flashplus.torch_attention import register_torch as register_torch
from flashplus.transformers_attention import register_transformers as register_transformers

__version__: Final[str]
FLASH_ATTN_VERSION: Final[str]
