# SPDX-License-Identifier: BSD-3-Clause
# Types of the functions in interface.py, whose defaults and documentation are there.
# A number may be a tensor of one element.
from typing import Literal, Optional, Tuple, Union, overload

from torch import Tensor

_Float = Union[float, Tensor]
_Int = Union[int, Tensor]
_Bool = Union[bool, Tensor]
_Window = Tuple[_Int, _Int]


@overload
def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = ..., softmax_scale: Optional[_Float] = ...,
                    causal: _Bool = ..., window_size: _Window = ..., softcap: _Float = ...,
                    alibi_slopes: Optional[Tensor] = ..., deterministic: bool = ...,
                    return_attn_probs: Literal[False] = ...,
                    s_aux: Optional[Tensor] = ...) -> Tensor: ...

@overload
def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = ..., softmax_scale: Optional[_Float] = ...,
                    causal: _Bool = ..., window_size: _Window = ..., softcap: _Float = ...,
                    alibi_slopes: Optional[Tensor] = ..., deterministic: bool = ..., *,
                    return_attn_probs: Literal[True],
                    s_aux: Optional[Tensor] = ...) -> Tuple[Tensor, Tensor, Tensor]: ...

@overload
def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = ..., softmax_scale: Optional[_Float] = ...,
                    causal: _Bool = ..., window_size: _Window = ..., softcap: _Float = ...,
                    alibi_slopes: Optional[Tensor] = ..., deterministic: bool = ...,
                    return_attn_probs: bool = ...,
                    s_aux: Optional[Tensor] = ...) -> Union[Tensor, Tuple[Tensor, Tensor, Tensor]]: ...

@overload
def flash_attn_qkvpacked_func(qkv: Tensor, dropout_p: float = ..., softmax_scale: Optional[_Float] = ...,
                              causal: _Bool = ..., window_size: _Window = ..., softcap: _Float = ...,
                              alibi_slopes: Optional[Tensor] = ..., deterministic: bool = ...,
                              return_attn_probs: Literal[False] = ...) -> Tensor: ...

@overload
def flash_attn_qkvpacked_func(qkv: Tensor, dropout_p: float = ..., softmax_scale: Optional[_Float] = ...,
                              causal: _Bool = ..., window_size: _Window = ..., softcap: _Float = ...,
                              alibi_slopes: Optional[Tensor] = ..., deterministic: bool = ..., *,
                              return_attn_probs: Literal[True]) -> Tuple[Tensor, Tensor, Tensor]: ...

@overload
def flash_attn_qkvpacked_func(qkv: Tensor, dropout_p: float = ..., softmax_scale: Optional[_Float] = ...,
                              causal: _Bool = ..., window_size: _Window = ..., softcap: _Float = ...,
                              alibi_slopes: Optional[Tensor] = ..., deterministic: bool = ...,
                              return_attn_probs: bool = ...) -> Union[Tensor, Tuple[Tensor, Tensor, Tensor]]: ...

@overload
def flash_attn_kvpacked_func(q: Tensor, kv: Tensor, dropout_p: float = ..., softmax_scale: Optional[_Float] = ...,
                             causal: _Bool = ..., window_size: _Window = ..., softcap: _Float = ...,
                             alibi_slopes: Optional[Tensor] = ..., deterministic: bool = ...,
                             return_attn_probs: Literal[False] = ...) -> Tensor: ...

@overload
def flash_attn_kvpacked_func(q: Tensor, kv: Tensor, dropout_p: float = ..., softmax_scale: Optional[_Float] = ...,
                             causal: _Bool = ..., window_size: _Window = ..., softcap: _Float = ...,
                             alibi_slopes: Optional[Tensor] = ..., deterministic: bool = ..., *,
                             return_attn_probs: Literal[True]) -> Tuple[Tensor, Tensor, Tensor]: ...

