# SPDX-License-Identifier: BSD-3-Clause
"""Frames: the arguments of a C call in one block of memory, with their DLTensors, laid out once and used again.

What a call says besides its pointers (dtypes, devices, shapes, strides, flags) is one tuple, and a frame is what
such a tuple comes to, checked and laid out when the tuple is first seen. A call that was seen before only writes
pointers into its frame.

A frame is taken out of its list for the length of a call, so that threads (the C call releases the GIL) and calls
nested by a signal or finaliser never share one. A frame whose call failed is not put back.
"""

import ctypes
import threading

import torch

from flashplus import c_api, fork

DTYPES = {
    torch.float16: (c_api.DL_FLOAT, 16), torch.bfloat16: (c_api.DL_BFLOAT, 16), torch.float32: (c_api.DL_FLOAT, 32),
    torch.int32: (c_api.DL_INT, 32), torch.int64: (c_api.DL_INT, 64)
}
_RANK = 4  # at most
_KEPT = 256  # tuples; the first seen goes first


def block(arguments, names):
    """The memory of a call: `arguments` is the C struct, `names` its fields that are tensors."""

    class Block(ctypes.Structure):
        NAMES = {name: i for i, name in enumerate(names)}
        _fields_ = [("args", arguments), *((name, c_api.DLTensor) for name in names),
                    ("sizes", ctypes.c_int64 * (2 * _RANK * len(names))), ("scale", ctypes.c_float)]

    return Block


class Frame:
    """The arguments of a call in memory, all but pointers. `home` is the list that the frame belongs in between
    calls; `index` the GPU, or -1."""

    __slots__ = ("block", "args", "address", "home", "index", "score")

    def __init__(self, home, index, kind):
        self.home, self.index = home, index
        self.score = None  # scores.Laid
        self.block = kind()
        self.args = args = self.block.args
        self.address = ctypes.addressof(self.block) + kind.args.offset
        args.struct_size = ctypes.sizeof(args)

    def lay_out(self, name, dtype, shape, strides):
        kind = type(self.block)
        at, rank, base = 2 * _RANK * kind.NAMES[name], len(shape), ctypes.addressof(self.block)
        sizes = self.block.sizes
        sizes[at:at + rank] = shape
        sizes[at + _RANK:at + _RANK + rank] = strides
        t = getattr(self.block, name)
        t.device_type, t.device_id = (c_api.DL_CPU, 0) if self.index < 0 else (c_api.DL_CUDA, self.index)
        (t.code, t.bits), t.lanes, t.ndim = DTYPES[dtype], 1, rank
        t.shape = base + kind.sizes.offset + 8 * at
        t.strides = t.shape + 8 * _RANK
        setattr(self.args, name, base + getattr(kind, name).offset)

    def set_mask_and_score(self, softmax_scale, causal, window_left, window_right, softcap):
        args = self.args
        self.block.scale = softmax_scale
        args.softmax_scale = ctypes.addressof(self.block) + type(self.block).scale.offset
        args.causal, args.has_window, args.window_left, args.window_right = causal, 1, window_left, window_right
        args.softcap = max(softcap, 0.0)


class Frames:
    """Lists of frames by what calls say."""

    def __init__(self):
        self.lists = {}
        self._lock = fork.Lock(threading.RLock)  # for additions only; re-entered by a finaliser

    def home(self, call):
        with self._lock:
            home = self.lists.get(call)
            if home is None:
                if len(self.lists) >= _KEPT:
                    del self.lists[next(iter(self.lists))]
                home = self.lists[call] = []
        return home


try:  # As torch's own code generation does; some 0.1 us instead of 1 us for a Stream object.
    raw_stream = torch._C._cuda_getCurrentRawStream
except AttributeError:
    def raw_stream(index):
        return torch.cuda.current_stream(index).cuda_stream


def contiguous_rows(t):
    return t if t.stride(-1) == 1 else t.contiguous()


def rows_like(t, new=torch.empty_like):
    """new(t), with t's order of dimensions but for rows that overlap: PyTorch then orders dimensions by their strides,
    and the last stride has to be 1."""
    made = new(t)
    return made if made.stride(-1) == 1 or made.shape[-1] <= 1 else new(t, memory_format=torch.contiguous_format)


def said(t):
    return (t.dtype, t.device, t.shape, t.stride()) if isinstance(t, torch.Tensor) else type(t)


def sides(left, right, rows_q, rows_k):
    """A side that bounds no row is -1, which is a faster kernel. Query i of sq sees, of sk keys, those from i + sk -
    sq - left to i + sk - sq + right. The first is most for the last row, sk - 1 - left; the second least for row 0,
    sk - sq + right, which is the last key or beyond it from right = sq - 1 on. `rows_*` are the tensors', which no
    sequence in them is longer than: the result doesn't depend on what a caller says of max_seqlen."""
    for name, side in (("window_left", left), ("window_right", right)):
        if side < -1:  # said here as it is by the library, whose numbers have 32 bits
            raise ValueError(f"{name} is {side}; it must be -1 (unbounded) or more")
    return (-1 if left >= rows_k - 1 else left), (-1 if right >= rows_q - 1 else right)
