#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Installs what packages.txt names and this machine lacks. Exit 2, with the one command to run, when it may not.
# With --assemblers also makes sure that libnvJitLink and ptxas are there (scripts/nvjitlink.sh, scripts/ptxas.sh), which
# the tests assemble with.
set -eu
cd "$(dirname "$0")/.."

missing=()
while read -r package; do
  case "$package" in '' | '#'*) continue ;; esac
  state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing+=("$package")
done < packages.txt

if [ ${#missing[@]} -gt 0 ]; then
  echo "setup: missing packages: ${missing[*]}"
  install='apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends'
  if [ "$(id -u)" = 0 ]; then
    sh -c "$install ${missing[*]}"
  elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    sudo sh -c "$install ${missing[*]}"
  else
    echo "setup: can't install packages as this user. Run this as root, then try again:" >&2
    echo "  $install ${missing[*]}" >&2
    exit 2
  fi
fi

if [ "${1:-}" = --assemblers ]; then
  scripts/nvjitlink.sh --install >/dev/null
  scripts/ptxas.sh --install >/dev/null
fi
