// SPDX-License-Identifier: BSD-3-Clause
#include "spec/score_graph.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace flashplus {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kLargestNumber = 0x1p40, kLargestFloat = std::numeric_limits<float>::max();

bool commutes(ScoreOp op) {
  return op == ScoreOp::Add || op == ScoreOp::Mul || op == ScoreOp::Min || op == ScoreOp::Max ||
         op == ScoreOp::Eq || op == ScoreOp::Ne || op == ScoreOp::And || op == ScoreOp::Or;
}

} // namespace

bool ScoreGraph::Facts::finite() const { return largest <= kLargestFloat; }

ScoreGraph::ScoreGraph(const ScoreExpr &expr) {
  if (expr.isIdentity())
    value_ = share({.op = ScoreOp::Score});
  std::vector<int> shared;
  for (ScoreNode node : expr.nodes) {
    for (int &operand : node.operands)
      operand = shared[size_t(operand)];
    shared.push_back(value_ = share(std::move(node)));
  }
  forward_ = int(nodes_.size());
}

int ScoreGraph::share(ScoreNode node) {
  const double value = node.op == ScoreOp::Constant ? double(float(node.value)) : 0;
  Key key{node.op, value, node.slot, node.operands};
  if (commutes(node.op))
    std::sort(std::get<3>(key).begin(), std::get<3>(key).end());
  const auto [at, added] = known_.try_emplace(std::move(key), int(nodes_.size()));
  if (added) {
    facts_.push_back(factsOf(node));
    nodes_.push_back(std::move(node));
  }
  return at->second;
}

ScoreGraph::Facts ScoreGraph::factsOf(const ScoreNode &n) const {
  Facts f;
  for (int operand : n.operands) {
    const Facts &of = facts_[size_t(operand)];
    f.reads |= of.reads;
    f.tensor |= of.tensor;
    f.wild |= of.wild;
  }
  auto of = [&](int operand) -> const Facts & { return facts_[size_t(n.operands[size_t(operand)])]; };
  auto position = [&](unsigned reads) {
    f.reads = reads;
    f.largest = double(kMaxScorePosition);
  };
  switch (n.op) {
  case ScoreOp::Constant:
    f.largest = std::fabs(n.value);
    f.masked = n.value == 0;
    f.wild = !std::isfinite(n.value);
    break;
  case ScoreOp::Score:
    f.reads = kReadsScore;
    f.largest = kLargestNumber;
    break;
  case ScoreOp::Batch:
  case ScoreOp::SeqlenQ:
  case ScoreOp::SeqlenK:
    position(kReadsBatch);
    break;
  case ScoreOp::Head:
  case ScoreOp::HeadK:
    position(kReadsHead);
    break;
  case ScoreOp::Query:
    position(kReadsQuery);
    break;
  case ScoreOp::Key:
    position(kReadsKey);
    break;
  case ScoreOp::Scalar:
    f.largest = kLargestNumber;
    break;
  case ScoreOp::Tensor:
    f.largest = kLargestNumber;
    f.tensor = f.wild = true;
    break;
  case ScoreOp::Neg:
    f.masked = of(0).masked;
    [[fallthrough]];
  case ScoreOp::Abs:
    f.largest = of(0).largest;
    break;
  case ScoreOp::Exp:
    f.largest = std::exp(of(0).largest);
    break;
  case ScoreOp::Log:
    f.largest = kInfinity;
    f.wild = true;
    break;
  case ScoreOp::Sqrt:
    f.largest = std::sqrt(of(0).largest);
    f.wild = true;
    break;
  case ScoreOp::Floor:
    f.largest = of(0).largest + 1;
    f.masked = of(0).masked;
    break;
  case ScoreOp::Tanh:
  case ScoreOp::Sech2:
    f.largest = 1;
    f.tensor = false;
    break;
  case ScoreOp::Add:
  case ScoreOp::Sub:
    f.largest = of(0).largest + of(1).largest;
    f.masked = of(0).masked && of(1).masked;
    break;
  case ScoreOp::Mul:
    f.largest = of(0).largest == 0 || of(1).largest == 0 ? 0 : of(0).largest * of(1).largest;
    f.masked = of(0).masked || of(1).masked;
    break;
  case ScoreOp::Div:
  case ScoreOp::Mod: {
    const ScoreNode &by = nodes_[size_t(n.operands[1])];
    const double least = by.op == ScoreOp::Constant ? std::fabs(by.value)
                         : isUniform(n.operands[1]) ? 0x1p-40
                                                    : 0;
    f.largest = least == 0 ? kInfinity : n.op == ScoreOp::Mod ? of(1).largest : of(0).largest / least;
    f.wild |= by.op != ScoreOp::Constant || by.value == 0;
    f.masked = of(0).masked;
    break;
  }
  case ScoreOp::Min:
  case ScoreOp::Max:
    f.largest = std::max(of(0).largest, of(1).largest);
    break;
  case ScoreOp::Lt:
  case ScoreOp::Le:
  case ScoreOp::Gt:
  case ScoreOp::Ge:
  case ScoreOp::Eq:
  case ScoreOp::Ne:
  case ScoreOp::And:
  case ScoreOp::Or:
    f.largest = 1;
    f.tensor = f.wild = false;
    f.masked = true;
    break;
  case ScoreOp::Where:
    f.largest = std::max(of(1).largest, of(2).largest);
    f.tensor = of(1).tensor || of(2).tensor;
    f.wild = of(1).wild || of(2).wild;
    f.masked = of(1).masked || of(2).masked;
    break;
  }
  if (!(f.largest <= kLargestFloat))
    f.largest = kInfinity;
  return f;
}

