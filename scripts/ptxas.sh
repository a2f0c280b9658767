#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Prints the path of ptxas (PTX -> cubin; needs no GPU): $FLASHPLUS_PTXAS, the CUDA toolkit's, or that of the wheel
# `nvidia-cuda-nvcc` under build/ptxas, which --install fetches when nothing else is found.
set -eu
cd "$(dirname "$0")/.."

find_program() {
  local candidate
  for candidate in "${FLASHPLUS_PTXAS:-}" "$(command -v ptxas || true)" "${CUDA_HOME:-/usr/local/cuda}/bin/ptxas" \
    /usr/local/cuda-*/bin/ptxas "$PWD"/build/ptxas/lib/python*/site-packages/nvidia/*/bin/ptxas; do
    if [ -n "$candidate" ] && [ -x "$candidate" ]; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

if find_program; then
  exit 0
fi
if [ "${1:-}" != --install ]; then
  echo "ptxas: not found; install the CUDA toolkit, or run scripts/ptxas.sh --install" >&2
  exit 1
fi
echo "ptxas: not found, fetching the wheel nvidia-cuda-nvcc into build/ptxas" >&2
rm -rf build/ptxas
mkdir -p build
python3 -m venv build/ptxas
# The program alone; what the wheel needs to compile CUDA C++ is not.
build/ptxas/bin/pip install --quiet --disable-pip-version-check --no-deps nvidia-cuda-nvcc >&2
chmod +x build/ptxas/lib/python*/site-packages/nvidia/*/bin/ptxas
find_program
