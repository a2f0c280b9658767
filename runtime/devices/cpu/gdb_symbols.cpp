// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/devices/cpu/gdb_symbols.h"

#include "cache/fork.h"

#include <mutex>
#include <utility>

// Exported, so that a stripped library still has them; protected, so that this library uses its own whatever
// else in the process defines these names.
extern "C" {
[[gnu::visibility("protected"), gnu::used]] jit_descriptor __jit_debug_descriptor = {1, kJitNoAction, nullptr,
                                                                                     nullptr};
[[gnu::visibility("protected"), gnu::used, gnu::noinline]] void __jit_debug_register_code() {
  asm volatile("" ::: "memory"); // a call that stays, after every write before it
}
}

namespace flashplus {
namespace {
ForkSafe<std::mutex> &mutex = *new ForkSafe<std::mutex>; // outlives every context
} // namespace

GdbSymbols::GdbSymbols(std::vector<uint8_t> file) : file_(std::move(file)) {
  entry_.symfile_addr = reinterpret_cast<const char *>(file_.data());
  entry_.symfile_size = file_.size();
  std::lock_guard lock(mutex);
  jit_descriptor &list = __jit_debug_descriptor;
  entry_.next_entry = list.first_entry;
  if (entry_.next_entry)
    entry_.next_entry->prev_entry = &entry_;
  list.first_entry = list.relevant_entry = &entry_;
  list.action_flag = kJitRegister;
  __jit_debug_register_code();
  list.action_flag = kJitNoAction;
}

GdbSymbols::~GdbSymbols() {
  std::lock_guard lock(mutex);
  jit_descriptor &list = __jit_debug_descriptor;
  (entry_.prev_entry ? entry_.prev_entry->next_entry : list.first_entry) = entry_.next_entry;
  if (entry_.next_entry)
    entry_.next_entry->prev_entry = entry_.prev_entry;
  list.relevant_entry = &entry_;
  list.action_flag = kJitUnregister;
  __jit_debug_register_code();
  list.action_flag = kJitNoAction;
  list.relevant_entry = nullptr;
}

void withGdbList(void (*body)(const jit_descriptor &, void *), void *context) {
  std::lock_guard lock(mutex);
  body(__jit_debug_descriptor, context);
}

} // namespace flashplus
