#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# sanitize.sh TOOL FLASHPLUS: runs `flashplus run --device cuda` under compute-sanitizer, one shape per template and
# path through it, each compared with the reference. Exit status 77: no GPU, or no compute-sanitizer.
set -u
tool=$1 flashplus=$2

sanitizer=$(command -v compute-sanitizer || true)
for root in "${CUDA_HOME:-}" "${CUDA_PATH:-}" /usr/local/cuda /usr/local/cuda-*; do
  [ -z "$sanitizer" ] && [ -x "$root/bin/compute-sanitizer" ] && sanitizer=$root/bin/compute-sanitizer
done
if [ -z "$sanitizer" ]; then
  echo "skipped: compute-sanitizer is not installed"
  exit 77
fi
if ! "$flashplus" devices --json | grep -q '"name": "cuda:'; then
  echo "skipped: $("$flashplus" devices | grep '^cuda')"
  exit 77
fi

failed=0
check() {
  echo "== $tool: $*"
  # 86 tells the sanitizer's findings from flashplus' own exit statuses.
  "$sanitizer" --tool "$tool" --error-exitcode 86 "$flashplus" run --device cuda --repeat 0 --check --cache-dir "" "$@" ||
    failed=1
}
# sm80.flash: the tall tile with a rest of rows and keys, rows aligned for cp.async.
check --random 2,200,300,4,2,64 --dtype bf16 --causal
# The short tile, element by element loads, padded head dims, both window sides, a score.
check --random 2,17,130,4,2,33,20 --dtype fp16 --window 40,3 --softcap 5
# 16-byte loads of a head dim with padding, and the widest one.
check --random 1,70,90,2,1,72 --dtype bf16
check --random 1,70,90,2,1,256 --dtype fp16 --causal
# The split forward and gpu.combine.
check --random 1,3,2000,4,2,128 --dtype bf16 --num-splits 4
check --random 1,3,200,4,2,33 --dtype fp16 --num-splits 7
# Gradients: gpu.backward_delta, sm80.backward_kv and sm80.backward_q with rests of rows and keys; pairs of warps that share
# their keys; rows read element by element, a slope.
check --backward --random 2,200,300,4,2,64 --dtype bf16 --causal
check --backward --random 1,70,90,2,1,256 --dtype bf16
check --backward --random 2,17,130,4,2,33,20 --dtype fp16 --window 40,3 --softcap 5
# sm80.decode: shares of a sequence merged by several blocks, two tiles of rows, a window. Keys in pages, for it and for
# sm80.flash; new keys into pages, turned.
check --random 2,1,3000,8,2,128 --dtype bf16 --causal
check --random 3,5,700,8,2,64 --dtype fp16 --causal --window 100,0
check --random 3,1,700,8,2,128 --dtype bf16 --page-size 16 --pages random
check --random 2,70,130,4,2,64 --dtype bf16 --causal --page-size 3 --pages random
check --random 3,2,300,8,2,128 --dtype bf16 --causal --page-size 16 --append 2 --rotary 64
# Dropout, forward and backward.
check --random 2,200,300,4,2,64 --dtype bf16 --causal --dropout 0.1
check --backward --random 2,200,300,4,2,64 --dtype bf16 --causal --dropout 0.1
exit $failed
