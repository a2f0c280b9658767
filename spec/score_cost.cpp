// SPDX-License-Identifier: BSD-3-Clause
#include "spec/score_cost.h"

namespace flashplus {
namespace {

int cost(const ScoreNode &node) {
  switch (node.op) {
  case ScoreOp::Constant:
  case ScoreOp::Score:
  case ScoreOp::Batch:
  case ScoreOp::Head:
  case ScoreOp::HeadK:
  case ScoreOp::Query:
  case ScoreOp::Key:
  case ScoreOp::SeqlenQ:
  case ScoreOp::SeqlenK:
  case ScoreOp::Scalar:
    return 0;
  case ScoreOp::Tensor: // an index is converted and clamped
    return 4 + 4 * int(node.operands.size());
  case ScoreOp::Sqrt:
  case ScoreOp::Exp:
  case ScoreOp::Log:
    return 4;
  case ScoreOp::Div:
  case ScoreOp::Sech2:
    return 8;
  case ScoreOp::Tanh:
  case ScoreOp::Mod: // a division, a floor and a product
    return 12;
  case ScoreOp::Neg:
  case ScoreOp::Abs:
  case ScoreOp::Floor:
  case ScoreOp::And:
  case ScoreOp::Or:
  case ScoreOp::Add:
  case ScoreOp::Sub:
  case ScoreOp::Mul:
  case ScoreOp::Min:
  case ScoreOp::Max:
  case ScoreOp::Lt:
  case ScoreOp::Le:
  case ScoreOp::Gt:
  case ScoreOp::Ge:
  case ScoreOp::Eq:
  case ScoreOp::Ne:
  case ScoreOp::Where:
    return 1;
  }
  return 1;
}

} // namespace

int scoreCost(std::span<const ScoreNode> nodes) {
  int sum = 0;
  for (const ScoreNode &node : nodes)
    sum += cost(node);
  return sum;
}

Status checkScoreCost(std::span<const ScoreNode> nodes, const std::string &what) {
  const int sum = scoreCost(nodes);
  if (sum <= kMaxScoreCost)
    return Status::ok();
  return invalidArgument(
      what + " comes to " + std::to_string(sum) + " instructions a score; at most " +
      std::to_string(kMaxScoreCost) +
      " are allowed (an operation is 1, exp, log and sqrt 4, a division 8, tanh 12, an element "
      "of a tensor 4 and 4 an index)");
}

} // namespace flashplus
