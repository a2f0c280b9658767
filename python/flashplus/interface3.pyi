# SPDX-License-Identifier: BSD-3-Clause
# Types of the functions in interface3.py, whose defaults and documentation are there.
# A number may be a tensor of one element.
from typing import Any, Literal, Optional, Tuple, Union, overload

import torch
from torch import Tensor

_Float = Union[float, Tensor]
_Int = Union[int, Tensor]
_Bool = Union[bool, Tensor]
_Window = Tuple[_Int, _Int]


@overload
def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, softmax_scale: Optional[_Float] = ..., causal: _Bool = ...,
                    qv: Optional[Tensor] = ..., q_descale: Optional[Tensor] = ..., k_descale: Optional[Tensor] = ...,
                    v_descale: Optional[Tensor] = ..., window_size: _Window = ..., attention_chunk: int = ...,
                    softcap: _Float = ..., num_splits: int = ..., pack_gqa: Optional[bool] = ...,
                    deterministic: bool = ..., sm_margin: int = ...,
                    return_attn_probs: Literal[False] = ...,
                    s_aux: Optional[Tensor] = ...) -> Tensor: ...

@overload
def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, softmax_scale: Optional[_Float] = ..., causal: _Bool = ...,
                    qv: Optional[Tensor] = ..., q_descale: Optional[Tensor] = ..., k_descale: Optional[Tensor] = ...,
                    v_descale: Optional[Tensor] = ..., window_size: _Window = ..., attention_chunk: int = ...,
                    softcap: _Float = ..., num_splits: int = ..., pack_gqa: Optional[bool] = ...,
                    deterministic: bool = ..., sm_margin: int = ..., *,
                    return_attn_probs: Literal[True],
                    s_aux: Optional[Tensor] = ...) -> Tuple[Tensor, Tensor]: ...

@overload
def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, softmax_scale: Optional[_Float] = ..., causal: _Bool = ...,
                    qv: Optional[Tensor] = ..., q_descale: Optional[Tensor] = ..., k_descale: Optional[Tensor] = ...,
                    v_descale: Optional[Tensor] = ..., window_size: _Window = ..., attention_chunk: int = ...,
                    softcap: _Float = ..., num_splits: int = ..., pack_gqa: Optional[bool] = ...,
                    deterministic: bool = ..., sm_margin: int = ...,
                    return_attn_probs: bool = ...,
                    s_aux: Optional[Tensor] = ...) -> Union[Tensor, Tuple[Tensor, Tensor]]: ...

@overload
def flash_attn_qkvpacked_func(qkv: Tensor, softmax_scale: Optional[_Float] = ..., causal: _Bool = ...,
                              q_descale: Optional[Tensor] = ..., k_descale: Optional[Tensor] = ...,
                              v_descale: Optional[Tensor] = ..., window_size: _Window = ...,
                              attention_chunk: int = ..., softcap: _Float = ..., deterministic: bool = ...,
                              num_heads_q: Optional[int] = ..., sm_margin: int = ...,
                              return_attn_probs: Literal[False] = ...) -> Tensor: ...

@overload
def flash_attn_qkvpacked_func(qkv: Tensor, softmax_scale: Optional[_Float] = ..., causal: _Bool = ...,
                              q_descale: Optional[Tensor] = ..., k_descale: Optional[Tensor] = ...,
                              v_descale: Optional[Tensor] = ..., window_size: _Window = ...,
                              attention_chunk: int = ..., softcap: _Float = ..., deterministic: bool = ...,
                              num_heads_q: Optional[int] = ..., sm_margin: int = ..., *,
                              return_attn_probs: Literal[True]) -> Tuple[Tensor, Tensor]: ...

@overload
def flash_attn_qkvpacked_func(qkv: Tensor, softmax_scale: Optional[_Float] = ..., causal: _Bool = ...,
                              q_descale: Optional[Tensor] = ..., k_descale: Optional[Tensor] = ...,
                              v_descale: Optional[Tensor] = ..., window_size: _Window = ...,
                              attention_chunk: int = ..., softcap: _Float = ..., deterministic: bool = ...,
                              num_heads_q: Optional[int] = ..., sm_margin: int = ...,
                              return_attn_probs: bool = ...) -> Union[Tensor, Tuple[Tensor, Tensor]]: ...

