#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The command in a terminal: help and bars follow its width, bash completes verbs and flags, Ctrl-C says what was kept.

usage: terminal.py FLASHPLUS"""
import fcntl
import os
import pathlib
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time

# Files of the cache are synced, which takes seconds on a disk that others use.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
FLASHPLUS = os.path.abspath(sys.argv[1])
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("FLASHPLUS_")}


def fail(text):
    raise SystemExit(f"FAILED: {text}")


class Terminal:
    """A terminal of `columns` with a program in it, and all that the terminal got. Its program's end is kept open here:
    where the last one who has it open closes it, Linux may drop what was written just before."""

    def __init__(self, columns, words, folder=None, environment=None):
        self.master, self.program_end = pty.openpty()
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.out = b""
        self.child = subprocess.Popen(words, stdin=self.program_end, stdout=self.program_end, stderr=self.program_end,
                                      cwd=folder, env=environment, start_new_session=True, preexec_fn=control)

    def read(self, seconds):
        if select.select([self.master], [], [], seconds)[0]:
            self.out += os.read(self.master, 65536)

    def close(self):
        """Reads what is left, up to a mark that follows it, and returns all."""
        mark = b"\x00end\x00"
        os.write(self.program_end, mark)
        while not self.out.endswith(mark):
            self.read(None)
        os.close(self.program_end)
        os.close(self.master)
        return self.out.removesuffix(mark).decode(errors="replace").replace("\r\n", "\n")


def control():
    """Makes the terminal on stdin that of this session, for ^C."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def in_terminal(words, columns, cache, interrupt_at=None, limit=120, by=signal.SIGINT):
    """(exit status, all that the terminal got). With `interrupt_at`, ^C or the signal `by` when that is there."""
    terminal = Terminal(columns, [FLASHPLUS, *words], environment={**ENVIRONMENT, "FLASHPLUS_CACHE_DIR": str(cache)})
    end = time.monotonic() + limit
    while terminal.child.poll() is None:
        if time.monotonic() > end:
            terminal.child.kill()
        terminal.read(0.02)
        if interrupt_at and interrupt_at.encode() in terminal.out:
            if by == signal.SIGINT:
                os.write(terminal.master, b"\x03")
            else:
                os.kill(terminal.child.pid, by)
            interrupt_at = None
    return terminal.child.returncode, terminal.close()


def check_help(cache):
    for columns in (40, 50, 80, 160):
        for words in (["help"], ["help", "bench"], ["warmup", "--help"], ["cache", "clear", "--help"]):
            code, text = in_terminal(words, columns, cache)
            if code != 0 or "flashplus" not in text:
                fail(f"{words} left with {code}: {text}")
            for line in text.splitlines():
                example = line.startswith("  flashplus ") or line.startswith("  sm_")
                # A name that is longer than the terminal can't be broken.
                if len(line) > columns and not example and max(map(len, line.split())) <= columns - 10:
                    fail(f"{words} at {columns} columns has a line of {len(line)}: {line}")
    for verb in ("run", "warmup", "inspect", "emulate", "bench", "tune", "devices", "doctor", "cache"):
        helped = subprocess.run([FLASHPLUS, "help", verb], capture_output=True, text=True)
        asked = subprocess.run([FLASHPLUS, verb, "--help"], capture_output=True, text=True)
        if (helped.returncode, helped.stdout) != (0, asked.stdout):
            fail(f"help {verb} is not {verb} --help")


def check_bar(cache):
    """One line that is written over and over: no update may be as wide as the terminal."""
    # Calls of milliseconds, so that the rounds take as long as several updates however calls were counted.
    words = ["bench", "--device", "cpu", "--head-dim", "64", "--seqlen", "1024", "--batch", "1", "--heads", "4",
             "--causal", "no", "--rounds", "40", "--milliseconds", "10"]
    for columns in (20, 50, 120):
        code, text = in_terminal(words, columns, cache)
        updates = [part for line in text.split("\n") for part in line.split("\r\x1b[K")[1:]]
        if code != 0 or len(updates) < 3:
            fail(f"a bench left with {code} and showed {len(updates)} updates: {text}")
        for update in updates:
            if len(update) >= columns:
                fail(f"at {columns} columns an update has {len(update)}: {update!r}")
        if columns > 40 and not any("#" in update for update in updates):
            fail(f"at {columns} columns there is no bar: {updates}")


