#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Forward attention on the CPU: ours beside PyTorch's scaled_dot_product_attention, on one thread and on all, in one
process and interleaved round by round; one query row against 8192 keys as a share of the machine's read bandwidth;
and what windows, ragged batches, grouped heads, softcap, ALiBi and fp16 cost. Ends with a short table; --json keeps
every figure.

    python bench/forward_cpu.py --library build/release/bin/libflashplus.so --json bench/results/cpu.json
    python bench/forward_cpu.py --library ... --isa native,avx512_bf16      # a machine with AMX, with and without it

Figures are GFLOP/s of 4 B H Sq Sk D visible operations, medians over rounds. Results are checked against fp64 before
they are timed. --isa caps the instructions of both sides; every cap runs in a process of its own.
"""
import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

# What keeps each side to an instruction set: ours, PyTorch's own kernels, oneDNN's and MKL's.
CAPS = {
    "native": {},
    "avx512_bf16": {"FLASHPLUS_CPU_TARGET": "x86-64-v4+avx512bf16", "ATEN_CPU_CAPABILITY": "avx512",
                    "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16", "MKL_ENABLE_INSTRUCTIONS": "AVX512_E3"},
    "avx512": {"FLASHPLUS_CPU_TARGET": "x86-64-v4", "ATEN_CPU_CAPABILITY": "avx512",
               "ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "MKL_ENABLE_INSTRUCTIONS": "AVX512"},
    "avx2": {"FLASHPLUS_CPU_TARGET": "x86-64-v3", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2",
             "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
}


def machine():
    facts = {}
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            facts["cpu"] = value.strip()
        if name.strip() == "flags":
            wanted = ("avx2", "fma", "f16c", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_tile")
            facts["flags"] = [f for f in wanted if f in value.split()]
            break
    return facts


class Timer:
    """Times runs in turns: each once a round, for about `milliseconds`."""

    def __init__(self, rounds, milliseconds):
        self.rounds, self.seconds = rounds, milliseconds / 1000

    def __call__(self, entries):
        calls, times = {}, {name: [] for name in entries}
        for name, run in entries.items():
            run()
            start = time.perf_counter()
            run()
            calls[name] = max(1, round(self.seconds / max(time.perf_counter() - start, 1e-6)))
        for _ in range(self.rounds):
            for name, run in entries.items():
                time.sleep(0.005)  # the other side's threads may still be spinning for work
                start = time.perf_counter()
                for _ in range(calls[name]):
                    run()
                times[name].append((time.perf_counter() - start) / calls[name])
        return {name: statistics.median(t) for name, t in times.items()}


def measure(options):
    import torch
    import torch.nn.functional as F

    import flashplus_ctypes

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    all_threads = options.threads or len(os.sched_getaffinity(0))
    cache = tempfile.TemporaryDirectory()
    libraries = {}
    for threads in sorted({1, all_threads}):
        os.environ["FLASHPLUS_NUM_THREADS"] = str(threads)
        libraries[threads] = flashplus_ctypes.Library(options.library, cache.name)
    timer = Timer(options.rounds, options.milliseconds)
    result = {"isa": options.isa, "date": time.strftime("%Y-%m-%d"), **machine(), "threads": all_threads,
              "torch": torch.__version__, "aten": torch.backends.cpu.get_cpu_capability(),
              "rounds": options.rounds, "forward": [], "shares": [], "decode": [], "variants": [], "problems": []}

    def tensors(batch, s, heads, d, dtype, heads_k=None):
        torch.manual_seed(s + d)
        return [torch.randn(batch, s, h, d).to(dtype) for h in (heads, heads_k or heads, heads_k or heads)]

    def check(o, q, k, v, causal, what):
        """The rule of the conformance suite, of one head: at most 1.25 times the error of naive maths in the dtype."""
        group = q.shape[2] // k.shape[2]

        def attention(dtype, low=None):
            qh, kh, vh = (t[-1, :, h].to(dtype)
                          for t, h in ((q, -1), (k, (q.shape[2] - 1) // group), (v, (q.shape[2] - 1) // group)))
            s = qh @ kh.T / math.sqrt(q.shape[-1])
            if causal:
                s.masked_fill_(torch.ones_like(s, dtype=torch.bool).triu(1 + k.shape[1] - q.shape[1]), -math.inf)
            return torch.softmax(s, -1) @ vh
        exact = attention(torch.float64)
        allowed = (attention(q.dtype).double() - exact).abs().max().item()
        error = (o[-1, :, -1].double() - exact).abs().max().item()
        if not error <= 1.25 * allowed + 1e-6 or not math.isfinite(o.double().sum().item()):
            result["problems"].append(f"{what}: error {error:.3g}, naive maths has {allowed:.3g}")

    started = last = time.perf_counter()
    result["seconds"] = {}

    def done(part):
        """Keeps the part's time, and everything so far: a crash later loses nothing."""
        nonlocal last
        now = time.perf_counter()
        result["seconds"][part] = round(now - last, 1)
        last = now
        pathlib.Path(options.json).write_text(json.dumps(result))
        print(f"[{options.isa}] {part}: {result['seconds'][part]} s", flush=True)

    def attempt(name, cell, *arguments):
        """Runs one cell; what fails is reported and the others go on."""
        try:
            return cell(*arguments)
        except Exception as e:
            result["problems"].append(f"{name}: {type(e).__name__}: {e}")
            print(f"[{options.isa}] FAILED {result['problems'][-1]}", flush=True)

    parts = options.parts.split(",")

    def forward_cell(name, library, threads, dtype, d, s, causal, heads, q, k, v):
        qt, kt, vt = (t.transpose(1, 2) for t in (q, k, v))
        o, _, run = library.forward(q, k, v, causal=causal)
        run()
        if s <= 1024:
            check(o, q, k, v, causal, name)
        seconds = timer({"ours": run, "torch": lambda: F.scaled_dot_product_attention(qt, kt, vt, is_causal=causal)})
        flops = 4 * heads * d * (s * (s + 1) / 2 if causal else s * s)
        cell = {"dtype": dtype, "threads": threads, "head_dim": d, "seqlen": s, "causal": causal, "heads": heads,
                **{n: flops / t / 1e9 for n, t in seconds.items()}}
        cell["ratio"] = cell["ours"] / cell["torch"]
        cell["kernel"] = json.loads(run.description)["steps"][0]["schedule"]
        cell["target"] = json.loads(run.description)["steps"][0]["target"]
        result["forward"].append(cell)
        if options.verbose:
            print(f"{name:40} ours {cell['ours']:8.1f}  torch {cell['torch']:8.1f}  {cell['ratio']:.2f}", flush=True)

    # Forward, ours and PyTorch.
    for dtype in options.dtypes.split(",") if "forward" in parts else ():
        for threads, library in libraries.items():
            torch.set_num_threads(threads)
            for d in map(int, options.head_dims.split(",")):
                for s in map(int, options.lengths.split(",")):
                    heads = 2 if threads == 1 else max(4, 2 * threads)
                    q, k, v = tensors(1, s, heads, d, dtypes[dtype])
                    for causal in (False, True):
                        name = f"{dtype} D {d} S {s} {'causal' if causal else 'full'} {threads} threads"
                        attempt(name, forward_cell, name, library, threads, dtype, d, s, causal, heads, q, k, v)
            done(f"forward {dtype} {threads} threads")

    # Other schedules, in units of the one that is chosen.
    def variants_of(dtype, d):
        q, k, v = tensors(1, 128 if options.quick else 1024, 2, d, dtypes[dtype])
        _, _, chosen = libraries[1].forward(q, k, v)
        text = json.loads(chosen.description)["steps"][0]["schedule"]
        runs = {"chosen": chosen}
        knobs = [("tile_m", 192), ("tile_m", 48), ("tile_n", 64), ("tile_n", 256), ("tile_n", 512), ("pairs", 0),
                 ("pairs", 1), ("mr nr", (8, 3)), ("mr nr", (6, 4)), ("mr nr", (14, 2))]
        for name, value in knobs:
            words = dict(w.split("=") for w in text.split()[1:])
            if name == "mr nr":
                words["mr"], words["nr"] = value
                words["tile_m"] = 96 // value[0] * value[0]
                words["tile_n"] = 192 if value[1] == 3 else 128
            else:
                words[name] = value
            if int(words.get("pairs", 0)) == 0:
                words.pop("pairs", None)
            schedule = "cpu.flash " + " ".join(f"{n}={x}" for n, x in words.items())
            label = " ".join(f"{n}={x}" for n, x in words.items() if f"{n}={x}" not in text.split()) or "-pairs"
            if dtype != "bf16" and "pairs" in words or schedule.split() == text.split() or label in runs:
                continue
            try:
                o, _, run = libraries[1].forward(q, k, v, schedule=schedule)
            except RuntimeError:
                continue
            run()
            check(o, q, k, v, False, schedule)
            runs[label] = run
        seconds = timer(runs)
        result["variants"].append({"dtype": dtype, "head_dim": d, "chosen": text,
                                   "speed": {n: seconds["chosen"] / t for n, t in seconds.items()}})

    if "variants" in parts:
        torch.set_num_threads(1)
        for dtype in options.dtypes.split(","):
            for d in (64, 128):
                attempt(f"variants {dtype} D {d}", variants_of, dtype, d)
        done("variants")

    # Shares of our own dense speed on the same visible FLOPs.
    library, threads = libraries[all_threads], all_threads
    torch.set_num_threads(threads)

    def shares():
        scale = 16 if options.quick else 1
        heads, d, s = max(4, threads), 128, 2048 // scale
        heads += -heads % 4
        bf16 = torch.bfloat16
        q, k, v = tensors(1, s, heads, d, bf16)
        dense_flops = 4 * heads * d * s * s
        _, _, dense = library.forward(q, k, v)

        def share(name, flops, bar, make, base=dense, base_flops=dense_flops):
            def cell():
                run = make()[2]
                seconds = timer({name: run, "dense": base})
                value = (flops / seconds[name]) / (base_flops / seconds["dense"])
                result["shares"].append(
                    {"what": name, "share": value, "bar": bar, "gflops": flops / seconds[name] / 1e9})
                return run
            return attempt(name, cell)

        share("softcap 30", dense_flops, 0.9, lambda: library.forward(q, k, v, softcap=30.0))
        slopes = torch.tensor([2.0 ** (-8 * (h + 1) / heads) for h in range(heads)])
        share("ALiBi", dense_flops, 0.9, lambda: library.forward(q, k, v, alibi=slopes))
        share("fp16", dense_flops, 0.95, lambda: library.forward(*(t.to(torch.float16) for t in (q, k, v))))
        share(f"GQA {heads}/{heads // 4}", dense_flops, 0.95,
              lambda: library.forward(q, *(t[:, :, ::4].contiguous() for t in (k, v))))
        lengths = [n // scale for n in (2048, 300, 1100, 700, 1500, 64, 1900, 580)]
        total = sum(lengths)
        rows = [torch.randn(total, heads, d).to(bf16) for _ in range(3)]
        cu = torch.tensor([0] + list(torch.tensor(lengths).cumsum(0)), dtype=torch.int32)
        ragged_flops = 4 * heads * d * sum(n * n for n in lengths)
        ragged = share("ragged batch", ragged_flops, 0.9,
                       lambda: library.forward(*rows, cu_seqlens=cu, max_seqlen=2048 // scale))
        if ragged:
            share("the same, max_seqlen x 10", ragged_flops, 0.95,
                  lambda: library.forward(*rows, cu_seqlens=cu, max_seqlen=20480 // scale), ragged, ragged_flops)
        s, heads_long, window = 16384 // scale, max(2, threads // 2), 1024 // scale
        long = tensors(1, s, heads_long, d, bf16)
        visible = sum(min(i + 1, window) for i in range(s))
        share(f"window {window} at S {s}", 4 * heads_long * d * visible, 0.85,
              lambda: library.forward(*long, causal=True, window=(window - 1, 0)))

    if "shares" in parts:
        attempt("shares", shares)
        done("shares")

    # One query row: bytes of K and V a second, and what reading the same memory gives.
    keys, heads, heads_k, d = 512 if options.quick else 8192, 32, 8, 128
    count = 12  # together larger than a cache

    def decode(threads, library, pairs, q):
        bytes_a_call = 2 * keys * heads_k * d * 2
        made = [library.forward(q, k, v) for k, v in pairs]
        made[0][2]()
        check(made[0][0], q, *pairs[0], False, f"decode {threads} threads")

        def ours():
            for _, _, run in made:
                run()

        def sdpa():
            for k, v in pairs[:2]:  # PyTorch is slow enough here that caches are of no help
                F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), enable_gqa=True)

        views = [t.view(torch.float32).view(-1) for pair in pairs for t in pair]
        matrices = [t.view(torch.float32).view(-1, 4096) for pair in pairs for t in pair]
        ones = torch.ones(4096)
        wide = [t.view(torch.int64).view(-1) for pair in pairs for t in pair]
        probes = {"sum": lambda: [torch.sum(t) for t in views], "max": lambda: [torch.max(t) for t in wide],
                  "dot": lambda: [torch.dot(a, a) for a in views], "mv": lambda: [torch.mv(m, ones) for m in matrices]}
        seconds = timer({"ours": ours, "torch": sdpa, **probes})
        rate = {n: bytes_a_call * (2 if n == "torch" else count) / t / 1e9 for n, t in seconds.items()}
        probe = max(rate[p] for p in probes)
        result["decode"].append({
            "threads": threads, "gb_per_s": rate, "read_bandwidth": probe, "share": rate["ours"] / probe,
            "torch_share": rate["torch"] / probe, "plan": json.loads(made[0][2].description)
        })

    if "decode" in parts:
        pairs = [tensors(1, keys, heads_k, d, torch.bfloat16, heads_k)[1:] for _ in range(count)]
        q = torch.randn(1, 1, heads, d).to(torch.bfloat16)
        for threads, library in libraries.items():
            torch.set_num_threads(threads)
            attempt(f"decode {threads} threads", decode, threads, library, pairs, q)
        done("decode")
    result["seconds"]["all"] = round(time.perf_counter() - started, 1)
    return result


def mean(values):
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def report(result):
    print(
        f"\n== {result['isa']}: {result.get('cpu')}, {result['threads']} threads, {' '.join(result.get('flags', []))}; "
        f"torch {result['torch']} ({result['aten']})")
    cells = result["forward"]
    for dtype in dict.fromkeys(c["dtype"] for c in cells):
        for threads in dict.fromkeys(c["threads"] for c in cells):
            mine = [c for c in cells if c["dtype"] == dtype and c["threads"] == threads]
            if not mine:
                continue
            ratios = [c["ratio"] for c in mine]
            print(
                f"{dtype}, {threads} thread{'s' * (threads > 1)}: x{mean(ratios):.2f} of PyTorch, lowest "
                f"x{min(ratios):.2f} "
                f"({mine[0]['target']}); GFLOP/s (times PyTorch) full | causal, causal's speed in units of full's time")
            for d in dict.fromkeys(c["head_dim"] for c in mine):
                line = f"  D {d:3}"
                for s in dict.fromkeys(c["seqlen"] for c in mine):
                    pair = [[c for c in mine if (c["head_dim"], c["seqlen"], c["causal"]) == (d, s, x)]
                            for x in (False, True)]
                    if not all(pair):
                        line += f"   S {s}: failed"
                        continue
                    full, causal = pair[0][0], pair[1][0]
                    line += (
                        f"   S {s}: {full['ours']:.0f} ({full['ratio']:.2f}) | {causal['ours']:.0f} "
                        f"({causal['ratio']:.2f})"
                        f" {2 * causal['ours'] / full['ours'] * s / (s + 1):.2f}")
                print(line)
    for share in result["shares"]:
        print(f"  {share['what']:28} {share['share']:.2f} of dense (bar {share['bar']}), {share['gflops']:.0f} GFLOP/s")
    for v in result["variants"]:
        print(f"  {v['dtype']} D {v['head_dim']}, {v['chosen']}: "
              + ", ".join(f"{n} x{x:.2f}" for n, x in v["speed"].items() if n != "chosen"))
    for decode in result["decode"]:
        rates = decode["gb_per_s"]
        print(
            f"  decode, {decode['threads']} threads: {rates['ours']:.1f} GB/s of {decode['read_bandwidth']:.1f} read = "
            f"{decode['share']:.2f} (bar 0.8); PyTorch {rates['torch']:.1f}")
    for problem in result["problems"]:
        print(f"  WRONG: {problem}")
    print("  seconds: " + ", ".join(f"{part} {t}" for part, t in result["seconds"].items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True)
    parser.add_argument("--json")
    parser.add_argument("--isa", default="native", help="caps to measure, comma-separated: " + ", ".join(CAPS))
    parser.add_argument("--threads", type=int, default=0, help="what 'all' means [the processors this process may use]")
    parser.add_argument("--dtypes", default="fp32,bf16")
    parser.add_argument("--head-dims", default="64,128")
    parser.add_argument("--lengths", default="512,1024,2048")
    parser.add_argument(
        "--parts", default="forward,shares,decode",
        help="what to measure: forward, variants (other schedules), shares, decode [forward,shares,decode]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--milliseconds", type=float, default=20, help="of each entry a round")
    parser.add_argument("--quick", action="store_true",
                        help="short sequences outside the forward: shows that everything runs")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for isa in options.isa.split(","):
        if isa not in CAPS:
            parser.error(f"--isa is '{isa}'; it must be of {', '.join(CAPS)}")
    if options.one:
        result = measure(options)
        pathlib.Path(options.json).write_text(json.dumps(result))
        return 1 if result["problems"] else 0
    results, status = [], 0
    for isa in options.isa.split(","):
        with tempfile.NamedTemporaryFile(suffix=".json") as out:
            code = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--isa", isa, "--json", out.name, "--one"],
                                  env={**os.environ, **CAPS[isa]}).returncode
            text = pathlib.Path(out.name).read_text()
            if code:
                status = 1
                print(f"[{isa}] exit status {code}")
            if not text:
                continue
            results.append(json.loads(text))
            report(results[-1])
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(results, indent=1))
    return status


if __name__ == "__main__":
    sys.exit(main())
