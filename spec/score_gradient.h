// SPDX-License-Identifier: BSD-3-Clause
// The derivatives of a score expression, as nodes beside its own: by s, by the caller's scalars, and by every
// element of an auxiliary tensor that it reads. Worked out when a kernel is made, in reverse mode.
//
// Derivatives at places without one (a table of all is in docs/rationale/score-gradient.md):
//   abs at 0             0
//   min, max of equals   half to each, as PyTorch's minimum and maximum
//   where                the selected branch; the condition, comparisons and indices have none
//   clamped index        belongs to the element that is read
// Where the score and its true derivative are finite, the derivative here is, whatever a branch that is not
// selected would give; for numbers as score_graph.h says. A score that is not finite has p = 0: select 0
// there, do not multiply, unless isFinite() says that it may be multiplied.
#pragma once

#include "spec/score_graph.h"

namespace flashplus {

/// No gradient of an expression that parses has more nodes than this.
inline constexpr int kMaxScoreGradientNodes = 10 * kMaxScoreNodes;

struct ScoreGradient {
  /// In evaluation order: the expression's own, bit by bit what the forward computes, then what only
  /// derivatives need. Equal nodes are one, and all are used. Unlike a parsed expression's, constants may be
  /// negative.
  std::vector<ScoreNode> nodes;
  int value = 0; ///< The node that is the score.
  int ds = 0;    ///< d value / d s

  /// ds as ds_factor * ds_element: the factor is the same for all scores of one query head of one sequence,
  /// so that it can be taken into the scale of dQ (and of dK, if it does not read h or the group is one
  /// head); both are 1 where there is none.
  int ds_factor = 0, ds_element = 0;

  /// d value / d scalar, one per scalar of the expression; the constant 0 where there is none.
  std::vector<int> dscalars;

  /// An element of a tensor that the score depends on.
  struct Read {
    int slot = 0;            ///< Of the tensor.
    int node = 0;            ///< The Tensor node; its operands are the indices.
    int adjoint = 0;         ///< d value / d element
    unsigned indexed_by = 0; ///< What the indices read (ScoreReads): which scores share an element.
  };
  std::vector<Read> reads; ///< Without those whose derivative is 0 everywhere: of indices and conditions.

  /// One per node.
  struct Facts {
    unsigned reads = 0;  ///< ScoreReads
    bool finite = false; ///< See isFinite().
  };
  std::vector<Facts> facts;

  /// The score is s times a number plus something: ds does not read s.
  bool isLinear() const { return !(facts[size_t(ds)].reads & kReadsScore); }
  bool isConstant(int node, double v) const {
    return nodes[size_t(node)].op == ScoreOp::Constant && nodes[size_t(node)].value == v;
  }
  /// The same for all scores of one head of one sequence.
  bool isUniform(int node) const {
    return !(facts[size_t(node)].reads & (kReadsScore | kReadsQuery | kReadsKey));
  }
  /// Never infinite or NaN for finite s, scalars and uniform divisors but 0, even where the score is -inf: 0
  /// times it is 0.
  bool isFinite(int node) const { return facts[size_t(node)].finite; }

  /// For people: node `root` in the grammar of score.h with p0, t0, ... for scalars and tensors. What is used
  /// more than once stands in front: "x0 = s / p0; sech2(x0, tanh(x0))".
  std::string text(int root) const;
  /// All of it, one line each: what is shared, the score, d/ds, d/dp0, ..., d/dt0[h], ...
  std::string text() const;
};

/// Of any expression; there is nothing that has no derivative here.
ScoreGradient differentiate(const ScoreExpr &expr);

} // namespace flashplus
