// SPDX-License-Identifier: BSD-3-Clause
#include "tests/emulator/mutants.h"

#include <algorithm>
#include <cctype>
#include <map>

namespace flashplus::emu::test {
namespace {

constexpr const char *kKinds[] = {"bar.sync",
                                  "bar.arrive",
                                  "bar.warp.sync",
                                  "cp.async.commit_group",
                                  "cp.async.wait_group",
                                  "mbarrier.init",
                                  "mbarrier.arrive",
                                  "mbarrier.try_wait",
                                  "fence.proxy.async",
                                  "fence.mbarrier_init",
                                  "wgmma.fence",
                                  "wgmma.commit_group",
                                  "wgmma.wait_group",
                                  "setmaxnreg",
                                  "barrier.cluster.arrive",
                                  "barrier.cluster.wait",
                                  "cp.async.bulk.commit_group",
                                  "cp.async.bulk.wait_group",
                                  "griddepcontrol.wait"};

} // namespace

std::vector<Mutant> mutants(const std::string &ptx) {
  std::vector<Mutant> out;
  for (const char *kind : kKinds) {
    int number = 0;
    const std::string opcode = kind;
    for (size_t at = 0; (at = ptx.find(opcode, at)) != std::string::npos; at += opcode.size()) {
      const char next = ptx[at + opcode.size()], before = at ? ptx[at - 1] : ' ';
      if ((next != '.' && next != ' ' && next != '\t' && next != ';') ||
          !std::isspace(static_cast<unsigned char>(before)))
        continue;
      // From behind the last statement, label or brace: the guard goes too.
      const size_t begin = ptx.find_last_of(";{}:\n", at) + 1, end = ptx.find(';', at) + 1;
      Mutant m;
      m.name = opcode + " " + std::to_string(number++);
      m.line = 1 + int(std::count(ptx.begin(), ptx.begin() + long(at), '\n'));
      std::string instead;
      if (opcode == "mbarrier.try_wait") { // its predicate must have a value
        const size_t name = ptx.find_first_of(" \t", at) + 1;
        instead = " setp.eq.u32 " + ptx.substr(name, ptx.find(',', name) - name) + ", 0, 0;";
      }
      m.ptx = ptx.substr(0, begin) + instead + ptx.substr(end);
      out.push_back(std::move(m));
    }
  }
  return out;
}

} // namespace flashplus::emu::test