bool ScoreGraph::isConstant(int node, double value) const {
  return nodes_[size_t(node)].op == ScoreOp::Constant && nodes_[size_t(node)].value == value;
}

int ScoreGraph::constant(double value) {
  return share({.op = ScoreOp::Constant, .value = double(float(value == 0 ? 0 : value))}); // no minus zero
}

std::pair<int, int> ScoreGraph::factors(int node) {
  if (isUniform(node))
    return {node, constant(1)};
  const ScoreNode n = nodes_[size_t(node)];
  if (node >= forward_ && n.op == ScoreOp::Mul && isUniform(n.operands[0]))
    return {n.operands[0], n.operands[1]};
  if (node >= forward_ && n.op == ScoreOp::Neg)
    return {constant(-1), n.operands[0]};
  return {constant(1), node};
}

int ScoreGraph::scaled(int u, int x) {
  if (isUniform(x) || isConstant(u, 0))
    return multiply(u, x);
  if (isConstant(u, 1))
    return x;
  if (isConstant(u, -1))
    return negative(x);
  return share({.op = ScoreOp::Mul, .operands = {u, x}});
}

int ScoreGraph::negative(int a) {
  const ScoreNode n = nodes_[size_t(a)];
  switch (n.op) {
  case ScoreOp::Constant:
    return constant(-n.value);
  case ScoreOp::Neg:
    return n.operands[0];
  case ScoreOp::Sub:
    return share({.op = ScoreOp::Sub, .operands = {n.operands[1], n.operands[0]}});
  case ScoreOp::Mul: // keeps what is uniform in front
    if (a >= forward_ && isUniform(n.operands[0]) && !isUniform(a))
      return scaled(negative(n.operands[0]), n.operands[1]);
    break;
  default:
    break;
  }
  return share({.op = ScoreOp::Neg, .operands = {a}});
}

int ScoreGraph::multiply(int a, int b) {
  const ScoreNode x = nodes_[size_t(a)], y = nodes_[size_t(b)];
  if (isConstant(a, 0) || isConstant(b, 1) || isConstant(b, -1))
    return isConstant(b, -1) ? negative(a) : a;
  if (isConstant(b, 0) || isConstant(a, 1) || isConstant(a, -1))
    return isConstant(a, -1) ? negative(b) : b;
  if (x.op == ScoreOp::Constant && y.op == ScoreOp::Constant &&
      std::isfinite(float(x.value) * float(y.value)))
    return constant(float(x.value) * float(y.value));
  if (x.op == ScoreOp::Neg && a >= forward_)
    return negative(multiply(x.operands[0], b));
  if (y.op == ScoreOp::Neg && b >= forward_)
    return negative(multiply(a, y.operands[0]));
  if (x.op == ScoreOp::Div && x.operands[1] == b && isUniform(b))
    return x.operands[0];
  if (y.op == ScoreOp::Div && y.operands[1] == a && isUniform(a))
    return y.operands[0];
  return share({.op = ScoreOp::Mul, .operands = {a, b}});
}

int ScoreGraph::divide(int a, int b) {
  const ScoreNode x = nodes_[size_t(a)], y = nodes_[size_t(b)];
  if (isConstant(a, 0) || isConstant(b, 1))
    return a;
  if (x.op == ScoreOp::Constant && y.op == ScoreOp::Constant && y.value != 0 &&
      std::isfinite(float(x.value) / float(y.value)))
    return constant(float(x.value) / float(y.value));
  if (x.op == ScoreOp::Neg && a >= forward_)
    return negative(divide(x.operands[0], b));
  if (isUniform(b)) { // b / b and (b x) / b: no caller's divisor is 0
    if (a == b)
      return constant(1);
    for (int i : {0, 1})
      if (x.op == ScoreOp::Mul && x.operands[size_t(i)] == b)
        return x.operands[size_t(1 - i)];
  }
  return share({.op = ScoreOp::Div, .operands = {a, b}});
}

bool ScoreGraph::selects(int node, int (&parts)[3]) {
  const ScoreNode &n = nodes_[size_t(node)];
  if (n.op == ScoreOp::Where) {
    std::copy_n(n.operands.begin(), 3, parts);
    return true;
  }
  if (!isCondition(n.op))
    return false;
  parts[0] = node;
  parts[1] = constant(1);
  parts[2] = constant(0);
  return true;
}

