// SPDX-License-Identifier: BSD-3-Clause
#include "templates/merge/layout.h"
#include "templates/common/cpu_rows.h"
#include "templates/common/score.h"
#include "templates/emit.h"

#include "ir/mma.h"
#include "ir/warp.h"

#include <string>

namespace flashplus {
namespace {

/// The rows of one work item: those from `first` on of one (batch entry, head).
class MergeRows {
public:
  Val first;

  explicit MergeRows(EmitContext &c) : ir_(c.ir), params_(c.params), bytes_(dtypeBytes(c.spec.dtype)) {
    Val blocks = params_.get("num_row_blocks"), heads = params_.get("heads_q"), rest = c.work_item / blocks;
    first = c.work_item % blocks * c.schedule.get("rows");
    head_ = ir_.toI64(rest % heads);
    batch_ = ir_.toI64(rest / heads);
  }

  /// Row `row` (i64) of o_a, o_b or o.
  Val values(const std::string &name, Val row) const {
    return ir_.offset(params_.get(name), (start(name) + row * params_.get(name + "_stride_s")) * bytes_);
  }
  Val lse(const std::string &name, Val row) const {
    return ir_.offset(params_.get(name), (start(name) + row) * 4);
  }

private:
  Val start(const std::string &name) const {
    return batch_ * params_.get(name + "_stride_b") + head_ * params_.get(name + "_stride_h");
  }

  Ir &ir_;
  const ParamReader &params_;
  const int bytes_;
  Val head_, batch_;
};

/// What the sides of one row count for.
struct Shares {
  Val a_empty, b_empty; ///< i1: it saw no key.
  Val a, b;             ///< Weights, of a row where both saw some; else of no meaning.
  Val lse;

  Shares(Ir &ir, Val lse_a, Val lse_b) {
    Val minus = ir.negativeInfinity(ir.f32()), plus = ir.f32(0) - minus;
    a_empty = (lse_a == plus) | (lse_a == minus);
    b_empty = (lse_b == plus) | (lse_b == minus);
    Val most = ir.fmax(lse_a, lse_b);
    auto term = [&](Val x) { return ir.exp2((x - most) * softmax::kLog2E); };
    Val term_a = term(lse_a), term_b = term(lse_b), sum = term_a + term_b, factor = ir.rcp(sum);
    a = term_a * factor;
    b = term_b * factor;
    Val both = ir.select(sum == sum, most + ir.log2(sum) * softmax::kLn2, sum); // NaN stays NaN
    lse = ir.select(b_empty, lse_a, ir.select(a_empty, lse_b, both));
  }

  /// By selection: zero times what lies in a side without a key could be NaN. `lanes` 0: of scalars.
  Val merge(Ir &ir, Val o_a, Val o_b, int lanes) const {
    auto spread = [&](Val weight) { return lanes ? ir.splat(weight, lanes) : weight; };
    Val both = ir.fma(spread(a), o_a, spread(b) * o_b);
    Val none = ir.constant(o_a.type(), 0);
    return ir.select(a_empty, ir.select(b_empty, none, o_b), ir.select(b_empty, o_a, both));
  }
};

} // namespace

void emitCpuMerge(EmitContext &c) {
  Ir &ir = c.ir;
  const int bytes = dtypeBytes(c.spec.dtype), dv = c.spec.head_dim_v;
  const MergeRows rows(c);
  Val end = ir.min(rows.first + c.schedule.get("rows"), c.params.get("seqlen_q"));
  ir.forLoop(ir.toI64(rows.first), ir.toI64(end), ir.i64(1), [&](Val row) {
    auto lse = [&](const char *name) { return ir.load(ir.f32(), rows.lse(name, row), 4); };
    const Shares shares(ir, lse("lse_a"), lse("lse_b"));
    Val a = rows.values("o_a", row), b = rows.values("o_b", row), out = rows.values("o", row);
    for (int column = 0; column < dv; column += ir.lanes) {
      const int count = std::min(ir.lanes, dv - column);
      const int64_t at = int64_t(column) * bytes;
      Val o_a = cpu::loadRow(ir, c.spec.dtype, ir.offset(a, at), count),
          o_b = cpu::loadRow(ir, c.spec.dtype, ir.offset(b, at), count);
      cpu::storeRow(ir, c.spec.dtype, shares.merge(ir, o_a, o_b, ir.lanes), ir.offset(out, at), count);
    }
    ir.ifThen(!ir.isNull(c.params.get("lse")), [&] { ir.store(shares.lse, rows.lse("lse", row), 4); });
  });
}

void emitGpuMerge(EmitContext &c) {
  Ir &ir = c.ir;
  const int bytes = dtypeBytes(c.spec.dtype), dv = c.spec.head_dim_v;
  const MergeRows rows(c);
  Val thread = gpu::threadId(ir), lane = thread % 32;
  Val row = rows.first + thread / 32; // one row a warp
  ir.ifThen(row < c.params.get("seqlen_q"), [&] {
    Val row64 = ir.toI64(row);
    auto lse = [&](const char *name) { return ir.load(ir.f32(), rows.lse(name, row64), 4); };
    const Shares shares(ir, lse("lse_a"), lse("lse_b"));
    Val a = rows.values("o_a", row64), b = rows.values("o_b", row64), out = rows.values("o", row64);
    ir.forLoop(lane, ir.i32(dv), ir.i32(32), [&](Val column) {
      Val at = ir.toI64(column) * bytes;
      Val o_a = gpu::loadElement(ir, c.spec.dtype, ir.offset(a, at)),
          o_b = gpu::loadElement(ir, c.spec.dtype, ir.offset(b, at));
      gpu::storeElement(ir, c.spec.dtype, shares.merge(ir, o_a, o_b, 0), ir.offset(out, at));
    });
    gpu::warpSync(ir); // all lanes have read the lse that may be written in its place
    ir.ifThen((lane == 0) & !ir.isNull(c.params.get("lse")),
              [&] { ir.store(shares.lse, rows.lse("lse", row64), 4); });
  });
}

} // namespace flashplus
