# SPDX-License-Identifier: BSD-3-Clause
"""The command `flashplus` from Python: `python -m flash_attn VERB ...` and warmup()."""

import os
import subprocess
import sys

from flashplus import environment

HERE = os.path.dirname(os.path.abspath(__file__))


def path():
    """The executable: $FLASHPLUS_COMMAND, that beside $FLASHPLUS_LIBRARY, or that in the package."""
    library = environment.library()
    candidates = [environment.command(), library and os.path.join(os.path.dirname(library), "flashplus"),
                  os.path.join(HERE, "lib", "flashplus")]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    raise FileNotFoundError(f"the command 'flashplus' is not at {candidates[-1]}, where the wheel puts it; "
                            "FLASHPLUS_COMMAND names another one")


def main(arguments=None):
    """Becomes the command."""
    executable = path()
    os.execv(executable, [executable, *(sys.argv[1:] if arguments is None else arguments)])


def _values(name, value, allowed=None):
    values = [value] if isinstance(value, (str, int)) else list(value)
    for one in values:
        if allowed and one not in allowed:
            raise ValueError(f"{name} is {value!r}; it must be of {', '.join(allowed)}")
    return ",".join(str(v) for v in values)


def _dtype(value):
    names = {"torch.float16": "fp16", "torch.bfloat16": "bf16", "torch.float32": "fp32"}
    return names.get(str(value), str(value))


def warmup(head_dim=None, dtype=("fp16", "bf16"), causal="both", window="no", softcap="no", alibi="none", target=None,
           arch=None, jobs=None, quiet=False, backward=False, model=None):
    """Compiles ahead of time every kernel that any shape of these variants can use, so that no call compiles later.

    head_dim: one or several; None: the variants that a release ships, of all dtypes and masks (the rest is ignored).
    dtype: "fp16", "bf16", "fp32" (CPU) or torch dtypes. causal, window, softcap: "yes", "no" or "both".
    alibi: "none", "heads", "batch". target: "cpu", "sm_80", ...; None: this machine's devices. arch: chips that a GPU
    target is assembled for ("sm_90"). jobs: kernels compiled at a time; None: all cores. backward: for training, the
    kernels of the gradients, too. model: path of a transformers model's config.json, which then says what the variants
    are, those of serving included; of the arguments before, only target, arch, jobs and backward go with it.

    Shows a progress bar on a terminal. Can be interrupted and called again. Kernels go to the cache that later
    processes read; RuntimeError if one failed or could not be kept.
    """
    arguments = [path(), "warmup"]
    if model is not None:
        if head_dim is not None:
            raise ValueError("model and head_dim are given; either says what the variants are")
        arguments += ["--model", os.fspath(model)]
    if head_dim is not None:
        dtypes = [dtype] if isinstance(dtype, str) or not hasattr(dtype, "__iter__") else dtype
        arguments += ["--head-dim", _values("head_dim", head_dim),
                      "--dtype", _values("dtype", [_dtype(d) for d in dtypes], ("fp16", "bf16", "fp32"))]
        for flag, value in (("causal", causal), ("window", window), ("softcap", softcap)):
            arguments += ["--" + flag, _values(flag, value, ("yes", "no", "both"))]
        arguments += ["--alibi", _values("alibi", alibi, ("none", "heads", "batch"))]
    if backward:
        arguments.append("--backward")
    if target is not None:
        arguments += ["--target", _values("target", target)]
    if arch is not None:
        arguments += ["--arch", _values("arch", arch)]
    if jobs is not None:
        arguments += ["--jobs", str(int(jobs))]
    # The bar is drawn on stderr, which is inherited; what is on stdout is a summary.
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE if quiet else None, text=True)
    if done.returncode:
        raise RuntimeError(f"flashplus warmup failed: {(done.stdout + (done.stderr or '')).strip() or done.returncode}")
    if not quiet:
        print(done.stdout.strip())
