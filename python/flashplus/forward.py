# SPDX-License-Identifier: BSD-3-Clause
"""A forward on torch tensors: from tensors to DLTensors without a copy, and one call of flashplus_forward.

This is the hot path: what is checked here is what the C API can't see. When it refuses, checks.py finds the words.

Everything that a call passes lies in one block of memory, a Frame: the arguments, the DLTensors and their shapes and
strides. Pointers between them and what dtype and device decide are written once, and the sizes of q, k, v and o with one
pack_into a call. Frames are taken from a pool and put back, so that threads (the C call releases the GIL) and calls
nested by a signal or finaliser never share one. A frame whose call failed is not put back.
"""

import ctypes
import struct

import torch

from flashplus import c_api, checks, library

_DTYPES = {torch.float16: (c_api.DL_FLOAT, 16), torch.bfloat16: (c_api.DL_BFLOAT, 16), torch.float32: (c_api.DL_FLOAT, 32)}
_INF = float("inf")


class _Block(ctypes.Structure):
    _fields_ = [
        ("args", c_api.ForwardArgs),
        ("q", c_api.DLTensor), ("k", c_api.DLTensor), ("v", c_api.DLTensor), ("o", c_api.DLTensor),
        ("lse", c_api.DLTensor), ("cu_seqlens_q", c_api.DLTensor), ("cu_seqlens_k", c_api.DLTensor),
        ("seqused_q", c_api.DLTensor), ("seqused_k", c_api.DLTensor), ("alibi_slopes", c_api.DLTensor),
        ("scale", ctypes.c_float),
        ("sizes", ctypes.c_int64 * 32),       # shape and strides of q, k, v, o, packed for their rank
        ("other_sizes", ctypes.c_int64 * 36), # of the other six, 3 + 3 each
    ]


_FLAGS = struct.Struct("=iiiff")  # causal, window_left, window_right, lse_empty, softcap
_FLAGS_AT = _Block.args.offset + c_api.ForwardArgs.causal.offset
_SIZES_AT = _Block.sizes.offset
_SIZES = {3: struct.Struct("=24q"), 4: struct.Struct("=32q")}
_OTHERS = ("lse", "cu_seqlens_q", "cu_seqlens_k", "seqused_q", "seqused_k", "alibi_slopes")
_OTHER_TYPES = {"lse": (c_api.DL_FLOAT, 32), "alibi_slopes": (c_api.DL_FLOAT, 32)}


class Frame:
    __slots__ = ("block", "args", "address", "q", "k", "v", "o", "base", "used", "sizes")

    def __init__(self, dtype, device_index, rank):
        self.block = block = _Block()
        self.base = base = ctypes.addressof(block)
        self.args = args = block.args
        self.address = base + _Block.args.offset
        args.struct_size = ctypes.sizeof(c_api.ForwardArgs)
        args.softmax_scale = base + _Block.scale.offset
        self.used = ()     # names in _OTHERS that are set
        self.sizes = None  # what `block.sizes` was packed from
        code, bits = _DTYPES[dtype]
        for i, name in enumerate(("q", "k", "v", "o")):
            self._fix(name, code, bits, device_index, rank, base + _SIZES_AT + 8 * i * 2 * rank, 8 * rank)
            setattr(args, name, base + getattr(_Block, name).offset)
        for i, name in enumerate(_OTHERS):
            code, bits = _OTHER_TYPES.get(name, (c_api.DL_INT, 32))
            self._fix(name, code, bits, device_index, 1, base + _Block.other_sizes.offset + 8 * 6 * i, 24)
        self.q, self.k, self.v, self.o = block.q, block.k, block.v, block.o

    def _fix(self, name, code, bits, device_index, ndim, sizes, stride_offset):
        t = getattr(self.block, name)
        t.device_type = c_api.DL_CPU if device_index < 0 else c_api.DL_CUDA
        t.device_id = max(device_index, 0)
        t.code, t.bits, t.lanes, t.ndim = code, bits, 1, ndim
        t.shape, t.strides = sizes, sizes + stride_offset

    def set_other(self, name, tensor):
        """`tensor` of at most 3 dimensions; its device and dtype have been checked."""
        i = _OTHERS.index(name)
        t = getattr(self.block, name)
        ndim = tensor.dim()
        t.data, t.ndim = tensor.data_ptr(), ndim
        at = 6 * i
        self.block.other_sizes[at:at + ndim] = tensor.shape
        self.block.other_sizes[at + 3:at + 3 + ndim] = tensor.stride()
        setattr(self.args, name, self.base + getattr(_Block, name).offset)


