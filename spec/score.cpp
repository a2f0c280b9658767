// SPDX-License-Identifier: BSD-3-Clause
#include "spec/score.h"

#include "spec/score_print.h"

#include <cmath>
#include <cstdio>

namespace flashplus {
namespace {

/// How an operation is written: infix operators with a precedence, or a name.
struct Form {
  const char *text;
  int precedence; ///< 0 or, 1 and, 2 comparison, 3 sum, 4 product, 5 prefix, 6 the rest.
};
constexpr int kComparison = 2, kPrefix = 5, kClosed = 6;

Form formOf(ScoreOp op) {
  switch (op) {
  case ScoreOp::Score:
    return {"s", kClosed};
  case ScoreOp::Batch:
    return {"b", kClosed};
  case ScoreOp::Head:
    return {"h", kClosed};
  case ScoreOp::HeadK:
    return {"hk", kClosed};
  case ScoreOp::Query:
    return {"q", kClosed};
  case ScoreOp::Key:
    return {"k", kClosed};
  case ScoreOp::SeqlenQ:
    return {"sq", kClosed};
  case ScoreOp::SeqlenK:
    return {"sk", kClosed};
  case ScoreOp::Neg:
    return {"-", kPrefix};
  case ScoreOp::Abs:
    return {"abs", kClosed};
  case ScoreOp::Exp:
    return {"exp", kClosed};
  case ScoreOp::Log:
    return {"log", kClosed};
  case ScoreOp::Sqrt:
    return {"sqrt", kClosed};
  case ScoreOp::Tanh:
    return {"tanh", kClosed};
  case ScoreOp::Floor:
    return {"floor", kClosed};
  case ScoreOp::Sech2:
    return {"sech2", kClosed};
  case ScoreOp::Add:
    return {"+", 3};
  case ScoreOp::Sub:
    return {"-", 3};
  case ScoreOp::Mul:
    return {"*", 4};
  case ScoreOp::Div:
    return {"/", 4};
  case ScoreOp::Mod:
    return {"%", 4};
  case ScoreOp::Min:
    return {"min", kClosed};
  case ScoreOp::Max:
    return {"max", kClosed};
  case ScoreOp::Lt:
    return {"<", kComparison};
  case ScoreOp::Le:
    return {"<=", kComparison};
  case ScoreOp::Gt:
    return {">", kComparison};
  case ScoreOp::Ge:
    return {">=", kComparison};
  case ScoreOp::Eq:
    return {"==", kComparison};
  case ScoreOp::Ne:
    return {"!=", kComparison};
  case ScoreOp::And:
    return {"and", 1};
  case ScoreOp::Or:
    return {"or", 0};
  case ScoreOp::Where:
    return {"where", kClosed};
  case ScoreOp::Constant:
  case ScoreOp::Scalar:
  case ScoreOp::Tensor:
    break;
  }
  return {"", kClosed};
}

/// Prints nodes with canonical names; slots are numbered as they are first printed, unless they are numbers
/// already.
class Printer {
public:
  explicit Printer(const ScoreExpr &expr)
      : nodes_(expr.nodes), scalars_(expr.scalars.size(), -1), tensors_(expr.tensors.size(), -1) {}
  Printer(std::span<const ScoreNode> nodes, std::span<const std::string> names)
      : nodes_(nodes), names_(names), numbered_(true) {}

  std::string print(int index, int least_precedence) {
    if (!names_.empty() && !names_[size_t(index)].empty())
      return names_[size_t(index)];
    return define(index, least_precedence);
  }

  /// As above, whether the node has a name or not.
  std::string define(int index, int least_precedence) {
    const ScoreNode &n = nodes_[size_t(index)];
    const Form form = formOf(n.op);
    std::string text = body(n, form);
    return form.precedence < least_precedence ? "(" + text + ")" : text;
  }

private:
  std::string body(const ScoreNode &n, const Form &form) {
    switch (n.op) {
    case ScoreOp::Constant: {
      char buffer[32];
      std::snprintf(buffer, sizeof buffer, "%.9g", double(float(n.value)));
      return buffer;
    }
    case ScoreOp::Scalar:
      return "p" + std::to_string(number(scalars_, n.slot, next_scalar_));
    case ScoreOp::Tensor: {
      const int slot = number(tensors_, n.slot, next_tensor_);
      return "t" + std::to_string(slot) + "[" + list(n) + "]";
    }
    default:
      break;
    }
    if (n.operands.empty())
      return form.text;
    if (form.precedence == kPrefix)
      return form.text + print(n.operands[0], kPrefix);
    if (form.precedence == kClosed)
      return std::string(form.text) + "(" + list(n) + ")";
    // Operators group from the left; comparisons do not chain.
    const int p = form.precedence;
    std::string left = print(n.operands[0], p == kComparison ? p + 1 : p);
    return left + " " + form.text + " " + print(n.operands[1], p + 1);
  }

  std::string list(const ScoreNode &n) {
    std::string text;
    for (int operand : n.operands)
      text += (text.empty() ? "" : ", ") + print(operand, 0);
    return text;
  }

