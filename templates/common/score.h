// SPDX-License-Identifier: BSD-3-Clause
// The score region and the online softmax: the mathematics that every template shares, offered in steps so
// that a template may order them as its hardware likes.
#pragma once

#include "ir/dialect/Attn.h"
#include "ir/ir.h"
#include "templates/common/sequence.h"
#include "templates/common/sink.h"
#include "templates/common/work.h"

#include <numbers>

namespace flashplus {

/// The region only yields its score.
bool isPlainScore(mlir::Region &region);

/// The region yields a derivative, too, and that is not 1 everywhere.
bool hasSlope(attn::YieldOp yield);
bool hasSlope(mlir::Region &region);

/// An attn.scalar_gradient or attn.aux_gradient, evaluated.
struct ScoreDerivative {
  mlir::Operation *op;
  Vals values;               ///< Derivatives: one, or one an element of a tile.
  std::vector<Vals> indices; ///< Of the element, by dimension: one, or one an element of a tile.
};

/// Inlines a score region on a vector of scores, of one query row at consecutive keys unless apply() is told
/// otherwise; what does not depend on the key stays scalar. For the CPU; a GPU thread's tile of scores is
/// score_tile.h's.
class Score {
public:
  Score(Ir &ir, const ParamReader &params, mlir::Region &region, const WorkItem &item,
        const Sequence &sequence);

  bool isIdentity() const { return identity_; }

  /// `s` are the scaled scores, `row` the query row (i32), `key` the key (i32) of the first lane. Rows and
  /// keys past the sequence are allowed: their value means nothing, and auxiliary tensors are read inside
  /// their bounds anyway. `head` is the query head where a work item has several. Rows, keys and heads may be
  /// vectors.
  Val apply(Val s, Val row, Val key, Val head = {}) const { return evaluate(s, row, key, head).value; }

  struct WithSlope {
    Val value;
    Val slope; ///< Derivative of value with respect to s: a scalar or a vector; absent where it is 1, and in
               ///< a forward.
    std::vector<ScoreDerivative> derivatives; ///< By the score's own inputs; scalars or vectors.
  };
  /// As apply(); of a region that yields its derivative, too.
  WithSlope evaluate(Val s, Val row, Val key, Val head = {}) const;

private:
  Ir &ir_;
  const ParamReader &params_;
  mlir::Block &block_;
  const WorkItem &item_;
  const Sequence &sequence_;
  bool identity_;
};

/// Whether some auxiliary tensor is read at an index that readScoreTensor clamps. ScoreExpr::clampsIndices of
/// the region.
bool clampsIndices(mlir::Region &region);

/// attn.index of a scalar or a vector.
Val scoreIndex(Ir &ir, Val value);

/// attn.remainder of scalars or vectors.
Val scoreRemainder(Ir &ir, Val a, Val b);

/// The last index of each dimension of an auxiliary tensor that readScoreTensor clamps, else nothing.
Vals lastIndices(Ir &ir, const ParamReader &params, int slot, mlir::ValueRange indices);
inline Vals lastIndices(Ir &ir, const ParamReader &params, attn::AuxOp op) {
  return lastIndices(ir, params, int(op.getSlot()), op.getIndices());
}

/// Where elements of an auxiliary tensor, or of its gradient, are.
struct ScoreElement {
  Val row;     ///< Pointer.
  Val varying; ///< i64 vector of offsets from it in bytes; absent if all lanes have one element.
};
/// Of tensor `slot` at `at`, the values of the region's `indices`; `base` and `stride` name the params.
ScoreElement scoreElement(Ir &ir, const ParamReader &params, std::string_view base, std::string_view stride,
                          int slot, mlir::ValueRange indices, llvm::ArrayRef<Val> at, const Vals &last);

/// Element of an auxiliary tensor at scalar or vector `indices`, the values of the operands of `op`; `last`
/// as lastIndices gives it. Never reads outside the tensor, which must not be empty.
Val readScoreTensor(Ir &ir, const ParamReader &params, attn::AuxOp op, llvm::ArrayRef<Val> indices,
                    const Vals &last);

/// One row's online softmax in base 2 (Milakov and Gimelshein, 2018): with scores t_j = s_j log2(e),
///   m = max_j t_j,  l = sum_j 2^(t_j - m),  o = sum_j 2^(t_j - m) v_j / l,  lse = (m + log2 l) ln 2.
namespace softmax {

inline constexpr double kLog2E = std::numbers::log2e;
inline constexpr double kLn2 = std::numbers::ln2;

/// What to subtract from scores: m, or 0 while no score is above -inf (so that -inf - m is not NaN).
Val reference(Ir &ir, Val m);

struct Finish {
  Val factor; ///< o's factor: 1 / l, or 0 for an empty row.
  Val lse;    ///< Natural logarithm; `empty` for an empty row.
};
/// `sink`, if there is one, is a score more of the row, of which m and l do not know.
Finish finish(Ir &ir, Val m, Val l, Val empty, const std::optional<Sink> &sink = std::nullopt);

} // namespace softmax
} // namespace flashplus
