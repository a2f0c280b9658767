#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# python_gpu_tests.sh [FOLDER [PYTHON]]: tests/python with CUDA tensors, then the table of bench/python_overhead.py, on a machine
# with an NVIDIA GPU. FOLDER holds libflashplus.so, libflashplus-compiler.so and the command flashplus (default: the release
# build); PYTHON has PyTorch, pytest, einops and, for test_transformers.py, transformers. $OUT (default: build) gets the figures.
set -u
cd "$(dirname "$0")/.."
folder=$(realpath "${1:-build/release/bin}")
python=${2:-python3}
out=${OUT:-build}
mkdir -p "$out"
export FLASHPLUS_LIBRARY=$folder/libflashplus.so PYTHONPATH=$PWD/python${PYTHONPATH:+:$PYTHONPATH} PYTHONDONTWRITEBYTECODE=1
export FLASHPLUS_CACHE_DIR=${FLASHPLUS_CACHE_DIR:-$(mktemp -d)}
# Without a GPU everything would be skipped, which is not what was asked for.
"$python" -c "import torch; assert torch.cuda.is_available(), 'no CUDA device'; import einops, pytest" || exit 1
# test_install.py packs wheels, which has nothing to do with the device.
"$python" -m pytest -q -rs -p no:cacheprovider tests/python --ignore=tests/python/test_install.py \
  -k "not cpu and not shell_snippets and not interpreters"
status=$?
"$python" bench/python_overhead.py --device cuda --json "$out/python_overhead_cuda.json" || status=1
exit $status
