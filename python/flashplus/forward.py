# SPDX-License-Identifier: BSD-3-Clause
"""A forward on torch tensors: from tensors to DLTensors without a copy, and one call of flashplus_forward.

This is the hot path. What a call says besides its pointers (dtypes, devices, shapes, strides, flags) is one tuple, and a
Frame is what such a tuple comes to: the arguments of the C call with their DLTensors in one block of memory, checked and
laid out when the tuple is first seen. A call that was seen before only writes pointers into its frame. So what is checked
here or in checks.py is checked once for each tuple; what the C API refuses is put in words by checks.py.

A frame is taken out of its list for the length of a call, so that threads (the C call releases the GIL) and calls nested by
a signal or finaliser never share one. A frame whose call failed is not put back.
"""

import ctypes
import math
import threading

import torch

from flashplus import c_api, checks, library

_DTYPES = {torch.float16: (c_api.DL_FLOAT, 16), torch.bfloat16: (c_api.DL_BFLOAT, 16), torch.float32: (c_api.DL_FLOAT, 32),
           torch.int32: (c_api.DL_INT, 32)}
_INF = float("inf")
_NAMES = ("q", "k", "v", "o", "lse", "cu_seqlens_q", "cu_seqlens_k", "seqused_q", "seqused_k", "alibi_slopes")
_RANK = 4  # at most


class _Block(ctypes.Structure):
    _fields_ = [("args", c_api.ForwardArgs), *((name, c_api.DLTensor) for name in _NAMES),
                ("sizes", ctypes.c_int64 * (2 * _RANK * len(_NAMES))), ("scale", ctypes.c_float)]


class Frame:
    """The arguments of a call in memory, all but pointers. `home` is the list that the frame belongs in between calls."""

    __slots__ = ("block", "args", "address", "home", "index", "copies", "like_q", "q", "k", "v", "o")

    def __init__(self, home, index):
        self.home, self.index = home, index
        self.block = block = _Block()
        self.args = args = block.args
        self.address = ctypes.addressof(block) + _Block.args.offset
        self.q, self.k, self.v, self.o = block.q, block.k, block.v, block.o
        args.struct_size = ctypes.sizeof(c_api.ForwardArgs)

    def lay_out(self, name, dtype, shape, strides):
        i = _NAMES.index(name)
        at, rank, base = 2 * _RANK * i, len(shape), ctypes.addressof(self.block)
        sizes = self.block.sizes
        sizes[at:at + rank] = shape
        sizes[at + _RANK:at + _RANK + rank] = strides
        t = getattr(self.block, name)
        t.device_type, t.device_id = (c_api.DL_CPU, 0) if self.index < 0 else (c_api.DL_CUDA, self.index)
        (t.code, t.bits), t.lanes, t.ndim = _DTYPES[dtype], 1, rank
        t.shape = base + _Block.sizes.offset + 8 * at
        t.strides = t.shape + 8 * _RANK
        setattr(self.args, name, base + getattr(_Block, name).offset)

    def set_flags(self, softmax_scale, causal, window_left, window_right, softcap, lse_empty, num_splits):
        args = self.args
        self.block.scale = softmax_scale
        args.softmax_scale = ctypes.addressof(self.block) + _Block.scale.offset
        args.causal, args.has_window, args.window_left, args.window_right = causal, 1, window_left, window_right
        args.softcap, args.lse_empty, args.num_splits = max(softcap, 0.0), lse_empty, num_splits


_KEPT = 256  # tuples; the first seen goes first
_frames = {}
_lock = threading.RLock()  # for additions only; re-entered by a finaliser

try:  # As torch's own code generation does; some 0.1 us instead of 1 us for a Stream object.
    _raw_stream = torch._C._cuda_getCurrentRawStream
except AttributeError:
    def _raw_stream(index):
        return torch.cuda.current_stream(index).cuda_stream


def contiguous_rows(t):
    return t if t.stride(-1) == 1 else t.contiguous()


def _said(t):
    return (t.dtype, t.device, t.shape, t.stride()) if isinstance(t, torch.Tensor) else type(t)


