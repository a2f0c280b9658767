// SPDX-License-Identifier: BSD-3-Clause
// The only place that reads environment variables. None of them changes the code of a kernel, so none is in a key.
#pragma once

#include <string>

namespace flashplus {

inline constexpr int kMaxThreads = 4096; ///< More CPU workers than this is a mistake.

struct Environment {
  std::string cache_dir; ///< $FLASHPLUS_CACHE_DIR, else $XDG_CACHE_HOME/flashplus, else $HOME/.cache/flashplus,
                         ///< else empty: memory only.
  std::string compiler;  ///< $FLASHPLUS_COMPILER: path of the compiler library; empty if unset.
  std::string nvjitlink; ///< $FLASHPLUS_NVJITLINK: path of libnvJitLink; empty if unset.
  int num_threads = 0;   ///< $FLASHPLUS_NUM_THREADS: CPU workers; 0 if unset or not a positive number; cut to kMaxThreads.

  static Environment read();
};

} // namespace flashplus
