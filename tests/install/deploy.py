#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Runs examples/deploy/Dockerfile without Docker: an installed tree as the build stage, and a root folder of its own as
the image, in which only what the last stage copies is there, entered as its user, without a network and without
anything that can be written but /tmp. Kernels that were warmed run, and none compiles.

usage: deploy.py BUILD SOURCE LIBDIR

Needs root, chroot and namespaces; leaves with 77 and says so where there are none, or no compiler library."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

VARIANTS = "--target cpu --head-dim 64 --dtype bf16 --causal no --jobs 2"
SYSTEM = ["usr", "bin", "lib", "lib64", "etc/ld.so.cache", "etc/ld.so.conf", "etc/ld.so.conf.d", "proc", "sys",
          "dev/null", "dev/urandom"]


def skip(why):
    print(f"skipped: deploy: {why}")
    sys.exit(77)


def run(command, **more):
    done = subprocess.run(command, capture_output=True, text=True, **more)
    words = command if isinstance(command, str) else " ".join(word for word in command if "\n" not in word)
    print("$", words, f"-> {done.returncode}", flush=True)
    return done


def must(command, **more):
    done = run(command, **more)
    if done.returncode:
        raise SystemExit(f"FAILED: {done.stdout}{done.stderr}")
    return done


class Stage:
    """The instructions of one stage, in order."""

    def __init__(self, text):
        self.lines = [tuple(line.split(" ", 1)) for line in re.sub(r"\\\n\s*", "", text).splitlines()
                      if line.strip() and not line.startswith("#")]

    def of(self, word):
        return [rest for first, rest in self.lines if first == word]

    def environment(self):
        return dict(setting.split("=", 1) for setting in self.of("ENV"))


def stages(path):
    parts = re.split(r"^(?=FROM )", path.read_text(encoding="utf-8"), flags=re.M)
    return [Stage(part) for part in parts if part.startswith("FROM ")]


def inside(image, user, environment, command):
    """`command` (a list) in `image` as `user`: what is of the system is bound there, and read only; no network."""
    mounts = f"mount --make-rprivate /\nmount --bind {image} {image}\n"
    for name in SYSTEM:
        if not os.path.exists("/" + name):
            continue
        target = image / name
        if os.path.isdir("/" + name):
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        mounts += f"mount --rbind /{name} {target}\n"
    script = (f"set -e\n{mounts}mount -o remount,bind,ro {image}\n"
              f"mount -t tmpfs -o mode=1777 none {image}/tmp\n"
              f"exec /usr/sbin/chroot --userspec={user} {image} \"$@\"")
    (image / "tmp").mkdir(exist_ok=True)
    return run(["unshare", "--mount", "--net", "sh", "-c", script, "sh", *command], env=environment)


def main():
    build, source, libdir = sys.argv[1:]
    if os.geteuid() != 0:
        skip("needs root, to be another user in a root folder of its own")
    if (not os.path.exists("/usr/sbin/chroot") or not shutil.which("unshare")
            or run(["unshare", "--mount", "--net", "true"]).returncode):
        skip("this system gives no namespaces")
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work).resolve()
        work.chmod(0o755)
        deploy(pathlib.Path(build), pathlib.Path(source), libdir, work)
    print("deployed: warm, shipped and run as another user, offline, without a compiler")


def deploy(build, source, libdir, work):
    dockerfile = source / "examples/deploy/Dockerfile"
    if dockerfile.read_text(encoding="utf-8") not in (source / "docs/deploy.md").read_text(encoding="utf-8"):
        raise SystemExit("FAILED: docs/deploy.md does not show examples/deploy/Dockerfile as it is")
    first, last = stages(dockerfile)
    must(["cmake", "--install", str(build), "--prefix", str(work / "opt/flashplus")])
    if not (work / "opt/flashplus" / libdir / "libflashplus-compiler.so").exists():
        skip("this build has no compiler library")

    def here(path):  # of the build stage
        return str(work) + path.replace("/lib/", f"/{libdir}/")

    environment = {"PATH": os.environ["PATH"], **{k: here(v) for k, v in first.environment().items()}}
    for name in ("FLASHPLUS_PTXAS", "FLASHPLUS_NVJITLINK", "LD_LIBRARY_PATH"):
        if name in os.environ:
            environment[name] = os.environ[name]
    (work / "var/cache").mkdir(parents=True)
    commands = [line for line in first.of("RUN") if line.startswith("/opt/flashplus/bin/")]
    if len(commands) != 3 or "$VARIANTS" not in commands[0]:
        raise SystemExit(f"FAILED: the build stage does something else than this test knows: {commands}")
    for line in commands:
        must(re.sub(r"(?<!\S)/opt/", f"{work}/opt/", line.replace("$VARIANTS", VARIANTS)), shell=True, env=environment)

    image = work / "image"
    image.mkdir(mode=0o755)
    for line in last.of("COPY"):
        what, to = line.removeprefix("--from=build ").split()
        to = image / to.lstrip("/") / (pathlib.Path(what).name if to.endswith("/") else "")
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(here(what), to)
    shipped = sorted(p.name for p in (image / "opt").rglob("*") if p.is_file())
    if shipped != ["flashplus", "kernels.fpk", "libflashplus.so.0.1"]:
        raise SystemExit(f"FAILED: the image has {shipped}")

    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **last.environment()}
    (user,) = last.of("USER")
    flashplus = json.loads(last.of("CMD")[0])[0]

    def app(*words):
        return inside(image, user, environment, [flashplus, *words])

    def ran(*words):
        done = app("run", "--device", "cpu", "--repeat", "0", "--json", *words)
        return done, json.loads(done.stdout) if done.returncode == 0 else {}

    who = inside(image, user, environment, ["/usr/bin/id", "-u"])
    if who.stdout.strip() != user.split(":")[0]:
        raise SystemExit(f"FAILED: not entered as another user: {who.stdout}{who.stderr}")
    shown = inside(image, user, environment, json.loads(last.of("CMD")[0]))
    if shown.returncode or "total" not in shown.stdout:
        raise SystemExit(f"FAILED: {shown.stdout}{shown.stderr}")
    for sizes in ("1,1,1,1,1,64", "2,300,300,4,2,64", "1,1,20000,1,1,64"):
        done, result = ran("--random", sizes)
        if not result or result["counters"]["compiles"] or result["from"] != "disk" or done.stderr:
            raise SystemExit(f"FAILED: {sizes}: {done.stdout}{done.stderr}")
    # What was not warmed is an error that says so; nothing hangs, and nothing is written.
    done, _ = ran("--random", "1,40,40,1,1,80")
    if done.returncode != 1 or "libflashplus-compiler.so" not in done.stderr:
        raise SystemExit(f"FAILED: a kernel that is not in the image: {done.returncode} {done.stdout}{done.stderr}")
    # A pack that another user could have written is not run.
    os.chown(image / "opt/flashplus/kernels.fpk", 4711, 4711)
    done, _ = ran("--random", "1,40,40,1,1,64")
    if done.returncode != 1 or "belongs to user 4711" not in done.stderr:
        raise SystemExit(f"FAILED: a stranger's pack: {done.returncode} {done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
