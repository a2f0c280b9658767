// SPDX-License-Identifier: BSD-3-Clause
// Recursive descent over the grammar in score.h.
#include "spec/score.h"
#include "spec/score_cost.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

namespace flashplus {
namespace {

constexpr size_t kMaxText = 4096;
constexpr int kMaxDepth = 64;

struct Builtin {
  std::string_view name;
  ScoreOp op;
};
constexpr Builtin kVariables[] = {{"s", ScoreOp::Score},    {"b", ScoreOp::Batch},   {"h", ScoreOp::Head},
                                  {"hk", ScoreOp::HeadK},   {"q", ScoreOp::Query},   {"k", ScoreOp::Key},
                                  {"sq", ScoreOp::SeqlenQ}, {"sk", ScoreOp::SeqlenK}};
struct Function {
  std::string_view name;
  ScoreOp op;
  int arity;
};
constexpr Function kFunctions[] = {{"abs", ScoreOp::Abs, 1},   {"exp", ScoreOp::Exp, 1},
                                   {"log", ScoreOp::Log, 1},   {"sqrt", ScoreOp::Sqrt, 1},
                                   {"tanh", ScoreOp::Tanh, 1}, {"floor", ScoreOp::Floor, 1},
                                   {"neg", ScoreOp::Neg, 1},   {"min", ScoreOp::Min, 2},
                                   {"max", ScoreOp::Max, 2},   {"where", ScoreOp::Where, 3}};
/// Functions that the parser writes in terms of others, and words that are operators.
constexpr std::string_view kSigmoid = "sigmoid", kInf = "inf", kWords[] = {"and", "or", "not"};
/// How much deeper than its argument `-(1 / (1 + exp(-(x))))`, the canonical text of a sigmoid, nests.
constexpr int kSigmoidDepth = 4;
// Longest first: "<=" before "<".
struct Comparison {
  std::string_view text;
  ScoreOp op;
};
constexpr Comparison kComparisons[] = {{"<=", ScoreOp::Le}, {">=", ScoreOp::Ge}, {"==", ScoreOp::Eq},
                                       {"!=", ScoreOp::Ne}, {"<", ScoreOp::Lt},  {">", ScoreOp::Gt}};

bool isLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool isDigit(char c) { return c >= '0' && c <= '9'; }

class Parser {
public:
  explicit Parser(std::string_view text) : text_(text) {}

  Result<ScoreExpr> run() {
    if (text_.size() > kMaxText)
      return invalidArgument("score text has " + std::to_string(text_.size()) + " bytes; at most " +
                             std::to_string(kMaxText) + " are allowed");
    const int root = expression();
    skipSpace();
    if (root >= 0 && at_ < text_.size())
      fail("expected an operator or the end");
    if (!status_)
      return status_;
    FLASHPLUS_RETURN_IF_ERROR(checkScoreCost(expr_.nodes, "score"));
    if (expr_.nodes.size() == 1 && expr_.nodes[0].op == ScoreOp::Score)
      return ScoreExpr{};
    return std::move(expr_);
  }

private:
  /// Records the first failure, at the current column; returns the index that means "failed".
  int fail(const std::string &why) {
    if (status_) {
      std::string found = at_ < text_.size() ? "'" + std::string(1, text_[at_]) + "'" : "the end";
      if (at_ < text_.size() && (text_[at_] < ' ' || text_[at_] > '~'))
        found = "an unprintable character";
      status_ = invalidArgument("score does not parse at column " + std::to_string(at_ + 1) + " (" + found +
                                "): " + why);
    }
    return -1;
  }

  void skipSpace() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n'))
      ++at_;
  }

  bool accept(std::string_view token) {
    skipSpace();
    if (!text_.substr(at_).starts_with(token))
      return false;
    at_ += token.size();
    return true;
  }

  /// As accept, of a word that no letter or digit goes on.
  bool acceptWord(std::string_view word) {
    const size_t before = at_;
    if (accept(word) && (at_ == text_.size() || !(isLetter(text_[at_]) || isDigit(text_[at_]))))
      return true;
    at_ = before;
    return false;
  }

  int push(ScoreOp op, std::vector<int> operands = {}, double value = 0, int slot = 0) {
    for (int operand : operands)
      if (operand < 0)
        return -1;
    if (expr_.nodes.size() >= size_t(kMaxScoreNodes))
      return fail("the expression has more than " + std::to_string(kMaxScoreNodes) + " operations");
    expr_.nodes.push_back({op, value, slot, std::move(operands)});
    return int(expr_.nodes.size()) - 1;
  }

