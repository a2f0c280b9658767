#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""No line of a source is wider than its kind allows, and no file of the rooms where kernels are made is too long to
read.

usage: lines.py SOURCE_FOLDER
"""
import os
import re
import sys
from pathlib import Path

# Who gives no columns here has .clang-format's. Tables and expected kernels are generated or compared to the letter.
COLUMNS = {".h": None, ".hpp": None, ".c": None, ".cpp": None, ".py": 120, ".sh": 140, ".cmake": 140}
ROOMS = ("templates", "ir", "runtime")
LONGEST = 500
# A C program of version 0.1 with its header, kept as its author compiled it.
FROZEN = re.compile(r"tests/api/frozen_\d_\d\.[ch]$")


def faults(root, files, columns):
    for path in files:
        name = path.relative_to(root).as_posix()
        lines = path.read_text(errors="replace").split("\n")
        widest = COLUMNS[path.suffix] or columns
        raw = False  # inside R"(...)": its line ends are part of the text
        for number, line in enumerate(lines, 1):
            was = raw
            if path.suffix in (".h", ".hpp", ".cpp"):
                opened, closed = line.rfind('R"('), line.rfind(')"')
                raw = closed < opened if max(opened, closed) >= 0 else raw
            if len(line) > widest and not was and not raw:
                yield f"{name}:{number} has {len(line)} columns; at most {widest} are allowed"
        if name.split("/")[0] in ROOMS and len(lines) > LONGEST:
            yield f"{name} has {len(lines)} lines; at most {LONGEST} are allowed in {', '.join(ROOMS)}"


def sources(root):
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith(".") and (Path(folder) != root or f != "build")]
        for name in sorted(names):
            path = Path(folder) / name
            if path.suffix in COLUMNS and not FROZEN.search(path.as_posix()):
                yield path


def main():
    root = Path(sys.argv[1]).resolve()
    limit = re.search(r"^ColumnLimit: (\d+)$", (root / ".clang-format").read_text(), re.MULTILINE)
    if not limit:
        raise SystemExit("FAILED: .clang-format says no ColumnLimit")
    files = list(sources(root))
    if len(files) < 300:
        raise SystemExit(f"FAILED: {len(files)} sources found in {root}; there are more")
    found = list(faults(root, files, int(limit[1])))
    print("\n".join(found) or f"{len(files)} sources: no line too wide, no file too long")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