def _new_frame(call, q, k, v, out, others, lse_shape, softmax_scale, causal, window_left, window_right, softcap, lse_empty,
               num_splits):
    """A frame for a call that is seen for the first time, or whose frames are all in use. `others`: {name: tensor}."""
    ragged = "cu_seqlens_q" in others
    index = q.get_device()
    for name, t in others.items():
        checks.other(name, t, index)
    if others["cu_seqlens_q"].numel() < 2 if ragged else q.shape[0] == 0:
        raise RuntimeError("batch size must be positive")
    if out is not None:
        checks.output(out, q, v)
    with _lock:
        home = _frames.get(call)
        if home is None:
            if len(_frames) >= _KEPT:
                del _frames[next(iter(_frames))]
            home = _frames[call] = []
    frame = Frame(home, index)
    frame.copies = any(t.stride(-1) != 1 for t in (q, k, v))
    if frame.copies:
        q, k, v = contiguous_rows(q), contiguous_rows(k), contiguous_rows(v)
    frame.like_q = q.shape[-1] == v.shape[-1]
    # Made only for its strides. (A meta tensor would have them too, but the first one of a process takes PyTorch seconds.)
    o = out if out is not None else output(q, v, frame.like_q)
    for name, t in (("q", q), ("k", k), ("v", v), ("o", o), *others.items()):
        frame.lay_out(name, t.dtype, t.shape, t.stride())
    if lse_shape is not None:
        frame.lay_out("lse", torch.float32, lse_shape, [math.prod(lse_shape[i + 1:]) for i in range(len(lse_shape))])
    if softmax_scale is None:
        softmax_scale = q.shape[-1] ** -0.5
    frame.set_flags(softmax_scale, causal, window_left, window_right, softcap, lse_empty, num_splits)
    return frame


def output(q, v, like_q):
    """An uninitialised output: q's shape with v's head dim, and q's order of dimensions."""
    return torch.empty_like(q) if like_q else q.new_empty((*q.shape[:-1], v.shape[-1]))


def _run(frame, q, k, v, out, others=None):
    """Enqueues on the current stream of q's device."""
    frame.q.data = q.data_ptr()
    frame.k.data = k.data_ptr()
    frame.v.data = v.data_ptr()
    frame.o.data = out.data_ptr()
    index = frame.index
    lib = library._library or library.get()
    status = lib.forward(lib.context, frame.address, None if index < 0 else _raw_stream(index))
    if status:
        message = lib.last_error()
        others = others or {}
        checks.explain(q, k, v, others.get("cu_seqlens_q"), others.get("cu_seqlens_k"), others.get("alibi_slopes"))
        raise library.failure(status, message)
    frame.home.append(frame)


def dense(q, k, v, out, alibi_slopes, softmax_scale, causal, window_left, window_right, softcap, want_lse,
          lse_empty=_INF, num_splits=0):
    """(out, lse or None) of q (b, sq, h, d), k (b, sk, hk, d) and v (b, sk, hk, dv), on the current stream of q's device.

    out None: a new tensor. softmax_scale None: 1 / sqrt(d). lse_empty: the LSE of rows that see no key. Flags are plain
    Python numbers (checks.flags)."""
    call = (q.dtype, k.dtype, v.dtype, q.device, k.device, v.device, q.shape, k.shape, v.shape, q.stride(), k.stride(),
            v.stride(), softmax_scale, causal, window_left, window_right, softcap, want_lse, lse_empty, num_splits)
    if alibi_slopes is not None or out is not None:
        call += (_said(alibi_slopes), _said(out))
    try:
        frame = _frames[call].pop()
    except LookupError:
        frame = _first_dense(call, q, k, v, out, alibi_slopes, softmax_scale, causal, window_left, window_right, softcap,
                             want_lse, lse_empty, num_splits)
    if frame.copies:
        q, k, v = contiguous_rows(q), contiguous_rows(k), contiguous_rows(v)
    if out is None:
        out = torch.empty_like(q) if frame.like_q else output(q, v, False)
    if alibi_slopes is None and not want_lse:
        _run(frame, q, k, v, out)
        return out, None
    lse, others = None, {}
    if want_lse:
        lse = q.new_empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32)
        frame.block.lse.data = lse.data_ptr()
    if alibi_slopes is not None:
        others["alibi_slopes"] = alibi_slopes
        frame.block.alibi_slopes.data = alibi_slopes.data_ptr()
    _run(frame, q, k, v, out, others)
    return out, lse


