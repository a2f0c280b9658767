# SPDX-License-Identifier: BSD-3-Clause
"""What is wrong with a call, in the original's words where it has some (csrc/flash_attn/flash_api.cpp).

Called when something is already known to be wrong, or once for each kind of call (forward.py): nothing here is on
the hot path.
"""

import operator

import torch

HALF = (torch.float16, torch.bfloat16)
MAX_HEAD_DIM = 256


def _shape(t):
    return "(" + ", ".join(str(int(n)) for n in t.shape) + ")"


def tensor(name, value):
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} is {type(value).__name__}; it must be a torch.Tensor")
    if value.is_nested:
        raise TypeError(
            f"{name} is a nested tensor; it must be a dense one: flash_attn_varlen_func takes a jagged tensor's "
            "values() and offsets()")


def tensors(q, k, v, ragged):
    """Types, devices, dtypes and ranks of q, k and v."""
    for name, t in (("q", q), ("k", k), ("v", v)):
        tensor(name, t)
        if not (t.is_cuda or t.is_cpu):
            raise RuntimeError(f"{name} must be on CUDA or on the CPU; it is on {t.device}")
    for name, t in (("k", k), ("v", v)):
        if t.device != q.device:
            raise RuntimeError(f"{name} must be on CUDA, on the device of q; it is on {t.device} and q on {q.device}"
                               if q.is_cuda else f"{name} must be on the device of q, {q.device}; it is on {t.device}")
    if q.dtype not in HALF and not (q.is_cpu and q.dtype == torch.float32):
        raise RuntimeError(f"FlashAttention only support fp16 and bf16 data type (and fp32 on the CPU); q is {q.dtype}")
    if k.dtype != q.dtype:
        raise RuntimeError(f"query and key must have the same dtype; they are {q.dtype} and {k.dtype}")
    if v.dtype != q.dtype:
        raise RuntimeError(f"query and value must have the same dtype; they are {q.dtype} and {v.dtype}")
    rank, layout = (3, "(total, num_heads, head_size)") if ragged else (4, "(batch_size, seqlen, num_heads, head_size)")
    for name, t in (("q", q), ("k", k), ("v", v)):
        if t.dim() != rank:
            raise RuntimeError(f"{name} must have shape {layout}; it has {_shape(t)}")


def gradient(name, t, q, statistic=False):
    """out, dout, dq, dk, dv, and the fp32 statistics of rows: device, dtype and rank, which the DLTensor takes for
    granted."""
    tensor(name, t)
    if t.device != q.device:
        raise RuntimeError(f"{name} must be on the device of q, {q.device}; it is on {t.device}")
    wanted = torch.float32 if statistic else q.dtype
    if t.dtype != wanted:
        raise RuntimeError(f"{name} must have dtype {wanted}; it has {t.dtype}" if statistic else
                           f"query and {name} must have the same dtype; they are {q.dtype} and {t.dtype}")
    rank = q.dim() - statistic
    if t.dim() != rank:
        raise RuntimeError(f"{name} must have {rank} dimensions; it has shape {_shape(t)}")


