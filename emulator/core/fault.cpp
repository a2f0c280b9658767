// SPDX-License-Identifier: BSD-3-Clause
#include "emulator/core/fault.h"

#include <cstdio>

namespace flashplus::emu {

const char *faultKindName(FaultKind kind) {
  switch (kind) {
  case FaultKind::OutOfBounds:
    return "out of bounds";
  case FaultKind::Misaligned:
    return "misaligned";
  case FaultKind::UninitialisedMemory:
    return "uninitialised memory";
  case FaultKind::UninitialisedRegister:
    return "uninitialised register";
  case FaultKind::Race:
    return "race";
  case FaultKind::AsyncPending:
    return "asynchronous copy pending";
  case FaultKind::Barrier:
    return "barrier";
  case FaultKind::Deadlock:
    return "deadlock";
  case FaultKind::Divergence:
    return "divergence";
  case FaultKind::SharedMemory:
    return "shared memory";
  case FaultKind::StepLimit:
    return "step limit";
  case FaultKind::Launch:
    return "launch";
  case FaultKind::Trap:
    return "trap";
  }
  return "?";
}

std::string Fault::text() const {
  std::string out = std::string(faultKindName(kind)) + ": " + message;
  if (address) {
    char hex[32];
    std::snprintf(hex, sizeof hex, "0x%llx", static_cast<unsigned long long>(*address));
    out += std::string(", ") + spaceName(space) + " address " + hex;
  }
  if (where.line)
    out += ", line " + std::to_string(where.line);
  if (!instruction.empty())
    out += " '" + instruction + "'";
  out += ", CTA (" + std::to_string(where.cta[0]) + ", " + std::to_string(where.cta[1]) + ", " +
         std::to_string(where.cta[2]) + ")";
  if (where.warp >= 0)
    out += ", warp " + std::to_string(where.warp);
  if (where.lane >= 0)
    out += ", lane " + std::to_string(where.lane);
  if (!other.empty())
    out += "; " + other;
  return out;
}

} // namespace flashplus::emu
