# SPDX-License-Identifier: BSD-3-Clause
"""The command `flashplus` from Python: `python -m flash_attn VERB ...` and warmup()."""

import operator
import os
import subprocess
import sys

from flashplus import environment

HERE = os.path.dirname(os.path.abspath(__file__))


def path():
    """The executable: $FLASHPLUS_COMMAND, which must be one, that beside $FLASHPLUS_LIBRARY, or that in the package."""
    library, named = environment.library(), environment.command()
    if named and not os.access(named, os.X_OK):
        raise FileNotFoundError(f"FLASHPLUS_COMMAND is {named!r}; it must be an executable 'flashplus', or not be set")
    candidates = [named, library and os.path.join(os.path.dirname(library), "flashplus"),
                  os.path.join(HERE, "lib", "flashplus")]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    raise FileNotFoundError(f"the command 'flashplus' is not at {candidates[-1]}, where the wheel puts it; "
                            "FLASHPLUS_COMMAND names another one")


def main(arguments=None):
    """Becomes the command; without arguments says what there is."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments:
        try:
            print(summary())
        except ImportError as error:  # of the library
            sys.exit(f"flash_attn: {error}")
        return
    if arguments[0] == "local-kernels":
        try:
            print(local_kernels())
        except ValueError as error:
            sys.exit(f"local-kernels: {error}")
        return
    # The one verb that the executable does not have, and can't mean.
    if arguments[0].lower().replace("_", "").replace("-", "") in ("localkernels", "localkernel", "local"):
        sys.exit(f"flash_attn: unknown subcommand {arguments[0]!r}; did you mean local-kernels?")
    try:
        executable = path()
    except FileNotFoundError as error:
        sys.exit(f"flash_attn: {error}")
    os.execv(executable, [executable, *arguments])


# Repositories of the `kernels` hub that hosts ask for flash attention, and what is shipped for them.
_HUB = {"kernels-community/flash-attn2": "flash_attn2", "kernels-community/flash-attn3": "flash_attn3",
        "kernels-community/vllm-flash-attn3": "flash_attn3", "kernels-community/sgl-flash-attn3": "flash_attn3"}


def local_kernels():
    """LOCAL_KERNELS=..., as the environment of a host that loads kernels from the hub (transformers, SGLang, diffusers)
    needs it to get ours instead: `python -m flash_attn local-kernels`."""
    hub = os.path.join(HERE, "hub")
    if wrong := [c for c in hub if c == ":" or c.isspace()]:
        raise ValueError(f"the package lies in {hub!r}; a path in LOCAL_KERNELS must have no {wrong[0]!r}")
    return "LOCAL_KERNELS=" + ":".join(f"{repository}={os.path.join(hub, folder)}"
                                       for repository, folder in _HUB.items())


def _values(name, value, allowed=None):
    values = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
    if not values:
        raise ValueError(f"{name} is {value!r}; it must have at least one value")
    for one in values:
        if allowed and one not in allowed:
            raise ValueError(f"{name} is {value!r}; it must be of {', '.join(allowed)}")
    return ",".join(str(v) for v in values)


def _dtype(value):
    names = {"float16": "fp16", "half": "fp16", "bfloat16": "bf16", "float32": "fp32", "float": "fp32"}
    text = str(value)
    return names.get(text[6:] if text.startswith("torch.") else text, text)


def _which(name, value):
    if type(value).__name__ in ("bool", "bool_"):  # NumPy's, too
        value = "yes" if value else "no"
    return _values(name, value, ("yes", "no", "both"))


def _run(arguments, quiet):
    """(exit status, stdout, stderr). stderr, where the bar and the reasons are, is shown unless quiet: on a terminal as
    the command draws it, else when it has ended."""
    seen = not quiet and sys.stderr is not None and sys.stderr.isatty()
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=None if seen else subprocess.PIPE, text=True)
    if not quiet and not seen and done.stderr:
        print(done.stderr, end="", file=sys.stderr)
    return done.returncode, done.stdout, done.stderr or ""


def summary():
    """What `python -m flash_attn` prints: versions, the backend, devices and why others are not there, the cache."""
    import flashplus
    from flashplus import backend, library

    told = library.describe()
    lines = [f"flash-attn-plus {flashplus.__version__}, as flash_attn {flashplus.FLASH_ATTN_VERSION}",
             f"backend   {backend.backend_name()}", f"library   {library.get().path}"]
    lines += [f"device    {d['name']}: {d.get('target', '')} {d.get('detail', '')}".rstrip() for d in told["devices"]]
    lines += [f"no device {d['name']}: {d['reason']}" for d in told.get("missing", ())]
    cache = told.get("cache", {})
    lines += [f"cache     {cache.get('dir', '')}: {cache.get('state', '')}"]
    lines += [f"warning   {text}" for text in told.get("warnings", ())]
    return "\n".join(lines + ["'python -m flash_attn --help' lists what the command does; 'python -m flash_attn "
                              "local-kernels' prints the environment by which transformers loads these kernels"])


def warmup(head_dim=None, dtype=("fp16", "bf16"), causal="both", window="no", softcap="no", alibi="none", target=None,
           arch=None, jobs=None, quiet=False, backward=False, model=None):
    """Compiles ahead of time every kernel that any shape of these variants can use, so that no call compiles later.

    head_dim: one or several; None: the variants that a release ships, of all dtypes and masks.
    dtype: "fp16", "bf16", "fp32" (CPU), torch dtypes or their names.
    causal, window, softcap: a bool, "yes", "no" or "both". alibi: "none", "heads", "batch".
    target: "cpu", "sm_80", ...; None: this machine's devices.
    arch: chips that a GPU target is assembled for ("sm_90").
    jobs: kernels compiled at a time; None: all cores.
    quiet: no bar and no summary.
    backward: for training, the kernels of the gradients, too.
    model: path of a transformers model's config.json, which then says what the variants are, those of serving
        included; dtype and causal may say otherwise.

    Shows a progress bar on a terminal. Can be interrupted and called again. Kernels go to the cache that later
    processes read; RuntimeError if one failed or could not be kept. ValueError for what would choose nothing:
    dtype, causal, window, softcap or alibi without a head_dim.
    """
    arguments = [path(), "warmup"]
    dtypes = [dtype] if isinstance(dtype, str) or not hasattr(dtype, "__iter__") else list(dtype)
    chosen = {"dtype": _values("dtype", [_dtype(d) for d in dtypes], ("fp16", "bf16", "fp32")),
              "causal": _which("causal", causal), "window": _which("window", window),
              "softcap": _which("softcap", softcap), "alibi": _values("alibi", alibi, ("none", "heads", "batch"))}
    if model is not None:
        if head_dim is not None:
            raise ValueError("model and head_dim are given; either says what the variants are")
        arguments += ["--model", os.fspath(model)]
    if head_dim is not None:
        arguments += ["--head-dim", _values("head_dim", head_dim)]
    else:  # of what is as it is by default, nobody chose anything
        standard = {"dtype": "fp16,bf16", "causal": "both", "window": "no", "softcap": "no", "alibi": "none"}
        chosen = {name: value for name, value in chosen.items()
                  if sorted(value.split(",")) != sorted(standard[name].split(","))}
        if wrong := [name for name in chosen if model is None or name not in ("dtype", "causal")]:
            raise ValueError(f"{wrong[0]} is {chosen[wrong[0]]!r}, and no head_dim is given for which it would choose "
                             "kernels" + ("" if model is None else
                                          "; with model only dtype and causal may say otherwise"))
    for name, value in chosen.items():
        arguments += ["--" + name, value]
    if backward:
        arguments.append("--backward")
    if target is not None:
        arguments += ["--target", _values("target", target)]
    if arch is not None:
        arguments += ["--arch", _values("arch", arch)]
    if jobs is not None:
        arguments += ["--jobs", str(operator.index(jobs))]
    status, out, err = _run(arguments, quiet)
    if status:
        raise RuntimeError(f"flashplus warmup failed: {(out + err).strip() or f'exit status {status}'}")
    if not quiet:
        print(out.strip())
