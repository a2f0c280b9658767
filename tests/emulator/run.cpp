// SPDX-License-Identifier: BSD-3-Clause
#include "tests/emulator/run.h"

#include <cstring>

namespace flashplus::emu::test {

Ran run(const Case &c, const Options &options, const TensorMapContents *map) {
  if (!map && c.map)
    map = &*c.map;
  Ran out;
  auto program = loadProgram(c.ptx, "test");
  if (!program) {
    out.error = program.status().message();
    return out;
  }
  GlobalMemory memory;
  void *input = memory.allocate(c.input.size()), *output = memory.allocate(c.output_bytes);
  (void)memory.write(reinterpret_cast<uint64_t>(input), c.input.data(), c.input.size());
  std::memset(output, kUntouched, c.output_bytes); // not through write(): to the kernel it stays unwritten
  const uint64_t pointers[2] = {reinterpret_cast<uint64_t>(input), reinterpret_cast<uint64_t>(output)};
  std::vector<uint8_t> params(map ? 192 : 16);
  std::memcpy(params.data(), pointers, 16);
  if (map) {
    TensorMapContents placed = *map;
    placed.address += reinterpret_cast<uint64_t>(input);
    std::memcpy(params.data() + 64, &placed, sizeof placed);
  }
  LaunchConfig config;
  config.grid = {c.blocks, 1, 1};
  config.block = {c.threads, 1, 1};
  config.dynamic_shared = c.dynamic_shared;
  config.params = params;
  LaunchResult result = launch(**program, memory, config, options);
  out.statistics = std::move(result.statistics);
  out.fault = std::move(result.fault);
  if (out.fault)
    out.error = out.fault->text();
  out.output.resize(c.output_bytes);
  (void)memory.read(reinterpret_cast<uint64_t>(output), out.output.data(), out.output.size());
  return out;
}

} // namespace flashplus::emu::test
