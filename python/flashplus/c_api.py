# SPDX-License-Identifier: BSD-3-Clause
"""The structs of flashplus.h and dlpack.h as ctypes. tests/python/test_c_api.py compares them with the headers."""

import ctypes
from ctypes import (POINTER, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_uint8, c_uint16, c_uint64,
                    c_void_p)

OK = 0
INVALID_ARGUMENT = 1
UNSUPPORTED = 2
NO_DEVICE = 3
OUT_OF_MEMORY = 4
COMPILE_FAILED = 5
NOT_RESIDENT = 6
DEVICE_ERROR = 7
IO_ERROR = 8
INTERNAL = 9
TIMED_OUT = 10
COMPILER_CRASHED = 11

DL_CPU = 1
DL_CUDA = 2
DL_INT = 0
DL_FLOAT = 2
DL_BFLOAT = 4

LOG = ctypes.CFUNCTYPE(None, c_void_p, c_char_p)


class DLTensor(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("device_type", c_int32), ("device_id", c_int32), ("ndim", c_int32),
                ("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16), ("shape", c_void_p), ("strides", c_void_p),
                ("byte_offset", c_uint64)]


class ContextOptions(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("cache_dir", c_char_p), ("compiler_path", c_char_p),
                ("num_threads", c_int32), ("offline", c_int32), ("parallel_for", c_void_p), ("pool", c_void_p),
                ("pool_threads", c_int32), ("log", LOG), ("log_context", c_void_p), ("listener", c_void_p),
                ("listener_context", c_void_p), ("cache_optional", c_int32),
                ("compile_in_process", c_int32), ("compile_bytes", c_int64), ("compile_seconds", c_int32),
                ("reserved", c_int32)]


class Counters(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("memory_hits", c_int64), ("disk_hits", c_int64), ("compiles", c_int64),
                ("corrupt", c_int64), ("publish_failures", c_int64), ("compile_ms", c_double), ("load_ms", c_double),
                ("miss_absent", c_int64), ("miss_damaged", c_int64), ("miss_unreadable", c_int64),
                ("miss_refused", c_int64), ("compile_failures", c_int64), ("fallbacks", c_int64),
                ("build_ms", c_double), ("passes_ms", c_double), ("optimize_ms", c_double), ("emit_ms", c_double),
                ("assemble_ms", c_double), ("resident_kernels", c_int64), ("resident_bytes", c_int64),
                ("warnings", c_int64), ("late_compiles", c_int64), ("evicted", c_int64)]


class ForwardArgs(ctypes.Structure):
    # All zero after struct_size is full attention. A library that is newer than this takes the fields that it has
    # more as 0; one that is older refuses those that are not (struct_size).
    _fields_ = [("struct_size", c_size_t), ("q", c_void_p), ("k", c_void_p), ("v", c_void_p), ("o", c_void_p),
                ("lse", c_void_p), ("cu_seqlens_q", c_void_p), ("cu_seqlens_k", c_void_p), ("seqused_q", c_void_p),
                ("seqused_k", c_void_p), ("max_seqlen_q", c_int64), ("max_seqlen_k", c_int64),
                ("softmax_scale", c_void_p), ("causal", c_int32), ("window_left", c_int32), ("window_right", c_int32),
                ("lse_empty", c_float), ("softcap", c_float), ("alibi_slopes", c_void_p), ("score", c_char_p),
                ("score_tensors", c_void_p), ("num_score_tensors", c_int32), ("score_scalars", c_void_p),
                ("num_score_scalars", c_int32), ("num_splits", c_int32), ("batch_invariant", c_int32),
                ("tile_counter", c_void_p), ("schedule", c_char_p), ("has_window", c_int32), ("reserved", c_int32),
                ("block_table", c_void_p), ("page_indptr", c_void_p), ("page_indices", c_void_p),
                ("cache_batch_idx", c_void_p), ("leftpad_k", c_void_p), ("k_new", c_void_p), ("v_new", c_void_p),
                ("cu_seqlens_k_new", c_void_p), ("slot_mapping", c_void_p), ("rotary_cos", c_void_p),
                ("rotary_sin", c_void_p), ("rotary_seqlens", c_void_p), ("rotary_interleaved", c_int32),
                ("max_seqlen_k_new", c_int32),
                ("rng_state", c_void_p), ("dropout_seed", c_uint64), ("dropout_offset", c_uint64),
                ("dropout_p", c_float), ("reserved2", c_int32), ("sinks", c_void_p),
                ("lse_without_sinks", c_int32), ("reserved3", c_int32)]


class BackwardArgs(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("q", c_void_p), ("k", c_void_p), ("v", c_void_p), ("o", c_void_p),
                ("lse", c_void_p), ("dout", c_void_p), ("dq", c_void_p), ("dk", c_void_p), ("dv", c_void_p),
                ("dlse", c_void_p), ("delta", c_void_p), ("cu_seqlens_q", c_void_p), ("cu_seqlens_k", c_void_p),
                ("seqused_q", c_void_p), ("seqused_k", c_void_p), ("max_seqlen_q", c_int64), ("max_seqlen_k", c_int64),
                ("softmax_scale", c_void_p), ("causal", c_int32), ("window_left", c_int32), ("window_right", c_int32),
                ("softcap", c_float), ("alibi_slopes", c_void_p), ("score", c_char_p), ("score_tensors", c_void_p),
                ("score_scalars", c_void_p), ("num_score_tensors", c_int32), ("num_score_scalars", c_int32),
                ("tile_counter", c_void_p), ("schedule", c_char_p), ("has_window", c_int32), ("reserved", c_int32),
                ("rng_state", c_void_p), ("dropout_seed", c_uint64), ("dropout_offset", c_uint64),
                ("dropout_p", c_float), ("reserved2", c_int32), ("dalibi_slopes", c_void_p), ("dsoftcap", c_void_p),
                ("score_gradients", c_void_p), ("num_score_gradients", c_int32), ("any_order", c_int32)]


class ScoreTensor(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("tensor", c_void_p)]


class ScoreScalar(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("value", c_float)]


class ScoreGradient(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("tensor", c_void_p)]


class MergeArgs(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("o_a", c_void_p), ("lse_a", c_void_p), ("o_b", c_void_p),
                ("lse_b", c_void_p), ("o", c_void_p), ("lse", c_void_p)]


class DropoutMaskArgs(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("seed", c_uint64), ("offset", c_uint64), ("batch", c_int64),
                ("heads", c_int64), ("rows", c_int64), ("keys", c_int64), ("first_batch", c_int64),
                ("dropout_p", c_float), ("reserved", c_int32)]


class PythonCall(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("context", c_void_p), ("args", c_void_p), ("exchange_api", c_void_p),
                ("save_thread", c_void_p), ("restore_thread", c_void_p), ("fields", c_void_p),
                ("num_fields", c_int64), ("tuple_item", c_void_p), ("none", c_void_p), ("backward_args", c_void_p)]


def declare(library):
    """Sets the types of the functions used."""
    for name, result, arguments in [
        ("flashplus_version", c_char_p, []),
        ("flashplus_last_error", c_char_p, []),
        ("flashplus_status_name", c_char_p, [c_int32]),
        ("flashplus_context_create", c_int32, [POINTER(ContextOptions), POINTER(c_void_p)]),
        ("flashplus_get_counters", c_int32, [c_void_p, POINTER(Counters)]),
        ("flashplus_mark_ready", c_int32, [c_void_p, c_int32]),
        ("flashplus_drop_idle_kernels", c_int32, [c_void_p, POINTER(c_int64)]),
        ("flashplus_describe", c_int32, [c_void_p, POINTER(c_char_p)]),
        ("flashplus_forward", c_int32, [c_void_p, c_void_p, c_void_p]),
        ("flashplus_backward", c_int32, [c_void_p, c_void_p, c_void_p]),
        ("flashplus_merge_states", c_int32, [c_void_p, c_void_p, c_void_p]),
        ("flashplus_dropout_mask", c_int32, [POINTER(DropoutMaskArgs), c_void_p]),
    ]:
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
