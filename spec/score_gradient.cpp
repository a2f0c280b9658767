// SPDX-License-Identifier: BSD-3-Clause
#include "spec/score_gradient.h"

#include "spec/score_print.h"

#include <tuple>

namespace flashplus {
namespace {

/// Walks the expression's nodes from the score to the leaves and hands to each operand its share of the
/// derivative.
class Reverse {
public:
  explicit Reverse(const ScoreExpr &expr)
      : g_(expr), derivative_(size_t(g_.forward()), g_.constant(0)), has_one_(size_t(g_.forward()), false) {
    for (int i = 0; i < g_.forward(); ++i)
      has_one_[size_t(i)] = hasOne(g_.nodes()[size_t(i)]);
    derivative_[size_t(g_.value())] = g_.constant(1);
    for (int i = g_.value(); i >= 0; --i)
      if (!g_.isConstant(derivative_[size_t(i)], 0))
        visit(i, derivative_[size_t(i)]);
  }

  ScoreGraph &graph() { return g_; }
  int derivative(int node) const { return derivative_[size_t(node)]; }

private:
  /// Whether a node depends on what has a derivative.
  bool hasOne(const ScoreNode &n) const {
    auto operand = [&](int i) { return bool(has_one_[size_t(n.operands[size_t(i)])]); };
    switch (n.op) {
    case ScoreOp::Score:
    case ScoreOp::Scalar:
    case ScoreOp::Tensor:
      return true;
    case ScoreOp::Neg:
    case ScoreOp::Abs:
    case ScoreOp::Exp:
    case ScoreOp::Log:
    case ScoreOp::Sqrt:
    case ScoreOp::Tanh:
      return operand(0);
    case ScoreOp::Add:
    case ScoreOp::Sub:
    case ScoreOp::Mul:
    case ScoreOp::Div:
    case ScoreOp::Mod:
    case ScoreOp::Min:
    case ScoreOp::Max:
      return operand(0) || operand(1);
    case ScoreOp::Where:
      return operand(1) || operand(2);
    default: // positions, numbers, conditions, and floor, which is flat
      return false;
    }
  }

  /// The table of derivatives: `w` is the node, `d` the derivative of the score by it.
  void visit(int w, int d) {
    const ScoreNode n = g_.nodes()[size_t(w)]; // a copy: nodes are added
    auto x = [&](int i) { return n.operands[size_t(i)]; };
    auto give = [&](int i, auto make) { // worked out only where it is wanted
      if (has_one_[size_t(x(i))])
        derivative_[size_t(x(i))] = g_.sum(derivative_[size_t(x(i))], make());
    };
    switch (n.op) {
    case ScoreOp::Neg:
      return give(0, [&] { return g_.negative(d); });
    case ScoreOp::Abs:
      return give(0, [&] {
        const auto [u, e] = g_.factors(d);
        const int zero = g_.constant(0),
                  below = g_.select(g_.compare(ScoreOp::Lt, x(0), zero), g_.negative(e), zero);
        return g_.scaled(u, g_.select(g_.compare(ScoreOp::Gt, x(0), zero), e, below));
      });
    case ScoreOp::Exp:
      return give(0, [&] { return g_.product(d, w); });
    case ScoreOp::Log:
      return give(0, [&] { return g_.quotient(d, x(0)); });
    case ScoreOp::Sqrt: // 1 / (2 sqrt)
      return give(0, [&] { return g_.product(g_.quotient(d, w), g_.constant(0.5)); });
    case ScoreOp::Tanh:
      return give(0, [&] { return g_.product(d, g_.sech2(x(0), w)); });
    case ScoreOp::Add:
      give(0, [&] { return d; });
      return give(1, [&] { return d; });
    case ScoreOp::Sub:
      give(0, [&] { return d; });
      return give(1, [&] { return g_.negative(d); });
    case ScoreOp::Mul:
      give(0, [&] { return g_.product(d, x(1)); });
      return give(1, [&] { return g_.product(d, x(0)); });
    case ScoreOp::Div: // a / b: 1 / b and -(a / b) / b
      give(0, [&] { return g_.quotient(d, x(1)); });
      return give(1, [&] { return g_.negative(g_.quotient(g_.product(d, w), x(1))); });
    case ScoreOp::Mod: // a - n b, where n is a whole number: 1 and -n
      give(0, [&] { return d; });
      return give(1, [&] { return g_.negative(g_.quotient(g_.product(d, g_.difference(x(0), w)), x(1))); });
    case ScoreOp::Min:
    case ScoreOp::Max: // by the result, so that a NaN, which both ignore, gets nothing
      for (int i : {0, 1})
        give(i, [&] {
          const auto [u, e] = g_.factors(d);
          const int chosen = g_.compare(ScoreOp::Eq, x(i), w), tie = g_.compare(ScoreOp::Eq, x(1 - i), w);
          const int share = g_.select(tie, g_.scaled(g_.constant(0.5), e), e);
          return g_.scaled(u, g_.select(chosen, share, g_.constant(0)));
        });
      return;
    case ScoreOp::Where:
      give(1, [&] { return g_.select(x(0), d, g_.constant(0)); });
      return give(2, [&] { return g_.select(x(0), g_.constant(0), d); });
    default:
      return;
    }
  }