def other(name, t, index):
    """alibi_slopes, rng_state, cu_seqlens_*, seqused_*: device and dtype, which the DLTensor takes for granted."""
    tensor(name, t)
    wanted = "cpu" if index < 0 else f"cuda:{index}"
    if str(t.device) != wanted:
        raise RuntimeError(f"{name} must be on CUDA, on the device of q; it is on {t.device} and q on {wanted}"
                           if index >= 0 else f"{name} must be on the device of q, {wanted}; it is on {t.device}")
    if name == "sinks":
        if t.dtype not in (*HALF, torch.float32):
            raise RuntimeError(f"sinks must have dtype fp16, bf16 or fp32; they are {t.dtype}")
        if t.dim() != 1 or t.stride(0) != 1 and t.numel() > 1:
            raise RuntimeError(f"sinks must have shape (num_heads) and be contiguous; they have shape {_shape(t)}")
    elif name == "rng_state":
        if t.dtype != torch.int64 or tuple(t.shape) != (2,) or not t.is_contiguous():
            raise RuntimeError(f"rng_state must be int64 of shape (2), as the forward returned it; it is {t.dtype} of "
                               f"shape {_shape(t)}")
    elif name == "alibi_slopes":
        if t.dtype != torch.float32:
            raise RuntimeError(f"ALiBi slopes must have dtype fp32; alibi_slopes is {t.dtype}")
        if t.dim() not in (1, 2):
            raise RuntimeError(
                f"alibi_slopes must have shape (num_heads) or (batch_size, num_heads); it has {_shape(t)}")
        if t.stride(-1) != 1 and t.shape[-1] > 1:
            raise RuntimeError("ALiBi slopes tensor must have contiguous last dimension")
    else:
        if t.dtype != torch.int32:
            raise RuntimeError(f"{name} must have dtype int32; it is {t.dtype}")
        if t.dim() != 1:
            raise RuntimeError(f"{name} must have shape (batch_size{' + 1' if name.startswith('cu') else ''}); "
                               f"it has {_shape(t)}")
        if not t.is_contiguous():
            raise RuntimeError(f"{name} must be contiguous")


def sinks(name, t, q):
    """Attention sinks of a call with q, which the caller calls `name`."""
    tensor(name, t)
    if t.device != q.device:
        raise RuntimeError(f"{name} must be on the device of q, {q.device}; it is on {t.device}")
    if t.dtype not in (*HALF, torch.float32):
        raise RuntimeError(f"{name} must have dtype fp16, bf16 or fp32; it is {t.dtype}")
    if q.dim() >= 2 and tuple(t.shape) != (q.shape[-2],):
        raise RuntimeError(f"{name} must have shape (num_heads); it has {_shape(t)}, and it must be ({q.shape[-2]})")


def output(out, q, v):
    """An output that the caller gives."""
    tensor("out", out)
    if out.device != q.device:
        raise RuntimeError(f"out must be on CUDA, on the device of q; it is on {out.device} and q on {q.device}" if q.
                           is_cuda else f"out must be on the device of q, {q.device}; it is on {out.device}")
    if out.dtype != q.dtype:
        raise RuntimeError(f"Output must have the same dtype as inputs; out is {out.dtype} and q is {q.dtype}")
    wanted = (*q.shape[:-1], v.shape[-1])
    if tuple(out.shape) != wanted:
        raise RuntimeError(f"out must have shape ({'total_q' if q.dim() == 3 else 'batch_size, seqlen_q'}, num_heads, "
                           f"head_size); it has {_shape(out)}, and it must be ({', '.join(map(str, wanted))})")
    if out.stride(-1) != 1 and out.shape[-1] > 1:
        raise RuntimeError("Output tensor must have contiguous last dimension")


def numbers(softmax_scale, causal, window_size, softcap):
    """(softmax_scale, causal, window_left, window_right, softcap) as plain Python numbers; softmax_scale may be None.

    They come as NumPy numbers and tensors of one element too."""
    try:
        left, right = window_size
        left, right = integer("window_size", left), integer("window_size", right)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"window_size is {window_size!r}; it must be two integers (left, right), -1 for unbounded") from None
    if softmax_scale is not None:
        softmax_scale = number("softmax_scale", softmax_scale)
    return softmax_scale, flag("causal", causal), left, right, number("softcap", softcap)


