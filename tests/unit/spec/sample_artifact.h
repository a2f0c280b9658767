// SPDX-License-Identifier: BSD-3-Clause
// An artifact with something in every part, for tests of what keeps artifacts.
#pragma once

#include "spec/artifact.h"

#include <string>

namespace flashplus::test {

/// Another `number` gives other code and another provenance.
inline Artifact sampleArtifact(int number = 0, size_t code_bytes = 300) {
  Artifact artifact;
  artifact.kind = CodeKind::Cubin;
  artifact.code.resize(code_bytes);
  for (size_t i = 0; i < code_bytes; ++i)
    artifact.code[i] = static_cast<uint8_t>(i * 31 + static_cast<size_t>(number) * 7);
  artifact.launch = {.entry = "flashplus_forward", .threads = 128, .shared_memory = 49152, .params_size = 16};
  artifact.resources = {.registers = 168, .spill_bytes = 0, .stack_bytes = -1};
  artifact.provenance = "LLVM 22.1.8, sample " + std::to_string(number);
  return artifact;
}

} // namespace flashplus::test