  ScoreGraph g_;
  std::vector<int> derivative_; ///< Of the score by each node of the expression.
  std::vector<bool> has_one_;
};

/// The nodes that the numbers in `roots` name, and what these need, in order; the numbers become the new
/// ones.
std::vector<int> usedNodes(const std::vector<ScoreNode> &nodes, const std::vector<int *> &roots) {
  std::vector<bool> used(nodes.size(), false);
  for (const int *root : roots)
    used[size_t(*root)] = true;
  for (size_t i = nodes.size(); i-- > 0;)
    if (used[i])
      for (int operand : nodes[i].operands)
        used[size_t(operand)] = true;
  std::vector<int> kept, number(nodes.size(), -1);
  for (size_t i = 0; i < nodes.size(); ++i)
    if (used[i]) {
      number[i] = int(kept.size());
      kept.push_back(int(i));
    }
  for (int *root : roots)
    *root = number[size_t(*root)];
  return kept;
}

/// Names for the nodes that the text of `roots` would hold more than once.
std::vector<std::string> namesOfShared(const std::vector<ScoreNode> &nodes, const std::vector<int> &roots) {
  std::vector<int> uses(nodes.size(), 0);
  for (int root : roots)
    ++uses[size_t(root)];
  for (size_t i = nodes.size(); i-- > 0;)
    for (size_t o = 0; uses[i] > 0 && o < nodes[i].operands.size(); ++o)
      ++uses[size_t(nodes[i].operands[o])];
  std::vector<std::string> names(nodes.size());
  int next = 0;
  for (size_t i = 0; i < nodes.size(); ++i)
    if (uses[i] > 1 && !nodes[i].operands.empty())
      names[i] = "x" + std::to_string(next++);
  return names;
}

} // namespace

ScoreGradient differentiate(const ScoreExpr &expr) {
  Reverse reverse(expr);
  ScoreGraph &graph = reverse.graph();
  ScoreGradient gradient;
  gradient.value = graph.value();
  const int zero = graph.constant(0);
  gradient.ds = zero;
  gradient.dscalars.assign(expr.scalars.size(), zero);
  for (int i = 0; i < graph.forward(); ++i) {
    const ScoreNode &n = graph.nodes()[size_t(i)];
    const int derivative = reverse.derivative(i);
    if (n.op == ScoreOp::Score)
      gradient.ds = derivative;
    else if (n.op == ScoreOp::Scalar)
      gradient.dscalars[size_t(n.slot)] = derivative;
    else if (n.op == ScoreOp::Tensor && derivative != zero) {
      unsigned indexed_by = 0;
      for (int index : n.operands)
        indexed_by |= graph.reads(index);
      gradient.reads.push_back({n.slot, i, derivative, indexed_by});
    }
  }
  std::tie(gradient.ds_factor, gradient.ds_element) = graph.factors(gradient.ds);

  std::vector<int *> roots = {&gradient.value, &gradient.ds, &gradient.ds_factor, &gradient.ds_element};
  for (int &root : gradient.dscalars)
    roots.push_back(&root);
  for (ScoreGradient::Read &read : gradient.reads) {
    roots.push_back(&read.node);
    roots.push_back(&read.adjoint);
  }
  const std::vector<int> kept = usedNodes(graph.nodes(), roots);
  std::vector<int> number(graph.nodes().size(), -1);
  for (int old : kept) {
    number[size_t(old)] = int(gradient.nodes.size());
    gradient.nodes.push_back(graph.nodes()[size_t(old)]);
    for (int &operand : gradient.nodes.back().operands)
      operand = number[size_t(operand)];
    gradient.facts.push_back({graph.reads(old), graph.isFinite(old)});
  }
  return gradient;
}

std::string ScoreGradient::text(int root) const {
  std::vector<std::string> names = namesOfShared(nodes, {root});
  std::string text;
  for (size_t i = 0; i < nodes.size(); ++i)
    if (!names[i].empty())
      text += names[i] + " = " + printScore(nodes, int(i), names) + "; ";
  return text + printScore(nodes, root, names);
}

std::string ScoreGradient::text() const {
  std::vector<std::pair<std::string, int>> lines = {{"score", value}, {"d/ds", ds}};
  for (size_t slot = 0; slot < dscalars.size(); ++slot)
    lines.emplace_back("d/dp" + std::to_string(slot), dscalars[slot]);
  for (const Read &read : reads)
    lines.emplace_back("d/d" + printScore(nodes, read.node), read.adjoint);
  std::vector<int> roots;
  for (const auto &[what, root] : lines)
    roots.push_back(root);
  const std::vector<std::string> names = namesOfShared(nodes, roots);
  std::string text;
  for (size_t i = 0; i < nodes.size(); ++i)
    if (!names[i].empty())
      text += names[i] + " = " + printScore(nodes, int(i), names) + "\n";
  for (const auto &[what, root] : lines)
    text += what + " = " +
            (names[size_t(root)].empty() ? printScore(nodes, root, names) : names[size_t(root)]) + "\n";
  return text;
}

} // namespace flashplus
