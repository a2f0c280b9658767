#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What README shows of examples/serve.cpp is what it prints, but for the speed; and a bad flag is a sentence.

usage: documented.py README.md SERVE_BINARY
Leaves with 77 where there is no compiler library.
"""
import re
import shlex
import subprocess
import sys

SPEED = re.compile(r"\d+ tokens/s")


def shown(text):
    """Command lines of `serve` with the lines below each, up to the end of their block."""
    for block in re.split(r"^```.*\n", text, flags=re.MULTILINE)[1::2]:
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            if shlex.split(command)[0].endswith("serve"):
                yield command, output


def main():
    readme, serve = sys.argv[1:]
    with open(readme, encoding="utf-8") as file:
        examples = list(shown(file.read()))
    if not examples:
        raise SystemExit("FAILED: README shows no run of serve")
    for command, output in examples:
        run = subprocess.run([serve] + shlex.split(command)[1:], capture_output=True, text=True)
        if run.returncode and "libflashplus-compiler.so" in run.stderr:
            print(run.stderr)
            sys.exit(77)
        print(run.stdout, run.stderr, sep="")
        if run.returncode or SPEED.sub("N tokens/s", run.stdout) != SPEED.sub("N tokens/s", output):
            raise SystemExit(f"FAILED: README shows this of {command}, which left with {run.returncode}:\n{output}")
    run = subprocess.run([serve, "--steps", "ten"], capture_output=True, text=True)
    if (run.returncode, run.stdout, run.stderr) != (
            2, "", "serve: --steps is 'ten'; it must be a whole number from 1 to 1000000000\n"):
        raise SystemExit(f"FAILED: --steps ten left with {run.returncode} and said {run.stdout!r} {run.stderr!r}")


if __name__ == "__main__":
    main()
