// SPDX-License-Identifier: BSD-3-Clause
// Score expressions: what a caller may do to one attention score between Q.K^T and the softmax, as data.
//
//   softcap   "cap * tanh(s / cap)"
//   ALiBi     "s - slopes[h] * abs(q + sk - sq - k)"
//   bias      "s + bias[b, h, q, k]"
//
// Grammar (EBNF), whitespace free between tokens:
//   expr    = both { "or" both }
//   both    = not { "and" not }
//   not     = "not" not | compare
//   compare = sum [ ("<" | "<=" | ">" | ">=" | "==" | "!=") sum ]
//   sum     = product { ("+" | "-") product }
//   product = unary { ("*" | "/" | "%") unary }
//   unary   = "-" unary | primary
//   primary = number | "(" expr ")" | name | name "(" expr { "," expr } ")" | name "[" expr { "," expr } "]"
//
// Built-in names:  s   the score, already multiplied by softmax_scale (fp32)
//                  b, h, hk   batch entry, query head, key/value head
//                  q, k       query row and key row inside their sequence, from 0
//                  sq, sk     lengths of this sequence (true lengths, not the padded maxima)
//                  inf        infinity
// Functions:       abs exp log sqrt tanh sigmoid floor neg (1 argument), min max (2), where(condition, a, b)
//                  (3)
// Any other name is the caller's: followed by "[" an auxiliary fp32 tensor of 1 to 4 indices, else a scalar.
// Every value is fp32 but for indices, below. Comparisons, `and`, `or` and `not` give 1 or 0; they and
// `where`, which takes its second argument when the first is not 0, hold for what is not 0. `a % b` has the
// sign of b, as in Python: a - floor(a / b) * b; it is exact where a / b is below 2^22. sigmoid(x) is written
// as 1 / (1 + exp(-x)), `not x` as x == 0.
//
// Indices (docs/rationale/score-indices.md). No index reads outside its tensor: it is rounded towards zero,
// then one below 0, or NaN, reads the first element of its dimension, and one past the end the last. So
// `rel[h, q - k + 64]` is a table of clipped distances, and what is worked out for keys that a mask hides
// does no harm. An index of positions, lengths, heads and whole numbers under + - * neg abs min max and
// % of a number is worked out in int32, exactly, unless some lengths up to kMaxScorePosition could take it
// out of int32; every other one is an fp32 value, which is exact up to 2^24.
//
// An expression is compared and hashed by its canonical text, in which the caller's names are replaced by
// p0, p1, ... (scalars) and t0, t1, ... (tensors) in order of first appearance: two callers who name things
// differently share one kernel, and values stay run-time parameters. Numbers in a caller's text become
// scalars, too (liftNumbers).
#pragma once

