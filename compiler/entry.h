// SPDX-License-Identifier: BSD-3-Clause
// The only door between the runtime and libflashplus-compiler.so: a C table, looked up with dlsym after
// dlopen(RTLD_NOW | RTLD_LOCAL). Plain data crosses it; no C++ type, exception, abort or output does.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FLASHPLUS_COMPILER_ENTRY "flashplus_compiler"
#define FLASHPLUS_COMPILER_ABI 3

/// Where the assemblers are; null to search the usual places, "off" to use none. One that is named and does
/// not work is an error; another never takes its place.
typedef struct flashplus_assemblers {
  const char *nvjitlink; ///< Path of libnvJitLink.
  const char *ptxas;     ///< Path of the program ptxas.
} flashplus_assemblers;

/// What to compile, as canonical text (spec/kernel_spec.h, schedule.h, target.h). All strings are borrowed.
typedef struct flashplus_compile_request {
  const char *spec;
  const char *schedule;
  const char *target;
  flashplus_assemblers assemblers;
  int64_t assembler_seconds; ///< Most that the program ptxas may run; 0: no limit, and it stays in this
                             ///< process group, with which somebody else ends it.
} flashplus_compile_request;

/// Milliseconds by stage.
typedef struct flashplus_compile_times {
  double build;    ///< spec -> attn op -> expanded IR
  double passes;   ///< MLIR passes and translation to LLVM IR
  double optimize; ///< LLVM middle end
  double emit;     ///< PTX or object
  double assemble; ///< PTX -> cubin (0 on a CPU or without nvJitLink)
} flashplus_compile_times;

/// `status` is a flashplus::StatusCode. On success `data` is a serialised Artifact (spec/artifact.h), or text
/// for print(); on failure it is the message. Released with release(); `data` is never null after a call.
typedef struct flashplus_compile_result {
  int status;
  uint8_t *data;
  size_t size;
  flashplus_compile_times times;
} flashplus_compile_result;

typedef struct flashplus_compiler_table {
  uint32_t abi;         ///< FLASHPLUS_COMPILER_ABI
  const char *build_id; ///< Must equal the runtime's, which refuses the library otherwise.
  const char *describe; ///< e.g. "LLVM 22.1.8"
  /// Compiles to an artifact. A GPU target without nvJitLink gives an artifact of kind Ptx. Thread-safe.
  /// Works on a thread with a stack of its own, whatever the caller's has left.
  void (*compile)(const flashplus_compile_request *request, flashplus_compile_result *result);
  /// Prints one stage ("attn", "loops", "llvm", "ptx" or "asm", "resources") as text. Thread-safe.
  void (*print)(const flashplus_compile_request *request, const char *stage,
                flashplus_compile_result *result);
  void (*release)(flashplus_compile_result *result);
  /// Write the version of an assembler ("13.0") or the reason why it is not there; return 1 if it is.
  int (*nvjitlink)(const char *path, char *text, size_t size);
  int (*ptxas)(const char *path, char *text, size_t size);
  /// For a process that does nothing else: where the compiler can't go on (no memory, a fatal error of
  /// LLVM's) it calls `give_up` with a StatusCode and a sentence; that must not return or allocate.
  void (*serve)(void (*give_up)(int code, const char *text));
} flashplus_compiler_table;

typedef const flashplus_compiler_table *(*flashplus_compiler_fn)(void);

#ifdef __cplusplus
}
#endif