@overload
def flash_attn_kvpacked_func(q: Tensor, kv: Tensor, dropout_p: float = ..., softmax_scale: Optional[_Float] = ...,
                             causal: _Bool = ..., window_size: _Window = ..., softcap: _Float = ...,
                             alibi_slopes: Optional[Tensor] = ..., deterministic: bool = ...,
                             return_attn_probs: bool = ...) -> Union[Tensor, Tuple[Tensor, Tensor, Tensor]]: ...

@overload
def flash_attn_varlen_func(q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor,
                           max_seqlen_q: _Int, max_seqlen_k: _Int, dropout_p: float = ...,
                           softmax_scale: Optional[_Float] = ..., causal: _Bool = ..., window_size: _Window = ...,
                           softcap: _Float = ..., alibi_slopes: Optional[Tensor] = ..., deterministic: bool = ...,
                           return_attn_probs: Literal[False] = ...,
                           block_table: Optional[Tensor] = ...,
                           s_aux: Optional[Tensor] = ...) -> Tensor: ...

@overload
def flash_attn_varlen_func(q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor,
                           max_seqlen_q: _Int, max_seqlen_k: _Int, dropout_p: float = ...,
                           softmax_scale: Optional[_Float] = ..., causal: _Bool = ..., window_size: _Window = ...,
                           softcap: _Float = ..., alibi_slopes: Optional[Tensor] = ..., deterministic: bool = ..., *,
                           return_attn_probs: Literal[True],
                           block_table: Optional[Tensor] = ...,
                           s_aux: Optional[Tensor] = ...) -> Tuple[Tensor, Tensor, Tensor]: ...

@overload
def flash_attn_varlen_func(q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor,
                           max_seqlen_q: _Int, max_seqlen_k: _Int, dropout_p: float = ...,
                           softmax_scale: Optional[_Float] = ..., causal: _Bool = ..., window_size: _Window = ...,
                           softcap: _Float = ..., alibi_slopes: Optional[Tensor] = ..., deterministic: bool = ...,
                           return_attn_probs: bool = ...,
                           block_table: Optional[Tensor] = ...,
                           s_aux: Optional[Tensor] = ...) -> Union[Tensor, Tuple[Tensor, Tensor, Tensor]]: ...

@overload
def flash_attn_varlen_qkvpacked_func(qkv: Tensor, cu_seqlens: Tensor, max_seqlen: _Int, dropout_p: float = ...,
                                     softmax_scale: Optional[_Float] = ..., causal: _Bool = ...,
                                     window_size: _Window = ..., softcap: _Float = ...,
                                     alibi_slopes: Optional[Tensor] = ..., deterministic: bool = ...,
                                     return_attn_probs: Literal[False] = ...) -> Tensor: ...

@overload
def flash_attn_varlen_qkvpacked_func(qkv: Tensor, cu_seqlens: Tensor, max_seqlen: _Int, dropout_p: float = ...,
                                     softmax_scale: Optional[_Float] = ..., causal: _Bool = ...,
                                     window_size: _Window = ..., softcap: _Float = ...,
                                     alibi_slopes: Optional[Tensor] = ..., deterministic: bool = ..., *,
                                     return_attn_probs: Literal[True]) -> Tuple[Tensor, Tensor, Tensor]: ...

@overload
def flash_attn_varlen_qkvpacked_func(qkv: Tensor, cu_seqlens: Tensor, max_seqlen: _Int, dropout_p: float = ...,
                                     softmax_scale: Optional[_Float] = ..., causal: _Bool = ...,
                                     window_size: _Window = ..., softcap: _Float = ...,
                                     alibi_slopes: Optional[Tensor] = ..., deterministic: bool = ...,
                                     return_attn_probs: bool = ...) -> Union[Tensor, Tuple[Tensor, Tensor, Tensor]]: ...

@overload
def flash_attn_varlen_kvpacked_func(q: Tensor, kv: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor,
                                    max_seqlen_q: _Int, max_seqlen_k: _Int, dropout_p: float = ...,
                                    softmax_scale: Optional[_Float] = ..., causal: _Bool = ...,
                                    window_size: _Window = ..., softcap: _Float = ...,
                                    alibi_slopes: Optional[Tensor] = ..., deterministic: bool = ...,
                                    return_attn_probs: Literal[False] = ...) -> Tensor: ...

