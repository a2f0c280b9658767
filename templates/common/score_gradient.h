// SPDX-License-Identifier: BSD-3-Clause
// Sums of what scores give to the gradients of the score's own scalars and tensors (score_grads): the terms
// g d of a region's attn.scalar_gradient and attn.aux_gradient, in fp32, into the memory that dscalar and
// daux point to. On a CPU nobody else adds to a sum while a work item does, and terms come in a fixed order;
// on a GPU items add with atomic operations, in the order in which they run.
#pragma once

#include "templates/common/score.h"
#include "templates/common/score_tile.h"

namespace flashplus {

bool isScoreDerivative(mlir::Operation &op);
/// Of such an operation.
mlir::Value derivativeOf(mlir::Operation &op);
mlir::ValueRange indicesOf(mlir::Operation &op); ///< None of a scalar's.

/// Which scores of a work item give to the same element, as the region alone says.
enum class SharedBy {
  Item,  ///< All of a query head: a scalar, t[b, h].
  Row,   ///< Those of a query row: t[h, q].
  Scores ///< Nothing is known.
};
SharedBy sharedBy(mlir::Operation &op);

/// Whether any two work items of different batch entries, or of different key heads, give to different
/// elements, of every derivative in the region.
struct ApartBy {
  bool batch = true, head_k = true;
};
ApartBy apartBy(mlir::Region &region);

/// On a CPU: adds the lanes of `terms` (a vector, 0 where a score does not count) to their elements, those of
/// share `share` (i32).
void addTerms(Ir &ir, const ParamReader &params, const ScoreDerivative &d, Val terms, Val share);

/// On a GPU: one thread's sums while its work item goes on, of the derivatives that are SharedBy::Item, in
/// the region's order.
struct ScoreSums {
  Vals values;
  void fields(auto &&each) { each(values); }

  static ScoreSums zeros(Ir &ir, mlir::Region &region);
};

/// Adds the terms of `count` scores of one query row: term(d, i) of the i-th, 0 where it does not count. The
/// four lanes that share the row must be here.
void addTerms(Ir &ir, const ParamReader &params, ScoreSums &sums,
              const std::vector<ScoreDerivative> &derivatives, int count, Val lane,
              llvm::function_ref<Val(const ScoreDerivative &d, int i)> term);

/// To memory; by a whole warp, all of whose threads had the same query head.
void storeSums(Ir &ir, const ParamReader &params, mlir::Region &region, const WorkItem &item,
               const Sequence &sequence, const ScoreSums &sums, Val lane);

} // namespace flashplus
