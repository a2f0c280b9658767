#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Draws what bench/decode_gpu.py --json wrote as an SVG, a column for each layout of heads: above, microseconds of a
call against keys at batch 1; below, TB/s of K and V against the batch at --keys keys. Needs matplotlib.

    python bench/decode_plot.py bench/results/h200_decode_bf16.json -o docs/plots/h200_decode_bf16.svg
"""
import argparse
import json

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)

NAMES = {"default": ("FlashAttention-Plus", "#d62728"), "cudnn": ("cuDNN", "#1f77b4"),
         "fa3": ("FlashAttention-3", "#7f7f7f")}
MICROSECONDS = (5, 10, 20, 50, 100, 200, 500)


def line(axis, rows, x, figure, name):
    points = sorted((row[x], row[figure][name]) for row in rows if name in row[figure])
    label, colour = NAMES.get(name, (name, None))
    axis.plot(*zip(*points), marker="o", markersize=3, linewidth=1.3, color=colour, label=label)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results")
    parser.add_argument("-o", "--out", required=True)
    parser.add_argument("--keys", default=8192, type=int, help="of the lower plots")
    options = parser.parse_args()
    with open(options.results, encoding="utf-8") as file:
        results = json.load(file)
    rows = results["rows"]
    layouts = list(dict.fromkeys((row["heads"], row["dim"]) for row in rows))
    matplotlib.rcParams.update({"font.size": 8, "svg.hashsalt": "decode", "svg.fonttype": "none"})
    figure, axes = plt.subplots(2, len(layouts), figsize=(3.1 * len(layouts), 5.6), squeeze=False)
    for (above, below), layout in zip(axes.T, layouts):
        mine = [row for row in rows if (row["heads"], row["dim"]) == layout]
        one = [row for row in mine if row["batch"] == 1]
        long = [row for row in mine if row["keys"] == options.keys]
        for name in mine[0]["us"]:
            line(above, one, "keys", "us", name)
            line(below, long, "batch", "TB/s", name)
        above.set(title=f"heads {layout[0]}, head dim {layout[1]}", xlabel="keys, batch 1", xscale="log", yscale="log")
        below.set(xlabel=f"sequences of {options.keys} keys", xscale="log", ylim=(0, None))
        for axis in (above, below):
            ticks = sorted({row["keys"] for row in one} if axis is above else {row["batch"] for row in long})
            axis.set_xscale("log", base=2)
            axis.set_xticks(ticks, [f"{t // 1024}k" if t >= 1024 else str(t) for t in ticks])
            axis.minorticks_off()
            axis.grid(alpha=0.25)
        above.set_yticks(MICROSECONDS, map(str, MICROSECONDS))
    axes[0][0].set_ylabel("us a call")
    axes[1][0].set_ylabel("TB/s of K and V")
    axes[0][0].legend(frameon=False)
    figure.suptitle(f"Decode, one query row, bf16, {results['gpu']}")
    figure.tight_layout()
    figure.savefig(options.out, metadata={"Date": None})


if __name__ == "__main__":
    main()
