# SPDX-License-Identifier: BSD-3-Clause
"""runpath.py PATH...: where shipped binaries look for their libraries.

Every ELF file among PATH (folders are searched) must name its libraries without a folder, and its run path may hold
only elements that start with $ORIGIN; in a developer's build, what links the shared LLVM has the folder of that,
too. An empty element, or a relative one, is the current folder: whatever lies there under the right name would be
loaded. Needs nothing but Python."""

import pathlib
import struct
import sys

DT_NULL, DT_NEEDED, DT_STRTAB, DT_RPATH, DT_RUNPATH = 0, 1, 5, 15, 29
SHT_DYNAMIC = 6


def dynamic_section(data):
    """(tag, text) of the entries that name files; None if `data` is no ELF file for linking at run time."""
    if data[:6] != b"\x7fELF\x02\x01":
        return None
    offset, = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQII", data, offset + i * size) for i in range(count)]
    for _, kind, _, _, start, length, link, _ in sections:
        if kind != SHT_DYNAMIC:
            continue
        strings = sections[link][4]
        found = []
        for at in range(start, start + length, 16):
            tag, value = struct.unpack_from("<QQ", data, at)
            if tag == DT_NULL:
                break
            if tag in (DT_NEEDED, DT_RPATH, DT_RUNPATH):
                begin = strings + value
                found.append((tag, data[begin:data.index(b"\0", begin)].decode()))
        return found
    return None


def problems(path):
    """What is wrong with one file, as sentences; None if it is not a dynamically linked ELF file."""
    entries = dynamic_section(path.read_bytes())
    if entries is None:
        return None
    wrong = []
    shared_llvm = any(tag == DT_NEEDED and text.startswith(("libLLVM", "libMLIR")) for tag, text in entries)
    for tag, text in entries:
        if tag == DT_NEEDED:
            if "/" in text:
                wrong.append(f"{path}: needs the library '{text}' by its path")
            continue
        for element in text.split(":"):
            if element == "$ORIGIN" or element.startswith("$ORIGIN/"):
                continue
            if element.startswith("/") and shared_llvm:
                continue
            wrong.append(f"{path}: run path '{text}' has the element '{element}'")
    return wrong


def check(paths):
    """(files looked at, problems)"""
    files, wrong = [], []
    for path in map(pathlib.Path, paths):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if not file.is_file() or file.is_symlink():
                continue
            found = problems(file)
            if found is not None:
                files.append(file)
                wrong += found
    return files, wrong


def main(arguments):
    files, wrong = check(arguments)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    print(f"{len(files)} binaries, {len(wrong)} wrong elements")
    return 1 if wrong or not files else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
