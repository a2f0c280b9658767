#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The HTML reports of bench, tune and emulate: one well-formed file without any address, with the sections that
people look for.

usage: report.py FLASHPLUS SOURCE"""
import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as tree

# Files of the cache are synced, which takes seconds on a disk that others use.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
FLASHPLUS, SOURCE = os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2])
SECTIONS = {
    "bench": ["speed", "time", "roof-share", "results", "roofline", "resources", "noise", "machine"],
    "tune": ["funnel", "left-out", "results", "roofline", "resources", "noise", "machine"],
    "emulate": ["check", "launches", "roofline", "mix", "memory", "resources", "noise", "machine"],
}


def fail(text):
    raise SystemExit(f"FAILED: {text}")


def environment(folder):
    return {**os.environ, "FLASHPLUS_CACHE_DIR": str(folder / "cache"), "FLASHPLUS_TUNING": "off"}


def page(folder, name, *words):
    """The parsed report of a command, and its text."""
    file = folder / "made" / f"{name}.html"
    done = subprocess.run([FLASHPLUS, *words, "--html", str(file)], capture_output=True, text=True,
                          env=environment(folder))
    if done.returncode:
        fail(f"{words} left with {done.returncode}: {done.stderr}")
    text = file.read_text(encoding="utf-8")
    if not text.startswith("<!DOCTYPE html>\n"):
        fail(f"{name} does not begin as HTML: {text[:60]}")
    root = tree.fromstring(text.split("\n", 1)[1])  # well-formed
    if re.search(r"https?:|//[a-z]|src=|url\(|<script|@import", text):
        fail(f"{name} asks for something outside itself: {re.search('https?:.*|src=.*|url.*|<script', text)}")
    sections = [one.get("id") for one in root.iter("section")]
    if sections != SECTIONS[words[0]]:
        fail(f"{name} has the sections {sections}, not {SECTIONS[words[0]]}")
    if [one.get("href") for one in root.find("body/nav")] != ["#" + one for one in sections]:
        fail(f"{name}: the links are not the sections")
    title = root.find("head/title").text
    if len(re.findall("attention", title.lower())) != 1 or re.search(r"\bours\b|\b-?nan\b", text):
        fail(f"{name}: title '{title}', or 'ours', or a number that is none")
    return root, text


def unwritable(folder, words, files, shown):
    """What was found is printed even where the files that were asked for can't be written (a full disk)."""
    def no_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    for flag, name in files:
        file = folder / "made" / name
        done = subprocess.run([FLASHPLUS, *words, flag, str(file)], capture_output=True, text=True, preexec_fn=no_room,
                              restore_signals=False, env=environment(folder))  # SIGXFSZ stays ignored
        if done.returncode != 1 or shown not in done.stdout or name not in done.stderr or file.exists():
            fail(f"{words} {flag} without room left with {done.returncode}: {done.stdout}{done.stderr}")


def section(root, name):
    return next(one for one in root.iter("section") if one.get("id") == name)


def cells(element):
    return ["".join(one.itertext()) for one in element.iter("td")]


def series_colours(root):
    """Of each series of the results, the colours that its dots have over all plots. Every dot is of one."""
    names = {row[1] for row in ([*map("".join, map(lambda one: one.itertext(), row))] for row in
                                section(root, "results").find("table/tbody"))}
    found = {name: set() for name in names}
    for dot in root.iter("circle"):
        title = dot.find("title").text
        of = [name for name in names if re.search(rf"(^|, ){re.escape(name)}([,:]|$)", title)]
        if len(of) != 1:
            fail(f"the dot '{title}' is of {of}")
        found[of[0]].add(dot.get("fill"))
    return found


def check_overlays(folder):
    """What is typed beside --overlay is heard."""
    results = SOURCE / "bench" / "results"
    file = str(results / "h200_forward_bf16.json")
    second = str(results / "h200_sm80_forward_bf16.json")
    both, _ = page(folder, "both", "bench", "--overlay", file, "--overlay", second)
    colours = series_colours(both)
    if "FlashAttention-Plus (h200_sm80_forward_bf16)" not in colours or any(len(c) != 1 for c in colours.values()):
        fail(f"colours of two files: {colours}")
    told, _ = page(folder, "told", "bench", "--overlay", file, "--peak", "123", "--roof", "900")
    roofs = cells(section(told, "roofline"))
    if roofs != ["arithmetic", "123 TFLOP/s", "--peak", "memory", "900 GB/s", "--roof"]:
        fail(f"--peak and --roof beside an overlay: {roofs}")
    nowhere = {**os.environ, "FLASHPLUS_CPU_TARGET": "vax", "CUDA_VISIBLE_DEVICES": ""}  # nothing can be measured
    for words in (["--dtype", "fp16"], ["--window", "8,0"], ["--seqlen-k", "64"], ["--tokens", "64"], ["--heads", "1"],
                  ["--batch", "1"], ["--rounds", "1"], ["--milliseconds", "1"], ["--softcap", "5"], ["--threads", "1"],
                  ["--page-size", "16"]):
        done = subprocess.run([FLASHPLUS, "bench", "--overlay", file, "--html", str(folder / "x.html"), *words],
                              capture_output=True, text=True, env=nowhere)
        if done.returncode == 0 or "vax" not in done.stderr:
            fail(f"{words} beside --overlay measures nothing: {done.returncode} {done.stderr}")
    other = folder / "other.json"
    other.write_text(pathlib.Path(file).read_text().replace("NVIDIA H200", "NVIDIA H100"))
    several = ["--overlay", file, "--overlay", str(other), "--peak", "5"]
    for words, text in ((several, "--peak: the overlays are of several devices"),
                        (["--suite", "features", "--dtype", "fp16"], "so that --dtype does not go with it")):
        done = subprocess.run([FLASHPLUS, "bench", *words, "--html", str(folder / "x.html")], capture_output=True,
                              text=True, env=nowhere)
        if done.returncode != 2 or text not in done.stderr:
            fail(f"{words}: {done.returncode} {done.stderr}")


