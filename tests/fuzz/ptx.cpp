// SPDX-License-Identifier: BSD-3-Clause
// Any bytes as PTX: refused with line and column, or a program whose branches and operands are inside it, and
// which runs to an end or a fault within its step limit.
#include "emulator/core/machine.h"

#include <cstdlib>

using namespace flashplus;
using namespace flashplus::emu;

namespace {

void require(bool condition) {
  if (!condition)
    std::abort();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  std::string text(reinterpret_cast<const char *>(data), size);
  auto program = loadProgram(text, "");
  if (!program) // half of the inputs that mutation makes have no header: try them as a body too
    program = loadProgram(
        ".version 8.0\n.visible .entry f(.param .u64 p) {\n.reg .pred %p<9>; .reg .b16 %rs<9>; .reg .b32 "
        "%r<9>; .reg .b64 %rd<9>; .shared .b8 m[256];\n" +
            text + "\n}",
        "");
  if (!program) {
    require(!program.status().message().empty());
    return 0;
  }
  const Program &p = **program;
  for (const Instruction &in : p.code) {
    require(in.run != nullptr);
    require(in.target == kNoTarget || in.target < p.code.size());
    require(in.reconvergence == kNoTarget || in.reconvergence < p.code.size());
    for (int i = 0; i < in.destinations + in.sources; ++i)
      require(in.operands[i].reg < p.registers.size() && in.operands[i].offset < p.register_file_bytes);
  }
  if (p.required_threads[0] || p.static_shared_bytes + p.local_bytes > 65536)
    return 0;
  GlobalMemory memory;
  std::vector<uint8_t> params(p.param_bytes);
  LaunchConfig config;
  config.block = {64, 1, 1};
  config.params = params;
  Options options;
  options.step_limit = 2000;
  const LaunchResult result = launch(p, memory, config, options);
  if (result.fault)
    require(!result.fault->text().empty());
  return 0;
}
