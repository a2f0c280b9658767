// SPDX-License-Identifier: BSD-3-Clause
// Nodes of score expressions that are built with sharing and simplified as they are made; what
// differentiate() is written in.
//
// What is taken for granted of numbers that a caller passes: s, scalars and elements of tensors are below
// 2^40 in magnitude or, tensors only, infinite; a divisor that is the same for a whole tile is above 2^-40.
// Where a branch is not selected nothing of this need hold: a derivative that is 0 there stays 0 whatever it
// would be multiplied by.
#pragma once

#include "spec/score.h"

#include <map>
#include <tuple>

namespace flashplus {

/// What a node is worked out from, as bits.
enum ScoreReads : unsigned {
  kReadsScore = 1,
  kReadsQuery = 2,
  kReadsKey = 4,
  kReadsHead = 8,   ///< h or hk
  kReadsBatch = 16, ///< b, sq or sk
};

class ScoreGraph {
public:
  /// Nodes of `expr`, as they are but for sharing: what they compute is that bit by bit.
  explicit ScoreGraph(const ScoreExpr &expr);

  const std::vector<ScoreNode> &nodes() const { return nodes_; }
  int value() const { return value_; }     ///< The score.
  int forward() const { return forward_; } ///< Nodes before this one are those of the expression.

  int constant(double value);
  int negative(int a);
  int sum(int a, int b);
  int difference(int a, int b) { return sum(a, negative(b)); }
  int select(int condition, int a, int b);
  int compare(ScoreOp op, int a, int b);
  int sech2(int x, int tanh) { return share({.op = ScoreOp::Sech2, .operands = {x, tanh}}); }
  /// u x, where u is uniform.
  int scaled(int u, int x);
  int multiply(int a, int b);
  /// a times and divided by `local`, where a is a derivative so far: 0 where it is 0, even if `local` is
  /// infinite or NaN there.
  int product(int a, int local);
  int quotient(int a, int local);

  bool isConstant(int node, double value) const;
  unsigned reads(int node) const { return facts_[size_t(node)].reads; }
  /// The same for all scores of one head of one sequence.
  bool isUniform(int node) const { return !(reads(node) & (kReadsScore | kReadsQuery | kReadsKey)); }
  /// Finite wherever it is wanted, as long as the caller's numbers are as said above.
  bool isFinite(int node) const { return facts_[size_t(node)].finite() && !facts_[size_t(node)].tensor; }
  /// A node as factor times element, of which the factor is uniform.
  std::pair<int, int> factors(int node);

private:
  struct Facts {
    unsigned reads = 0;
    double largest = 0;  ///< No magnitude is above this.
    bool tensor = false; ///< May be infinite since an element of a tensor may be.
    bool wild = false;   ///< May be infinite or NaN where it is not selected.
    bool masked = false; ///< 0 where something was not selected.
    bool finite() const;
  };
  /// What a node is beside another: the same operation on the same operands.
  using Key = std::tuple<ScoreOp, double, int, std::vector<int>>;

  int share(ScoreNode node);
  Facts factsOf(const ScoreNode &node) const;
  int divide(int a, int b);
  /// Whether a zero of derivative `a` could meet what is not finite in `local`, or in 1 / local.
  bool mustGuard(int a, int local, bool divides) const;
  int guarded(int a, int local, bool divides);
  int chain(int a, int local, bool divides);
  /// condition, value where it holds, value where it does not, of a node that selects.
  bool selects(int node, int (&parts)[3]);

  std::vector<ScoreNode> nodes_;
  std::vector<Facts> facts_;
  std::map<Key, int> known_;
  int value_ = 0, forward_ = 0;
};

} // namespace flashplus
