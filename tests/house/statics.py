#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""No function of the library has a static that is made on first use: a fork that comes meanwhile leaves a child that
waits for it for ever (spec/made_once.h is in its place). Compilers give each such static a guard variable; those of
threads are no harm.

Usage: statics.py READELF LIBRARY
"""
import re
import subprocess
import sys

# Made when the library is loaded.
AT_LOAD = {"_ZGVZN9flashplus8ForkList3getEvE4list"}
GUARD = re.compile(r"\s(TLS|OBJECT)\s.*\s(_ZGV\S*9flashplus\S*)$")


def main():
    readelf, library = sys.argv[1:]
    symbols = subprocess.run([readelf, "-sW", library], capture_output=True, text=True, check=True).stdout
    guards = [match.groups() for match in map(GUARD.search, symbols.splitlines()) if match]
    if not guards:
        print(f"skipped: {library} is stripped")
        return 77
    wrong = sorted(name for kind, name in guards if kind == "OBJECT" and name not in AT_LOAD)
    for name in wrong:
        print(f"{name}: a static that is made on first use, which a fork can cut in two; use spec/made_once.h")
    print(f"{len(guards)} guards, {len(wrong)} of statics in functions")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
