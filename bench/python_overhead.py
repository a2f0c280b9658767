# SPDX-License-Identifier: BSD-3-Clause
"""What the Python face costs, side by side in one run: calls, first calls, import, warm-up, the size of the wheel.

    PYTHONPATH=python FLASHPLUS_LIBRARY=build/release/bin/libflashplus.so \\
      $(scripts/python_env.py newest) bench/python_overhead.py [--device cuda] [--wheel build/*.whl] [--json FILE]

Prints one row for each row of the table in docs/performance.md, with what is to be reached. On CUDA a call is host
time: it is enqueued, and the device is waited for outside the timed part. On the CPU a call returns when it is done,
so both sides hold the kernel; both allocate the output, whose fresh pages cost more than the face does.

Calls are interleaved in random order and the lower decile is taken, since whatever else runs on the machine only
adds."""

import argparse
import glob
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

import flashplus.startup  # noqa: F401
import torch

import flash_attn
import flashplus
from flashplus import exchange, forward, library

ROWS = []


def row(what, got, reach, unit, note=""):
    verdict = "" if reach is None else "reached" if got <= reach else "NOT reached"
    ROWS.append({"what": what, "got": got, "reach": reach, "unit": unit, "note": note})
    print(f"{what:<72} {got:>9.1f} {unit:<4} {'' if reach is None else f'(<= {reach:g})':<10} {verdict} {note}",
          flush=True)