@overload
def flash_attn_varlen_func(q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor,
                           max_seqlen_q: _Int, max_seqlen_k: _Int, seqused_q: Optional[Tensor] = ...,
                           seqused_k: Optional[Tensor] = ..., softmax_scale: Optional[_Float] = ...,
                           causal: _Bool = ..., qv: Optional[Tensor] = ..., q_descale: Optional[Tensor] = ...,
                           k_descale: Optional[Tensor] = ..., v_descale: Optional[Tensor] = ...,
                           window_size: _Window = ..., attention_chunk: int = ..., softcap: _Float = ...,
                           num_splits: int = ..., pack_gqa: Optional[bool] = ..., deterministic: bool = ...,
                           sm_margin: int = ..., return_attn_probs: Literal[False] = ...,
                           s_aux: Optional[Tensor] = ...) -> Tensor: ...

@overload
def flash_attn_varlen_func(q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor,
                           max_seqlen_q: _Int, max_seqlen_k: _Int, seqused_q: Optional[Tensor] = ...,
                           seqused_k: Optional[Tensor] = ..., softmax_scale: Optional[_Float] = ...,
                           causal: _Bool = ..., qv: Optional[Tensor] = ..., q_descale: Optional[Tensor] = ...,
                           k_descale: Optional[Tensor] = ..., v_descale: Optional[Tensor] = ...,
                           window_size: _Window = ..., attention_chunk: int = ..., softcap: _Float = ...,
                           num_splits: int = ..., pack_gqa: Optional[bool] = ..., deterministic: bool = ...,
                           sm_margin: int = ..., *, return_attn_probs: Literal[True],
                           s_aux: Optional[Tensor] = ...) -> Tuple[Tensor, Tensor]: ...

@overload
def flash_attn_varlen_func(q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor,
                           max_seqlen_q: _Int, max_seqlen_k: _Int, seqused_q: Optional[Tensor] = ...,
                           seqused_k: Optional[Tensor] = ..., softmax_scale: Optional[_Float] = ...,
                           causal: _Bool = ..., qv: Optional[Tensor] = ..., q_descale: Optional[Tensor] = ...,
                           k_descale: Optional[Tensor] = ..., v_descale: Optional[Tensor] = ...,
                           window_size: _Window = ..., attention_chunk: int = ..., softcap: _Float = ...,
                           num_splits: int = ..., pack_gqa: Optional[bool] = ..., deterministic: bool = ...,
                           sm_margin: int = ...,
                           return_attn_probs: bool = ...,
                           s_aux: Optional[Tensor] = ...) -> Union[Tensor, Tuple[Tensor, Tensor]]: ...

@overload
def flash_attn_with_kvcache(q: Tensor, k_cache: Tensor, v_cache: Tensor, k: Optional[Tensor] = ...,
                            v: Optional[Tensor] = ..., qv: Optional[Tensor] = ..., rotary_cos: Optional[Tensor] = ...,
                            rotary_sin: Optional[Tensor] = ..., cache_seqlens: Optional[_Int] = ...,
                            cache_batch_idx: Optional[Tensor] = ..., cache_leftpad: Optional[Tensor] = ...,
                            page_table: Optional[Tensor] = ..., cu_seqlens_q: Optional[Tensor] = ...,
                            cu_seqlens_k_new: Optional[Tensor] = ..., max_seqlen_q: Optional[_Int] = ...,
                            rotary_seqlens: Optional[Tensor] = ..., q_descale: Optional[Tensor] = ...,
                            k_descale: Optional[Tensor] = ..., v_descale: Optional[Tensor] = ...,
                            softmax_scale: Optional[_Float] = ..., causal: _Bool = ..., window_size: _Window = ...,
                            attention_chunk: int = ..., softcap: _Float = ..., rotary_interleaved: bool = ...,
                            scheduler_metadata: Optional[Tensor] = ..., num_splits: int = ...,
                            pack_gqa: Optional[bool] = ..., sm_margin: int = ...,
                            return_softmax_lse: Literal[False] = ...,
                            s_aux: Optional[Tensor] = ...) -> Tensor: ...

