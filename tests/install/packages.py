#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A machine without what the build needs is told all of it at once: the packages, and where the list is.

usage: packages.py SOURCE CMAKE"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

SOURCE, CMAKE = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2]
SHIPPED = ["-DFLASHPLUS_STATIC_LLVM=ON", "-DFLASHPLUS_TESTS=OFF", "-DFLASHPLUS_WHEEL=ON"]  # as `pip install .` has it
COMPILERS = ["-DCMAKE_C_COMPILER=clang-22", "-DCMAKE_CXX_COMPILER=clang++-22", "-DCMAKE_C_COMPILER_LAUNCHER=ccache",
             "-DCMAKE_CXX_COMPILER_LAUNCHER=env;CCACHE_SLOPPINESS=time_macros;ccache"]
NO_FILES = ["-DCMAKE_FIND_ROOT_PATH=/nowhere", "-DCMAKE_FIND_ROOT_PATH_MODE_INCLUDE=ONLY"]
HEADERS = {"nlohmann-json3-dev", "libcli11-dev", "libdlpack-dev", "libxxhash-dev"}
LLVM = {"libmlir-22-dev", "llvm-22-dev"}


def fail(text):
    raise SystemExit(f"FAILED: {text}")


def check(options, wanted):
    """Configuring where no program is to be found ends before a compiler is tried, and names `wanted`, no more and no
    less."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([CMAKE, "-S", SOURCE, "-B", folder, "-G", "Ninja", *options], capture_output=True,
                              text=True, timeout=60, env={**os.environ, "PATH": "/nowhere"})
    said = " ".join(done.stderr.split())
    named = re.search(r"Missing packages: (.*?) All that .*install -y --no-install-recommends (.*?) Where all ", said)
    if done.returncode == 0 or "compiler identification" in done.stdout or not named:
        fail(f"{options} went on, or named nothing: {done.stdout}{done.stderr}")
    if not named[1] == named[2] or set(named[1].split()) != wanted:
        fail(f"{options} named {named[1]}, and to be installed {named[2]}, not {' '.join(sorted(wanted))}")
    if str(SOURCE / "packages.txt") not in said or "scripts/setup.sh" not in said:
        fail(f"{options} did not say where the list is: {said}")


def main():
    programs = {"clang-22", "ccache", "ninja-build"}
    check([*COMPILERS, *SHIPPED], programs)
    check([*COMPILERS, *SHIPPED, *NO_FILES], programs | HEADERS | LLVM | {"zlib1g-dev", "libzstd-dev"})
    check([*COMPILERS, *NO_FILES], programs | HEADERS | LLVM | {"doctest-dev"})
    check([*COMPILERS, *NO_FILES, "-DFLASHPLUS_COMPILER=OFF", "-DFLASHPLUS_TESTS=OFF"], programs | HEADERS)
    check([*COMPILERS[2:], "-DCMAKE_CXX_COMPILER=clang++-22", *NO_FILES, "-DCMAKE_MAKE_PROGRAM=/usr/bin/ninja"],
          (programs - {"ninja-build"}) | HEADERS | LLVM | {"doctest-dev"})
    check(["-DCMAKE_MAKE_PROGRAM=/usr/bin/ninja", "-DCMAKE_CXX_COMPILER=clang++-22"], {"clang-22"})
    print("packages: good")


if __name__ == "__main__":
    main()
