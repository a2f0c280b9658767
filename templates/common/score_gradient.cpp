// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/score_gradient.h"

#include "ir/warp.h"

#include "llvm/ADT/SmallPtrSet.h"

using namespace mlir;

namespace flashplus {
namespace {

int slotOf(mlir::Operation &op) {
  if (auto aux = dyn_cast<attn::AuxGradientOp>(op))
    return int(aux.getSlot());
  return int(cast<attn::ScalarGradientOp>(op).getSlot());
}

/// The arguments of the region that `value` is worked out from, as bits; `seen` ends the walk where values
/// meet again.
unsigned argumentsOf(Value value, llvm::SmallPtrSetImpl<void *> &seen) {
  if (auto argument = dyn_cast<BlockArgument>(value))
    return 1u << argument.getArgNumber();
  unsigned all = 0;
  if (seen.insert(value.getAsOpaquePointer()).second)
    for (Value operand : value.getDefiningOp()->getOperands())
      all |= argumentsOf(operand, seen);
  return all;
}

/// Lets `each` see every derivative of the region.
void forDerivatives(Region &region, llvm::function_ref<void(mlir::Operation &)> each) {
  for (mlir::Operation &op : region.front())
    if (isScoreDerivative(op))
      each(op);
}

/// The element at `indices`, one value a dimension.
ScoreElement elementOf(Ir &ir, const ParamReader &params, mlir::Operation &op, ArrayRef<Val> indices) {
  const int slot = slotOf(op);
  if (indices.empty())
    return {params.get("dscalar", slot), {}};
  return scoreElement(ir, params, "daux", "daux_stride", slot, indicesOf(op), indices,
                      lastIndices(ir, params, slot, indicesOf(op)));
}

/// The indices for score i of those that `d` was evaluated for.
SmallVector<Val> indicesAt(const ScoreDerivative &d, int i) {
  SmallVector<Val> at;
  for (const Vals &index : d.indices)
    at.push_back(index.size() == 1 ? index[0] : index[size_t(i)]);
  return at;
}

void addAtomically(Ir &ir, Val pointer, Val x) {
  LLVM::AtomicRMWOp::create(ir.builder, ir.loc, LLVM::AtomicBinOp::fadd, pointer.value, x.value,
                            LLVM::AtomicOrdering::monotonic, "device");
}

} // namespace

bool isScoreDerivative(mlir::Operation &op) { return isa<attn::ScalarGradientOp, attn::AuxGradientOp>(op); }

Value derivativeOf(mlir::Operation &op) {
  if (auto aux = dyn_cast<attn::AuxGradientOp>(op))
    return aux.getDerivative();
  return cast<attn::ScalarGradientOp>(op).getDerivative();
}

ValueRange indicesOf(mlir::Operation &op) {
  if (auto aux = dyn_cast<attn::AuxGradientOp>(op))
    return aux.getIndices();
  return {};
}

SharedBy sharedBy(mlir::Operation &op) {
  llvm::SmallPtrSet<void *, 16> seen;
  unsigned reads = 0;
  for (Value index : indicesOf(op))
    reads |= argumentsOf(index, seen);
  if (reads & (1u << attn::kScore | 1u << attn::kKey))
    return SharedBy::Scores;
  return reads & 1u << attn::kQuery ? SharedBy::Row : SharedBy::Item;
}

ApartBy apartBy(Region &region) {
  ApartBy apart;
  forDerivatives(region, [&](mlir::Operation &op) {
    // Plain ones only: a tensor has room for them, so that none is clamped to another's element.
    auto has = [&](unsigned argument) {
      return llvm::is_contained(indicesOf(op), region.front().getArgument(argument));
    };
    apart.batch &= has(attn::kBatch);
    apart.head_k &= has(attn::kHead) || has(attn::kHeadK);
  });
  return apart;
}

void addTerms(Ir &ir, const ParamReader &params, const ScoreDerivative &d, Val terms, Val share) {
  const ScoreElement element = elementOf(ir, params, *d.op, indicesAt(d, 0));
  Val row = ir.offset(element.row, ir.toI64(share) * (params.get("score_part") * 4));
  auto add = [&](Val pointer, Val x) { ir.store(ir.load(ir.f32(), pointer, 4) + x, pointer, 4); };
  auto type = cast<VectorType>(terms.type());
  if (element.varying.absent()) {
    add(row,
        ir.wrap(vector::ReductionOp::create(ir.builder, ir.loc, vector::CombiningKind::ADD, terms.value)));
    return;
  }
  for (int64_t lane = 0; lane < type.getNumElements(); ++lane) {
    auto at = [&](Val of) { return ir.wrap(vector::ExtractOp::create(ir.builder, ir.loc, of.value, lane)); };
    add(ir.offset(row, at(element.varying)), at(terms));
  }
}

ScoreSums ScoreSums::zeros(Ir &ir, Region &region) {
  ScoreSums sums;
  forDerivatives(region, [&](mlir::Operation &op) {
    if (sharedBy(op) == SharedBy::Item)
      sums.values.push_back(ir.f32(0));
  });
  return sums;
}

void addTerms(Ir &ir, const ParamReader &params, ScoreSums &sums,
              const std::vector<ScoreDerivative> &derivatives, int count, Val lane,
              llvm::function_ref<Val(const ScoreDerivative &d, int i)> term) {
  size_t next = 0;
  for (const ScoreDerivative &d : derivatives) {
    const SharedBy shared = sharedBy(*d.op);
    if (shared == SharedBy::Scores) {
      for (int i = 0; i < count; ++i) {
        Val x = term(d, i);
        ir.ifThen(x != 0.0, [&] { addAtomically(ir, elementOf(ir, params, *d.op, indicesAt(d, i)).row, x); });
      }
      continue;
    }
    Val sum = term(d, 0);
    for (int i = 1; i < count; ++i)
      sum = sum + term(d, i);
    if (shared == SharedBy::Item) {
      sums.values[next] = sums.values[next] + sum;
      ++next;
      continue;
    }
    for (int mask : {1, 2})
      sum = sum + gpu::shuffleXor(ir, sum, mask);
    ir.ifThen((lane % 4 == 0) & (sum != 0.0),
              [&] { addAtomically(ir, elementOf(ir, params, *d.op, indicesAt(d, 0)).row, sum); });
  }
}

void storeSums(Ir &ir, const ParamReader &params, Region &region, const WorkItem &item,
               const Sequence &sequence, const ScoreSums &sums, Val lane) {
  if (sums.values.empty())
    return;
  // Where they go depends on no score: it is what any one of the item says.
  const ScoreTile any{{ir.i32(0)}, ir.i32(0), {{0, 0}}, /*short_cuts=*/false};
  const TileScores scores = tileScores(ir, params, region, item, sequence, any, {ir.f32(0)}, ir.f32(0));
  size_t next = 0;
  for (const ScoreDerivative &d : scores.derivatives) {
    if (sharedBy(*d.op) != SharedBy::Item)
      continue;
    Val sum = sums.values[next++];
    for (int mask = 16; mask > 0; mask /= 2)
      sum = sum + gpu::shuffleXor(ir, sum, mask);
    ir.ifThen((lane == 0) & (sum != 0.0),
              [&] { addAtomically(ir, elementOf(ir, params, *d.op, indicesAt(d, 0)).row, sum); });
  }
}

} // namespace flashplus
