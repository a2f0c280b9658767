# SPDX-License-Identifier: BSD-3-Clause
"""The commands and snippets that README, docs/ and every --help show, as (where, text)."""
import re
import subprocess

SHELL = {"sh", "console", "bash"}
LANGUAGES = SHELL | {"c", "cpp", "python", "text", ""}
# Who runs the Python of a document: each runs every block of it.
PYTHON = {"docs/migration.md": "tests/python/test_migration.py", "docs/scores.md": "tests/python/test_scores.py"}
# A line of a block without a language that begins so is a command that nobody marked as one.
PROGRAMS = ("flashplus ", "serve ", "pip ", "python ", "make ", "cmake ", "git ", "scripts/", "./", "$ ")


def documents(root):
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def blocks(path):
    """(language, first line's number, text) of each fenced block."""
    fence, start, language = None, 0, ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if re.match(r"\s+```|~~~", line):
            raise SystemExit(f"FAILED: {path}:{number}: this test sees only fences of ``` at the start of a line")
        if line.startswith("```"):
            if fence is None:
                fence, start, language = [], number + 1, line[3:].strip()
            else:
                yield language, start, "\n".join(fence)
                fence = None
        elif fence is not None:
            fence.append(line)
    if fence is not None:
        raise SystemExit(f"FAILED: {path}: the block of line {start - 1} has no end")


def commands(text, prompt=False):
    """(line, command) of a shell block: lines that a backslash continues are one; of a console, what follows `$ `."""
    lines = iter(enumerate(text.splitlines()))
    for number, line in lines:
        if prompt and not line.startswith("$ "):
            continue
        line = line[2:] if prompt else line
        while line.endswith("\\"):
            line = line[:-1].rstrip() + " " + next(lines)[1].strip()
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.strip()


def shell_commands(root):
    for path in documents(root):
        name = path.relative_to(root)
        for language, start, text in blocks(path):
            if language not in LANGUAGES:
                raise SystemExit(f"FAILED: {name}:{start - 1}: a block of '{language}'; this test knows "
                                 f"{', '.join(sorted(LANGUAGES - {''}))}")
            if language == "python" and str(name) not in PYTHON:
                raise SystemExit(f"FAILED: {name}:{start - 1}: nothing runs this Python; it is run of "
                                 f"{', '.join(PYTHON)}")
            if language in SHELL:
                for number, command in commands(text, language == "console"):
                    yield f"{name}:{start + number}", command
                continue
            for number, line in enumerate(text.splitlines()):
                if language in {"", "text"} and line.startswith(PROGRAMS):
                    raise SystemExit(f"FAILED: {name}:{start + number}: a command in a block that is not marked sh or "
                                     f"console, so that nothing runs it: {line}")


def inline_commands(root):
    """`flashplus VERB ...` between backticks: parts of commands, whose flags at least must be there."""
    for path in documents(root):
        text = re.sub(r"^```.*?^```", lambda m: "\n" * m.group().count("\n"), path.read_text(encoding="utf-8"),
                      flags=re.M | re.S)
        for found in re.finditer(r"`flashplus ([^`]+)`", text):
            yield f"{path.relative_to(root)}:{text[:found.start()].count(chr(10)) + 1}", found.group(1)


def code(root, languages):
    for path in documents(root):
        for language, start, text in blocks(path):
            if language in languages:
                yield f"{path.relative_to(root)}:{start}", language, text


def verbs(flashplus):
    """("run",), ("cache", "ls"), ...: every verb that the command's own help lists, and () for the command itself."""
    found, ask = [], [()]
    while ask:
        path = ask.pop()
        found.append(path)
        text = subprocess.run([flashplus, *path, "--help"], capture_output=True, text=True, check=True).stdout
        listed = re.search(r"^SUBCOMMANDS:\n((?:  .*\n)*)", text, flags=re.M | re.I)
        ask += [path + (name,) for name in re.findall(r"^  (\w+)", listed.group(1), flags=re.M)] if listed else []
    return sorted(found)


def help_text(flashplus, verb):
    return subprocess.run([flashplus, *verb, "--help"], capture_output=True, text=True, check=True).stdout


def help_examples(flashplus):
    for verb in verbs(flashplus):
        text, _, examples = help_text(flashplus, verb).partition("\nExample")
        if not examples:
            raise SystemExit(f"FAILED: flashplus {' '.join(verb)} --help shows no example")
        shown = [(number, command) for number, command in commands(examples) if command.startswith("flashplus ")]
        if not shown:
            raise SystemExit(f"FAILED: flashplus {' '.join(verb)} --help shows no example that begins with flashplus")
        for number, command in shown:
            yield f"flashplus {' '.join((*verb, '--help'))}, example line {number}", command
