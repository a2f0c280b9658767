#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Runs every command and snippet of README, docs/ and --help as it is typed, in a folder and a home of their own.

usage: documented.py [--list] [--only PATTERN] SOURCE BIN CC CXX [INCLUDE...]

Commands run in the order of their document, one shell each, so that a file that one writes is there for the next;
rules.py says which are made smaller and which are left out, with the reason. C and C++ snippets are compiled against
our headers in INCLUDE; Python's are run by tests/python/test_migration.py. Leaves with 77 where there is no compiler
library."""
import argparse
import json
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import time

import rules
import snippets

# Files of the cache are synced, which takes seconds on a disk that others use.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
# What a snippet of C or C++ has before it: the reader's own names.
C_BEFORE = """#include <stdio.h>
%s
void snippet(flashplus_context *context, DLTensor q, DLTensor k, DLTensor v, DLTensor o, DLTensor lse, DLTensor dout,
             DLTensor dq, DLTensor dk, DLTensor dv, void *stream, void *workspace) {
"""
CPP_BEFORE = """#include <flashplus/flashplus.hpp>
void snippet(flashplus::ForwardArgs args, void *stream) {
"""
MODEL = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "num_attention_heads": 2,
         "num_key_value_heads": 1, "head_dim": 32, "num_hidden_layers": 1, "torch_dtype": "bfloat16",
         "max_position_embeddings": 128}


def plan(where, command, used):
    """(what to run or None, why it is not as typed). `used` collects the rules that fit something."""
    for number, (pattern, reason) in enumerate(rules.EXCEPTIONS):
        if re.search(pattern, command):
            used.add(("exception", number))
            return None, reason
    small = re.sub(r"\s+#\s.*$", "", command)
    for number, (fits, pattern, replacement) in enumerate(rules.SMALL):
        if re.search(fits, command):
            used.add(("small", number))
            small = re.sub(pattern, replacement, small, count=0 if replacement[0] != " " else 1)
    return small, "" if command.startswith(small) else "with small sizes"


def unknown_flags(command, flashplus, helps):
    """Flags of `verb ... --flag` that the verb's help does not list; None where the first word is no verb."""
    words = command.split()
    verb = tuple(words[:1])
    if verb not in helps and verb[0] != "help":
        return None
    text = helps.get(tuple(words[:2])) or helps.get(verb, "")
    return [flag for flag in re.findall(r"(?<!\S)--[a-z][a-z-]*", command)
            if not re.search(rf"(?<![\w-]){flag}(?![\w-])", text)]


def shell(command):
    """A pipe fails with its first part: `flashplus ... | head` must not hide what the command left with."""
    return ["bash", "-o", "pipefail", "-c", command]


def only_unknown(done, flag):
    """Whether `flag`, which no verb has, is all that a verb complains about: unknown flags are listed together, and the
    list must be of this one alone."""
    return done.returncode == 2 and re.search(rf"has no flag {flag}(?:; [^?]*\??)? \(try", done.stderr) is not None


def compile_snippets(arguments, folder, complain):
    count, c_units = 0, []
    for where, language, text in snippets.code(arguments.source, {"c", "cpp"}):
        count += 1
        if language == "c":
            includes = "\n".join(re.findall(r"^#include.*$", text, flags=re.M)) or "#include <flashplus/flashplus.h>"
            before = C_BEFORE % includes
            if "flashplus_context *context;" in text:
                before = before.replace("flashplus_context *context, ", "")
            body = re.sub(r"^#include.*$", "", text, flags=re.M)
            unit, compiler, standard = before + body + "\n}\n", arguments.cc, "c11"
        else:
            unit, compiler, standard = CPP_BEFORE + text + "\n}\n", arguments.cxx, "c++20"
        file = folder / f"snippet{count}.{'c' if language == 'c' else 'cpp'}"
        file.write_text(unit)
        done = subprocess.run([compiler, f"-std={standard}", "-fsyntax-only", "-Wall", "-Wno-unused-variable",
                               "-Wno-unused-function", *[f"-I{folder}" for folder in arguments.include], file],
                              capture_output=True, text=True)
        if done.returncode:
            complain(where, f"this {language} does not compile:\n{text}\n{done.stderr}")
    return count


def home_folder(source, work):
    """Where commands are typed: what a checkout has, and a model of someone's."""
    for name in ("tests", "tuning", "bench", "templates", "examples"):
        (work / name).mkdir()
    (work / "tests" / "data").symlink_to(source / "tests" / "data")
    (work / "bench" / "results").symlink_to(source / "bench" / "results")
    for record in (source / "tuning").glob("*.json"):
        (work / "tuning" / record.name).write_bytes(record.read_bytes())
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }".ljust(117) + b"\n"
    (work / "bias.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header +
                                    struct.pack("<4f", 0, .5, 1, 2))
    (work / "Llama-3.1-8B").mkdir()
    (work / "Llama-3.1-8B" / "config.json").write_text(json.dumps(MODEL))
    for folder in (source / "templates" / "forward").iterdir():
        (work / "templates" / "forward" / folder.name).mkdir(parents=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("bin", type=pathlib.Path)
    parser.add_argument("cc")
    parser.add_argument("cxx")
    parser.add_argument("include", nargs="*")
    arguments = parser.parse_args()
    arguments.source = arguments.source.resolve()
    flashplus = arguments.bin.resolve() / "flashplus"
    failures = []

    def complain(where, text):
        failures.append(where)
        print(f"FAILED: {where}: {text}", flush=True)

    shown = [*snippets.shell_commands(arguments.source), *snippets.help_examples(flashplus)]
    helps = {verb: snippets.help_text(flashplus, verb) for verb in snippets.verbs(flashplus)}
    used, seconds, ran, seen = set(), {}, 0, set()
    for typo, only in (("", True), ("--schedul x", False), ("--suite nothing", False)):  # the check sees what it is for
        done = subprocess.run(shell(f"{flashplus} bench {typo} --no-such-flag"), capture_output=True, text=True)
        if only_unknown(done, "--no-such-flag") != only:
            complain("documented.py", f"takes 'bench {typo}' for {'wrong' if only else 'right'}: {done.stderr}")
    if subprocess.run(shell(f"{flashplus} bench --no-such-flag | cat"), capture_output=True).returncode != 2:
        complain("documented.py", "a pipe hides that the command in it failed")
    with tempfile.TemporaryDirectory(dir=MEMORY) as temporary:
        work = pathlib.Path(temporary).resolve()
        home_folder(arguments.source, work)
        environment = {**os.environ, "HOME": str(work), "PATH": f"{flashplus.parent}:{os.environ['PATH']}"}
        environment["FLASHPLUS_CPU_TARGET"] = "x86-64-v3"  # the same kernels, and knobs, on every machine
        for name in ("FLASHPLUS_CACHE_DIR", "XDG_CACHE_HOME", "FLASHPLUS_TUNING", "FLASHPLUS_COMPILER"):
            environment.pop(name, None)
        if not (flashplus.parent / "libflashplus-compiler.so").exists() and not arguments.list:
            print("there is no compiler library")
            sys.exit(77)
        for where, command in shown:
            typed, why = plan(where, command, used)
            if arguments.list:
                print(f"{where}: {command}\n    {'runs' if typed else 'left out'}{': ' + why if why else ''}"
                      f"{'' if typed in (None, command) else ': ' + typed}")
                continue
            if not re.search(arguments.only, where + " " + command) or (typed or command) in seen:
                continue
            seen.add(typed or command)
            if typed is None:
                if re.match(r"(FLASHPLUS_\w+=\S+ )?flashplus ", command):
                    done = subprocess.run(shell(re.sub(r"\s#\s.*$", "", command) + " --no-such-flag"),
                                          capture_output=True, text=True, cwd=work, env=environment, timeout=60)
                    if not only_unknown(done, "--no-such-flag"):
                        complain(where, f"is not understood: {command}\n{done.stderr}")
                continue
            begin = time.monotonic()
            done = subprocess.run(shell(typed), capture_output=True, text=True, cwd=work, env=environment,
                                  timeout=60, stdin=subprocess.DEVNULL)
            seconds[typed] = time.monotonic() - begin
            if seconds[typed] > 2:
                print(f"{seconds[typed]:6.1f} s  {where}: {typed}", flush=True)
            ran += 1
            if done.returncode != 0:
                complain(where, f"left with {done.returncode}: {typed}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
            elif not done.stdout.strip() and not re.search(r" (-o|--plot|--html|>) ", typed):
                complain(where, f"printed nothing: {typed}")
        if arguments.list:
            return
        compiled = 0 if arguments.only else compile_snippets(arguments, work, complain)
    if not arguments.only:
        for where, inline in snippets.inline_commands(arguments.source):
            unknown = unknown_flags(inline, flashplus, helps)
            if unknown is None:
                complain(where, f"`flashplus {inline}` names no verb")
            elif unknown:
                complain(where, f"`flashplus {inline}`: {', '.join(unknown)} is not in the verb's --help")
        for kind, table in (("exception", rules.EXCEPTIONS), ("small", rules.SMALL)):
            for number, rule in enumerate(table):
                if (kind, number) not in used:
                    complain("tests/documented/rules.py", f"fits no command any more: {rule}")
        if ran < 30 or compiled < 3:
            complain("documents", f"only {ran} commands and {compiled} snippets were found")
    print(f"{ran} commands ran, {compiled} snippets were compiled, {len(failures)} failures")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
