#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# scripts/test.sh with a make and a ctest of our own: a failure stops nothing, and the verdict names what failed where.
set -eu
source=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/scripts" "$work/bin"
cp "$source/scripts/test.sh" "$work/scripts/"
for tool in nvjitlink ptxas; do
  printf '#!/bin/sh\necho /nowhere/%s\n' $tool > "$work/scripts/$tool.sh"
done
# make ... PRESET=NAME: fails for the preset in $BREAK_BUILD.
cat > "$work/bin/make" <<'EOF'
#!/bin/sh
for word; do case $word in PRESET=*) preset=${word#PRESET=} ;; esac; done
echo "built $preset" >> "$WORK/log"
[ "$preset" != "$BREAK_BUILD" ]
EOF
# ctest --test-dir build/NAME ...: for the presets in $BREAK_TESTS two tests fail; in $BREAK_CTEST itself does.
cat > "$work/bin/ctest" <<'EOF'
#!/bin/sh
preset=$(basename "$2")
echo "tested $preset soak=${FLASHPLUS_SOAK:-} turn=$FLASHPLUS_TEST_TURN with $FLASHPLUS_PTXAS, $*" >> "$WORK/log"
[ "$preset" != "$BREAK_CTEST" ] || exit 3
case " $BREAK_TESTS " in *" $preset "*) ;; *) exit 0 ;; esac
mkdir -p "$2/Testing/Temporary"
printf '3:unit.%s\n7:emulator.core\n' "$preset" > "$2/Testing/Temporary/LastTestsFailed.log"
exit 8
EOF
chmod +x "$work/bin/"* "$work/scripts/"*

export WORK=$work PATH="$work/bin:$PATH" BREAK_BUILD='' BREAK_TESTS='' BREAK_CTEST=''
unset FLASHPLUS_SOAK FLASHPLUS_TEST_TURN FLASHPLUS_NVJITLINK FLASHPLUS_PTXAS
run() {
  rm -f "$work/log"
  status=0
  "$work/scripts/test.sh" "$@" > "$work/out" 2>&1 || status=$?
}
fail() {
  echo "verdict: $1" >&2
  cat "$work/out" "$work/log" >&2
  exit 1
}
said() { grep -q -- "$1" "$work/out" || fail "not said: $1"; }
did() { grep -q -- "$1" "$work/log" || fail "not done: $1"; }

run release asan tsan
[ $status = 0 ] || fail "status $status when all is well"
said '^release: passed in' && said '^asan: passed in' && said '^tsan: passed in'
did 'tested release soak= turn=0 with /nowhere/ptxas'

# The first preset fails: the others run, and the last one that is good does not hide it.
BREAK_TESTS='release asan' run release asan tsan
[ $status = 1 ] || fail "status $status after failed tests"
said '^release: FAILED: unit.release emulator.core' && said '^asan: FAILED: unit.asan emulator.core' && said '^tsan: passed in'
did 'tested tsan'

# What a run before this one left is no failure of this one.
BREAK_CTEST=release run release
[ $status = 1 ] || fail "status $status when ctest itself failed"
said '^release: FAILED: ctest ended with status 3'

BREAK_BUILD=asan run release asan tsan
[ $status = 1 ] || fail "status $status after a failed build"
said '^asan: the build failed' && said '^release: passed in' && did 'tested tsan'
! grep -q 'tested asan' "$work/log" || fail "a preset was tested that was not built"

FLASHPLUS_SOAK=1 FLASHPLUS_TEST_TURN=5 run release -- -L soak
[ $status = 0 ] || fail "status $status with arguments for ctest"
did 'soak=1 turn=5' && did '-L soak'
echo "verdict: good"
