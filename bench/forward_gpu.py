#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Forward attention on one GPU: ours, PyTorch SDPA's cuDNN and FlashAttention-2 backends, FlashAttention-3 where it is
installed, and a bf16 GEMM, interleaved round by round in one process, so that clocks and power are the same for all.
Prints a table; --json keeps every figure. The best peer is the faster of FlashAttention-3 and cuDNN, measured here;
without FlashAttention-3, its ratio to cuDNN is taken from earlier runs on an H200.

    python bench/forward_gpu.py --library build/release/bin/libflashplus.so --json bench/results/h200.json

--softcap C gives ours and FlashAttention-3 a softcap and leaves the other attention peers out.
With --plot FILE.svg --flashplus PATH the command draws the result; `flashplus bench --plot ... --overlay FILE` lays
several over each other.

Figures are TFLOP/s of 4 B H Sq Sk D visible operations (half for causal), medians over rounds. Each entry is checked
against fp32 attention of a few heads before it is timed.
"""
import argparse
import importlib
import json
import math
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import flashplus_ctypes

TOKENS, HIDDEN = 16384, 2048
# The best of FlashAttention-3 and cuDNN, in units of cuDNN, by (head dim, causal) and S 512 ... 16384: medians of two
# interleaved, sustained runs on an H200.
BEST_PEER = {
    (64, False): (1.00, 1.00, 1.08, 1.14, 1.23, 1.22), (64, True): (1.00, 1.00, 1.08, 1.13, 1.22, 1.23),
    (128, False): (1.00, 1.06, 1.10, 1.10, 1.14, 1.13), (128, True): (1.00, 1.11, 1.31, 1.32, 1.34, 1.37),
    (256, False): (1.00, 1.09, 1.11, 1.17, 1.17, 1.15), (256, True): (1.00, 1.09, 1.24, 1.33, 1.35, 1.40)}
FA3_MODULES = ("flash_attn_interface", "fa3_fwd_interface")
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)


def flash_attention_3():
    """Its forward function, or None, and then why."""
    reasons = []
    for name in FA3_MODULES:
        try:
            return importlib.import_module(name).flash_attn_func
        except ImportError as e:
            reasons.append(str(e))
    print(f"FlashAttention-3 is not measured: {'; '.join(reasons)}")
    return None


def check(o, q, k, v, causal, softcap):
    """Largest error over the error of the same maths done naively in the storage dtype, of one (batch, head)."""
    head = q.shape[2] // 2
    sl = [t[-1, :, head].float() for t in (q, k, v)]
    cap = (lambda x: softcap * torch.tanh(x / softcap)) if softcap else lambda x: x
    scores = cap(sl[0] @ sl[1].T / math.sqrt(q.shape[-1]))
    if causal:
        scores.masked_fill_(torch.ones_like(scores, dtype=torch.bool).triu(1), -math.inf)
    exact = torch.softmax(scores, -1) @ sl[2]
    low = [t[-1, :, head] for t in (q, k, v)]
    naive = cap(low[0] @ low[1].T / math.sqrt(q.shape[-1]))
    if causal:
        naive.masked_fill_(torch.ones_like(scores, dtype=torch.bool).triu(1), -math.inf)
    naive = torch.softmax(naive, -1) @ low[2]
    error = (o[-1, :, head].float() - exact).abs().max().item()
    allowed = (naive.float() - exact).abs().max().item()
    if not math.isfinite(o.float().sum().item()):
        return math.inf
    return error / allowed


def rounds(entries, count, milliseconds):
    """Times every entry once a round, each for about `milliseconds`; returns name -> seconds a call, one a round."""
    calls, times = {}, {name: [] for name in entries}
    for name, run in entries.items():
        for _ in range(3):
            run()
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        calls[name] = max(3, int(milliseconds / 1000 / max(time.perf_counter() - start, 1e-5)))
    for _ in range(count):
        for name, run in entries.items():
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            for _ in range(calls[name]):
                run()
            end.record()
            end.synchronize()
            times[name].append(begin.elapsed_time(end) / 1000 / calls[name])
    return times


def gpu_facts():
    query = "name,driver_version,clocks.sm,clocks.mem,power.draw,temperature.gpu"
    text = subprocess.run(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], capture_output=True,
                          text=True).stdout.strip()
    return dict(zip(query.split(","), text.split(", ")))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True)
    parser.add_argument("--cache-dir")
    parser.add_argument("--json")
    parser.add_argument("--head-dims", default="64,128,256")
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
    parser.add_argument("--causal", default="no,yes")
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "fp16"])
    parser.add_argument("--softcap", type=float, default=0,
                        help="of ours and FlashAttention-3; the other peers have none")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--milliseconds", type=float, default=15)
    parser.add_argument("--peers", default="cudnn,fa2,fa3,gemm")
    parser.add_argument("--plot", help="draw the result to this SVG; needs --json and --flashplus")
    parser.add_argument("--flashplus", help="path of the command flashplus")
    parser.add_argument("--schedule", action="append", default=[], help="compare these schedules too (repeatable)")
    options = parser.parse_args()
    if options.plot and not (options.json and options.flashplus):
        parser.error("--plot needs --json and --flashplus")
    library = flashplus_ctypes.Library(options.library, options.cache_dir)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[options.dtype]
    peers = [p for p in options.peers.split(",") if not options.softcap or p not in ("cudnn", "fa2")]
    fa3 = flash_attention_3() if "fa3" in peers else None
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in range(2))
    c = torch.empty_like(a)
    result = {"gpu": gpu_facts(), "torch": torch.__version__, "cudnn": torch.backends.cudnn.version(),
              "date": time.strftime("%Y-%m-%d"), "dtype": options.dtype, "softcap": options.softcap, "cells": []}
    ratios = []
    for d in map(int, options.head_dims.split(",")):
        for causal in [x == "yes" for x in options.causal.split(",")]:
            for s in map(int, options.lengths.split(",")):
                batch, heads = TOKENS // s, HIDDEN // d
                torch.manual_seed(s + d)
                q, k, v = (torch.randn(batch, s, heads, d, device="cuda", dtype=dtype) for _ in range(3))
                qt, kt, vt = (t.transpose(1, 2) for t in (q, k, v))
                flops = 4 * batch * heads * s * s * d / (2 if causal else 1)
                entries, problems = {}, []
                for name, schedule in [("ours", None)] + [(t, t) for t in options.schedule]:
                    try:
                        o, _, run = library.forward(q, k, v, causal=causal, softcap=options.softcap, schedule=schedule)
                        run()
                        torch.cuda.synchronize()
                        wrong = check(o, q, k, v, causal, options.softcap)
                        if wrong > 1.25:  # the margin of the conformance suite
                            problems.append(f"{name}: error {wrong:.2f} of the naive one's")
                        entries[name] = run
                    except RuntimeError as e:
                        problems.append(f"{name}: {e}")

                def sdpa(backend):
                    def run():
                        with sdpa_kernel(backend):
                            F.scaled_dot_product_attention(qt, kt, vt, is_causal=causal)
                    return run

                if "cudnn" in peers:
                    entries["cudnn"] = sdpa(SDPBackend.CUDNN_ATTENTION)
                if "fa2" in peers:
                    entries["fa2"] = sdpa(SDPBackend.FLASH_ATTENTION)
                if fa3:
                    entries["fa3"] = lambda: fa3(q, k, v, causal=causal, softcap=options.softcap)
                if "gemm" in peers:
                    entries["gemm"] = lambda: torch.mm(a, b, out=c)
                times = rounds(entries, options.rounds, options.milliseconds)
                cell = {"head_dim": d, "causal": causal, "seqlen": s, "batch": batch, "heads": heads, "flops": flops,
                        "problems": problems, "tflops": {},
                        "seconds": {name: [float(f"{t:.6g}") for t in each] for name, each in times.items()}}
                for name, seconds in times.items():
                    work = 2 * 8192 ** 3 if name == "gemm" else flops
                    cell["tflops"][name] = work / statistics.median(seconds) / 1e12
                t = cell["tflops"]
                line = f"D {d:3} {'causal' if causal else 'full  '} S {s:5} "
                line += " ".join(f"{name} {value:6.1f}" for name, value in t.items())
                best = None
                if "cudnn" in t and "fa3" in t:
                    best = max(t["fa3"] / t["cudnn"], 1)
                elif "cudnn" in t and s in LENGTHS:
                    best = dict(zip(LENGTHS, BEST_PEER.get((d, causal), ()))).get(s)
                if best and "ours" in t:
                    cell["over_cudnn"] = t["ours"] / t["cudnn"]
                    cell["over_best_peer"] = cell["over_cudnn"] / best
                    ratios.append(cell["over_best_peer"])
                    # A line of its own in plots: cuDNN's speed here times that ratio, so that it has these clocks.
                    if "fa3" not in t:
                        cell["tflops"]["best peer (FA3, cuDNN)"] = t["cudnn"] * best
                    line += f" | /cudnn {cell['over_cudnn']:.3f} /best {cell['over_best_peer']:.3f}"
                print(line + "".join(f" | {p}" for p in problems), flush=True)
                result["cells"].append(cell)
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        result["geometric_mean_over_best_peer"] = mean
        print(f"{len(ratios)} cells, geometric mean over the best peer {mean:.3f}, lowest {min(ratios):.3f}")
    if options.json:
        with open(options.json, "w") as out:
            cells = result.pop("cells")
            head = "".join(f" {json.dumps(k)}: {json.dumps(v)},\n" for k, v in result.items())
            out.write("{\n" + head + ' "cells": [\n  ' + ",\n  ".join(map(json.dumps, cells)) + "\n ]\n}\n")
    if options.plot:
        subprocess.run([options.flashplus, "bench", "--plot", options.plot, "--overlay", options.json], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
