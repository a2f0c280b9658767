#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Every variable FLASHPLUS_... of the environment that anything here reads is known to runtime/environment.cpp, which
warns of those that it does not know; and those that the library reads are in README.md and docs/migration.md.

usage: variables.py SOURCE
"""
import pathlib
import re
import sys

NAME = r"(FLASHPLUS_[A-Z0-9_]+)"
READS = {  # by the end of a file's name
    ".py": [rf"environ(?:\.get\(|\[)\s*f?['\"]{NAME}", rf"_switch\(\s*['\"]{NAME}"],
    ".cpp": [rf"getenv\(\s*\"{NAME}"],
    ".h": [rf"getenv\(\s*\"{NAME}"],
    ".sh": [rf"\$\{{?{NAME}"],
    "Makefile": [rf"\b{NAME}=1\b"],
    ".txt": [rf"ENV\{{{NAME}", rf"[\";]{NAME}="],
}
FOLDERS = ["bench", "examples", "python", "runtime", "scripts", "tests", "tools"]


def main():
    source = pathlib.Path(sys.argv[1])
    known = (source / "runtime/environment.cpp").read_text(encoding="utf-8")
    problems = []
    for path in [source / "Makefile"] + [path for folder in FOLDERS for path in sorted((source / folder).rglob("*"))]:
        patterns = READS.get(path.name if path.name == "Makefile" else path.suffix)
        if not patterns or not path.is_file() or (path.suffix == ".txt" and path.name != "CMakeLists.txt"):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        for name in sorted({name for pattern in patterns for name in re.findall(pattern, text)}):
            if not name.startswith("FLASHPLUS_TEST_") and f'"{name}"' not in known:
                problems.append(f"{path.relative_to(source)} reads {name}, which runtime/environment.cpp does not know")
    read = set(re.findall(rf"\bv\.\w+\(\s*\"{NAME}\"", known))
    if len(read) < 10:
        problems.append(f"runtime/environment.cpp seems to read no more than {sorted(read)}")
    for document in ("README.md", "docs/migration.md"):
        text = (source / document).read_text(encoding="utf-8")
        problems += [f"{document} does not say what {name} is" for name in sorted(read) if f"`{name}`" not in text]
    for problem in problems:
        print(f"variables: {problem}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
