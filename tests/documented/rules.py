# SPDX-License-Identifier: BSD-3-Clause
"""What of the documents is not run as it is typed, and why. `documented.py --list` shows every command and what
becomes of it.

A rule that fits no command is an error: it goes with the command that it was for."""

# (pattern, reason): not run. Commands of flashplus among them are still parsed: their flags and values are right.
EXCEPTIONS = [
    (r"--algorithm s[mx]\w+\.|--algorithm sm", "needs a GPU"),
    (r"bench .*--schedule tile_m=192", "needs a GPU, whose kernels have these knobs"),
    (r"^python bench/forward_gpu\.py", "needs a GPU"),
    (r"^scripts/python_gpu_tests\.sh", "needs a GPU"),
    (r"\bperf (record|inject|report|annotate)", "needs perf, and root or a setting of root's"),
    (r"gdb -ex", "needs gdb; tests/api/debug_names runs what it relies on"),
    (r"^git clone", "needs the network and a place to clone from"),
    (r"^make (demo|test)", "builds everything, installs packages as root; CI runs it"),
    (r"^pip (install|uninstall)", "tests/python/test_install.py and test_migration.py do it elsewhere"),
    (r"^python (-m|-c) .*flash_attn", "needs the wheel; tests/python/test_install.py and test_migration.py run it"),
    (r"^python bench/forward_cpu\.py", "needs PyTorch and minutes"),
    (r"bench_decode", "needs a release build and minutes"),
    (r"warmup --specs missed.txt", "reads what a run has missed; tests/tools/cli_specs.cpp runs it"),
    (r"cache (export|import)|kernels\.fpk", "needs a warm cache; cli_cache.cpp and deploy.py run it"),
    (r"^serve ", "tests/examples/documented.py runs it and compares what it prints"),
]

# (pattern of the command, pattern in it, replacement): the same with small sizes, or without what takes minutes.
SMALL = [
    (r"flashplus (run|emulate)\b(?!.*--schedule)", r"(?<=--random )[\d,]+", "1,24,24,2,2,32"),
    (r"flashplus inspect\b", r"(?<=--head-dim )128", "32"),
    (r"flashplus run\b", r"(?<=--decode )[\d,]+", "2,40,2,1,32"),
    (r"flashplus emulate\b", r"(?<=--decode )[\d,]+", "1,40,2,1,64"),
    (r"flashplus run\b", r"(?<=--rotary )\d+", "16"),
    (r"flashplus run\b(?!.*--device)", r"$", " --device cpu"),
    (r"flashplus bench\b(?!.*--overlay)", r"$", " --device cpu --rounds 1 --milliseconds 1"),
    (r"flashplus bench\b.*--suite decode", r"$", " --tokens 64"),
    (r"flashplus bench\b.*--suite features", r"$", " --tokens 64 --hidden 64"),
    (r"flashplus (bench|tune)\b.*--shape", r"(?<=--shape )[\d,]+", "1,48,48,2,1,32"),
    (r"flashplus bench\b.*--seqlen", r"(?<=--seqlen )[\w,]+", "32,64"),
    (r"flashplus bench\b(?!.*(--seqlen|--shape|--suite|--overlay))", r"$", " --seqlen 32"),
    (r"flashplus bench\b(?!.*(--shape|--suite|--overlay))", r"$", " --batch 1 --heads 1"),
    (r"flashplus bench\b.*--head-dim", r"(?<=--head-dim )[\d,/]+", "32,64/32"),
    (r"flashplus bench\b(?!.*(--head-dim|--shape|--suite|--overlay))", r"$", " --head-dim 32"),
    (r"--baseline before.json", r"before.json", "now.json"),  # which an example above it has written
    (r"--overlay peers.json", r"peers.json", "bench/results/h200_forward_bf16.json"),
    (r"flashplus tune\b(?!.*--backward).*--shape", r"$",
     " --device cpu --algorithm cpu.flash --knob tile_m=24,48 --knob tile_n=64 --rounds 1 --coarse-rounds 1"
     " --milliseconds 1"),
    (r"flashplus tune\b.*--shape.*--backward", r"$",
     " --device cpu --algorithm cpu.backward --knob tile_m=24,48 --knob tile_n=96 --knob mr=6 --rounds 1"
     " --coarse-rounds 1 --milliseconds 1"),
    (r"flashplus warmup --target cpu --head-dim 64 .*--backward$", r"64", "32"),  # the one that compiles
    (r"flashplus warmup\b(?!.*(--list|--dry-run|--target cpu --head-dim 64 .*--backward$))", r"$", " --dry-run"),
]
