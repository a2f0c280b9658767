// SPDX-License-Identifier: BSD-3-Clause
#include "templates/emit.h"
#include "templates/backward/rows/dq_sums.h"
#include "templates/backward/rows/layout.h"
#include "templates/backward/rows/row_values.h"
#include "templates/backward/sm90_pair/sum_rows.h"
#include "templates/common/cpu_rows.h"
#include "templates/common/score.h"
#include "templates/common/work.h"

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

/// What a lane has of a row: of its 16-byte pieces those from `first` on, `step` apart.
struct Pieces {
  Val first;
  int step;
};

/// Zeros for row `row` of dq_parts, by the lanes that share it.
void clearRow(EmitContext &c, const Sequence &seq, const WorkItem &item, Val row, const Pieces &own) {
  Ir &ir = c.ir;
  Val columns = ir.toI32(c.params.get("dq_columns"));
  ir.ifThen(columns != 0, [&] {
    Val blocks = columns / DQSums::kColumns;
    Val first = DQSums(ir, c.params, seq, item.batch, item.head, columns).first();
    Val group = ir.offset(first, ir.toI64(row / DQSums::kRows) * (ir.toI64(blocks) * DQSums::kBlockBytes));
    Val to = ir.offset(group, row % DQSums::kRows * (DQSums::kColumns * 4));
    ir.rareLoop(own.first, blocks * 4, ir.i32(own.step), [&](Val piece) {
      ir.store(ir.constant(ir.vec(ir.i32(), 4), 0),
               ir.offset(to, piece / 4 * DQSums::kBlockBytes + piece % 4 * 16), 16);
    });
  });
}

/// sum + the products of two pieces, 8 elements each, as gpu::loadIf gives them.
Val addProducts(Ir &ir, DType dtype, Val sum, const Vals &a, const Vals &b) {
  mlir::Type element =
      dtype == DType::F16 ? mlir::Type(ir.builder.getF16Type()) : mlir::Type(ir.builder.getBF16Type());
  auto widened = [&](Val pair, int i) {
    mlir::Value two = ir.bitcast(ir.vec(element, 2), ir.bitcast(ir.i32(), pair)).value;
    mlir::Value one = mlir::vector::ExtractOp::create(ir.builder, ir.loc, two, int64_t(i));
    return ir.wrap(mlir::arith::ExtFOp::create(ir.builder, ir.loc, ir.f32(), one));
  };
  for (size_t word = 0; word < a.size(); ++word)
    for (int i = 0; i < 2; ++i)
      sum = ir.fma(widened(a[word], i), widened(b[word], i), sum);
  return sum;
}

} // namespace

void emitGpuBackwardDelta(EmitContext &c) {
  Ir &ir = c.ir;
  const int bytes = dtypeBytes(c.spec.dtypeO()), dv = c.spec.head_dim_v, rows = c.schedule.get("rows");
  const DeltaRows shape = DeltaRows::of(c.spec);
  const WorkItem item = decode(c);
  const Sequence seq(ir, c.params, item.batch, /*keys=*/std::nullopt);
  Val thread = gpu::threadId(ir), lane = thread % 32;
  Val first = item.m * rows + thread / 32 * shape.perWarp() + lane / shape.lanes;
  const Pieces own{lane % shape.lanes, shape.lanes};
  Val o = seq.rows(Operand::O, item.head, bytes), dout = seq.rows(Operand::DO, item.head, bytes);
  Val o_stride = c.params.get("o_stride_s") * bytes, dout_stride = c.params.get("dout_stride_s") * bytes;
  auto rowOf = [&](int pass) { return first + pass * (32 / shape.lanes); };
  Vals sums, pieces_o[DeltaRows::kMostPasses], pieces_dout[DeltaRows::kMostPasses];
  if (shape.by_pieces) // all of them are on their way before the first is used
    for (int pass = 0; pass < shape.passes; ++pass) {
      Val row = rowOf(pass), here = (row < seq.q_len) & (own.first < dv / 8);
      auto load = [&](Val base, Val stride) {
        Val from = ir.offset(ir.offset(base, ir.toI64(row) * stride), own.first * 16);
        return gpu::loadIf(ir, here, from, 0, 4);
      };
      pieces_o[pass] = load(o, o_stride), pieces_dout[pass] = load(dout, dout_stride);
    }
  for (int pass = 0; pass < shape.passes; ++pass) {
    Val row = rowOf(pass), row64 = ir.toI64(row);
    Val sum = ir.f32(0);
    if (shape.by_pieces)
      sum = addProducts(ir, c.spec.dtypeO(), sum, pieces_o[pass], pieces_dout[pass]);
    else
      sum = carry::ifElse(
          ir, row < seq.q_len,
          [&] {
            return carry::forLoop(ir, lane, ir.i32(dv), ir.i32(32), ir.f32(0), [&](Val column, Val so_far) {
              auto load = [&](Val base, Val stride) {
                Val from = ir.offset(ir.offset(base, row64 * stride), ir.toI64(column) * bytes);
                return gpu::loadElement(ir, c.spec.dtypeO(), from);
              };
              return ir.fma(load(o, o_stride), load(dout, dout_stride), so_far);
            });
          },
          [&] { return ir.f32(0); });
    for (int step = shape.lanes / 2; step; step /= 2)
      sum = sum + gpu::shuffleXor(ir, sum, step);
    ir.ifThen(row < seq.q_len, [&] {
      ir.ifThen(own.first == 0, [&] { DeltaRow(c, seq, item).store(row64, sum); });
      clearRow(c, seq, item, row, own);
    });
  }
}

void emitCpuBackwardSum(EmitContext &c) {
  Ir &ir = c.ir;
  const int bytes = dtypeBytes(c.spec.dtype), d = c.spec.head_dim_qk, rows = c.schedule.get("rows");
  const WorkItem item = decode(c);
  const Sequence seq(ir, c.params, item.batch, /*keys=*/std::nullopt);
  const RowValues values(ir, c.params, seq, item.head);
  Val parts = values.dqPart(ir.i64(0), d), part_bytes = values.dqPartBytes(d);
  Val out = seq.rows(Operand::DQ, item.head, bytes), out_stride = c.params.get("dq_stride_s") * bytes;
  Val scale = c.params.get("softmax_scale"), splits = ir.toI64(c.params.get("num_splits"));
  Val first = item.m * rows, end = ir.min(first + rows, seq.q_len);
  ir.forLoop(ir.toI64(first), ir.toI64(end), ir.i64(1), [&](Val row) {
    Val from = ir.offset(parts, row * (d * 4)), to = ir.offset(out, row * out_stride);
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
