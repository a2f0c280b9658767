# SPDX-License-Identifier: BSD-3-Clause
"""What the Python face costs: import time, and a call against the same call through the C API.

    PYTHONPATH=python FLASHPLUS_LIBRARY=build/release/bin/libflashplus.so \\
      $(scripts/python_env.py newest) bench/python_overhead.py [--device cuda]

On the CPU a call returns when it is done, so both sides hold the kernel, and the difference of their medians is the face.
On CUDA it is host time: calls are enqueued, and the device is waited for outside the timed part."""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

import flashplus.startup  # noqa: F401
import torch

import flash_attn
from flashplus import forward, library


def median_us(call, count, wait=lambda: None):
    times = []
    for _ in range(count):
        start = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - start) / 1000)
        wait()
    return statistics.median(times)


def compare(shape, device, count, rounds=7):
    """(through flash_attn_func, through the C API) in microseconds; medians, alternating."""
    q, k, v = (torch.randn(*shape).half().to(device) for _ in range(3))
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    face = lambda: flash_attn.flash_attn_func(q, k, v)
    out = face()
    pool = forward._pools[(q.dtype, q.get_device(), 4)]
    frame, lib = pool[-1], library.get()
    frame.o.data = out.data_ptr()
    stream = torch.cuda.current_stream().cuda_stream if device == "cuda" else None
    address, context, function = frame.address, lib.context, lib.forward
    direct = lambda: function(context, address, stream)
    pool.remove(frame)  # nobody else writes into it now
    pairs = [(median_us(face, count, wait), median_us(direct, count, wait)) for _ in range(rounds)]
    return tuple(statistics.median(column) for column in zip(*pairs))


def import_ms(rounds=11):
    """(import torch, import torch and flash_attn) in milliseconds, each in new processes."""
    code = ("import time; a = time.perf_counter(); import torch; b = time.perf_counter(); import flashplus.startup, flash_attn; "
            "c = time.perf_counter(); print((b - a) * 1000, (c - b) * 1000)")
    rows = [[float(x) for x in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()]
            for _ in range(rounds)]
    return tuple(statistics.median(column) for column in zip(*rows))


def first_call_ms(device, cache, rounds):
    """From before `import flash_attn` to the end of the first call, in a new process where torch has started."""
    code = ("import time, torch; q = torch.ones(1, 128, 4, 64).half().to(DEVICE); wait = torch.cuda.synchronize if q.is_cuda "
            "else (lambda: 0); (q @ q.mT).sum(); wait(); a = time.perf_counter(); import flashplus.startup, flash_attn; "
            "flash_attn.flash_attn_func(q, q, q); wait(); print((time.perf_counter() - a) * 1000)").replace("DEVICE", repr(device))
    run = lambda: float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                                       env={**os.environ, "FLASHPLUS_CACHE_DIR": cache}).stdout)
    return statistics.median(run() for _ in range(rounds))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    device = parser.parse_args().device
    torch_ms, ours_ms = import_ms()
    print(f"import torch {torch_ms:.0f} ms, then import flash_attn {ours_ms:.1f} ms")
    with tempfile.TemporaryDirectory() as cache:
        cold = first_call_ms(device, cache, 1)
        print(f"first call in a process, import included: {cold:.0f} ms with nothing in the cache, "
              f"{first_call_ms(device, cache, 7):.1f} ms from the cache")
    with torch.no_grad():
        for shape, count in (((1, 1, 1, 64), 5000), ((1, 128, 4, 64), 500), ((1, 1024, 1, 64), 60)):
            face, direct = compare(shape, device, count)
            print(f"{shape}: {face:.1f} us through flash_attn_func, {direct:.1f} us through the C API, {face - direct:+.1f} us")


if __name__ == "__main__":
    main()