int ScoreGraph::sum(int a, int b) {
  if (isConstant(a, 0))
    return b;
  if (isConstant(b, 0))
    return a;
  const ScoreNode x = nodes_[size_t(a)], y = nodes_[size_t(b)];
  if (x.op == ScoreOp::Constant && y.op == ScoreOp::Constant &&
      std::isfinite(float(x.value) + float(y.value)))
    return constant(float(x.value) + float(y.value));
  const auto [ua, xa] = factors(a);
  const auto [ub, xb] = factors(b);
  if (xa == xb && !isConstant(xa, 1))
    return scaled(sum(ua, ub), xa);
  // where(c, x, 0) + where(c, 0, y) = where(c, x, y)
  int first[3], second[3];
  if (selects(xa, first) && selects(xb, second) && first[0] == second[0] &&
      (isConstant(first[1], 0) || isConstant(second[1], 0)) &&
      (isConstant(first[2], 0) || isConstant(second[2], 0))) {
    int branches[3];
    for (int i : {1, 2})
      branches[i] = isConstant(first[i], 0) ? scaled(ub, second[i]) : scaled(ua, first[i]);
    return select(first[0], branches[1], branches[2]);
  }
  if (y.op == ScoreOp::Neg && b >= forward_)
    return share({.op = ScoreOp::Sub, .operands = {a, y.operands[0]}});
  if (x.op == ScoreOp::Neg && a >= forward_)
    return share({.op = ScoreOp::Sub, .operands = {b, x.operands[0]}});
  return share({.op = ScoreOp::Add, .operands = {a, b}});
}

int ScoreGraph::select(int condition, int a, int b) {
  const ScoreNode c = nodes_[size_t(condition)];
  if (c.op == ScoreOp::Constant)
    return c.value != 0 ? a : b;
  // A branch that selects by the same condition is known.
  for (int branch : {1, 2}) {
    int &chosen = branch == 1 ? a : b, parts[3];
    const auto [u, x] = factors(chosen);
    if (selects(x, parts) && parts[0] == condition)
      chosen = scaled(u, parts[branch]);
  }
  if (a == b)
    return a;
  if (isCondition(c.op) && isConstant(a, 1) && isConstant(b, 0))
    return condition;
  // A number that is the same for the whole tile goes in front, unless it may be infinite: 0 times that is
  // NaN.
  for (const auto &[chosen, other] : {std::pair{a, b}, {b, a}}) {
    const auto [u, x] = factors(chosen);
    if (!isConstant(other, 0) || isConstant(u, 1) || facts_[size_t(u)].wild || !facts_[size_t(u)].finite() ||
        facts_[size_t(u)].masked)
      continue;
    return scaled(u, chosen == a ? select(condition, x, b) : select(condition, a, x));
  }
  return share({.op = ScoreOp::Where, .operands = {condition, a, b}});
}

int ScoreGraph::compare(ScoreOp op, int a, int b) { return share({.op = op, .operands = {a, b}}); }

bool ScoreGraph::mustGuard(int a, int local, bool divides) const {
  const Facts &l = facts_[size_t(local)];
  const bool zero = nodes_[size_t(a)].op != ScoreOp::Constant, masked = facts_[size_t(a)].masked;
  if (divides) // by what may be 0 or NaN
    return nodes_[size_t(local)].op != ScoreOp::Constant || isConstant(local, 0)
               ? (isUniform(local) ? masked : zero)
               : false;
  return (masked && l.wild) || (zero && (!l.finite() || l.tensor));
}

int ScoreGraph::guarded(int a, int local, bool divides) {
  const int made = divides ? divide(a, local) : multiply(a, local);
  if (!mustGuard(a, local, divides))
    return made;
  const size_t before = nodes_.size();
  const int zero = constant(0), guard = select(a, made, zero);
  if (size_t(guard) >= before) // a zero of `a` itself is no branch that was not selected
    facts_[size_t(guard)].masked = facts_[size_t(a)].masked;
  return guard;
}

int ScoreGraph::chain(int a, int local, bool divides) {
  if (isConstant(a, 0))
    return a;
  const auto [u, x] = factors(a);
  if (isConstant(x, 1)) { // all of it is uniform, and 0 only where something is not selected
    if (facts_[size_t(u)].masked)
      return guarded(u, local, divides);
    return divides ? divide(u, local) : isUniform(local) ? multiply(u, local) : scaled(u, local);
  }
  // The product goes into the branch that is selected; one level only, so that nodes stay linear in those of
  // the expression.
  int parts[3];
  if (selects(x, parts) && (isConstant(parts[1], 0) || isConstant(parts[2], 0))) {
    for (int branch : {1, 2})
      parts[branch] = isConstant(parts[branch], 0) ? parts[branch] : guarded(parts[branch], local, divides);
    return scaled(u, select(parts[0], parts[1], parts[2]));
  }
  if (isUniform(local) && !mustGuard(x, local, divides))
    return scaled(divides ? divide(u, local) : multiply(u, local), x);
  return scaled(u, guarded(x, local, divides));
}

int ScoreGraph::product(int a, int local) { return isConstant(local, 0) ? local : chain(a, local, false); }

int ScoreGraph::quotient(int a, int local) { return chain(a, local, true); }

} // namespace flashplus
