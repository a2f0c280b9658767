#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# installed.sh BUILD SOURCE CC CXX LIBDIR VERSION: see CMakeLists.txt.
set -euo pipefail
build=$1 source=$2 cc=$3 cxx=$4 libdir=$5 version=$6
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { echo "== $*"; }

say "install, then move the prefix"
cmake --install "$build" --prefix "$work/first" >"$work/log" || { cat "$work/log"; exit 1; }
mv "$work/first" "$work/prefix"
prefix=$work/prefix
for file in include/flashplus/flashplus.h include/flashplus/flashplus.hpp include/flashplus/values.hpp include/flashplus/kernels.h \
    include/flashplus/dropout.h include/flashplus/merge.h include/flashplus/python.h include/dlpack/dlpack.h \
    "$libdir/libflashplus.so" "$libdir/libflashplus.so.${version%.*}" \
    share/bash-completion/completions/flashplus bin/flashplus; do
  [ -e "$prefix/$file" ] || { echo "not installed: $file"; exit 1; }
done
# No path of the build or of the first prefix may be left in what is installed as text.
if grep -rIlF -e "$work/first" -e "$build" "$prefix"; then
  echo "these files hold an absolute path"
  exit 1
fi
say "run paths"
python3 "$source/tests/install/runpath.py" "$prefix"
say "what the binaries ask of a system"
python3 "$source/tests/install/symbols.py" "$prefix/bin" "$prefix/$libdir"
"$prefix/bin/flashplus" --version
say "headers, each alone and without a warning"
for header in "$prefix"/include/flashplus/*; do
  case $header in
  *.hpp) "$cxx" -std=c++20 -Wall -Wextra -Wpedantic -Werror -Wno-pragma-once-outside-header -fsyntax-only \
    -I"$prefix/include" -x c++ "$header" ;;
  *)
    "$cc" -std=c99 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -I"$prefix/include" -x c "$header"
    "$cxx" -std=c++11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -I"$prefix/include" -x c++ "$header"
    ;;
  esac
done
bash -n "$prefix/share/bash-completion/completions/flashplus"
"$prefix/bin/flashplus" devices >/dev/null

say "find_package and the examples"
cmake -S "$source/examples" -B "$work/examples" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$cc" \
  -DCMAKE_CXX_COMPILER="$cxx" -DCMAKE_BUILD_TYPE=Release >"$work/log" || { cat "$work/log"; exit 1; }
cmake --build "$work/examples" --parallel 2 >"$work/log" || { cat "$work/log"; exit 1; }
if cmake -S "$source/examples" -B "$work/other" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$cc" \
  -DCMAKE_CXX_COMPILER="$cxx" -DFLASHPLUS_WANTED=99.0 >"$work/log" 2>&1; then
  echo "version 99.0 was found"
  exit 1
fi

say "pkg-config"
export PKG_CONFIG_PATH=$prefix/$libdir/pkgconfig
[ "$(pkg-config --modversion flashplus)" = "$version" ]
# shellcheck disable=SC2046
"$cc" -std=c11 -Wall -Wextra -Werror "$source/examples/embed.c" -o "$work/embed" $(pkg-config --cflags --libs flashplus)

if [ -e "$prefix/$libdir/libflashplus-compiler.so" ] && [ ! -x "$prefix/$libdir/flashplus-compile-helper" ]; then
  echo "not installed: flashplus-compile-helper"
  exit 1
fi
if [ ! -e "$prefix/$libdir/libflashplus-compiler.so" ] && [ -z "${FLASHPLUS_COMPILER:-}" ]; then
  say "no compiler library: the examples are not run"
  exit 0
fi
export FLASHPLUS_CACHE_DIR=$work/cache
say "embed (C)"
LD_LIBRARY_PATH=$prefix/$libdir "$work/embed"
"$work/examples/embed" >/dev/null
say "serve (C++)"
"$work/examples/serve" --device cpu --check
"$work/examples/serve" --check # on a GPU if there is one, with a captured graph
say "train (C++)"
"$work/examples/train"
"$work/examples/train" 60 | tail -1 | grep -qx '0 compiled, [1-9][0-9]* from the cache' # what the first one compiled
if "$work/examples/train" 1 >/dev/null 2>&1; then
  echo "one step cannot have trained anything"
  exit 1
fi
