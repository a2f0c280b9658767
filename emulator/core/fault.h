// SPDX-License-Identifier: BSD-3-Clause
// What the emulator reports when a kernel does something that PTX does not allow.
#pragma once

#include "emulator/ptx/ast.h"

#include <optional>

namespace flashplus::emu {

enum class FaultKind : uint8_t {
  OutOfBounds,
  Misaligned,
  UninitialisedMemory,
  UninitialisedRegister,
  Race, ///< Two accesses to shared memory, one a write, that nothing orders; or one to global memory before
        ///< griddepcontrol.wait.
  AsyncPending, ///< Touched the destination of a copy that nothing has waited for.
  Barrier,      ///< Misuse: counts, ids, a warp that arrives twice.
  Deadlock,
  Divergence,   ///< An .aligned or .sync instruction that not all named lanes execute.
  SharedMemory, ///< More shared memory than the launch or the device has.
  StepLimit,
  Launch, ///< The launch does not fit the entry: threads, parameters.
  Trap,
};
const char *faultKindName(FaultKind kind);

/// One access or instruction in one thread.
struct Where {
  int line = 0;
  uint32_t cta[3] = {0, 0, 0};
  int warp = -1, lane = -1; ///< -1: not one.
};

struct Fault {
  FaultKind kind = FaultKind::Trap;
  Where where;
  std::string instruction; ///< PTX text of the line.
  std::string message;     ///< What is wrong.
  std::optional<uint64_t> address;
  Space space = Space::Generic; ///< Of the address.
  std::string other; ///< The other party: "written by warp 1, lane 3 at line 92: st.shared..."; may be empty.

  /// One line for people, with everything above.
  std::string text() const;
};

} // namespace flashplus::emu
