// SPDX-License-Identifier: BSD-3-Clause
#include "templates/backward/rows/dq_sums.h"
#include "templates/backward/rows/layout.h"
#include "templates/backward/rows/row_values.h"
#include "templates/backward/sm90_pair/sum_rows.h"
#include "templates/common/cpu_rows.h"
#include "templates/common/score.h"
#include "templates/common/work.h"
#include "templates/emit.h"

#include "ir/carried.h"
#include "ir/mma.h"
#include "ir/warp.h"

#include <limits>

namespace flashplus {
namespace {

/// `m` is a block of rows.
WorkItem decode(EmitContext &c) {
  Val blocks = c.params.get("num_m_tiles"), heads = c.params.get("heads_q");
  Val rest = c.work_item / blocks;
  WorkItem item;
  item.m = c.work_item % blocks;
  item.head = rest % heads;
  item.batch = rest / heads;
  return item;
}

/// The values of one row (i64), whose sum of products is `sum`.
class DeltaRow {
public:
  DeltaRow(EmitContext &c, const Sequence &seq, const WorkItem &item)
      : c_(c), ir_(c.ir), seq_(seq), item_(item), values_(c.ir, c.params, seq, item.head) {}

  void store(Val row, Val sum) {
    Val lse = ir_.load(ir_.f32(), ir_.offset(seq_.lse(item_.head), row * 4), 4);
    // Also false for NaN: a row that saw no key may carry anything.
    Val largest = ir_.f32(double(std::numeric_limits<float>::max()));
    Val finite = (lse <= largest) & (ir_.f32(0) - largest <= lse);
    Val dlse = c_.params.get("dlse");
    Val gradient = carry::ifElse(
        ir_, ir_.isNull(dlse), [&] { return ir_.f32(0); },
        [&] { return ir_.load(ir_.f32(), ir_.offset(seq_.lseLike("dlse", item_.head), row * 4), 4); });
    Val infinity = ir_.f32(0) - ir_.negativeInfinity(ir_.f32());
    ir_.store(ir_.select(finite, lse * softmax::kLog2E, infinity), ir_.offset(values_.lse(), row * 4), 4);
    Val delta = ir_.select(finite, sum - gradient, ir_.f32(0));
    ir_.store(delta, ir_.offset(values_.delta(), row * 4), 4);
    ir_.ifThen(!ir_.isNull(c_.params.get("delta")),
               [&] { ir_.store(delta, ir_.offset(seq_.lseLike("delta", item_.head), row * 4), 4); });
  }

private:
  EmitContext &c_;
  Ir &ir_;
  const Sequence &seq_;
  const WorkItem &item_;
  RowValues values_;
};

} // namespace

void emitCpuBackwardDelta(EmitContext &c) {
  Ir &ir = c.ir;
  const int bytes = dtypeBytes(c.spec.dtypeO()), dv = c.spec.head_dim_v, rows = c.schedule.get("rows");
  const WorkItem item = decode(c);
  const Sequence seq(ir, c.params, item.batch, /*keys=*/std::nullopt);
  DeltaRow delta(c, seq, item);
  Val o = seq.rows(Operand::O, item.head, bytes), dout = seq.rows(Operand::DO, item.head, bytes);
  Val o_stride = c.params.get("o_stride_s") * bytes, dout_stride = c.params.get("dout_stride_s") * bytes;
  Val first = item.m * rows, end = ir.min(first + rows, seq.q_len);
  ir.forLoop(ir.toI64(first), ir.toI64(end), ir.i64(1), [&](Val row) {
    Val o_row = ir.offset(o, row * o_stride), dout_row = ir.offset(dout, row * dout_stride);
    auto product = [&](Val sum, Val column, int count) {
      auto load = [&](Val from) {
        return cpu::loadRow(ir, c.spec.dtypeO(), ir.offset(from, column * bytes), count);
      };
      return ir.fma(load(o_row), load(dout_row), sum);
    };
    const int whole = dv / ir.lanes * ir.lanes;
    Val sum = ir.constant(ir.vec(ir.f32(), ir.lanes), 0);
    if (whole)
      sum = carry::forLoop(ir, ir.i64(0), ir.i64(whole), ir.i64(ir.lanes), sum,
                           [&](Val column, Val so_far) { return product(so_far, column, ir.lanes); });
    if (dv > whole)
      sum = product(sum, ir.i64(whole), dv - whole);
    delta.store(row, cpu::reduceSum(ir, sum));
  });
}

namespace {

/// Zeros for row `row` of dq_parts, by a warp: 64 bytes of every block.
void clearRow(EmitContext &c, const Sequence &seq, const WorkItem &item, Val row, Val lane) {
  Ir &ir = c.ir;
  Val columns = c.params.get("heads_per_section");
  ir.ifThen(columns != 0, [&] {
    Val blocks = columns / DQSums::kColumns;
    Val first = DQSums(ir, c.params, seq, item.batch, item.head, columns).first();
    Val group = ir.offset(first, ir.toI64(row / DQSums::kRows) * (ir.toI64(blocks) * DQSums::kBlockBytes));
    Val to = ir.offset(group, row % DQSums::kRows * (DQSums::kColumns * 4) + lane % 4 * 16);
    ir.rareLoop(lane / 4, blocks, ir.i32(8), [&](Val block) {
      ir.store(ir.constant(ir.vec(ir.i32(), 4), 0), ir.offset(to, ir.toI64(block) * DQSums::kBlockBytes), 16);
    });
  });
}

} // namespace

void emitGpuBackwardDelta(EmitContext &c) {
  Ir &ir = c.ir;
  const int bytes = dtypeBytes(c.spec.dtypeO()), dv = c.spec.head_dim_v, rows = c.schedule.get("rows");
  const WorkItem item = decode(c);
  const Sequence seq(ir, c.params, item.batch, /*keys=*/std::nullopt);
  Val thread = gpu::threadId(ir);
  Val lane = thread % 32, row = item.m * rows + thread / 32; // one row a warp
  ir.ifThen(row < seq.q_len, [&] {
    Val row64 = ir.toI64(row);
    Val o = ir.offset(seq.rows(Operand::O, item.head, bytes), row64 * (c.params.get("o_stride_s") * bytes));
    Val dout =
        ir.offset(seq.rows(Operand::DO, item.head, bytes), row64 * (c.params.get("dout_stride_s") * bytes));
    Val sum = carry::forLoop(ir, lane, ir.i32(dv), ir.i32(32), ir.f32(0), [&](Val column, Val so_far) {
      auto load = [&](Val from) {
        return gpu::loadElement(ir, c.spec.dtypeO(), ir.offset(from, ir.toI64(column) * bytes));
      };
      return ir.fma(load(o), load(dout), so_far);
    });
    for (int step : {16, 8, 4, 2, 1})
      sum = sum + gpu::shuffleXor(ir, sum, step);
    ir.ifThen(lane == 0, [&] { DeltaRow(c, seq, item).store(row64, sum); });
    clearRow(c, seq, item, row, lane);
  });
}

void emitCpuBackwardSum(EmitContext &c) {
  Ir &ir = c.ir;
  const int bytes = dtypeBytes(c.spec.dtype), d = c.spec.head_dim_qk, rows = c.schedule.get("rows");
  const WorkItem item = decode(c);
  const Sequence seq(ir, c.params, item.batch, /*keys=*/std::nullopt);
  const RowValues values(ir, c.params, seq, item.head);
  Val parts = values.dqPart(ir.i64(0), d), stride = values.dqPartStride(d),
      part_bytes = values.dqPartBytes(d);
  Val out = seq.rows(Operand::DQ, item.head, bytes), out_stride = c.params.get("dq_stride_s") * bytes;
  Val scale = c.params.get("softmax_scale"), splits = ir.toI64(c.params.get("num_splits"));
  Val first = item.m * rows, end = ir.min(first + rows, seq.q_len);
  ir.forLoop(ir.toI64(first), ir.toI64(end), ir.i64(1), [&](Val row) {
    Val from = ir.offset(parts, row * stride), to = ir.offset(out, row * out_stride);
    for (int column = 0; column < d; column += ir.lanes) {
      const int count = std::min(ir.lanes, d - column);
      Val sum = carry::forLoop(ir, ir.i64(0), splits, ir.i64(1), ir.constant(ir.vec(ir.f32(), ir.lanes), 0),
                               [&](Val split, Val so_far) {
                                 Val at = ir.offset(ir.offset(from, split * part_bytes), int64_t(column) * 4);
                                 return so_far + cpu::loadRow(ir, DType::F32, at, count);
                               });
      cpu::storeRow(ir, c.spec.dtype, sum * scale, ir.offset(to, int64_t(column) * bytes), count);
    }
  });
}

void emitGpuBackwardSum(EmitContext &c);

/// A warp has 16 rows, in the order in which they were added.
void emitGpuBackwardSum(EmitContext &c) {
  Ir &ir = c.ir;
  const int d = c.spec.head_dim_qk, rows = c.schedule.get("rows"), blocks = d / DQSums::kColumns;
  const WorkItem item = decode(c);
  const Sequence seq(ir, c.params, item.batch, /*keys=*/std::nullopt);
  Val thread = gpu::threadId(ir), lane = thread % 32;
  Val first = item.m * rows + thread / 32 * 16, row = first + firstOfLane(Axis::Rows, lane);
  ir.ifThen(first < seq.q_len, [&] {
    Val sums = DQSums(ir, c.params, seq, item.batch, item.head, d).first();
    Val from = ir.offset(ir.offset(sums, ir.toI64(first) * (d * 4)), ir.toI64(lane) * 16);
    Fragment sum = Fragment::filled({1, d / 8}, ir.f32(0));
    for (int block = 0; block < blocks; ++block)
      for (int line = 0; line < 2; ++line) {
        const int64_t at = int64_t(line * blocks + block) * DQSums::kBlockBytes;
        const Vals four =
            gpu::loadIf(ir, row + line * DQSums::kRows < seq.q_len, from, at, 4); // others were not cleared
        for (int i = 0; i < 4; ++i)
          sum.at(Axis::Rows, line, 4 * block + i) = four[i];
      }
    storeSumRows(c, seq, Operand::DQ, item.head, std::move(sum), c.params.get("softmax_scale"), row,
                 seq.q_len - 1, lane);
  });
}

} // namespace flashplus
