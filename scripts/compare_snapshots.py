#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Compares two folders that flashplus-snapshot wrote, kernel by kernel.

Classes of a pair of kernels, strongest first:
  identical   to the letter
  renamed     but for the numbers of registers and labels
  reordered   the same instructions as often (names of operands and the order aside)
  different   anything else; printed with what there is more and less of

Exit status: 0 if every kernel is in both folders and identical, launch schemas and keys included; else 1.
"""
import argparse
import collections
import re
import sys
from pathlib import Path

# Registers of PTX, labels of PTX and of x86 assembly. x86 registers keep their names: which one holds what is the code.
NAMES = re.compile(r"%[a-z]+\d+|\$L__[A-Za-z_]*\d+_?\d*|\.L[A-Za-z_]*\d+_?\d*")


def read_index(folder):
    rows = {}
    for line in (folder / "index.tsv").read_text().splitlines():
        target, name, file, launch, key = line.split("\t")
        rows[target, name] = (folder / file, launch, key)
    return rows


def renumbered(text):
    seen = {}
    return NAMES.sub(lambda m: seen.setdefault(m[0], f"{m[0].rstrip('0123456789_')}#{len(seen)}"), text)


def opcodes(text):
    lines = (line.strip() for line in text.splitlines())
    words = (re.sub(r"^@!?%p\d+\s+", "@p ", line) for line in lines)
    return collections.Counter(
        w.split(None, 2)[0] if not w.startswith("@p ") else " ".join(w.split(None, 2)[:2])
        for w in words
        if w and not w.startswith(("//", "#", ".loc", ".reg")) and not w.endswith(":")
    )


def classify(old, new):
    if old == new:
        return "identical", ""
    if renumbered(old) == renumbered(new):
        return "renamed", ""
    a, b = opcodes(old), opcodes(new)
    if a == b:
        return "reordered", ""
    more = ", ".join(f"+{n} {op}" for op, n in sorted((b - a).items()))
    less = ", ".join(f"-{n} {op}" for op, n in sorted((a - b).items()))
    return "different", "; ".join(x for x in (more, less) if x)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--show", type=int, default=10, help="kernels printed of each class that is not identical")
    args = parser.parse_args()
    old, new = read_index(args.old), read_index(args.new)
    classes = collections.defaultdict(list)
    for row in sorted(old.keys() | new.keys()):
        if row not in old or row not in new:
            classes["only in " + ("new" if row in new else "old")].append((row, ""))
            continue
        kind, why = classify(old[row][0].read_text(), new[row][0].read_text())
        classes[kind].append((row, why))
        if old[row][1] != new[row][1]:
            classes["launch schema"].append((row, f"{old[row][1]} -> {new[row][1]}"))
        if old[row][2] != new[row][2]:
            classes["key"].append((row, f"{old[row][2]} -> {new[row][2]}"))
    targets = sorted({target for target, _ in old | new})
    print(f"{'':22}" + "".join(f"{t:>22}" for t in targets))
    for kind, rows in classes.items():
        counts = collections.Counter(target for (target, _), _ in rows)
        print(f"{kind:22}" + "".join(f"{counts[t]:22}" for t in targets))
    for kind, rows in classes.items():
        if kind == "identical":
            continue
        print(f"\n{kind}:")
        for (target, name), why in rows[: args.show]:
            print(f"  {target}  {name}" + (f"\n    {why}" if why else ""))
        if len(rows) > args.show:
            print(f"  ... and {len(rows) - args.show} more (--show N)")
    return 0 if set(classes) <= {"identical"} else 1


if __name__ == "__main__":
    sys.exit(main())