  int expression() {
    if (++depth_ > kMaxDepth)
      return fail("nesting is deeper than " + std::to_string(kMaxDepth));
    int left = both();
    while (left >= 0 && acceptWord("or")) {
      const int right = both();
      left = push(ScoreOp::Or, {left, right});
    }
    --depth_;
    return left;
  }

  int both() {
    int left = inverted();
    while (left >= 0 && acceptWord("and")) {
      const int right = inverted();
      left = push(ScoreOp::And, {left, right});
    }
    return left;
  }

  int inverted() {
    // Every `not` nests: its canonical text is `(...) == 0`.
    const int depth = depth_;
    while (acceptWord("not"))
      if (++depth_ > kMaxDepth)
        return fail("nesting is deeper than " + std::to_string(kMaxDepth));
    int operand = comparison();
    for (; depth_ > depth && operand >= 0; --depth_) {
      const int zero = push(ScoreOp::Constant);
      operand = zero < 0 ? -1 : push(ScoreOp::Eq, {operand, zero});
    }
    return operand;
  }

  int comparison() {
    int left = sum();
    for (const Comparison &c : kComparisons)
      if (left >= 0 && accept(c.text)) {
        const int right = sum();
        left = push(c.op, {left, right});
        break;
      }
    return left;
  }

  int sum() {
    int left = product();
    while (left >= 0) {
      const bool add = accept("+");
      if (!add && !accept("-"))
        break;
      const int right = product();
      left = push(add ? ScoreOp::Add : ScoreOp::Sub, {left, right});
    }
    return left;
  }

  int product() {
    int left = unary();
    while (left >= 0) {
      const ScoreOp op = accept("*")   ? ScoreOp::Mul
                         : accept("/") ? ScoreOp::Div
                         : accept("%") ? ScoreOp::Mod
                                       : ScoreOp::Score;
      if (op == ScoreOp::Score)
        break;
      const int right = unary();
      left = push(op, {left, right});
    }
    return left;
  }

  int unary() {
    // A loop, so that "-(x)" nests no deeper than the "neg(x)" for which canonical text writes it.
    int minuses = 0;
    while (accept("-"))
      ++minuses;
    int operand = primary();
    for (; minuses > 0 && operand >= 0; --minuses)
      operand = push(ScoreOp::Neg, {operand});
    return operand;
  }

  int primary() {
    skipSpace();
    if (at_ < text_.size() && (isDigit(text_[at_]) || text_[at_] == '.'))
      return number();
    if (accept("(")) {
      const int inner = expression();
      if (inner >= 0 && !accept(")"))
        return fail("expected ')'");
      return inner;
    }
    const size_t begin = at_;
    while (at_ < text_.size() && (isLetter(text_[at_]) || (at_ > begin && isDigit(text_[at_]))))
      ++at_;
    if (at_ == begin)
      return fail("expected a number, a name or '('");
    return named(text_.substr(begin, at_ - begin), begin);
  }

