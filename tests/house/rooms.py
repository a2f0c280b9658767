#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Arrows between folders: with each library's own compile command, headers below it are found and those above it are
not.

usage: rooms.py BUILD_FOLDER SOURCE_FOLDER
"""
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

# A source of a library, headers that it may include, headers that it must not see.
ROOMS = [
    ("spec/score.cpp", ["spec/params.h"], ["cache/key.h", "templates/plan.h", "ir/ir.h"]),
    ("cache/store.cpp", ["spec/artifact.h"], ["runtime/context.h", "templates/plan.h"]),
    ("templates/plan.cpp", ["spec/kernel.h"], ["ir/ir.h", "runtime/context.h", "cache/key.h"]),
    ("ir/ir.cpp", ["spec/params.h"], ["templates/plan.h", "compiler/compiler.h"]),
    ("templates/emit.cpp", ["ir/ir.h", "templates/plan.h"], ["compiler/compiler.h", "runtime/context.h"]),
    ("compiler/compiler.cpp", ["templates/emit.h", "ir/ir.h"], ["runtime/context.h", "cache/key.h"]),
    ("runtime/context.cpp", ["templates/plan.h", "cache/store.h", "compiler/entry.h"],
     ["ir/ir.h", "compiler/compiler.h", "tools/io/file.h", "emulator/core/cta.h"]),
    ("emulator/device.cpp", ["runtime/devices/device.h"], ["runtime/context.h", "runtime/plans/plan.h"]),
    ("tools/flashplus/run.cpp", ["cache/store.h"], ["runtime/context.h", "ir/ir.h", "compiler/compiler.h"]),
]


def finds(command, header):
    words = [w for w in shlex.split(command["command"]) if not w.endswith("ccache")]
    output = words.index("-o")
    del words[output:output + 2]
    words = [w for w in words if w != "-c" and w != command["file"]]
    with tempfile.NamedTemporaryFile("w", suffix=".cpp") as probe:
        probe.write(f'#include "{header}"\n')
        probe.flush()
        run = subprocess.run(words + ["-E", "-o", "/dev/null", probe.name], cwd=command["directory"],
                             capture_output=True, text=True)
    if run.returncode != 0 and "file not found" not in run.stderr:
        sys.exit(f"{header}: {run.stderr}")
    return run.returncode == 0


def main():
    build, source = Path(sys.argv[1]), Path(sys.argv[2])
    # A test may compile a source once more, with a view of everything; the library's own command counts.
    commands = {c["file"]: c for c in json.loads((build / "compile_commands.json").read_text())
                if " -o tests/" not in c["command"]}
    failures = checked = 0
    for file, below, above in ROOMS:
        command = commands.get(str(source / file))
        if command is None: # a build without that library
            print(f"not built: {file}")
            continue
        for header, wanted in [(h, True) for h in below] + [(h, False) for h in above]:
            assert (source / header).exists(), header
            checked += 1
            if finds(command, header) != wanted:
                failures += 1
                print(f"FAIL {file} {'does not find' if wanted else 'finds'} {header}")
    print(f"{checked} includes checked, {failures} failed")
    return 1 if failures or not checked else 0


if __name__ == "__main__":
    sys.exit(main())