@overload
def flash_attn_varlen_kvpacked_func(q: Tensor, kv: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor,
                                    max_seqlen_q: _Int, max_seqlen_k: _Int, dropout_p: float = ...,
                                    softmax_scale: Optional[_Float] = ..., causal: _Bool = ...,
                                    window_size: _Window = ..., softcap: _Float = ...,
                                    alibi_slopes: Optional[Tensor] = ..., deterministic: bool = ..., *,
                                    return_attn_probs: Literal[True]) -> Tuple[Tensor, Tensor, Tensor]: ...

@overload
def flash_attn_varlen_kvpacked_func(q: Tensor, kv: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor,
                                    max_seqlen_q: _Int, max_seqlen_k: _Int, dropout_p: float = ...,
                                    softmax_scale: Optional[_Float] = ..., causal: _Bool = ...,
                                    window_size: _Window = ..., softcap: _Float = ...,
                                    alibi_slopes: Optional[Tensor] = ..., deterministic: bool = ...,
                                    return_attn_probs: bool = ...) -> Union[Tensor, Tuple[Tensor, Tensor, Tensor]]: ...

@overload
def flash_attn_with_kvcache(q: Tensor, k_cache: Tensor, v_cache: Tensor, k: Optional[Tensor] = ...,
                            v: Optional[Tensor] = ..., rotary_cos: Optional[Tensor] = ...,
                            rotary_sin: Optional[Tensor] = ..., cache_seqlens: Optional[_Int] = ...,
                            cache_batch_idx: Optional[Tensor] = ..., cache_leftpad: Optional[Tensor] = ...,
                            block_table: Optional[Tensor] = ..., softmax_scale: Optional[_Float] = ...,
                            causal: _Bool = ..., window_size: _Window = ..., softcap: _Float = ...,
                            rotary_interleaved: bool = ..., alibi_slopes: Optional[Tensor] = ...,
                            num_splits: int = ..., return_softmax_lse: Literal[False] = ...,
                            s_aux: Optional[Tensor] = ...) -> Tensor: ...

@overload
def flash_attn_with_kvcache(q: Tensor, k_cache: Tensor, v_cache: Tensor, k: Optional[Tensor] = ...,
                            v: Optional[Tensor] = ..., rotary_cos: Optional[Tensor] = ...,
                            rotary_sin: Optional[Tensor] = ..., cache_seqlens: Optional[_Int] = ...,
                            cache_batch_idx: Optional[Tensor] = ..., cache_leftpad: Optional[Tensor] = ...,
                            block_table: Optional[Tensor] = ..., softmax_scale: Optional[_Float] = ...,
                            causal: _Bool = ..., window_size: _Window = ..., softcap: _Float = ...,
                            rotary_interleaved: bool = ..., alibi_slopes: Optional[Tensor] = ...,
                            num_splits: int = ..., *, return_softmax_lse: Literal[True],
                            s_aux: Optional[Tensor] = ...) -> Tuple[Tensor, Tensor]: ...

@overload
def flash_attn_with_kvcache(q: Tensor, k_cache: Tensor, v_cache: Tensor, k: Optional[Tensor] = ...,
                            v: Optional[Tensor] = ..., rotary_cos: Optional[Tensor] = ...,
                            rotary_sin: Optional[Tensor] = ..., cache_seqlens: Optional[_Int] = ...,
                            cache_batch_idx: Optional[Tensor] = ..., cache_leftpad: Optional[Tensor] = ...,
                            block_table: Optional[Tensor] = ..., softmax_scale: Optional[_Float] = ...,
                            causal: _Bool = ..., window_size: _Window = ..., softcap: _Float = ...,
                            rotary_interleaved: bool = ..., alibi_slopes: Optional[Tensor] = ...,
                            num_splits: int = ...,
                            return_softmax_lse: bool = ...,
                            s_aux: Optional[Tensor] = ...) -> Union[Tensor, Tuple[Tensor, Tensor]]: ...
