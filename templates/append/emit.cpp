// SPDX-License-Identifier: BSD-3-Clause
#include "templates/emit.h"
#include "templates/append/layout.h"
#include "templates/append/rotate.h"
#include "templates/append/rows.h"

#include "ir/warp.h"

namespace flashplus {
namespace {

/// A work item: a block of rows of a batch entry.
struct Block {
  Val batch, first_row;

  explicit Block(EmitContext &c) {
    Val blocks = c.params.get("num_row_blocks");
    batch = c.work_item / blocks;
    first_row = c.work_item % blocks * c.schedule.get("rows");
  }
};

Rotary rotaryOf(EmitContext &c, const AppendRows &rows, const MovedRow &row) {
  return {.dtype = c.spec.dtype,
          .interleaved = c.params.get("interleaved") != 0,
          .cos = rows.table("rotary_cos", row.position),
          .sin = rows.table("rotary_sin", row.position)};
}

} // namespace

void emitCpuAppend(EmitContext &c) {
  Ir &ir = c.ir;
  const Block block(c);
  const AppendRows rows(ir, c.params, c.spec, block.batch);
  ir.ifThen(block.first_row == 0, [&] { rows.storeLength(); });
  Val end = ir.min(block.first_row + c.schedule.get("rows"), rows.count());
  ir.forLoop(block.first_row, end, ir.i32(1), [&](Val number) {
    const MovedRow row = rows.at(number);
    ir.ifThen(row.stored,
              [&] { cpu::moveRow(ir, rotaryOf(c, rows, row), row.from, row.to, row.columns, row.rotated); });
  });
}

void emitGpuAppend(EmitContext &c) {
  Ir &ir = c.ir;
  const int lanes = gpuAppendLanes(c.spec);
  const Block block(c);
  const AppendRows rows(ir, c.params, c.spec, block.batch);
  Val thread = gpu::threadId(ir), lane = thread % lanes, number = block.first_row + thread / lanes;
  ir.ifThen((block.first_row == 0) & (thread == 0), [&] { rows.storeLength(); });
  ir.ifThen(number < rows.count(), [&] {
    const MovedRow row = rows.at(number);
    ir.ifThen(row.stored, [&] {
      const Rotary rotary = rotaryOf(c, rows, row);
      auto narrow = [&] {
        gpu::moveRow(ir, rotary, row.from, row.to, row.columns, row.rotated, lane, lanes);
      };
      if (c.spec.head_dim_qk % kWideElements || c.spec.head_dim_v % kWideElements)
        return narrow();
      Val wide = c.params.get("wide") != 0;
      ir.ifThen(wide, [&] {
        gpu::moveRowWide(ir, rotary, row.from, row.to, row.columns, row.rotated, lane, lanes);
      });
      ir.ifThen(!wide, narrow);
    });
  });
}

} // namespace flashplus
