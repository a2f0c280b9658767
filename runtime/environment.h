// SPDX-License-Identifier: BSD-3-Clause
// The only place that reads environment variables. They choose among targets and schedules, which are in
// every key, but change no code otherwise, so none is in a key itself.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace flashplus {

inline constexpr int kMaxThreads = 4096; ///< More CPU workers than this is a mistake.

struct Environment {
  std::string cache_dir; ///< $FLASHPLUS_CACHE_DIR, else $XDG_CACHE_HOME/flashplus, else
                         ///< $HOME/.cache/flashplus, else empty: memory only.
  std::vector<std::string> cache_path; ///< $FLASHPLUS_CACHE_PATH: folders and packs that are only read, in
                                       ///< the order in which they are looked up, separated by colons.
  std::string compiler;  ///< $FLASHPLUS_COMPILER: path of the compiler library; empty if unset.
  std::string nvjitlink; ///< $FLASHPLUS_NVJITLINK: path of libnvJitLink, or "off"; empty if unset: searched.
  std::string ptxas;     ///< $FLASHPLUS_PTXAS: path of the program ptxas, or "off"; empty if unset: searched.
  std::string path;      ///< $PATH, where ptxas is searched.
  std::string cuda_target; ///< $FLASHPLUS_CUDA_TARGET: instructions that GPU kernels may use, such as sm_80;
                           ///< empty: all that the GPU has.
  std::string cpu_target;  ///< $FLASHPLUS_CPU_TARGET: instructions that CPU kernels may use, such as
                           ///< x86-64-v3; empty: all that the processor has.
  int cuda_shared_memory = 0; ///< $FLASHPLUS_CUDA_SHARED_MEMORY: most bytes of a thread block; 0: what the
                              ///< GPU has.
  std::string tuning; ///< $FLASHPLUS_TUNING: a tuning record or a folder of them, or "off"; empty: `tuning`
                      ///< in the cache.
  std::string debug_kernels; ///< $FLASHPLUS_DEBUG_KERNELS: who is told of CPU kernels, of gdb, perf and
                             ///< perf=FOLDER; empty: nobody.
  std::string debug_values;  ///< $FLASHPLUS_DEBUG_VALUES: 1: lengths, tables and slots that lie on a device
                            ///< are checked before each launch; empty or 0: not.
  std::string record_misses; ///< $FLASHPLUS_RECORD_MISSES: a file to which each kernel that is in no cache
                             ///< adds a line; empty: none.
  std::string late_compile; ///< $FLASHPLUS_LATE_COMPILE: what a compilation is once a context is marked
                            ///< ready and its caller does not say, warn or error; empty: warn.
  std::string log;          ///< $FLASHPLUS_LOG: warn or info, and :FILE (runtime/log_lines.h); empty: none.
  int64_t cache_bytes = -1; ///< $FLASHPLUS_CACHE_SIZE: how large the cache may become, in bytes or with K, M
                            ///< or G, at least 1M; 0: without a limit; -1 if unset.
  bool compile_in_process = false; ///< $FLASHPLUS_COMPILE_IN_PROCESS is 1: no process of its own for the
                                   ///< compiler.
  int64_t compile_bytes = -1; ///< $FLASHPLUS_COMPILE_MEMORY: most memory of a compilation, in bytes or with
                              ///< K, M or G; 0: no limit; -1 if unset.
  int64_t compile_seconds = -1; ///< $FLASHPLUS_COMPILE_SECONDS: most time of a compilation; 0: no limit; -1
                                ///< if unset.
  std::vector<std::string> problems; ///< Of values that say nothing, which are as if unset, of paths where
                                     ///< nothing is, and of names like ours that nothing reads; a sentence
                                     ///< each.
  int num_threads = 0;   ///< $FLASHPLUS_NUM_THREADS: CPU workers; 0 if unset or not a positive number; cut to
                         ///< kMaxThreads.

  static Environment read();
};

} // namespace flashplus