def qkv_split(qkv, num_heads_q):
    """What takes q, k and v out of a tensor like `qkv`: (batch, seqlen, 3, heads, head_dim), or with num_heads_q
    (batch, seqlen, num_heads_q + 2 heads_k, head_dim)."""
    tensor("qkv", qkv)
    shape = tuple(qkv.shape)
    if qkv.dim() == 5 and shape[2] == 3:
        return lambda t: t.unbind(2)
    if qkv.dim() != 4:
        raise RuntimeError(f"qkv has shape {shape}; it must be (batch, seqlen, 3, heads, head_dim), or with "
                           "num_heads_q (batch, seqlen, num_heads_q + 2 heads_k, head_dim)")
    if num_heads_q is None:
        raise ValueError("num_heads_q is None; it must be given with a qkv of 4 dimensions")
    heads = integer("num_heads_q", num_heads_q)
    rest = shape[2] - heads
    if heads < 1 or rest < 2 or rest % 2:
        raise ValueError(f"num_heads_q is {heads}; of the {shape[2]} heads of qkv, whose shape is {shape}, it must "
                         "leave as many to v as to k, at least one each")
    return lambda t: t.split([heads, rest // 2, rest // 2], dim=2)


def integer(name, value):
    """What the original's bindings take for an integer: an int, a NumPy integer, a tensor of one (which, on a GPU, is
    waited for). No float, which would lose what is behind the point."""
    if type(value) is int:
        return value
    try:
        if isinstance(value, torch.SymInt):
            return int(value)
        if isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex() or value.numel() != 1):
            raise TypeError
        return int(value) if isinstance(value, torch.Tensor) else operator.index(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {value!r}; it must be an integer") from None


def flag(name, value):
    """A bool, from an int, a NumPy bool or a tensor of one too; no text or None, whose truth is no answer."""
    if type(value) is bool:
        return value
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return bool(value)
    # NumPy's, which torch.compile traces as an array.
    if not isinstance(value, int) and getattr(value, "shape", None) != ():
        raise TypeError(f"{name} is {value!r}; it must be True or False")
    return bool(value)


def default_scale(q):
    """Of a softmax_scale that is None. (Without a head dim there is none; what refuses that has words.)"""
    return q.shape[-1] ** -0.5 if q.shape[-1] else 1.0


def number(name, value):
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} is {value!r}; it must be a number") from None


def explain(q, k, v, cu_seqlens_q, cu_seqlens_k, alibi_slopes):
    """Raises the original's error for what it also refuses; returns if the C API has the only words."""
    ragged = cu_seqlens_q is not None
    tensors(q, k, v, ragged)
    if q.is_cuda and torch.cuda.get_device_capability(q.device)[0] < 8:
        name = torch.cuda.get_device_name(q.device)
        raise RuntimeError(f"FlashAttention only supports Ampere GPUs or newer. {q.device} is {name}")
    for t in (q, k, v):
        if t.stride(-1) != 1 and t.shape[-1] > 1:
            raise RuntimeError("Input tensor must have contiguous last dimension")
    heads, head_dim = q.shape[-2:]
    heads_k = k.shape[-2]
    if head_dim > MAX_HEAD_DIM:
        raise RuntimeError(f"FlashAttention forward only supports head dimension at most {MAX_HEAD_DIM}; "
                           f"q has {head_dim}")
    if heads_k == 0 or heads % heads_k:
        raise RuntimeError(f"Number of heads in key/value must divide number of heads in query; "
                           f"they are {heads_k} and {heads}")
    if ragged:
        batch = cu_seqlens_q.numel() - 1
        names, rows = "total_k, num_heads_k, head_size", k.shape[:1]
    else:
        batch = q.shape[0]
        names, rows = "batch_size, seqlen_k, num_heads_k, head_size", (batch, k.shape[1])
    for name, t in (("k", k), ("v", v)):
        wanted = (*rows, heads_k, head_dim if name == "k" else t.shape[-1])
        if tuple(t.shape) != wanted:
            raise RuntimeError(f"{name} must have shape ({names}); it has {_shape(t)}, and it must be "
                               f"({', '.join(map(str, wanted))})")
    if ragged and cu_seqlens_k is not None and cu_seqlens_k.numel() != batch + 1:
        raise RuntimeError(f"cu_seqlens_k must have shape (batch_size + 1); it has {_shape(cu_seqlens_k)}, and it must "
                           f"be ({batch + 1})")
    if alibi_slopes is not None and tuple(alibi_slopes.shape) not in ((heads,), (batch, heads)):
        raise RuntimeError(f"alibi_slopes must have shape (num_heads) or (batch_size, num_heads); it has "
                           f"{_shape(alibi_slopes)}, and it must be ({heads}) or ({batch}, {heads})")
