#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""One or a few query rows against long keys on one GPU: microseconds a call and TB/s of K and V, of replays of a CUDA
graph that goes through several caches in turn (400 MB of them, so that short ones come from memory too, with
--cold). Entries are schedules of ours, 'default' for the plan's own choice, 'split' for the flash kernels with as many
shares as --splits says, 'cudnn', and 'fa3', flash_attn_with_kvcache of the wheel fa3-fwd where it is installed; their
order is drawn anew each round, figures are medians. Every result is compared with fp32 attention of one head before it
is timed. bench/decode_plot.py draws what --json holds.

    python bench/decode_gpu.py --library build/release/bin/libflashplus.so
    python bench/decode_gpu.py --library ... --heads 32/8x128,16/2x64 --cells 1x1024,64x8192 --entry default \\
        --entry cudnn --entry "sm80.decode least=8 stages=3 tile_m=8 tile_n=16 warps=8"
"""
import argparse
import json
import math
import random
import statistics

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import flashplus_ctypes

CELLS = "1x1024,1x8192,1x131072,4x8192,16x8192,64x8192,128x2048"


def error_of(o, q, k, v):
    """Largest error of one head over that of the same in the storage type."""
    head, group = q.shape[2] - 1, q.shape[2] // k.shape[2]
    a, b, c = q[-1, :, head], k[-1, :, head // group], v[-1, :, head // group]
    visible = torch.ones(a.shape[0], b.shape[0], dtype=torch.bool, device=a.device).tril(b.shape[0] - a.shape[0])

    def attention(x, y, z):
        s = (x @ y.T) / math.sqrt(x.shape[-1])
        return torch.softmax(s.masked_fill(~visible, -math.inf), -1) @ z

    exact = attention(a.float(), b.float(), c.float())
    allowed = (attention(a, b, c).float() - exact).abs().max().item()
    return (o[-1, :, head].float() - exact).abs().max().item() / max(allowed, 1e-6)


def cudnn(q, k, v):
    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION]):
        return F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
                                              enable_gqa=q.shape[2] != k.shape[2]).transpose(1, 2)


def fa3(q, k, v, lengths):
    from fa3_fwd_interface import flash_attn_with_kvcache

    return flash_attn_with_kvcache(q, k, v, cache_seqlens=lengths, causal=True)


def captured(name, q, caches, library, options):
    """A graph that runs the entry on every cache, and what keeps it alive."""
    runs = []
    for k, v in caches:
        if name == "cudnn":
            if q.shape[1] > 1:
                raise RuntimeError("cudnn is measured with one query row only: its causal mask is top-left")
            runs.append((lambda k=k, v=v: cudnn(q, k, v)))
            continue
        if name == "fa3":
            lengths = torch.full((q.shape[0],), k.shape[1], device=q.device, dtype=torch.int32)
            runs.append((lambda k=k, v=v, lengths=lengths: fa3(q, k, v, lengths)))
            continue
        schedule = None if name in ("default", "split") else name
        o, _, run = library.forward(q, k, v, causal=q.shape[1] > 1, schedule=schedule,
                                    num_splits=options.splits if name == "split" else 0)
        run()
        torch.cuda.synchronize()
        if (wrong := error_of(o, q, k, v)) > 3:
            raise RuntimeError(f"wrong: {wrong:.1f} times the error of the storage type")
        runs.append(run)
    for run in runs:
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for run in runs:
            run()
    return graph, runs


def milliseconds(graph, times):
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(times):
        graph.replay()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / times


def cell(heads_q, heads_k, dim, batch, keys, options, library):
    cache_bytes = 4 * batch * keys * heads_k * dim
    buffers = max(1, min(64 if options.cold else 8, int(400e6 / cache_bytes) + 1))
    make = {"device": "cuda", "dtype": torch.bfloat16}
    q = torch.randn(batch, options.rows, heads_q, dim, **make)
    caches = [tuple(torch.randn(batch, keys, heads_k, dim, **make) for _ in range(2)) for _ in range(buffers)]
    graphs, taken = {}, {}
    for name in options.entry:
        try:
            graphs[name] = captured(name, q, caches, library, options)
        except (ImportError, RuntimeError) as e:
            print(f"# {name}: {str(e)[:200]}", flush=True)
            torch.cuda.synchronize()
    for name, (graph, _) in graphs.items():
        milliseconds(graph, 2)
        taken[name] = (max(2, int(options.ms / max(milliseconds(graph, 2), 1e-3))), [])
    for _ in range(options.rounds):
        for name in random.sample(list(graphs), len(graphs)):
            times, results = taken[name]
            results.append(milliseconds(graphs[name][0], times))
    row = {"heads": f"{heads_q}/{heads_k}", "dim": dim, "rows": options.rows, "batch": batch, "keys": keys,
           "buffers": buffers, "us": {}, "TB/s": {}}
    for name, (_, results) in taken.items():
        us = statistics.median(results) / buffers * 1e3
        row["us"][name] = round(us, 2)
        row["TB/s"][name] = round(cache_bytes / us / 1e6, 2)
    return row


def pair(text, between):
    a, b = (int(x) for x in text.split(between))
    return a, b


def layouts(text):
    """'32/8x128,16/2x64': (query heads, key heads, head dim) of each."""
    parts = (layout.split("x") for layout in text.split(","))
    return [(*pair(heads, "/"), int(dim)) for heads, dim in parts]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", default="build/release/bin/libflashplus.so")
    parser.add_argument("--cache-dir")
    parser.add_argument("--heads", default="32/8x128", type=layouts,
                        help="query heads / key heads x head dim, with commas between")
    parser.add_argument("--rows", default=1, type=int, help="query rows of a sequence; causal if more than 1")
    parser.add_argument("--cells", default=CELLS, help="batch x keys, with commas between")
    parser.add_argument("--entry", action="append", help="default, split, cudnn, fa3 or a schedule; repeatable")
    parser.add_argument("--splits", default=8, type=int, help="shares of 'split'; 1 is none")
    parser.add_argument("--cold", action="store_true", help="up to 64 caches, so that none stays in L2")
    parser.add_argument("--rounds", default=7, type=int)
    parser.add_argument("--ms", default=12.0, type=float, help="of an entry in a round")
    parser.add_argument("--json")
    options = parser.parse_args()
    options.entry = options.entry or ["default", "cudnn"]
    library = flashplus_ctypes.Library(options.library, options.cache_dir)
    rows = []
    with torch.no_grad():
        for layout in options.heads:
            for text in options.cells.split(","):
                rows.append(cell(*layout, *pair(text, "x"), options, library))
                print(json.dumps(rows[-1]), flush=True)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as out:
            json.dump({"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": rows}, out, indent=1)


if __name__ == "__main__":
    main()
