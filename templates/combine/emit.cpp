// SPDX-License-Identifier: BSD-3-Clause
#include "templates/combine/layout.h"
#include "templates/common/cpu_rows.h"
#include "templates/common/result_rows.h"
#include "templates/common/score.h"
#include "templates/common/sequence.h"
#include "templates/emit.h"

#include "ir/carried.h"
#include "ir/mma.h"
#include "ir/warp.h"

namespace flashplus {
namespace {

/// Where one row's partial results lie and its merged statistics; shared by both targets.
class CombineRow {
public:
  /// `row` (i64) is the query row inside the sequence.
  CombineRow(EmitContext &c, const Sequence &seq, Val head, Val row)
      : ir_(c.ir), parts_(c.ir, c.params, c.spec.head_dim_v), head_(ir_.toI64(head)),
        row_(seq.firstRow() + row), splits_(ir_.toI64(c.params.get("num_splits"))),
        sink_(softmax::sinkOf(c.ir, c.params, c.spec, head)) {}

  Val splits() const { return splits_; }

  Val partialLse(Val split) const { return ir_.load(ir_.f32(), parts_.lse(split, row_, head_), 4); }
  Val partialO(Val split) const { return parts_.o(split, row_, head_); }

  /// Base-2 maximum m and sum l = sum_i 2^(lse_i log2(e) - m).
  std::pair<Val, Val> statistics() const {
    Val m =
        carry::forLoop(ir_, ir_.i64(0), splits_, ir_.i64(1), ir_.negativeInfinity(ir_.f32()),
                       [&](Val i, Val so_far) { return ir_.fmax(so_far, partialLse(i) * softmax::kLog2E); });
    Val base = softmax::reference(ir_, m);
    Val l = carry::forLoop(ir_, ir_.i64(0), splits_, ir_.i64(1), ir_.f32(0),
                           [&](Val i, Val so_far) { return so_far + weight(i, base); });
    return {m, l};
  }

  softmax::Finish finish(Val m, Val l, Val empty) const { return softmax::finish(ir_, m, l, empty, sink_); }

  Val weight(Val split, Val base) const { return ir_.exp2(partialLse(split) * softmax::kLog2E - base); }

private:
  Ir &ir_;
  PartialRows parts_;
  Val head_, row_, splits_;
  std::optional<softmax::Sink> sink_;
};

/// `m` is a block of rows.
WorkItem decode(EmitContext &c) {
  Val blocks = c.params.get("num_row_blocks"), heads = c.params.get("heads_q");
  Val rest = c.work_item / blocks;
  WorkItem item;
  item.m = c.work_item % blocks;
  item.head = rest % heads;
  item.batch = rest / heads;
  return item;
}

void storeLse(Ir &ir, const ResultRows &results, Val row, Val lse) {
  ir.ifThen(results.storesLse(ir.boolean(true)),
            [&] { ir.store(lse, ir.offset(results.lse(), row * 4), 4); });
}

} // namespace

void emitCpuCombine(EmitContext &c) {
  Ir &ir = c.ir;
  const int bytes = dtypeBytes(c.spec.dtype), dv = c.spec.head_dim_v, rows = c.schedule.get("rows");
  const WorkItem item = decode(c);
  const Sequence seq(ir, c.params, item.batch, /*keys=*/std::nullopt);
  Val first = item.m * rows;
  Val end = ir.min(first + rows, seq.q_len);
  const ResultRows results(ir, c.params, c.spec, seq, item);
  ir.forLoop(ir.toI64(first), ir.toI64(end), ir.i64(1), [&](Val row) {
    const CombineRow parts(c, seq, item.head, row);
    auto [m, l] = parts.statistics();
    const auto finish = parts.finish(m, l, results.lseEmpty());
    Val base = softmax::reference(ir, m);
    Val out = ir.offset(results.values(), row * c.params.get("o_stride_s") * bytes);
    // A weight, an exponential, serves as many vectors as there are registers for.
    const int block = ir.lanes * 8;
    for (int first_column = 0; first_column < dv; first_column += block) {
      const int vectors = (std::min(block, dv - first_column) + ir.lanes - 1) / ir.lanes;
      auto column = [&](int i) { return first_column + i * ir.lanes; };
      auto count = [&](int i) { return std::min(ir.lanes, dv - column(i)); };
      const Vals zeros(size_t(vectors), ir.constant(ir.vec(ir.f32(), ir.lanes), 0));
      const Vals sums =
          ir.forLoop(ir.i64(0), parts.splits(), ir.i64(1), zeros, [&](Val split, const Vals &carried) {
            Val weight = ir.splat(parts.weight(split, base), ir.lanes), o = parts.partialO(split);
            Vals next;
            for (int i = 0; i < vectors; ++i)
              next.push_back(
                  ir.fma(weight, cpu::loadRow(ir, DType::F32, ir.offset(o, int64_t(column(i)) * 4), count(i)),
                         carried[i]));
            return next;
          });
      for (int i = 0; i < vectors; ++i)
        cpu::storeRow(ir, c.spec.dtype, sums[i] * finish.factor, ir.offset(out, int64_t(column(i)) * bytes),
                      count(i));
    }
    storeLse(ir, results, row, finish.lse);
  });
}

void emitGpuCombine(EmitContext &c) {
  Ir &ir = c.ir;
  const int bytes = dtypeBytes(c.spec.dtype), dv = c.spec.head_dim_v, rows = c.schedule.get("rows");
  const WorkItem item = decode(c);
  const Sequence seq(ir, c.params, item.batch, /*keys=*/std::nullopt);
  Val thread = gpu::threadId(ir);
  Val lane = thread % 32, row = item.m * rows + thread / 32; // one row a warp
  ir.ifThen(row < seq.q_len, [&] {
    Val row64 = ir.toI64(row);
    const ResultRows results(ir, c.params, c.spec, seq, item);
    const CombineRow parts(c, seq, item.head, row64);
    auto [m, l] = parts.statistics();
    const auto finish = parts.finish(m, l, results.lseEmpty());
    Val base = softmax::reference(ir, m);
    Val out = ir.offset(results.values(), row64 * c.params.get("o_stride_s") * bytes);
    ir.forLoop(lane, ir.i32(dv), ir.i32(32), [&](Val column) {
      Val column64 = ir.toI64(column);
      Val sum = carry::forLoop(ir, ir.i64(0), parts.splits(), ir.i64(1), ir.f32(0), [&](Val i, Val so_far) {
        Val o = ir.load(ir.f32(), ir.offset(parts.partialO(i), column64 * 4), 4);
        return ir.fma(parts.weight(i, base), o, so_far);
      });
      gpu::storeElement(ir, c.spec.dtype, sum * finish.factor, ir.offset(out, column64 * bytes));
    });
    ir.ifThen(lane == 0, [&] { storeLse(ir, results, row64, finish.lse); });
  });
}

} // namespace flashplus