_pools = {}

try:  # As torch's own code generation does; some 0.1 us instead of 1 us for a Stream object.
    _raw_stream = torch._C._cuda_getCurrentRawStream
except AttributeError:
    def _raw_stream(index):
        return torch.cuda.current_stream(index).cuda_stream


def output_like(q, v):
    """An uninitialised output: q's shape with v's head dim, and q's order of dimensions."""
    if q.shape[-1] == v.shape[-1]:
        return torch.empty_like(q)
    return q.new_empty((*q.shape[:-1], v.shape[-1]))


def contiguous_rows(t):
    return t if t.stride(-1) == 1 else t.contiguous()


def _take(pool, dtype, index, rank):
    try:
        return pool.pop()
    except IndexError:
        return Frame(dtype, index, rank)


def _pool(q, k, v, ragged):
    """The pool for a first call of a kind, or the error of a call that is of none."""
    checks.tensors(q, k, v, ragged)
    return _pools.setdefault((q.dtype, q.get_device(), 3 if ragged else 4), [])


def _enqueue(frame, pool, index, q, k, v, out, alibi_slopes, cu_seqlens_q=None, cu_seqlens_k=None):
    frame.q.data = q.data_ptr()
    frame.k.data = k.data_ptr()
    frame.v.data = v.data_ptr()
    frame.o.data = out.data_ptr()
    lib = library._library or library.get()
    status = lib.forward(lib.context, frame.address, None if index < 0 else _raw_stream(index))
    if status:
        message = lib.last_error()
        checks.explain(q, k, v, cu_seqlens_q, cu_seqlens_k, alibi_slopes)
        raise library.failure(status, message)
    pool.append(frame)


def dense(q, k, v, out, alibi_slopes, softmax_scale, causal, window_left, window_right, softcap, want_lse,
          lse_empty=_INF, num_splits=0):
    """(out, lse or None) of q (b, sq, h, d), k (b, sk, hk, d) and v (b, sk, hk, dv), on the current stream of q's device.

    out None: a new tensor. softmax_scale None: 1 / sqrt(d). lse_empty: the LSE of rows that see no key."""
    index = q.get_device()
    dtype = q.dtype
    pool = _pools.get((dtype, index, 4))
    if (pool is None or k.dtype is not dtype or v.dtype is not dtype or k.get_device() != index
            or v.get_device() != index or index < 0 and not (q.is_cpu and k.is_cpu and v.is_cpu)):
        pool = _pool(q, k, v, False)
    q_shape, k_shape, v_shape = q.shape, k.shape, v.shape
    if not len(q_shape) == len(k_shape) == len(v_shape) == 4:
        checks.tensors(q, k, v, False)
    q_stride, k_stride, v_stride = q.stride(), k.stride(), v.stride()
    if q_stride[3] != 1:
        q = q.contiguous()
        q_stride = q.stride()
    if k_stride[3] != 1:
        k = k.contiguous()
        k_stride = k.stride()
    if v_stride[3] != 1:
        v = v.contiguous()
        v_stride = v.stride()
    if q_shape[0] == 0:
        raise RuntimeError("batch size must be positive")
    if window_left >= 0 or window_right >= 0:
        if window_left >= k_shape[1]:
            window_left = -1
        if window_right >= k_shape[1]:
            window_right = -1
    if out is None:
        out = output_like(q, v)
    frame = _take(pool, dtype, index, 4)
    # Most calls repeat the sizes of the one before.
    sizes = (q_shape, q_stride, k_shape, k_stride, v_shape, v_stride, out.shape, out.stride())
    if frame.sizes != sizes:
        _SIZES[4].pack_into(frame.block, _SIZES_AT, *q_shape, *q_stride, *k_shape, *k_stride, *v_shape, *v_stride,
                            *out.shape, *out.stride())
        frame.sizes = sizes
    _FLAGS.pack_into(frame.block, _FLAGS_AT, causal, window_left, window_right, lse_empty,
                     softcap if softcap > 0.0 else 0.0)
    frame.block.scale = q_shape[3] ** -0.5 if softmax_scale is None else softmax_scale
    if frame.used:
        _clear(frame)
    lse = None
    if want_lse or alibi_slopes is not None or num_splits:
        if want_lse:
            lse = q.new_empty((q_shape[0], q_shape[2], q_shape[1]), dtype=torch.float32)
        _set_others(frame, index, lse=lse, alibi_slopes=alibi_slopes)
        frame.args.num_splits = num_splits
    _enqueue(frame, pool, index, q, k, v, out, alibi_slopes)
    return out, lse


