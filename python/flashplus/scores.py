# SPDX-License-Identifier: BSD-3-Clause
"""The score of a call: its expression, tensors and scalars, and how they lie in the arguments of a C call.

A part of a frame (frames.py): what a score says besides values is in the tuple that frames are found by, and values are
written at every call."""

import ctypes

import torch

from flashplus import c_api, checks, frames


class Score:
    """`text` is an expression of docs/scores.md, `tensors` {name: fp32 tensor} and `scalars` {name: float} what it
    reads. `schedule`: of the forward, "" for a chosen one."""

    __slots__ = ("text", "tensors", "scalars", "schedule", "said")

    def __init__(self, text, tensors, scalars, schedule=""):
        self.text, self.tensors, self.scalars, self.schedule = text, tensors, scalars, schedule
        self.said = (text, schedule, tuple((name, frames.said(t)) for name, t in tensors.items()), tuple(scalars))


class _Loose(ctypes.Structure):
    """A DLTensor with memory for its shape and strides."""
    _fields_ = [("tensor", c_api.DLTensor), ("sizes", ctypes.c_int64 * 8)]


def _loose(t, index):
    block, rank = _Loose(), t.dim()
    block.sizes[:rank], block.sizes[4:4 + rank] = t.shape, t.stride()
    d = block.tensor
    d.device_type, d.device_id = (c_api.DL_CPU, 0) if index < 0 else (c_api.DL_CUDA, index)
    (d.code, d.bits), d.lanes, d.ndim = frames.DTYPES[t.dtype], 1, rank
    d.shape = ctypes.addressof(block) + _Loose.sizes.offset
    d.strides = d.shape + 32
    return block


class Laid:
    """A score in the arguments of `frame`, and where the gradients of some of its inputs go ({name: tensor})."""

    __slots__ = ("loose", "tensors", "scalars", "gradients")

    def __init__(self, frame, score, gradients=None):
        args = frame.args
        for name, t in score.tensors.items():
            _check(name, t, frame.index)
        gradients = gradients or {}
        self.loose = [_loose(t, frame.index) for t in (*score.tensors.values(), *gradients.values())]
        self.tensors = (c_api.ScoreTensor * len(score.tensors))()
        self.scalars = (c_api.ScoreScalar * len(score.scalars))()
        self.gradients = (c_api.ScoreGradient * len(gradients))()
        named = (*zip(self.tensors, score.tensors), *zip(self.gradients, gradients))
        for (item, name), loose in zip(named, self.loose):
            item.name, item.tensor = name.encode(), ctypes.addressof(loose)
        for item, name in zip(self.scalars, score.scalars):
            item.name = name.encode()
        args.score = score.text.encode()
        args.score_tensors, args.num_score_tensors = ctypes.addressof(self.tensors), len(self.tensors)
        args.score_scalars, args.num_score_scalars = ctypes.addressof(self.scalars), len(self.scalars)
        if gradients:
            args.score_gradients, args.num_score_gradients = ctypes.addressof(self.gradients), len(gradients)
        elif score.schedule:
            args.schedule = score.schedule.encode()

    def write(self, score, gradients=None):
        for loose, t in zip(self.loose, (*score.tensors.values(), *(gradients or {}).values())):
            loose.tensor.data = t.data_ptr()
        for item, value in zip(self.scalars, score.scalars.values()):
            item.value = value


def _check(name, t, index):
    """What the DLTensor takes for granted; the rest is said by the library, which knows what the score reads."""
    label = f"tensors[{name!r}]"
    checks.tensor(label, t)
    wanted = "cpu" if index < 0 else f"cuda:{index}"
    if str(t.device) != wanted:
        raise RuntimeError(f"{label} must be on the device of q, {wanted}; it is on {t.device}")
    if t.dtype != torch.float32:
        raise RuntimeError(f"{label} must have dtype torch.float32; it has {t.dtype}")
    if not 1 <= t.dim() <= 4:
        raise RuntimeError(f"{label} must have 1 to 4 dimensions; it has shape {tuple(t.shape)}")


def in_python(message):
    """The library's words with the names that the arguments have here."""
    return message.replace("score_tensors", "tensors").replace("score_scalars", "scalars")
