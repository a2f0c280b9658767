#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# size.sh LIBRARY [LIMIT_MIB]: prints the deflated size of a stripped copy of a library and fails over the limit.
set -eu
library=$1
limit_mib=${2:-24}
copy=$(mktemp)
trap 'rm -f "$copy"' EXIT
strip=$(command -v llvm-strip-22 || command -v strip)
"$strip" --strip-unneeded -o "$copy" "$library"
stripped=$(stat -c %s "$copy")
# As deb and wheel packages would: xz where it is there (multi-threaded), else zstd.
if command -v xz >/dev/null; then
  how='xz -6'
  deflated=$(xz -6 -T0 -c "$copy" | wc -c)
else
  how='zstd -19'
  deflated=$(zstd -19 -T0 -q -c "$copy" | wc -c)
fi
mib() { awk -v n="$1" 'BEGIN { printf "%.1f MiB", n / 1048576 }'; }
echo "$(basename "$library"): $(mib "$stripped") stripped, $(mib "$deflated") deflated ($how), limit $limit_mib MiB"
if [ "$deflated" -gt $((limit_mib * 1048576)) ]; then
  echo "$(basename "$library"): over the limit" >&2
  exit 1
fi