  int number() {
    double value = 0;
    const auto [stop, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
    if (error != std::errc() || !std::isfinite(float(value)))
      return fail("expected a number that fp32 can hold");
    at_ = size_t(stop - text_.data());
    return push(ScoreOp::Constant, {}, float(value));
  }

  /// Operands up to `close`; nothing on failure.
  std::optional<std::vector<int>> list(std::string_view close) {
    std::vector<int> operands;
    do {
      operands.push_back(expression());
      if (operands.back() < 0)
        return std::nullopt;
    } while (accept(","));
    if (!accept(close)) {
      fail("expected ',' or '" + std::string(close) + "'");
      return std::nullopt;
    }
    return operands;
  }

  int named(std::string_view name, size_t begin) {
    if (name.size() > 64)
      return at_ = begin, fail("a name is longer than 64 characters");
    for (std::string_view word : kWords)
      if (name == word)
        return at_ = begin,
               fail("'" + std::string(name) + "' is an operator; expected a number, a name or '('");
    if (accept("("))
      return call(name, begin);
    const Builtin *builtin = nullptr;
    for (const Builtin &v : kVariables)
      if (v.name == name)
        builtin = &v;
    bool reserved = builtin != nullptr || name == kInf || name == kSigmoid;
    for (const Function &f : kFunctions)
      reserved |= f.name == name;
    if (accept("[")) {
      if (reserved)
        return at_ = begin, fail("'" + std::string(name) + "' is built in and cannot name a tensor");
      return tensor(name, begin);
    }
    if (builtin)
      return push(builtin->op);
    if (name == kInf)
      return push(ScoreOp::Constant, {}, std::numeric_limits<double>::infinity());
    if (reserved)
      return at_ = begin, fail("'" + std::string(name) + "' is a function; expected '('");
    for (const ScoreTensor &t : expr_.tensors)
      if (t.name == name)
        return at_ = begin, fail("'" + std::string(name) + "' is a tensor elsewhere; expected '['");
    size_t slot = 0;
    while (slot < expr_.scalars.size() && expr_.scalars[slot] != name)
      ++slot;
    if (slot == expr_.scalars.size()) {
      if (slot == size_t(kMaxScoreScalars))
        return at_ = begin, fail("more than " + std::to_string(kMaxScoreScalars) + " scalars");
      expr_.scalars.emplace_back(name);
    }
    return push(ScoreOp::Scalar, {}, 0, int(slot));
  }

  /// The operands of a function that takes `arity`; nothing on failure.
  std::optional<std::vector<int>> arguments(std::string_view name, int arity, size_t begin) {
    auto operands = list(")");
    if (operands && int(operands->size()) != arity) {
      at_ = begin;
      fail("'" + std::string(name) + "' takes " + std::to_string(arity) +
           (arity == 1 ? " argument, not " : " arguments, not ") + std::to_string(operands->size()));
      return std::nullopt;
    }
    return operands;
  }

  /// 1 / (1 + exp(-x))
  int sigmoid(size_t begin) {
    const int one = push(ScoreOp::Constant, {}, 1), other = push(ScoreOp::Constant, {}, 1);
    depth_ += kSigmoidDepth - 1; // the list is one deeper itself
    const auto x = arguments(kSigmoid, 1, begin);
    depth_ -= kSigmoidDepth - 1;
    if (!x)
      return -1;
    const int exponential = push(ScoreOp::Exp, {push(ScoreOp::Neg, *x)});
    return push(ScoreOp::Div, {one, push(ScoreOp::Add, {other, exponential})});
  }

  int call(std::string_view name, size_t begin) {
    if (name == kSigmoid)
      return sigmoid(begin);
    for (const Function &f : kFunctions) {
      if (f.name != name)
        continue;
      auto operands = arguments(name, f.arity, begin);
      return operands ? push(f.op, std::move(*operands)) : -1;
    }
    std::string known;
    for (const Function &f : kFunctions)
      known += std::string(f.name) + ", ";
    known += kSigmoid;
    return at_ = begin, fail("'" + std::string(name) + "' is not a function; there is " + known);
  }

  int tensor(std::string_view name, size_t begin) {
    // The slot is taken before the indices are read, so that slots follow first appearance.
    for (const std::string &scalar : expr_.scalars)
      if (scalar == name)
        return at_ = begin, fail("'" + std::string(name) + "' is a scalar elsewhere");
    size_t slot = 0;
    while (slot < expr_.tensors.size() && expr_.tensors[slot].name != name)
      ++slot;
    if (slot == expr_.tensors.size()) {
      if (slot == size_t(kMaxScoreTensors))
        return at_ = begin, fail("more than " + std::to_string(kMaxScoreTensors) + " tensors");
      expr_.tensors.push_back({std::string(name), 0});
    }
    auto indices = list("]");
    if (!indices)
      return -1;
    const int rank = int(indices->size());
    if (rank > kMaxScoreTensorRank)
      return at_ = begin, fail("a tensor has at most " + std::to_string(kMaxScoreTensorRank) + " indices");
    ScoreTensor &t = expr_.tensors[slot];
    if (t.rank != 0 && t.rank != rank)
      return at_ = begin,
             fail("'" + std::string(name) + "' has " + std::to_string(t.rank) + " indices elsewhere");
    t.rank = rank;
    return push(ScoreOp::Tensor, std::move(*indices), 0, int(slot));
  }

  std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
  Status status_;
  ScoreExpr expr_;
};

} // namespace

Result<ScoreExpr> ScoreExpr::parse(std::string_view text) { return Parser(text).run(); }

} // namespace flashplus