def main():
    with tempfile.TemporaryDirectory(dir=MEMORY) as temporary:
        folder = pathlib.Path(temporary)
        peers, _ = page(folder, "peers", "bench", "--overlay",
                        str(SOURCE / "bench" / "results" / "h200_forward_bf16.json"))
        colours = series_colours(peers)
        if sorted(colours) != ["FlashAttention-Plus", "cudnn", "fa2", "fa3", "gemm"] or any(
                len(c) != 1 for c in colours.values()):
            fail(f"colours of implementations: {colours}")
        if len(set.union(*colours.values())) != 5:
            fail(f"implementations share a colour: {colours}")
        check_overlays(folder)
        machine = cells(section(peers, "machine"))
        for text in ("NVIDIA H200", "580.159.04", "2.11.0+cu130", "91900"):
            if text not in machine:
                fail(f"the machine's section lacks {text}: {machine}")
        if not any(re.fullmatch(r"\d+(\.\d+)? %", cell) for cell in cells(section(peers, "results"))):
            fail("no share of the roof of a known GPU")
        if len(list(section(peers, "speed").iter("svg"))) != 1 or len(
                list(section(peers, "roofline").iter("polyline"))) != 2:
            fail("plots are missing")
        if "TFLOP/s" not in "".join(section(peers, "speed").itertext()):
            fail("a GPU's speeds are no TFLOP/s")
        if not (pathlib.Path(FLASHPLUS).parent / "libflashplus-compiler.so").exists():
            print("report: good; nothing ran, for there is no compiler library")
            return

        bench, text = page(folder, "bench", "bench", "--device", "cpu", "--head-dim", "32", "--seqlen", "32,64",
                           "--batch", "1", "--heads", "2", "--causal", "both", "--rounds", "7", "--milliseconds", "1",
                           "--peak", "0.5")
        if "GFLOP/s" not in "".join(section(bench, "speed").itertext()):
            fail("a CPU's speeds are not in GFLOP/s")
        resources = cells(section(bench, "resources"))
        if len(resources) < 9 or not any("cpu." in cell for cell in resources):
            fail(f"the kernels are not listed: {resources}")
        if "0" in resources or "0 B" in resources:
            fail(f"what a CPU's code does not have is a number: {resources}")
        noise = section(bench, "noise")
        rows = [[*row.itertext()] for row in noise.find("table/tbody")]
        if len(rows) != 4 or any(row[2] != "7" or float(row[7].split()[0]) < 95 for row in rows):
            fail(f"intervals of 7 rounds: {rows}")
        if not re.match(r"(Quiet|Noisy)\. ", noise.find("p").text):
            fail(f"no verdict: {noise.find('p').text}")

        small = ["bench", "--device", "cpu", "--head-dim", "32", "--seqlen", "32", "--batch", "1", "--heads", "2",
                 "--causal", "yes", "--rounds", "1", "--milliseconds", "1"]
        unwritable(folder, small, [("--json", "x.json"), ("--plot", "x.svg"), ("--html", "x.html")], "D32 causal S32")
        tune, text = page(folder, "tune", "tune", "--device", "cpu", "--shape", "1,32,32,1,1,32", "--algorithm",
                          "cpu.flash", "--knob", "mr=4,6", "--knob", "tile_n=64", "--rounds", "2",
                          "--coarse-rounds", "1", "--milliseconds", "1")
        funnel = [int(one.itertext().__next__()) for bar in section(tune, "funnel").iter("div")
                  for one in list(bar)[2:]]
        if len(funnel) != 4 or funnel != sorted(funnel, reverse=True) or funnel[3] < 1:
            fail(f"the funnel is {funnel}")
        small = ["tune", "--device", "cpu", "--shape", "1,32,32,1,1,32", "--algorithm", "cpu.flash", "--knob", "mr=4",
                 "--knob", "tile_n=64", "--rounds", "1", "--coarse-rounds", "1", "--milliseconds", "1"]
        unwritable(folder, small, [("--html", "x.html"), ("-o", "x.json")], "kernels tried")
        emulate = ["emulate", "--random", "1,32,32,1,1,32", "--check", "--target", "sm_90a"]
        emulated, _ = page(folder, "emulate", *emulate)
        unwritable(folder, emulate, [("--html", "x.html")], "check")
        if "Right against fp64" not in section(emulated, "check").find("p").text:
            fail("the verdict of the emulator is missing")
        if "sm_90a" not in emulated.find("head/title").text:
            fail("the emulated target is not named")
    print("report: good")


if __name__ == "__main__":
    main()
