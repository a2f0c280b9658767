// SPDX-License-Identifier: BSD-3-Clause
// Control flow: bra, ret, exit, trap, and where the sides of a branch meet.
#include "emulator/core/cta.h"
#include "emulator/isa/builder.h"
#include "emulator/isa/control_flow.h"

#include <algorithm>

namespace flashplus::emu {
namespace {

void runBranch(Warp &w, const Instruction &in, uint32_t mask) { w.branch(in, mask); }
void runExit(Warp &w, const Instruction &, uint32_t mask) { w.exitLanes(mask); }
void runTrap(Warp &w, const Instruction &, uint32_t mask) {
  w.fault(FaultKind::Trap, "the kernel traps", std::countr_zero(mask));
}
void runNothing(Warp &, const Instruction &, uint32_t) {}

void decodeBranch(Builder &b) {
  b.out.mode = b.take("uni");
  b.wantOperands(1);
  b.label(0);
  b.out.run = runBranch;
  b.out.op_class = OpClass::Control;
}

template <Handler H> void decodeBare(Builder &b) {
  b.wantOperands(0);
  b.out.run = H;
  b.out.op_class = OpClass::Control;
}

void decodeRet(Builder &b) {
  (void)b.take("uni");
  decodeBare<runExit>(b);
}

void decodeNanosleep(Builder &b) {
  if (b.type() != Type::U32)
    return b.fail("nanosleep: the type must be .u32");
  b.wantOperands(1);
  b.src(0, Type::U32);
  b.out.run = runNothing;
  b.out.op_class = OpClass::Control;
}

} // namespace

void addControl(OpcodeTable &t) {
  t["bra"] = decodeBranch;
  t["ret"] = decodeRet;
  t["exit"] = decodeBare<runExit>;
  t["trap"] = decodeBare<runTrap>;
  t["nanosleep"] = decodeNanosleep;
}

bool endsBlock(const Instruction &in) { return in.target != kNoTarget || in.run == runExit; }

void findReconvergence(std::vector<Instruction> &code) {
  const size_t n = code.size();
  std::vector<uint8_t> leader(n + 1);
  leader[0] = 1;
  for (size_t i = 0; i < n; ++i)
    if (endsBlock(code[i])) {
      leader[i + 1] = 1;
      if (code[i].target != kNoTarget)
        leader[std::min<size_t>(code[i].target, n - 1)] = 1;
    }
  std::vector<uint32_t> starts, block_of(n);
  for (size_t i = 0; i < n; ++i) {
    if (leader[i])
      starts.push_back(uint32_t(i));
    block_of[i] = uint32_t(starts.size() - 1);
  }
  const int blocks = int(starts.size()), exit = blocks;
  std::vector<std::vector<int>> predecessors(size_t(blocks) + 1), successors(size_t(blocks) + 1);
  auto edge = [&](int from, int to) {
    successors[size_t(from)].push_back(to);
    predecessors[size_t(to)].push_back(from);
  };
  for (int b = 0; b < blocks; ++b) {
    const size_t last = (b + 1 < blocks ? starts[size_t(b) + 1] : n) - 1;
    const Instruction &in = code[last];
    const bool leaves = in.run == runExit;
    if (leaves)
      edge(b, exit);
    else if (in.target != kNoTarget)
      edge(b, int(block_of[std::min<size_t>(in.target, n - 1)]));
    const bool falls = in.guarded || !endsBlock(in);
    if (falls)
      edge(b, last + 1 < n ? b + 1 : exit);
  }
  // Post-dominators: Cooper, Harvey, Kennedy, "A simple, fast dominance algorithm", on the reversed graph.
  std::vector<int> order(size_t(blocks) + 1, -1), sorted;
  std::vector<std::pair<int, size_t>> stack{{exit, 0}};
  std::vector<uint8_t> seen(size_t(blocks) + 1);
  seen[size_t(exit)] = 1;
  while (!stack.empty()) {
    auto &[b, next] = stack.back();
    if (next < predecessors[size_t(b)].size()) {
      const int p = predecessors[size_t(b)][next++];
      if (!seen[size_t(p)]) {
        seen[size_t(p)] = 1;
        stack.push_back({p, 0});
      }
    } else {
      order[size_t(b)] = int(sorted.size());
      sorted.push_back(b);
      stack.pop_back();
    }
  }
  std::vector<int> dominator(size_t(blocks) + 1, -1);
  dominator[size_t(exit)] = exit;
  for (bool changed = true; changed;) {
    changed = false;
    for (auto it = sorted.rbegin(); it != sorted.rend(); ++it) {
      if (*it == exit)
        continue;
      int best = -1;
      for (int s : successors[size_t(*it)]) {
        if (dominator[size_t(s)] < 0)
          continue;
        if (best < 0) {
          best = s;
          continue;
        }
        int a = best, c = s;
        while (a != c) {
          while (order[size_t(a)] < order[size_t(c)])
            a = dominator[size_t(a)];
          while (order[size_t(c)] < order[size_t(a)])
            c = dominator[size_t(c)];
        }
        best = a;
      }
      if (best != dominator[size_t(*it)]) {
        dominator[size_t(*it)] = best;
        changed = true;
      }
    }
  }
  for (size_t i = 0; i < n; ++i) {
    if (code[i].target == kNoTarget)
      continue;
    code[i].target = std::min<uint32_t>(code[i].target, uint32_t(n - 1));
    const int d = dominator[block_of[i]];
    code[i].reconvergence = d >= 0 && d != exit ? starts[size_t(d)] : kNoTarget;
  }
}

} // namespace flashplus::emu
