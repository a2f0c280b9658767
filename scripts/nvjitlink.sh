#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Prints the path of libnvJitLink (PTX -> cubin; needs no GPU): $FLASHPLUS_NVJITLINK, the CUDA toolkit's, or that of
# the wheel `nvidia-nvjitlink` under build/nvjitlink, which --install fetches when nothing else is found.
set -eu
cd "$(dirname "$0")/.."

find_library() {
  local candidate
  if [ -n "${FLASHPLUS_NVJITLINK:-}" ] && [ -e "$FLASHPLUS_NVJITLINK" ]; then
    echo "$FLASHPLUS_NVJITLINK"
    return
  fi
  for root in "${CUDA_HOME:-}" "${CUDA_PATH:-}" /usr/local/cuda /usr/local/cuda-* /usr/lib/x86_64-linux-gnu \
    "$PWD"/build/nvjitlink/lib/python*/site-packages/nvidia/*; do
    [ -n "$root" ] || continue
    for folder in "$root" "$root/lib64" "$root/lib" "$root/targets/x86_64-linux/lib"; do
      for candidate in "$folder"/libnvJitLink.so.[0-9]* "$folder"/libnvJitLink.so; do
        if [ -e "$candidate" ]; then
          echo "$candidate"
          return
        fi
      done
    done
  done
  return 1
}

if find_library; then
  exit 0
fi
if [ "${1:-}" != --install ]; then
  echo "nvjitlink: not found; install the CUDA toolkit, or run scripts/nvjitlink.sh --install" >&2
  exit 1
fi
echo "nvjitlink: not found, fetching the wheel nvidia-nvjitlink into build/nvjitlink" >&2
rm -rf build/nvjitlink
mkdir -p build
python3 -m venv build/nvjitlink
build/nvjitlink/bin/pip install --quiet --disable-pip-version-check nvidia-nvjitlink >&2
find_library
