# SPDX-License-Identifier: BSD-3-Clause
"""The few calls of libflashplus.so that the benchmarks need, over ctypes and torch tensors."""
import ctypes
import math
import pathlib


class DLDevice(ctypes.Structure):
    _fields_ = [("device_type", ctypes.c_int), ("device_id", ctypes.c_int32)]


class DLDataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class DLTensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device", DLDevice), ("ndim", ctypes.c_int32), ("dtype", DLDataType),
                ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
                ("byte_offset", ctypes.c_uint64)]


_P = ctypes.POINTER(DLTensor)
WORKSPACE_ALIGNMENT = 256  # bytes, of flashplus_plan_run


class ForwardArgs(ctypes.Structure):
    """flashplus_forward_args; the library's struct_size check fails when this falls behind."""
    _fields_ = [("struct_size", ctypes.c_size_t), ("q", _P), ("k", _P), ("v", _P), ("o", _P), ("lse", _P),
                ("cu_seqlens_q", _P), ("cu_seqlens_k", _P), ("seqused_q", _P), ("seqused_k", _P),
                ("max_seqlen_q", ctypes.c_int64), ("max_seqlen_k", ctypes.c_int64),
                ("softmax_scale", ctypes.POINTER(ctypes.c_float)), ("causal", ctypes.c_int32),
                ("window_left", ctypes.c_int32), ("window_right", ctypes.c_int32), ("lse_empty", ctypes.c_float),
                ("softcap", ctypes.c_float), ("alibi_slopes", _P), ("score", ctypes.c_char_p),
                ("score_tensors", ctypes.c_void_p), ("num_score_tensors", ctypes.c_int32),
                ("score_scalars", ctypes.c_void_p), ("num_score_scalars", ctypes.c_int32),
                ("num_splits", ctypes.c_int32), ("batch_invariant", ctypes.c_int32),
                ("tile_counter", ctypes.c_void_p), ("schedule", ctypes.c_char_p), ("has_window", ctypes.c_int32),
                ("reserved", ctypes.c_int32)]


def dltensor(tensor):
    """A DLTensor that borrows the tensor's memory; keep both alive."""
    import torch
    code, bits = {torch.float16: (2, 16), torch.bfloat16: (4, 16), torch.float32: (2, 32),
                  torch.int32: (0, 32)}[tensor.dtype]
    n = tensor.dim()
    out = DLTensor(tensor.data_ptr(), DLDevice(2 if tensor.is_cuda else 1, tensor.device.index or 0), n,
                   DLDataType(code, bits, 1), (ctypes.c_int64 * n)(*tensor.shape),
                   (ctypes.c_int64 * n)(*tensor.stride()), 0)
    out.keep = tensor
    return out


class Library:
    def __init__(self, path, cache_dir=None):
        self.lib = ctypes.CDLL(str(pathlib.Path(path).resolve()))
        self.lib.flashplus_last_error.restype = ctypes.c_char_p
        self.lib.flashplus_plan_workspace.restype = ctypes.c_size_t
        self.lib.flashplus_plan_describe.restype = ctypes.c_char_p
        self.context = ctypes.c_void_p()
        if cache_dir is not None:
            import os
            os.environ["FLASHPLUS_CACHE_DIR"] = str(cache_dir)
        self.check(self.lib.flashplus_context_create(None, ctypes.byref(self.context)))

    def check(self, status):
        if status:
            raise RuntimeError(self.lib.flashplus_last_error().decode())

    def forward(self, q, k, v, causal=False, window=(-1, -1), softcap=0.0, scale=None, cu_seqlens=None, max_seqlen=0,
                schedule=None, num_splits=0, lse=False, alibi=None):
        """Plans once; returns (o, lse, run), where run() enqueues the kernel on torch's current stream."""
        import torch
        o = torch.full((*q.shape[:-1], v.shape[-1]), math.nan, dtype=q.dtype, device=q.device)
        statistics = None
        if lse:
            shape = (q.shape[1], q.shape[0]) if cu_seqlens is not None else (q.shape[0], q.shape[2], q.shape[1])
            statistics = torch.full(shape, math.nan, dtype=torch.float32, device=q.device)
        tensors = {"q": q, "k": k, "v": v, "o": o, "lse": statistics, "cu_seqlens_q": cu_seqlens,
                   "cu_seqlens_k": cu_seqlens, "alibi_slopes": alibi}
        held = {name: dltensor(t) for name, t in tensors.items() if t is not None}
        args = ForwardArgs(struct_size=ctypes.sizeof(ForwardArgs), causal=int(causal), has_window=1,
                           window_left=window[0], window_right=window[1], softcap=softcap, num_splits=num_splits,
                           max_seqlen_q=max_seqlen, max_seqlen_k=max_seqlen)
        for name, t in held.items():
            setattr(args, name, ctypes.pointer(t))
        if scale is not None:
            held["scale"] = ctypes.c_float(scale)
            args.softmax_scale = ctypes.pointer(held["scale"])
        if schedule:
            args.schedule = schedule.encode()
        plan = ctypes.c_void_p()
        self.check(self.lib.flashplus_plan_create(self.context, ctypes.byref(args), ctypes.byref(plan)))
        size = self.lib.flashplus_plan_workspace(plan)
        # PyTorch aligns memory of the CPU to 64 bytes only.
        workspace = torch.zeros(size + WORKSPACE_ALIGNMENT, dtype=torch.uint8, device=q.device)
        aligned = workspace.data_ptr() + -workspace.data_ptr() % WORKSPACE_ALIGNMENT

        def run():
            stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream if q.is_cuda else 0)
            self.check(
                self.lib.flashplus_plan_run(plan, ctypes.byref(args), ctypes.c_void_p(aligned), ctypes.c_size_t(size),
                                            stream))

        run.held = (held, workspace, plan)
        run.description = self.lib.flashplus_plan_describe(plan).decode()
        return o, statistics, run