  int number(std::vector<int> &slots, int slot, int &next) const {
    if (numbered_)
      return slot;
    if (slots[slot] < 0)
      slots[slot] = next++;
    return slots[slot];
  }

  const std::span<const ScoreNode> nodes_;
  const std::span<const std::string> names_;
  const bool numbered_ = false;
  std::vector<int> scalars_, tensors_;
  int next_scalar_ = 0, next_tensor_ = 0;
};

} // namespace

std::string ScoreExpr::canonical() const {
  return isIdentity() ? "s" : Printer(*this).print(int(nodes.size()) - 1, 0);
}

std::string printScore(std::span<const ScoreNode> nodes, int node, std::span<const std::string> names) {
  return Printer(nodes, names).define(node, 0);
}

double ScoreExpr::evaluate(const Point &at, std::span<const double> scalar_values,
                           const std::function<double(int, std::span<const int64_t>)> &tensor) const {
  return isIdentity() ? at.s : evaluateNodes(nodes, at, scalar_values, tensor).back();
}

double scoreRemainder(double a, double b) {
  const double left = std::fmod(a, b);
  return left != 0 && (left < 0) != (b < 0) ? left + b : left;
}

std::vector<double> evaluateNodes(std::span<const ScoreNode> nodes, const ScoreExpr::Point &at,
                                  std::span<const double> scalar_values,
                                  const std::function<double(int, std::span<const int64_t>)> &tensor) {
  std::vector<double> v(nodes.size());
  for (size_t i = 0; i < nodes.size(); ++i) {
    const ScoreNode &n = nodes[i];
    auto x = [&](int operand) { return v[n.operands[operand]]; };
    switch (n.op) {
    case ScoreOp::Constant:
      v[i] = n.value;
      break;
    case ScoreOp::Score:
      v[i] = at.s;
      break;
    case ScoreOp::Batch:
      v[i] = double(at.b);
      break;
    case ScoreOp::Head:
      v[i] = double(at.h);
      break;
    case ScoreOp::HeadK:
      v[i] = double(at.hk);
      break;
    case ScoreOp::Query:
      v[i] = double(at.q);
      break;
    case ScoreOp::Key:
      v[i] = double(at.k);
      break;
    case ScoreOp::SeqlenQ:
      v[i] = double(at.sq);
      break;
    case ScoreOp::SeqlenK:
      v[i] = double(at.sk);
      break;
    case ScoreOp::Scalar:
      v[i] = scalar_values[n.slot];
      break;
    case ScoreOp::Tensor: {
      int64_t indices[kMaxScoreTensorRank] = {};
      for (size_t d = 0; d < n.operands.size(); ++d)
        indices[d] = scoreIndex(x(int(d)));
      v[i] = tensor(n.slot, {indices, n.operands.size()});
      break;
    }
    case ScoreOp::Neg:
      v[i] = -x(0);
      break;
    case ScoreOp::Abs:
      v[i] = std::fabs(x(0));
      break;
    case ScoreOp::Exp:
      v[i] = std::exp(x(0));
      break;
    case ScoreOp::Log:
      v[i] = std::log(x(0));
      break;
    case ScoreOp::Sqrt:
      v[i] = std::sqrt(x(0));
      break;
    case ScoreOp::Tanh:
      v[i] = std::tanh(x(0));
      break;
    case ScoreOp::Floor:
      v[i] = std::floor(x(0));
      break;
    case ScoreOp::Sech2: {
      const double root = 1 + std::fabs(x(1));
      v[i] = std::exp(-2 * std::fabs(x(0))) * root * root;
      break;
    }
    case ScoreOp::Add:
      v[i] = x(0) + x(1);
      break;
    case ScoreOp::Sub:
      v[i] = x(0) - x(1);
      break;
    case ScoreOp::Mul:
      v[i] = x(0) * x(1);
      break;
    case ScoreOp::Div:
      v[i] = x(0) / x(1);
      break;
    case ScoreOp::Mod:
      v[i] = scoreRemainder(x(0), x(1));
      break;
    case ScoreOp::Min:
      v[i] = std::fmin(x(0), x(1));
      break;
    case ScoreOp::Max:
      v[i] = std::fmax(x(0), x(1));
      break;
    case ScoreOp::Lt:
      v[i] = x(0) < x(1);
      break;
    case ScoreOp::Le:
      v[i] = x(0) <= x(1);
      break;
    case ScoreOp::Gt:
      v[i] = x(0) > x(1);
      break;
    case ScoreOp::Ge:
      v[i] = x(0) >= x(1);
      break;
    case ScoreOp::Eq:
      v[i] = x(0) == x(1);
      break;
    case ScoreOp::Ne:
      v[i] = x(0) != x(1);
      break;
    case ScoreOp::And:
      v[i] = x(0) != 0 && x(1) != 0;
      break;
    case ScoreOp::Or:
      v[i] = x(0) != 0 || x(1) != 0;
      break;
    case ScoreOp::Where:
      v[i] = x(0) != 0 ? x(1) : x(2);
      break;
    }
  }
  return v;
}

} // namespace flashplus
