// SPDX-License-Identifier: BSD-3-Clause
#include "spec/score.h"

#include <cmath>

namespace flashplus {
namespace {

/// Which nodes are part of an index.
std::vector<bool> indexNodes(const std::vector<ScoreNode> &nodes) {
  std::vector<bool> inside(nodes.size(), false);
  for (size_t i = nodes.size(); i-- > 0;) // users come after what they use
    if (nodes[i].op == ScoreOp::Tensor || inside[i])
      for (int operand : nodes[i].operands)
        inside[size_t(operand)] = true;
  return inside;
}

} // namespace

std::vector<ScoreNumber> ScoreExpr::liftNumbers() {
  const std::vector<bool> in_index = indexNodes(nodes);
  size_t free = size_t(kMaxScoreScalars) - scalars.size();
  std::vector<ScoreNumber> numbers;
  std::vector<std::string> names;
  std::vector<int> slots(scalars.size(), -1); // of the caller's own, by their old ones
  for (size_t i = 0; i < nodes.size(); ++i) { // leaves stand in the order of the text
    ScoreNode &n = nodes[i];
    if (n.op == ScoreOp::Scalar) {
      int &slot = slots[size_t(n.slot)];
      if (slot < 0) {
        slot = int(names.size());
        names.push_back(scalars[size_t(n.slot)]);
      }
      n.slot = slot;
    } else if (n.op == ScoreOp::Constant && !in_index[i] && n.value != 0 && n.value != 1 &&
               std::isfinite(n.value) && free > 0) {
      --free;
      const int slot = int(names.size());
      names.push_back("flashplus_number" + std::to_string(slot));
      numbers.push_back({slot, float(n.value)});
      n = {.op = ScoreOp::Scalar, .slot = slot};
    }
  }
  scalars = std::move(names);
  return numbers;
}

} // namespace flashplus