def _first_dense(call, q, k, v, out, alibi_slopes, softmax_scale, causal, window_left, window_right, softcap, want_lse,
                 lse_empty, num_splits):
    checks.tensors(q, k, v, False)
    others = {} if alibi_slopes is None else {"alibi_slopes": alibi_slopes}
    lse_shape = (q.shape[0], q.shape[2], q.shape[1]) if want_lse else None
    left, right = _sides(window_left, window_right, q.shape[1], k.shape[1])
    return _new_frame(call, q, k, v, out, others, lse_shape, softmax_scale, causal, left, right, softcap, lse_empty,
                      num_splits)


def _sides(left, right, rows_q, rows_k):
    """A side that bounds no row is -1, which is a faster kernel. Query i of sq sees, of sk keys, those from i + sk - sq - left to
    i + sk - sq + right. The first is most for the last row, sk - 1 - left; the second least for row 0, sk - sq + right, which
    is the last key or beyond it from right = sq - 1 on. `rows_*` are the tensors', which no sequence in them is longer than:
    the result doesn't depend on what a caller says of max_seqlen."""
    for name, side in (("window_left", left), ("window_right", right)):
        if side < -1:  # said here as it is by the library, whose numbers have 32 bits
            raise ValueError(f"{name} is {side}; it must be -1 (unbounded) or more")
    return (-1 if left >= rows_k - 1 else left), (-1 if right >= rows_q - 1 else right)


def ragged(q, k, v, out, cu_seqlens_q, cu_seqlens_k, seqused_k, alibi_slopes, max_seqlen_q, max_seqlen_k, softmax_scale,
           zero_tensors, causal, window_left, window_right, softcap, want_lse, seqused_q=None, lse_empty=_INF,
           num_splits=0):
    """(out, lse or None) of q (total_q, h, d), k and v (total_k, hk, d), packed as cu_seqlens_* say.

    Rows of q that belong to no sequence get 0, and lse_empty (-inf with zero_tensors) as their LSE."""
    others = {"cu_seqlens_q": cu_seqlens_q, "cu_seqlens_k": cu_seqlens_k}
    for name, t in (("seqused_q", seqused_q), ("seqused_k", seqused_k), ("alibi_slopes", alibi_slopes)):
        if t is not None:
            others[name] = t
    call = (q.dtype, k.dtype, v.dtype, q.device, k.device, v.device, q.shape, k.shape, v.shape, q.stride(), k.stride(),
            v.stride(), softmax_scale, causal, window_left, window_right, softcap, want_lse, lse_empty, num_splits, _said(out),
            *((name, _said(t)) for name, t in others.items()))
    try:
        frame = _frames[call].pop()
    except LookupError:
        checks.tensors(q, k, v, True)
        left, right = _sides(window_left, window_right, q.shape[0], k.shape[0])
        frame = _new_frame(call, q, k, v, out, others, (q.shape[1], q.shape[0]) if want_lse else None, softmax_scale, causal,
                           left, right, softcap, lse_empty, num_splits)
    if frame.copies:
        q, k, v = contiguous_rows(q), contiguous_rows(k), contiguous_rows(v)
    if out is None:
        out = output(q, v, frame.like_q)
    out.zero_()
    lse = None
    if want_lse:
        lse = q.new_full((q.shape[1], q.shape[0]), -_INF if zero_tensors else lse_empty, dtype=torch.float32)
        frame.block.lse.data = lse.data_ptr()
    for name, t in others.items():
        getattr(frame.block, name).data = t.data_ptr()
    frame.args.max_seqlen_q, frame.args.max_seqlen_k = max_seqlen_q, max_seqlen_k
    _run(frame, q, k, v, out, others)
    return out, lse
