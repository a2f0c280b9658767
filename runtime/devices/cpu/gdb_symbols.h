// SPDX-License-Identifier: BSD-3-Clause
// Tells GDB (and LLDB) about code that no file on disk holds, through GDB's JIT compilation interface (GDB
// manual, chapter "JIT Compilation Interface"): a list of in-memory symbol files, and a function that the
// debugger has a breakpoint in. This library has a list of its own, beside that of any LLVM in the process:
// debuggers read one per shared library.
#pragma once

#include <cstdint>
#include <vector>

extern "C" {
enum : uint32_t { kJitNoAction = 0, kJitRegister = 1, kJitUnregister = 2 };
struct jit_code_entry {
  jit_code_entry *next_entry, *prev_entry;
  const char *symfile_addr;
  uint64_t symfile_size;
};
struct jit_descriptor {
  uint32_t version, action_flag;
  jit_code_entry *relevant_entry, *first_entry;
};
// Names and types are the interface. Read or change the list only inside withGdbList().
extern jit_descriptor __jit_debug_descriptor;
void __jit_debug_register_code();
}

namespace flashplus {

/// One symbol file in the list, from construction to destruction. Thread-safe.
class GdbSymbols {
public:
  explicit GdbSymbols(std::vector<uint8_t> file);
  ~GdbSymbols();
  GdbSymbols(const GdbSymbols &) = delete;
  GdbSymbols &operator=(const GdbSymbols &) = delete;

private:
  std::vector<uint8_t> file_;
  jit_code_entry entry_{};
};

/// Calls `body` while nobody changes the list.
void withGdbList(void (*body)(const jit_descriptor &list, void *context), void *context);

} // namespace flashplus