def ragged(q, k, v, out, cu_seqlens_q, cu_seqlens_k, seqused_k, alibi_slopes, max_seqlen_q, max_seqlen_k, softmax_scale,
           zero_tensors, causal, window_left, window_right, softcap, want_lse, seqused_q=None, lse_empty=_INF,
           num_splits=0):
    """(out, lse or None) of q (total_q, h, d), k and v (total_k, hk, d), packed as cu_seqlens_* say.

    Rows of q that belong to no sequence get 0, and lse_empty (-inf with zero_tensors) as their LSE."""
    index = q.get_device()
    checks.tensors(q, k, v, True)
    q, k, v = contiguous_rows(q), contiguous_rows(k), contiguous_rows(v)
    if cu_seqlens_q.numel() < 2:
        raise RuntimeError("batch size must be positive")
    if window_left >= max_seqlen_k:
        window_left = -1
    if window_right >= max_seqlen_k:
        window_right = -1
    if out is None:
        out = output_like(q, v)
    out.zero_()
    lse = None
    if want_lse:
        lse = q.new_full((q.shape[1], q.shape[0]), -_INF if zero_tensors else lse_empty, dtype=torch.float32)
    pool = _pools.get((q.dtype, index, 3))
    if pool is None:
        pool = _pool(q, k, v, True)
    frame = _take(pool, q.dtype, index, 3)
    _SIZES[3].pack_into(frame.block, _SIZES_AT, *q.shape, *q.stride(), *k.shape, *k.stride(), *v.shape, *v.stride(),
                        *out.shape, *out.stride())
    _FLAGS.pack_into(frame.block, _FLAGS_AT, causal, window_left, window_right, lse_empty,
                     softcap if softcap > 0.0 else 0.0)
    frame.block.scale = q.shape[2] ** -0.5 if softmax_scale is None else softmax_scale
    if frame.used:
        _clear(frame)
    _set_others(frame, index, lse=lse, alibi_slopes=alibi_slopes, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k,
                seqused_q=seqused_q, seqused_k=seqused_k)
    frame.args.max_seqlen_q, frame.args.max_seqlen_k = max_seqlen_q, max_seqlen_k
    frame.args.num_splits = num_splits
    _enqueue(frame, pool, index, q, k, v, out, alibi_slopes, cu_seqlens_q, cu_seqlens_k)
    return out, lse


def _set_others(frame, index, **tensors):
    used = []
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if name != "lse":
            checks.other(name, tensor, index)
        frame.set_other(name, tensor)
        used.append(name)
    frame.used = tuple(used)


def _clear(frame):
    for name in frame.used:
        setattr(frame.args, name, None)
    frame.args.num_splits = 0
    frame.used = ()
