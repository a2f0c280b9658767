# SPDX-License-Identifier: BSD-3-Clause
"""A forward on torch tensors: from tensors to DLTensors without a copy, and one call of flashplus_forward.

This is the hot path: what is checked here is what the C API can't see. When it refuses, checks.py finds the words.

Everything that a call passes lies in one block of memory, a Frame: the arguments, the DLTensors and their shapes and
strides. Pointers between them and what dtype and device decide are written once, and the sizes of q, k, v and o with one
pack_into a call. Frames are taken from a pool and put back, so that threads (the C call releases the GIL) and calls
nested by a signal or finaliser never share one.
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
    __slots__ = ("block", "args", "address", "q", "k", "v", "o", "base", "used")

    def __init__(self, dtype, device_index, rank):
        self.block = block = _Block()
        self.base = base = ctypes.addressof(block)
        self.args = args = block.args
        self.address = base + _Block.args.offset
        args.struct_size = ctypes.sizeof(c_api.ForwardArgs)
        args.softmax_scale = base + _Block.scale.offset
        self.used = ()
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


def forward(q, k, v, out, lse, softmax_scale, causal, window_left, window_right, softcap, alibi_slopes,
            cu_seqlens_q=None, cu_seqlens_k=None, max_seqlen_q=0, max_seqlen_k=0, seqused_q=None, seqused_k=None,
            lse_empty=_INF, num_splits=0):
    """Writes `out` and, if it is not None, `lse`. Shapes as flashplus_forward_args says; with cu_seqlens_q the packed ones.
    Runs on the current stream of q's device."""
    rank = 4 if cu_seqlens_q is None else 3
    index = q.get_device()
    dtype = q.dtype
    key = (dtype, index, rank)
    pool = _pools.get(key)
    if (pool is None or k.dtype is not dtype or v.dtype is not dtype or k.get_device() != index
            or v.get_device() != index or q.dim() != rank or k.dim() != rank or v.dim() != rank):
        checks.tensors(q, k, v, cu_seqlens_q is not None)
        pool = _pools.setdefault(key, [])
    if index < 0 and not (q.is_cpu and k.is_cpu and v.is_cpu):
        checks.tensors(q, k, v, cu_seqlens_q is not None)
    try:
        frame = pool.pop()
    except IndexError:
        frame = Frame(dtype, index, rank)
    _SIZES[rank].pack_into(frame.block, _SIZES_AT, *q.shape, *q.stride(), *k.shape, *k.stride(), *v.shape, *v.stride(),
                           *out.shape, *out.stride())
    frame.q.data = q.data_ptr()
    frame.k.data = k.data_ptr()
    frame.v.data = v.data_ptr()
    frame.o.data = out.data_ptr()
    _FLAGS.pack_into(frame.block, _FLAGS_AT, causal, window_left, window_right, lse_empty, softcap)
    frame.block.scale = softmax_scale
    if frame.used:
        _clear(frame)
    if lse is not None or alibi_slopes is not None or rank == 3 or seqused_k is not None or num_splits:
        _set_others(frame, index, lse=lse, alibi_slopes=alibi_slopes, cu_seqlens_q=cu_seqlens_q,
                    cu_seqlens_k=cu_seqlens_k, seqused_q=seqused_q, seqused_k=seqused_k)
        frame.args.max_seqlen_q, frame.args.max_seqlen_k = max_seqlen_q, max_seqlen_k
        frame.args.num_splits = num_splits
    lib = library._library or library.get()
    status = lib.forward(lib.context, frame.address, None if index < 0 else _raw_stream(index))
    if status:
        message = lib.last_error()
        checks.explain(q, k, v, cu_seqlens_q, cu_seqlens_k, alibi_slopes)
        raise library.failure(status, message)
    pool.append(frame)


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
