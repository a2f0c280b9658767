# SPDX-License-Identifier: BSD-3-Clause
# Types of the functions in score_attention.py, whose defaults and documentation are there.
# A number may be a tensor of one element.
from typing import Literal, Mapping, Optional, Tuple, Union, overload

from torch import Tensor

_Float = Union[float, Tensor]
_Int = Union[int, Tensor]
_Bool = Union[bool, Tensor]
_Window = Tuple[_Int, _Int]


@overload
def attention(q: Tensor, k: Tensor, v: Tensor, score: Optional[str] = ..., *,
              tensors: Optional[Mapping[str, Tensor]] = ..., scalars: Optional[Mapping[str, _Float]] = ...,
              causal: _Bool = ..., window: _Window = ..., softmax_scale: Optional[_Float] = ...,
              softcap: _Float = ..., alibi_slopes: Optional[Tensor] = ..., dropout_p: float = ...,
              cu_seqlens_q: Optional[Tensor] = ..., cu_seqlens_k: Optional[Tensor] = ...,
              max_seqlen_q: Optional[_Int] = ..., max_seqlen_k: Optional[_Int] = ..., num_splits: int = ...,
              schedule: Optional[str] = ..., deterministic: _Bool = ..., return_lse: Literal[False] = ...,
              sinks: Optional[Tensor] = ...) -> Tensor: ...

@overload
def attention(q: Tensor, k: Tensor, v: Tensor, score: Optional[str] = ..., *,
              tensors: Optional[Mapping[str, Tensor]] = ..., scalars: Optional[Mapping[str, _Float]] = ...,
              causal: _Bool = ..., window: _Window = ..., softmax_scale: Optional[_Float] = ...,
              softcap: _Float = ..., alibi_slopes: Optional[Tensor] = ..., dropout_p: float = ...,
              cu_seqlens_q: Optional[Tensor] = ..., cu_seqlens_k: Optional[Tensor] = ...,
              max_seqlen_q: Optional[_Int] = ..., max_seqlen_k: Optional[_Int] = ..., num_splits: int = ...,
              schedule: Optional[str] = ..., deterministic: _Bool = ..., return_lse: Literal[True],
              sinks: Optional[Tensor] = ...) -> Tuple[Tensor, Tensor]: ...

@overload
def attention(q: Tensor, k: Tensor, v: Tensor, score: Optional[str] = ..., *,
              tensors: Optional[Mapping[str, Tensor]] = ..., scalars: Optional[Mapping[str, _Float]] = ...,
              causal: _Bool = ..., window: _Window = ..., softmax_scale: Optional[_Float] = ...,
              softcap: _Float = ..., alibi_slopes: Optional[Tensor] = ..., dropout_p: float = ...,
              cu_seqlens_q: Optional[Tensor] = ..., cu_seqlens_k: Optional[Tensor] = ...,
              max_seqlen_q: Optional[_Int] = ..., max_seqlen_k: Optional[_Int] = ..., num_splits: int = ...,
              schedule: Optional[str] = ..., deterministic: _Bool = ..., return_lse: bool = ...,
              sinks: Optional[Tensor] = ...) -> Union[Tensor, Tuple[Tensor, Tensor]]: ...
