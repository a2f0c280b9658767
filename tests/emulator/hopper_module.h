// SPDX-License-Identifier: BSD-3-Clause
// PTX modules for sm_90a with shared memory `tile`, mbarriers `bars` and a tensor map.
#pragma once

#include "tests/emulator/run.h"

#include <algorithm>

namespace flashplus::emu::test {

inline std::string hopperModule(const std::string &body,
                                const std::string &directives = ".reqntid 128 .minnctapersm 1") {
  std::string ptx = module(body, ".extern .shared .align 1024 .b8 tile[];\n.shared .align 8 .b8 bars[64];");
  ptx.replace(ptx.find(".target sm_80"), 13, ".target sm_90a");
  ptx.replace(ptx.find(".param .u64 output)"), 19,
              ".param .u64 output, .param .align 64 .b8 map[128]) " + directives);
  return ptx;
}

inline int lineOf(const std::string &text, const std::string &mark) {
  const size_t at = text.find(mark);
  return at == std::string::npos ? 0 : 1 + int(std::count(text.begin(), text.begin() + long(at), '\n'));
}

inline Case hopperCase(const std::string &ptx, size_t input, size_t output, uint32_t dynamic) {
  Case c;
  c.name = "hopper";
  c.ptx = ptx;
  c.threads = 128;
  Random random(51);
  for (size_t i = 0; i < input; ++i)
    c.input.push_back(uint8_t(random.next()));
  c.output_bytes = output;
  c.dynamic_shared = dynamic;
  return c;
}

} // namespace flashplus::emu::test