@overload
def flash_attn_with_kvcache(q: Tensor, k_cache: Tensor, v_cache: Tensor, k: Optional[Tensor] = ...,
                            v: Optional[Tensor] = ..., qv: Optional[Tensor] = ..., rotary_cos: Optional[Tensor] = ...,
                            rotary_sin: Optional[Tensor] = ..., cache_seqlens: Optional[_Int] = ...,
                            cache_batch_idx: Optional[Tensor] = ..., cache_leftpad: Optional[Tensor] = ...,
                            page_table: Optional[Tensor] = ..., cu_seqlens_q: Optional[Tensor] = ...,
                            cu_seqlens_k_new: Optional[Tensor] = ..., max_seqlen_q: Optional[_Int] = ...,
                            rotary_seqlens: Optional[Tensor] = ..., q_descale: Optional[Tensor] = ...,
                            k_descale: Optional[Tensor] = ..., v_descale: Optional[Tensor] = ...,
                            softmax_scale: Optional[_Float] = ..., causal: _Bool = ..., window_size: _Window = ...,
                            attention_chunk: int = ..., softcap: _Float = ..., rotary_interleaved: bool = ...,
                            scheduler_metadata: Optional[Tensor] = ..., num_splits: int = ...,
                            pack_gqa: Optional[bool] = ..., sm_margin: int = ..., *,
                            return_softmax_lse: Literal[True],
                            s_aux: Optional[Tensor] = ...) -> Tuple[Tensor, Tensor, None, None]: ...

@overload
def flash_attn_with_kvcache(q: Tensor, k_cache: Tensor, v_cache: Tensor, k: Optional[Tensor] = ...,
                            v: Optional[Tensor] = ..., qv: Optional[Tensor] = ..., rotary_cos: Optional[Tensor] = ...,
                            rotary_sin: Optional[Tensor] = ..., cache_seqlens: Optional[_Int] = ...,
                            cache_batch_idx: Optional[Tensor] = ..., cache_leftpad: Optional[Tensor] = ...,
                            page_table: Optional[Tensor] = ..., cu_seqlens_q: Optional[Tensor] = ...,
                            cu_seqlens_k_new: Optional[Tensor] = ..., max_seqlen_q: Optional[_Int] = ...,
                            rotary_seqlens: Optional[Tensor] = ..., q_descale: Optional[Tensor] = ...,
                            k_descale: Optional[Tensor] = ..., v_descale: Optional[Tensor] = ...,
                            softmax_scale: Optional[_Float] = ..., causal: _Bool = ..., window_size: _Window = ...,
                            attention_chunk: int = ..., softcap: _Float = ..., rotary_interleaved: bool = ...,
                            scheduler_metadata: Optional[Tensor] = ..., num_splits: int = ...,
                            pack_gqa: Optional[bool] = ..., sm_margin: int = ...,
                            return_softmax_lse: bool = ...,
                            s_aux: Optional[Tensor] = ...) -> Union[Tensor, Tuple[Tensor, Tensor, None, None]]: ...

def flash_attn_combine(out_partial: Tensor, lse_partial: Tensor, out: Optional[Tensor] = ...,
                       out_dtype: Optional[torch.dtype] = ...) -> Tuple[Tensor, Tensor]: ...
def get_scheduler_metadata(batch_size: int, max_seqlen_q: int, max_seqlen_k: int, num_heads_q: int, num_heads_kv: int,
                           headdim: int, cache_seqlens: Tensor, qkv_dtype: torch.dtype = ...,
                           headdim_v: Optional[int] = ..., cu_seqlens_q: Optional[Tensor] = ...,
                           cu_seqlens_k_new: Optional[Tensor] = ..., cache_leftpad: Optional[Tensor] = ...,
                           page_size: Optional[int] = ..., max_seqlen_k_new: int = ..., causal: bool = ...,
                           window_size: Tuple[int, int] = ..., attention_chunk: int = ..., has_softcap: bool = ...,
                           num_splits: int = ..., pack_gqa: Optional[bool] = ..., sm_margin: int = ...) -> Tensor: ...
def maybe_contiguous(x: Optional[Tensor]) -> Optional[Tensor]: ...
def round_multiple(x: int, m: int) -> int: ...

flash_attn_3_gpu: Any

def _flash_attn_forward(*args: Any, **kwargs: Any) -> Tuple[Tensor, Tensor, Tensor, Tensor]: ...
def _flash_attn_backward(*args: Any, **kwargs: Any) -> Tensor: ...

class FlashAttnFunc:
    @staticmethod
    def apply(*args: Any) -> Any: ...

class FlashAttnQKVPackedFunc:
    @staticmethod
    def apply(*args: Any) -> Any: ...

class FlashAttnVarlenFunc:
    @staticmethod
    def apply(*args: Any) -> Any: ...
