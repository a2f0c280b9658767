# SPDX-License-Identifier: BSD-3-Clause
"""symbols.py PATH...: what shipped binaries ask of a system, so that one wheel runs on Ubuntu 22.04 and RHEL 9.

Every ELF file among PATH (folders are searched) may need only LIBRARIES, and of them no newer versions of symbols
than NEWEST. A developer's build of the compiler library, which links the shared LLVM, is not what is shipped and is
left out.
Needs nothing but Python."""

import pathlib
import re
import struct
import sys

from runpath import DT_NEEDED, dynamic_section

# What each version node of a library is at most. Without libstdc++, there are none of GLIBCXX and CXXABI.
NEWEST = {"GLIBC": (2, 34), "GCC": (7, 0), "FLASHPLUS": (1,)}
LIBRARIES = {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "libpthread.so.0", "libdl.so.2", "librt.so.1",
             "ld-linux-x86-64.so.2"}
SHT_GNU_VERNEED = 0x6FFFFFFE


def needed_versions(data):
    """(library, version) of each node that the file asks for."""
    offset, = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQII", data, offset + i * size) for i in range(count)]
    for _, kind, _, _, start, _, link, entries in sections:
        if kind != SHT_GNU_VERNEED:
            continue
        strings = sections[link][4]

        def text(at):
            return data[strings + at:data.index(b"\0", strings + at)].decode()

        for _ in range(entries):
            _, nodes, file, aux, following = struct.unpack_from("<HHIII", data, start)
            at = start + aux
            for _ in range(nodes):
                _, _, _, name, next_node = struct.unpack_from("<IHHII", data, at)
                yield text(file), text(name)
                at += next_node
            start += following


def problems(path):
    """What is wrong with one file, as sentences; None if it is not a shipped ELF file."""
    data = path.read_bytes()
    entries = dynamic_section(data)
    if entries is None:
        return None
    libraries = [text for tag, text in entries if tag == DT_NEEDED]
    if any(name.startswith(("libLLVM", "libMLIR")) for name in libraries):
        return None
    wrong = [f"{path}: needs {name}, which not every system has" for name in libraries
             if name not in LIBRARIES and not name.startswith("libflashplus.so.")]
    for library, node in needed_versions(data):
        found = re.fullmatch(r"([A-Z]+)_([0-9.]+)", node)
        if not found or found[1] not in NEWEST:
            wrong.append(f"{path}: asks {library} for {node}")
        elif tuple(map(int, found[2].split("."))) > NEWEST[found[1]]:
            newest = ".".join(map(str, NEWEST[found[1]]))
            wrong.append(f"{path}: asks {library} for {node}; at most {found[1]}_{newest} (objdump -T has the names)")
    return wrong


def check(paths):
    """(the ELF files looked at, what is wrong)."""
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


def main():
    files, wrong = check(sys.argv[1:])
    print("\n".join(wrong))
    if wrong or not files:
        raise SystemExit(f"FAILED: {len(files)} files, {len(wrong)} complaints")
    print(f"{len(files)} files ask for nothing newer than glibc {'.'.join(map(str, NEWEST['GLIBC']))}")


if __name__ == "__main__":
    main()