#include "spec/status.h"

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace flashplus {

enum class ScoreOp : uint8_t {
  // leaves
  Constant, ///< `value`
  Score,    ///< s
  Batch,
  Head,
  HeadK,
  Query,
  Key,
  SeqlenQ,
  SeqlenK,
  Scalar, ///< `slot`: index into ScoreExpr::scalars
  Tensor, ///< `slot`: index into ScoreExpr::tensors; operands are the indices
  // unary
  Neg,
  Abs,
  Exp,
  Log,
  Sqrt,
  Tanh,
  Floor,
  // binary
  Add,
  Sub,
  Mul,
  Div,
  Mod, ///< Its result has the divisor's sign.
  Min,
  Max,
  Lt,
  Le,
  Gt,
  Ge,
  Eq,
  Ne,
  And,
  Or,
  // ternary
  Where,
  // of derivatives only; no text has it
  Sech2, ///< Of x and tanh(x): 1 - tanh(x)^2 without the difference, e^(-2 |x|) (1 + |tanh x|)^2.
};

/// Whether a node is 1 or 0, as a comparison.
constexpr bool isCondition(ScoreOp op) { return op >= ScoreOp::Lt && op <= ScoreOp::Or; }

/// One node; operands are indices of earlier nodes, so that `nodes` is in evaluation order.
struct ScoreNode {
  ScoreOp op = ScoreOp::Score;
  double value = 0; ///< Constant only. Parsed as double, used as fp32.
  int slot = 0;     ///< Scalar and Tensor only.
  std::vector<int> operands;
};

/// An auxiliary tensor as the expression uses it.
struct ScoreTensor {
  std::string name; ///< As the caller wrote it.
  int rank = 0;     ///< Number of indices, 1 to kMaxScoreTensorRank.
};

inline constexpr int kMaxScoreTensors = 4;
inline constexpr int kMaxScoreTensorRank = 4;
inline constexpr int kMaxScoreScalars = 8;
inline constexpr int kMaxScoreNodes = 256;
/// Most that a built-in name but `s` can be: lengths are checked against it.
inline constexpr int64_t kMaxScorePosition = (int64_t(1) << 30) - 1;

/// A number of an expression's text that became a scalar (ScoreExpr::liftNumbers).
struct ScoreNumber {
  int slot;
  float value;
};

/// A parsed score expression. The default one is the identity "s". Immutable once parsed.
class ScoreExpr {
public:
  /// Parses `text`. The message of a failure names the column (from 1) and what was expected there.
  /// Text that is longer than 4096 bytes, nests deeper than 64, or passes a kMaxScore... limit fails too.
  static Result<ScoreExpr> parse(std::string_view text);

  bool isIdentity() const { return nodes.empty(); }

  /// The canonical text described above; "s" for the identity. parse(canonical()) gives an equal expression
  /// whose names are the canonical ones.
  std::string canonical() const;

  /// Values of the built-in names for one score.
  struct Point {
    double s = 0;
    int64_t b = 0, h = 0, hk = 0, q = 0, k = 0, sq = 0, sk = 0;
  };
  /// Whether an index that is node `node` is worked out in int32.
  bool isIntegerIndex(int node) const;
  /// Whether a kernel has to clamp some index: it is not a plain b, h or hk, which are checked when a tensor
  /// is bound.
  bool clampsIndices() const;

  /// Makes a scalar of every number that the kernel need not know, so that two scores that differ in one
  /// share a kernel, and returns what those scalars are. Numbers inside an index stay, since how an index is
  /// worked out depends on them, and so do 0 and 1, which are structure more often than values; and those for
  /// which there is no slot left (kMaxScoreScalars). Slots are numbered anew, in order of first appearance.
  std::vector<ScoreNumber> liftNumbers();

  /// Evaluates in fp64; for tests and references. `tensor(slot, indices)` reads an auxiliary tensor; indices
  /// are 0 to INT32_MAX, and still to be clamped to the end of the tensor.
  double evaluate(const Point &at, std::span<const double> scalar_values,
                  const std::function<double(int slot, std::span<const int64_t>)> &tensor) const;

  std::vector<ScoreNode> nodes; ///< Empty for the identity; else the last node is the result.
  std::vector<std::string> scalars;
  std::vector<ScoreTensor> tensors;
};

/// The value of every node, in order; what ScoreExpr::evaluate says holds here.
std::vector<double> evaluateNodes(std::span<const ScoreNode> nodes, const ScoreExpr::Point &at,
                                  std::span<const double> scalar_values,
                                  const std::function<double(int slot, std::span<const int64_t>)> &tensor);
/// ScoreExpr::isIntegerIndex of nodes in evaluation order.
bool isIntegerIndex(std::span<const ScoreNode> nodes, int node);

/// a % b of numbers, as Python has it.
double scoreRemainder(double a, double b);

/// An index as a number of an element, before it is clamped to the end of a tensor: rounded towards zero, 0
/// to INT32_MAX; 0 for NaN.
int64_t scoreIndex(double value);

} // namespace flashplus