def decile(times):
    return sorted(times)[len(times) // 10]


def interleaved_us(calls, count, wait=lambda: None):
    """{name: lower decile in microseconds} of calls in random order."""
    times = {name: [] for name in calls}
    order = list(calls.items())
    for i in range(count):
        random.shuffle(order)
        for name, call in order:
            start = time.perf_counter_ns()
            result = call()
            times[name].append((time.perf_counter_ns() - start) / 1000)
            wait()
            del result
    return {name: decile(values[len(values) // 5:]) for name, values in times.items()}


def tensors(shape, device):
    return [torch.randn(*shape).half().to(device) for _ in range(3)]


def through_the_c_api(q, k, v):
    """flash_attn_func's C call alone, with arguments that are laid out already and an output that is allocated anew."""
    forward.dense(q, k, v, None, None, None, False, -1, -1, 0.0, False)
    (frame,) = (frames[-1] for call, frames in forward._frames.items() if call[6] == q.shape and frames)
    frame.home.remove(frame)  # nobody else writes into it now
    frame.q.data, frame.k.data, frame.v.data = q.data_ptr(), k.data_ptr(), v.data_ptr()
    lib = library.get()
    address, context, function, o = frame.address, lib.context, lib.forward, frame.o
    stream = torch.cuda.current_stream().cuda_stream if q.is_cuda else None

    def call():
        out = torch.empty_like(q)
        o.data = out.data_ptr()
        function(context, address, stream)
        return out

    return call


def calls(device):
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    sdpa = torch.nn.functional.scaled_dot_product_attention
    q, k, v = tensors((1, 128, 4, 64) if device == "cuda" else (1, 1, 1, 64), device)
    heads_first = [t.transpose(1, 2) for t in (q, k, v)]
    got = interleaved_us({"ours": lambda: flash_attn.flash_attn_func(q, k, v), "sdpa": lambda: sdpa(*heads_first),
                          "C API": through_the_c_api(q, k, v)}, 4000, wait)
    on = f"{tuple(q.shape)} on {device}"
    on_a_cache(device, wait)
    row(f"one small call, {on}", got["ours"], 10 if device == "cuda" else None, "us")
    row("  PyTorch's scaled_dot_product_attention", got["sdpa"], None, "us")
    row("  through the C API, output allocated", got["C API"], None, "us")
    if device == "cpu":
        for seqlen, count, reach in ((256, 1000, None), (1024, 300, 20)):
            ours, c_api, kernel = around_the_kernel_us(tensors((1, seqlen, 1, 64), device), count)
            row(
                f"a call beyond the C API, (1, {seqlen}, 1, 64)", ours - c_api, reach, "us",
                f"{ours:.1f} us of it are not in the library, of the C API's {c_api:.1f}; the library takes "
                f"{kernel:.0f}"
            )
        # The same Python code after as long a wait that touches no memory: what it is here came into the row above
        # from other processes, which took the caches in the meantime.
        row("  of that, what other processes on this machine add",
            after_a_pause_us(kernel, q, k, v) - got["ours"], None, "us")


def on_a_cache(device, wait):
    """Decoding from a paged cache, without and with an append, beside a forward of the same q."""
    q, k, v = tensors((1, 1, 1, 64), device)
    k_cache, v_cache, _ = tensors((4, 16, 1, 64), device)
    cos, sin, _ = tensors((16, 32), device)
    lengths, table = (torch.full(shape, n, dtype=torch.int32, device=device) for shape, n in (((1,), 8), ((1, 1), 2)))
    read = {"cache_seqlens": lengths, "block_table": table, "causal": True}
    append = {**read, "k": k, "v": v, "rotary_cos": cos, "rotary_sin": sin}
    attend = flash_attn.flash_attn_with_kvcache
    got = interleaved_us({"forward": lambda: flash_attn.flash_attn_func(q, k, v, causal=True),
                          "read": lambda: attend(q, k_cache, v_cache, **read),
                          "append": lambda: attend(q, k_cache, v_cache, **append)}, 3000, wait)
    reach = got["forward"] + 2 if device == "cuda" else None  # on the CPU the kernels of an append are in it
    row(f"decoding from a paged cache, one row on {device}", got["read"], reach, "us",
        f"a forward of that row: {got['forward']:.1f} us")
    row("  with an append and rotary", got["append"], reach, "us")


def around_the_kernel_us(qkv, count):
    """(what a call of ours takes outside of the library, the same of a C call with an output allocated, what the
    library takes): medians, interleaved. The kernel's own time, which varies by more than all else here, is measured
    in each call and taken away; what it does to the caches is not."""
    inside = 0

    def timed(function):
        def call(*arguments):
            nonlocal inside
            start = time.perf_counter_ns()
            status = function(*arguments)
            inside = time.perf_counter_ns() - start
            return status
        return call

    lib = library.get()
    untimed = lib.forward, getattr(lib, "forward_python", None)
    lib.forward, lib.forward_python = (function and timed(function) for function in untimed)
    try:
        calls = [lambda: flash_attn.flash_attn_func(*qkv), through_the_c_api(*qkv)]
        times, kernel = ([], []), []
        for i in range(count):
            for which in random.sample((0, 1), 2):
                start = time.perf_counter_ns()
                result = calls[which]()
                times[which].append((time.perf_counter_ns() - start - inside) / 1000)
                kernel.append(inside / 1000)
                del result
    finally:
        lib.forward, lib.forward_python = untimed
    return *(statistics.median(t[count // 5:]) for t in times), statistics.median(kernel)


def after_a_pause_us(pause, q, k, v):
    times = []
    for _ in range(200):
        start = time.perf_counter_ns()
        while time.perf_counter_ns() - start < pause * 1000:
            pass
        start = time.perf_counter_ns()
        flash_attn.flash_attn_func(q, k, v)
        times.append((time.perf_counter_ns() - start) / 1000)
    return decile(times)


def new_process(code, **environment):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**os.environ, **environment})
    if done.returncode:
        sys.exit(done.stderr)
    return [float(word) for word in done.stdout.split()]


def import_ms(rounds=9):
    code = ("import time, torch; a = time.perf_counter(); import flashplus.startup, flash_attn; "
            "print((time.perf_counter() - a) * 1000)")
    times = [new_process(code)[0] for _ in range(rounds)]
    row("import flash_attn beyond import torch", statistics.median(times), 50, "ms")


def first_call_ms(device, cache, rounds):
    """From before `import flash_attn` to the end of the first call, in a new process where PyTorch has started."""
    code = (
        "import time, torch; q = torch.ones(1, 128, 4, 64).half().to(DEVICE); wait = torch.cuda.synchronize if "
        "q.is_cuda "
        "else (lambda: 0); (q @ q.mT).sum(); wait(); a = time.perf_counter(); import flashplus.startup, flash_attn; "
        "b = time.perf_counter(); flash_attn.flash_attn_func(q, q, q); wait(); c = time.perf_counter(); "
        "print((b - a) * 1000, (c - b) * 1000)").replace("DEVICE", repr(device))
    return [
        statistics.median(column)
        for column in zip(*(new_process(code, FLASHPLUS_CACHE_DIR=cache) for _ in range(rounds)))
    ]


def first_calls(device):
    with tempfile.TemporaryDirectory() as folder:
        cold = [first_call_ms(device, os.path.join(folder, str(i)), 1)[1] for i in range(3)]
        row(f"first call in a new process on {device}, nothing in the cache", statistics.median(cold), 700, "ms")
        first_call_ms(device, folder, 1)
        imported, called = first_call_ms(device, folder, 7)
        row(f"first call in a new process on {device}, from the cache", called, 30, "ms",
            f"after {imported:.1f} ms of import")


def after_the_warm_up_loop(device):
    q, k, v = tensors((16, 512, 8, 96), device)
    for _ in range(3):
        flash_attn.flash_attn_func(q[:1], k[:1], v[:1], causal=True)
    before = flashplus.counters()["compiles"]
    flash_attn.flash_attn_func(q, k, v, causal=True)
    row("kernels compiled by the full batch after q[:1] calls", flashplus.counters()["compiles"] - before, 0, "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--wheel", help="its size is a row")
    parser.add_argument("--json", help="the rows go there too")
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device == "cuda" else f"{torch.get_num_threads()} threads"
    print(
        f"{options.device} ({name}), torch {torch.__version__} ({'with' if exchange._API else 'without'} DLPack's "
        "exchange API), "
        f"Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}")
    with torch.no_grad():
        calls(options.device)
        first_calls(options.device)
        import_ms()
        after_the_warm_up_loop(options.device)
    if options.wheel:
        for path in glob.glob(options.wheel):
            row("size of the wheel", os.path.getsize(path) / 2**20, 25, "MiB")
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"device": options.device, "name": name, "torch": torch.__version__, "rows": ROWS}, file,
                      indent=1)


if __name__ == "__main__":
    main()
