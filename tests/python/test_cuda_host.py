# SPDX-License-Identifier: BSD-3-Clause
"""The host's half of a call on CUDA tensors, without a GPU: fake tensors of a CUDA device, and a library that reads
what it is handed. The device's half is what every other file does with its `device`."""

import ctypes

import pytest
import torch
from torch._subclasses import FakeTensor, FakeTensorMode

from flashplus import c_api, forward, frames, library

# Where there is a GPU, PyTorch asks it about streams and devices, and every other file tests the host's half as well.
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="fake CUDA tensors, for machines without a GPU")

STREAM = 0xABC0


class Recorder:
    """In the place of flashplus.library.Library."""

    context = 0x1234

    def __init__(self):
        self.calls, self.status, self.message = [], c_api.OK, ""

    def forward(self, context, address, stream):
        args = c_api.ForwardArgs.from_address(address)
        tensors = {}
        for name in forward._Block.NAMES:
            if at := getattr(args, name):
                t = c_api.DLTensor.from_address(at)
                read = lambda address: [ctypes.c_int64.from_address(address + 8 * i).value for i in range(t.ndim)]
                tensors[name] = (t.device_type, t.device_id, t.code, t.bits, read(t.shape), read(t.strides), t.data)
        self.calls.append(
            (context, stream, args.causal, args.window_left, args.softmax_scale, tensors, args.max_seqlen_k))
        return self.status

    def last_error(self):
        return self.message


@pytest.fixture
def recorder(monkeypatch):
    recorder, pointers = Recorder(), {}
    monkeypatch.setattr(library, "_library", recorder)
    known = frames.Frames()
    monkeypatch.setattr(forward, "_known", known)
    monkeypatch.setattr(forward, "_frames", known.lists)
    monkeypatch.setattr(forward, "_raw_stream", lambda index: STREAM + index)
    monkeypatch.setattr(FakeTensor, "data_ptr", lambda self: pointers.setdefault(id(self), 4096 * (len(pointers) + 1)))
    recorder.pointers = pointers
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield recorder


def cuda(*shape, dtype=torch.bfloat16, index=1):
    mode = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE)
    with torch.utils._python_dispatch._disable_current_modes():
        t = torch.empty(*shape, dtype=dtype, device="meta")
    return FakeTensor(mode, t, torch.device("cuda", index))


def test_dense(recorder):
    q, k = cuda(2, 30, 4, 64), cuda(2, 50, 2, 64)
    slopes = cuda(4, dtype=torch.float32)
    for _ in range(2):  # laid out, and found again
        out, lse = forward.dense(q, k, k, None, slopes, None, True, 7, 0, 0.0, True)
        assert out.device == lse.device == torch.device("cuda", 1)
        context, stream, causal, left, scale, tensors, _ = recorder.calls[-1]
        assert (context, stream, causal, left) == (Recorder.context, STREAM + 1, 1, 7)
        assert ctypes.c_float.from_address(scale).value == 0.125
        wanted = {"q": q, "k": k, "v": k, "o": out, "lse": lse, "alibi_slopes": slopes}
        assert set(tensors) == set(wanted)
        for name, t in wanted.items():
            code, bits = (c_api.DL_BFLOAT, 16) if t.dtype == torch.bfloat16 else (c_api.DL_FLOAT, 32)
            assert tensors[name] == (c_api.DL_CUDA, 1, code, bits, list(t.shape), list(t.stride()),
                                     recorder.pointers[id(t)]), name
    assert len(recorder.calls) == 2 and len(forward._frames) == 1


def test_ragged(recorder):
    q, cu = cuda(30, 4, 64), cuda(3, dtype=torch.int32)
    for longest in (20, 25):
        forward.ragged(q, q, q, None, cu, cu, None, None, longest, longest, 0.5, False, True, -1, -1, 0.0, False)
        _, stream, _, _, _, tensors, max_k = recorder.calls[-1]
        assert stream == STREAM + 1 and max_k == longest
        assert tensors["cu_seqlens_k"] == (c_api.DL_CUDA, 1, c_api.DL_INT, 32, [3], [1], recorder.pointers[id(cu)])
    assert len(forward._frames) == 1


def test_a_device_that_is_too_old(recorder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    recorder.status, recorder.message = c_api.UNSUPPORTED, "no target"
    q = cuda(1, 4, 1, 64)
    with pytest.raises(RuntimeError, match="FlashAttention only supports Ampere GPUs or newer. cuda:1 is Tesla T4"):
        forward.dense(q, q, q, None, None, None, False, -1, -1, 0.0, False)


def test_what_the_library_says_of_a_missing_driver(recorder, monkeypatch):
    """PyTorch has a CUDA tensor and the library no device: its sentence reaches the caller with its status."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    recorder.status, recorder.message = c_api.NO_DEVICE, "cuda: libcuda.so.1 can't be opened"
    q = cuda(1, 4, 1, 64)
    with pytest.raises(library.Error, match="libcuda.so.1 can't be opened") as caught:
        forward.dense(q, q, q, None, None, None, False, -1, -1, 0.0, False)
    assert caught.value.status == c_api.NO_DEVICE


@pytest.mark.parametrize("other", ["cpu", "cuda:0"])
def test_mixed_devices(recorder, other):
    q = cuda(1, 4, 1, 64)
    k = torch.empty(1, 4, 1, 64, dtype=torch.bfloat16) if other == "cpu" else cuda(1, 4, 1, 64, index=0)
    with pytest.raises(RuntimeError, match=f"k must be on CUDA, on the device of q; it is on {other} and q on cuda:1"):
        forward.dense(q, k, k, None, None, None, False, -1, -1, 0.0, False)
    cu = torch.zeros(2, dtype=torch.int32)
    q = cuda(4, 1, 64)
    with pytest.raises(RuntimeError,
                       match="cu_seqlens_q must be on CUDA, on the device of q; it is on cpu and q on cuda:1"):
        forward.ragged(q, q, q, None, cu, cu, None, None, 4, 4, None, False, False, -1, -1, 0.0, False)
    with pytest.raises(RuntimeError, match="FlashAttention only support fp16 and bf16"):
        single = cuda(1, 4, 1, 64, dtype=torch.float32)
        forward.dense(single, single, single, None, None, None, False, -1, -1, 0.0, False)
    assert not recorder.calls