def check_interrupt(folder):
    """A bench that is ended keeps its rounds; a warm-up its kernels; neither leaves a file that nobody asked for."""
    cache, result = folder / "interrupted", folder / "results" / "now.json"
    words = ["bench", "--device", "cpu", "--head-dim", "16", "--seqlen", "16", "--batch", "1", "--heads", "1",
             "--causal", "no", "--rounds", "5000", "--milliseconds", "50", "--json", str(result)]
    code, text = in_terminal(words, 100, cache, interrupt_at="rounds [")
    if code != 130 or not re.search(r"interrupted; what is shown and in .*now.json is of \d+ of 5000 rounds", text):
        fail(f"an interrupted bench left with {code}: {text}")
    if "about " not in text:
        fail(f"a bench of minutes said nothing before it began: {text}")
    if [path.name for path in result.parent.iterdir()] != ["now.json"]:
        fail(f"beside the result lie {list(result.parent.iterdir())}")
    words = ["warmup", "--target", "x86-64-v3", "--head-dim", ",".join(map(str, range(16, 257, 8))), "--jobs", "1"]
    code, text = in_terminal(words, 100, cache, interrupt_at="warming up [")
    kept = re.search(r"interrupted; the (\d+) kernels are in the cache", text)
    if code != 130 or not kept or "not reached" not in text:
        fail(f"an interrupted warm-up left with {code}: {text}")
    code, said = in_terminal([*words, "--json"], 100, cache, interrupt_at="warming up [", by=signal.SIGTERM)
    kept = re.search(r"interrupted; the (\d+) kernels are in the cache", said)
    if code != 128 + signal.SIGTERM or not kept or '"interrupted": true' not in said:
        fail(f"a warm-up with --json that SIGTERM ended left with {code}: {said}")
    entries = list(cache.glob("??/*.fpk"))
    if len(entries) < int(kept.group(1)) or list((cache / "tmp").glob("*")):
        fail(f"{kept.group(1)} kernels are said to be kept; there are {len(entries)}, and beside them "
             f"{list((cache / 'tmp').glob('*'))}")
    check_interrupt_at_once(folder)
    help_text = subprocess.run([FLASHPLUS, "--help"], capture_output=True, text=True).stdout
    if "130 for Ctrl-C" not in help_text or "143 for SIGTERM" not in " ".join(help_text.split()):
        fail(f"the help does not name the exit statuses of signals: {help_text}")


def check_interrupt_at_once(folder):
    """A verb whose work has no steps says what became of it; a look-up that was ended does not count what it did not
    reach."""
    for signal_, verb in ((signal.SIGINT, "run"), (signal.SIGTERM, "run"), (signal.SIGINT, "emulate")):
        kept = "interrupted; no result was written"
        words = [verb, "--random", "8,4096,4096,16,16,256", *(["--device", "cpu", "-o", str(folder / "never.npy")]
                                                               if verb == "run" else [])]
        child = subprocess.Popen([FLASHPLUS, *words], stderr=subprocess.PIPE, text=True,
                                 env={**ENVIRONMENT, "FLASHPLUS_CACHE_DIR": str(folder / "cache")})
        time.sleep(0.5)  # random input takes longer
        child.send_signal(signal_)
        said = child.communicate(timeout=60)[1]
        if child.returncode != -signal_ or kept not in said or list(folder.glob("*never*")):
            fail(f"a verb that {signal_.name} ended left with {child.returncode}: {said}{list(folder.glob('*never*'))}")
    words = ["bench", "--device", "cpu", "--head-dim", "16", "--seqlen", "16", "--batch", "1", "--heads", "1",
             "--causal", "no", "--rounds", "5000", "--milliseconds", "50", "--json", str(folder / "hung-up.json")]
    code, text = in_terminal(words, 100, folder / "cache", interrupt_at="rounds [", by=signal.SIGHUP)
    if code != 128 + signal.SIGHUP or not (folder / "hung-up.json").exists():
        fail(f"a bench whose terminal went away left with {code} and kept nothing: {text}")
    words = ["warmup", "--target", "cpu,sm_80", "--backward", "--paged", "--append", "--dry-run", "--jobs", "1"]
    code, text = in_terminal(words, 100, folder / "cache", interrupt_at="looking up [")
    counts = re.search(r"(\d+) kernels: (\d+) to compile, (\d+) present(?:, (\d+) not reached)?", text)
    if not counts:
        fail(f"a look-up that was ended said: {text[-500:]}")
    kernels, missing, present, not_reached = (int(count or 0) for count in counts.groups())
    if kernels != missing + present + not_reached or (code == 130) != (not_reached > 0) or (
            ("not all kernels were looked up" in text) != (not_reached > 0)):
        fail(f"a look-up that was ended left with {code} and said: {text[-500:]}")


