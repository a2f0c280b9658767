#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# test.sh PRESET... [-- CTEST-ARGUMENTS...]: builds and tests each preset, whatever became of the one before, and ends
# with one verdict that names every test that failed, by preset. Exit status 1 if a build or a test failed, else 0.
# FLASHPLUS_SOAK=1 runs whole what CI runs a share of (tests/soak.h).
set -u
cd "$(dirname "$0")/.."
presets=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  presets+=("$1")
  shift
done
[ $# -eq 0 ] || shift
jobs=${JOBS:-$(nproc)}
FLASHPLUS_NVJITLINK=$(scripts/nvjitlink.sh)
FLASHPLUS_PTXAS=$(scripts/ptxas.sh)
# The part of the lists that are run in rotation: by the commit, so that a checkout always runs the same (tests/soak.h).
commit=$(git rev-parse --short=7 HEAD 2>/dev/null || echo 0)
FLASHPLUS_TEST_TURN=${FLASHPLUS_TEST_TURN:-$((16#${commit:0:7}))}
export FLASHPLUS_NVJITLINK FLASHPLUS_PTXAS FLASHPLUS_TEST_TURN

verdict=()
failed=0
for preset in "${presets[@]}"; do
  begin=$SECONDS
  if ! make --no-print-directory build PRESET="$preset" JOBS="$jobs"; then
    verdict+=("$preset: the build failed")
    failed=1
    continue
  fi
  names=build/$preset/Testing/Temporary/LastTestsFailed.log # lines of "12:unit.cache"
  rm -f "$names"
  ctest --test-dir "build/$preset" --output-on-failure --parallel "$jobs" "$@"
  status=$?
  if [ $status -eq 0 ]; then
    verdict+=("$preset: passed in $(((SECONDS - begin) / 60)) min $(((SECONDS - begin) % 60)) s, build included")
  else
    failed=1
    list=$([ -f "$names" ] && sed 's/^[0-9]*://' "$names" | tr '\n' ' ')
    verdict+=("$preset: FAILED: ${list:-ctest ended with status $status}")
  fi
done

echo
echo "== verdict (FLASHPLUS_TEST_TURN=$FLASHPLUS_TEST_TURN${FLASHPLUS_SOAK:+ FLASHPLUS_SOAK=$FLASHPLUS_SOAK})"
printf '%s\n' "${verdict[@]}"
exit $failed
