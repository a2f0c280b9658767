# SPDX-License-Identifier: BSD-3-Clause
"""Calls that hand PyTorch's tensors to the library as they are, through DLPack's C exchange API (PyTorch 2.10 and
later).

flashplus_forward_python reads shapes, strides and pointers itself, so such a call costs some 2 us less than one that
asks for them from Python (forward.py), which serves older PyTorch and everything that is not here.
flashplus_forward_python_tuple does so for attention on a cache, whatever tensors it has (kvcache.py else), and for a
forward that is trained; flashplus_backward_python_tuple for gradients (backward.py)."""

import ctypes
import threading

import torch

from flashplus import c_api, fork, library

_KEPT = 256  # kinds of calls; the first seen goes first
_lock = fork.Lock(threading.RLock)  # re-entered by a finaliser
calls = {}  # {all that a caller said besides tensors, see remember(): Call}
cache_calls = {}  # the same of attention on a cache, see remember_cache()

# The same of a forward with its LSE, see remember_training(), and of a backward, see remember_backward().
training_calls, backward_calls = {}, {}

# What the items of the tuples are.
CACHE_TENSORS = ("q", "k", "v", "o", "lse", "seqused_k", "cache_batch_idx", "leftpad_k", "block_table", "alibi_slopes",
                 "cu_seqlens_q", "k_new", "v_new", "rotary_cos", "rotary_sin", "rotary_seqlens", "cu_seqlens_k_new",
                 "cu_seqlens_k", "sinks")


TRAINING_TENSORS = ("q", "k", "v", "o", "lse", "alibi_slopes", "rng_state")
BACKWARD_TENSORS = ("q", "k", "v", "o", "dout", "lse", "dlse", "dq", "dk", "dv", "delta", "cu_seqlens_q",
                    "cu_seqlens_k", "seqused_q", "seqused_k", "alibi_slopes", "rng_state", "dalibi_slopes")


class Call:
    """A flashplus_python_call at `address`. Nothing writes into it, so threads share it; who uses the address holds the
    object."""

    __slots__ = ("block", "address")

    def __init__(self, block):
        self.block, self.address = block, ctypes.addressof(block)


class _Block(ctypes.Structure):
    _fields_ = [("call", c_api.PythonCall), ("args", c_api.ForwardArgs), ("scale", ctypes.c_float)]


class _BackwardBlock(ctypes.Structure):
    _fields_ = [("call", c_api.PythonCall), ("args", c_api.BackwardArgs), ("scale", ctypes.c_float)]


def _fields(arguments, names):
    return (ctypes.c_size_t * len(names))(*(getattr(arguments, name).offset for name in names))


_CACHE_FIELDS = _fields(c_api.ForwardArgs, CACHE_TENSORS)
_TRAINING_FIELDS = _fields(c_api.ForwardArgs, TRAINING_TENSORS)
_BACKWARD_FIELDS = _fields(c_api.BackwardArgs, BACKWARD_TENSORS)


def _exchange_api():
    """Address of PyTorch's DLPackExchangeAPI; None if it has none."""
    capsule = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    if capsule is None:
        return None
    pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object,
                                ctypes.c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))
    try:
        return pointer(capsule, b"dlpack_exchange_api")
    except ValueError:  # a capsule of another name
        return None


def _address(function):
    return ctypes.cast(getattr(ctypes.pythonapi, function), ctypes.c_void_p).value


_API = _exchange_api()


def remember(key):
    """Puts what was said of a call that went well into `calls`, if calls like it can go this way: (dropout_p,
    softmax_scale, causal, window_size, softcap, alibi_slopes, return_attn_probs) as the caller gave them. Only plain
    numbers: what is found under such a key later is equal to it, and so means the same (1 and True; NumPy's
    float64(0.5) and 0.5)."""
    dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, return_attn_probs = key
    if (_API is None or dropout_p or alibi_slopes is not None or return_attn_probs or type(causal) is not bool
            or type(softcap) is not float or type(softmax_scale) not in (float, type(None))
            or type(window_size) is not tuple or window_size != (-1, -1)):
        return
    _keep(calls, key, _lay_out(softmax_scale, causal, softcap))


def remember_cache(key):
    """remember(), of (softmax_scale, causal, window_size, softcap, rotary_interleaved, num_splits, lse_empty)."""
    softmax_scale, causal, window_size, softcap, rotary_interleaved, num_splits, lse_empty = key
    if (_API is None or type(causal) is not bool or type(softcap) is not float or type(num_splits) is not int
            or type(rotary_interleaved) is not bool or type(softmax_scale) not in (float, type(None))
            or type(window_size) is not tuple or not all(type(side) is int for side in window_size)):
        return
    block = _lay_out(softmax_scale, causal, softcap, window_size)
    args = block.args
    args.rotary_interleaved, args.num_splits, args.lse_empty = rotary_interleaved, num_splits, lse_empty
    _say_fields(block.call, _CACHE_FIELDS)
    _keep(cache_calls, key, block)


def remember_training(key):
    """remember(), of (softmax_scale, causal, window_left, window_right, softcap, lse_empty, num_splits, dropout_p),
    which are plain numbers already."""
    softmax_scale, causal, left, right, softcap, lse_empty, num_splits, dropout_p = key
    if _API is not None:
        block = _lay_out(softmax_scale, causal, softcap, (left, right))
        block.args.num_splits, block.args.lse_empty, block.args.dropout_p = num_splits, lse_empty, dropout_p
        _say_fields(block.call, _TRAINING_FIELDS)
        _keep(training_calls, key, block)


def remember_backward(key):
    """remember(), of (softmax_scale, causal, window_left, window_right, softcap, dropout_p, any_order), which are plain
    numbers already."""
    softmax_scale, causal, left, right, softcap, dropout_p, any_order = key
    if _API is not None:
        block = _lay_out(softmax_scale, causal, softcap, (left, right), _BackwardBlock)
        block.args.dropout_p, block.args.any_order = dropout_p, any_order
        block.call.backward_args, block.call.args = block.call.args, None
        _say_fields(block.call, _BACKWARD_FIELDS)
        _keep(backward_calls, key, block)


def _say_fields(call, fields):
    call.fields, call.num_fields = ctypes.addressof(fields), len(fields)
    call.tuple_item, call.none = _address("PyTuple_GetItem"), id(None)


def _keep(kept, key, block):
    call = Call(block)
    with _lock:
        if len(kept) >= _KEPT:
            del kept[next(iter(kept))]
        kept[key] = call


def _lay_out(softmax_scale, causal, softcap, window_size=None, kind=_Block):
    block = kind()
    args = block.args
    args.struct_size = ctypes.sizeof(args)
    if softmax_scale is not None:
        block.scale = softmax_scale
        args.softmax_scale = ctypes.addressof(block) + kind.scale.offset
    args.causal, args.softcap = causal, max(softcap, 0.0)
    if window_size is not None:
        args.has_window = 1
        args.window_left, args.window_right = window_size
    call = block.call
    call.struct_size = ctypes.sizeof(c_api.PythonCall)
    call.context = library.get().context
    call.args = ctypes.addressof(block) + kind.args.offset
    call.exchange_api = _API
    call.save_thread, call.restore_thread = _address("PyEval_SaveThread"), _address("PyEval_RestoreThread")
    return block