def complete(script, words):
    """What bash offers for the last of `words`, each as a line."""
    quoted = " ".join(f"'{word}'" for word in words)
    program = (f"source {script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _flashplus; "
               'printf "%s\\n" "${COMPREPLY[@]}"')
    return subprocess.run(["bash", "--norc", "-c", program], capture_output=True, text=True, check=True
                          ).stdout.removesuffix("\n").split("\n")


def typed(script, folder, text):
    """What a shell in `folder` makes of a line that ends in a tab, as one argument a line."""
    (folder / "show").write_text('printf "<%s>\\n" "$@" > words\n')
    (folder / "words").unlink(missing_ok=True)
    terminal = Terminal(200, ["/bin/bash", "--norc", "--noprofile", "-i"], folder,
                        {**ENVIRONMENT, "TERM": "dumb", "PS1": "$ ", "HISTFILE": "/dev/null"})
    begin = f"bind 'set enable-bracketed-paste off'; flashplus() {{ source ./show; }}; source {script}\n"
    os.write(terminal.master, (begin + text + "\nexit\n").encode())
    end = time.monotonic() + 30
    while terminal.child.poll() is None:
        if time.monotonic() > end:
            terminal.child.kill()
        terminal.read(0.02)
    out = terminal.close()
    if not (folder / "words").exists():
        fail(f"'{text}' ran nothing: {out}")
    return re.findall(r"<(.*)>", (folder / "words").read_text())


def check_completion(folder):
    made = subprocess.run([FLASHPLUS, "completion", "bash"], capture_output=True, text=True)
    script = folder / "flashplus.bash"
    script.write_text(made.stdout)
    if made.returncode or subprocess.run(["bash", "-n", script]).returncode:
        fail(f"completion bash left with {made.returncode}")
    for line, some in (("flashplus wa", ["warmup"]), ("flashplus warmup --head", ["--head-dim", "--head-dim-v"]),
                       ("flashplus cache v", ["verify"]), ("flashplus cache verify --js", ["--json"]),
                       ("flashplus inspect --stage res", ["resources"]), ("flashplus run --head", [""]),
                       ("flashplus inspect --stage = res", ["resources"]), ("flashplus inspect --stage =",
                        ["spec", "score", "attn", "loops", "llvm", "ptx", "asm", "sass", "resources"]),
                       ("flashplus inspect --stage=res", ["--stage=resources"]),
                       ("flashplus warmup --dtype b", ["bf16"]), ("flashplus warmup --dtype fp16,b", ["fp16,bf16"]),
                       ("flashplus warmup --dtype = fp16,b", ["fp16,bf16"]), ("flashplus bench --causal b", ["both"]),
                       ("flashplus help be", ["bench"])):
        if sorted(complete(script, line.split(" "))) != sorted(some):
            fail(f"'{line}' is completed by {complete(script, line.split(' '))}, not {some}")
    place = folder / "typed"
    (place / "some folder" / "below").mkdir(parents=True)
    (place / "q k v.npy").touch()
    for text, some in (("flashplus run --in q\t", ["run", "--in", "q k v.npy"]),
                       ("flashplus run --in=q\t", ["run", "--in=q k v.npy"]),
                       ("flashplus run -o q\t", ["run", "-o", "q k v.npy"]),
                       ("flashplus run --cache-dir s\tb\t", ["run", "--cache-dir", "some folder/below/"]),
                       ("flashplus run --cache-dir=s\t", ["run", "--cache-dir=some folder/"]),
                       ("flashplus run --cache-dir q\t", ["run", "--cache-dir", "q"]),  # is a file
                       ("flashplus warmup --dtype fp16,b\t", ["warmup", "--dtype", "fp16,bf16"])):
        if typed(script, place, text) != some:
            fail(f"{text!r} in a shell became {typed(script, place, text)}, not {some}")


def main():
    with tempfile.TemporaryDirectory(dir=MEMORY) as temporary:
        folder = pathlib.Path(temporary)
        check_help(folder / "cache")
        check_completion(folder)
        if not (pathlib.Path(FLASHPLUS).parent / "libflashplus-compiler.so").exists():
            print("terminal: good; nothing ran, for there is no compiler library")
            return
        check_bar(folder / "cache")
        check_interrupt(folder)
    print("terminal: good")


if __name__ == "__main__":
    main()
