#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Forward over packed documents on one GPU: ours, ours under other schedules and FlashAttention-3 where it is there,
in an order drawn anew each round. A line of JSON a row: TFLOP/s of visible work, medians over rounds, and how far our
results are from FlashAttention-3's.

    python bench/packed_gpu.py --library build/release/bin/libflashplus.so [--schedule "sm90.flash tile_m=64 ..."]...

The documents are those of bench/packed_items.py.
"""
import argparse
import json
import random
import statistics

import torch

import flashplus_ctypes
import packed_items

SHAPES = ((32, 8, 128, True), (16, 16, 64, True), (16, 16, 128, False))


def peer():
    for name in ("fa3_fwd_interface", "flash_attn_interface"):
        try:
            return __import__(name).flash_attn_varlen_func
        except ImportError as e:
            print(f"# no {name}: {e}")
    return None


def seconds(run, calls):
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000 / calls


def race(entries, count, milliseconds):
    calls, times = {}, {name: [] for name in entries}
    for name, run in entries.items():
        seconds(run, 3)
        calls[name] = max(2, int(milliseconds / 1000 / max(seconds(run, 2), 1e-6)))
    for _ in range(count):
        names = list(entries)
        random.shuffle(names)
        for name in names:
            times[name].append(seconds(entries[name], calls[name]))
    return {name: statistics.median(t) for name, t in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True)
    parser.add_argument("--schedule", action="append", default=[], help="compare these too (repeatable)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--milliseconds", type=float, default=15)
    arguments = parser.parse_args()
    library, fa3 = flashplus_ctypes.Library(arguments.library), peer()
    for name, lengths in packed_items.documents():
        total, longest = sum(lengths), max(lengths)
        ends = torch.tensor([0] + lengths).cumsum(0).to("cuda", torch.int32)
        for heads_q, heads_k, dim, causal in SHAPES:
            q = torch.randn(total, heads_q, dim, device="cuda", dtype=torch.bfloat16)
            k, v = (torch.randn(total, heads_k, dim, device="cuda", dtype=torch.bfloat16) for _ in range(2))
            entries, outputs, chosen, refused = {}, {}, None, {}
            for schedule in [None, *arguments.schedule]:
                label = schedule or "ours"
                try:
                    outputs[label], _, run = library.forward(q, k, v, causal=causal, cu_seqlens=ends,
                                                             max_seqlen=longest, schedule=schedule)
                except RuntimeError as e:
                    refused[label] = str(e)[:80]
                    continue
                entries[label] = run
                chosen = chosen or run.description
            if fa3:
                entries["fa3"] = lambda: fa3(q, k, v, cu_seqlens_q=ends, cu_seqlens_k=ends, max_seqlen_q=longest,
                                             max_seqlen_k=longest, causal=causal)
            with torch.no_grad():
                times = race(entries, arguments.rounds, arguments.milliseconds)
                far = {}
                if fa3:
                    theirs = entries["fa3"]()
                    theirs = theirs[0] if isinstance(theirs, tuple) else theirs
                    far = {n: round((o.float() - theirs.float()).abs().max().item(), 5) for n, o in outputs.items()}
            work = sum(4 * n * n * dim * heads_q / (2 if causal else 1) for n in lengths)
            print(json.dumps({"documents": name, "heads": f"{heads_q}/{heads_k}", "D": dim, "causal": causal,
                              "tflops": {n: round(work / t / 1e12, 1) for n, t in times.items()},
                              "over_fa3": {n: round(times["fa3"] / t, 3) for n, t in times.items()} if fa3 else {},
                              "difference": far, "refused": refused, "plan": chosen}), flush=True)


if __name__ == "__main__":
    main()
