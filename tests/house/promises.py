#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The table of promises in docs/cache.md is whole, and every test that it names is there; and the environment is read
in one file, which is one of the promises (K2).

usage: promises.py SOURCE
"""
import pathlib
import re
import sys

PROMISES = ["K1", "K2", "K3", "K4", "P1", "P2", "P3", "P4", "R1", "R2", "R3", "R4", "E1", "E2", "S1",
            "O1", "O2", "O3", "O4", "T1", "C1"]
LIBRARIES = ["cache", "compiler", "emulator", "ir", "runtime", "spec", "templates"]
TEST = re.compile(r"`([\w./-]+\.(?:cpp|py))`: \"([^\"]+)\"")


def main():
    source = pathlib.Path(sys.argv[1])
    problems = []
    rows = {}
    for line in (source / "docs/cache.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.fullmatch(r"[KPRESOTC]\d", cells[0]):
            if len(cells) != 4 or not cells[1] or not cells[3]:
                problems.append(f"{cells[0]}: the row must have a promise, its tests and a figure")
            if cells[0] in rows:
                problems.append(f"{cells[0]}: has two rows")
            rows[cells[0]] = cells[2] if len(cells) > 2 else ""
    if list(rows) != PROMISES:
        problems.append(f"the rows are {list(rows)}, and must be {PROMISES}")
    for promise, cell in rows.items():
        tests = TEST.findall(cell)
        if not tests:
            problems.append(f"{promise}: names no test")
        for file, name in tests:
            path = source / "tests" / file
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            # A name may be broken into two literals.
            if name not in re.sub(r'"\s*\n\s*"', "", text):
                problems.append(f"{promise}: there is no \"{name}\" in tests/{file}")
    for library in LIBRARIES:
        for path in sorted((source / library).rglob("*")):
            if path.suffix not in (".cpp", ".h") or path.name == "environment.cpp":
                continue
            if re.search(r"\b(?:secure_)?getenv\s*\(", path.read_text(encoding="utf-8")):
                problems.append(f"K2: {path.relative_to(source)} reads the environment; runtime/environment.cpp does")
    for problem in problems:
        print(f"promises: {problem}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
