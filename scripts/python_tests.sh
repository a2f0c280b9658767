#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# python_tests.sh ENVIRONMENT PYTEST-ARGUMENTS...: runs tests of tests/python in an environment of
# scripts/python_env.py. Exit 77 (to CTest: skipped) if it is not there, but 1 in CI, where that must not happen.
set -eu
cd "$(dirname "$0")/.."
name=$1
shift
if ! python=$(python3 scripts/python_env.py "$name"); then
  echo "python_tests: there is no environment '$name' with PyTorch; make it with: scripts/python_env.py --install $name"
  if [ -n "${CI:-}" ] && [ "${CI:-}" != false ]; then
    echo "python_tests: CI must not skip these tests" >&2
    exit 1
  fi
  exit 77
fi
cd tests/python
# Byte code is kept in the environment, that of the source tree too: many tests start a process, and without it each of
# them takes seconds to compile PyTorch's.
unset PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX=$(dirname "$python")/../byte-code
rm -rf "$PYTHONPYCACHEPREFIX${TMPDIR:-/tmp}" 2>/dev/null || true  # of what earlier tests installed
PYTHONPATH="$OLDPWD/python" exec "$python" -m pytest -q -p no:cacheprovider "$@"
