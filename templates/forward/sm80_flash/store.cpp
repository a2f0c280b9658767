// SPDX-License-Identifier: BSD-3-Clause
#include "templates/forward/sm80_flash/store.h"

#include "ir/mma.h"
#include "templates/common/result_rows.h"

namespace flashplus::sm80_flash {
namespace {

Val threadRow(ItemView &k, int row) {
  return k.first + k.warp_row + firstOfLane(Axis::Rows, k.lane) + FragmentLayout::offset(Axis::Rows, row);
}

void storeLse(ItemView &k, const ResultRows &results, const std::vector<softmax::Finish> &rows) {
  Ir &ir = k.ir;
  Val wanted = k.lane % 4 == 0, base = results.lse();
  wanted = results.storesLse(wanted);
  for (int row = 0; row < k.rows(); ++row) {
    Val r = threadRow(k, row);
    ir.ifThen(wanted & (r <= k.last), [&] { ir.store(rows[row].lse, ir.offset(base, ir.toI64(r) * 4), 4); });
  }
}

/// fp32, from registers.
void storePartial(ItemView &k, const ResultRows &results, const Fragment &o) {
  Ir &ir = k.ir;
  Val base = results.values(), stride = results.rowStride();
  for (int row = 0; row < k.rows(); ++row) {
    Val r = threadRow(k, row);
    ir.ifThen(r <= k.last, [&] {
      Val to = ir.offset(base, ir.toI64(r) * stride);
      for (int i = 0; i < o.lines(Axis::Columns); ++i) {
        Val column = firstOfLane(Axis::Columns, k.lane) + FragmentLayout::offset(Axis::Columns, i);
        auto body = [&] { ir.store(o.at(Axis::Rows, row, i), ir.offset(to, ir.toI64(column) * 4), 4); };
        if (i / 2 * 8 + 8 <= k.l.dv)
          body();
        else
          ir.ifThen(column < k.l.dv, body);
      }
    });
  }
}

/// Through the warp's own rows of Q's memory, so that global stores are whole chunks.
void storeOutput(ItemView &k, const ResultRows &results, const Fragment &o) {
  Ir &ir = k.ir;
  const Sm80FlashLayout &l = k.l;
  if (l.stages == 2)
    gpu::warpSync(ir); // the warp's last reads of Q are done; with one stage a barrier came after them
  Val to = k.shared(l.q(), (k.warp_row + firstOfLane(Axis::Rows, k.lane)) * l.qPitch() + (k.lane % 4) * 4);
  for (int row = 0; row < k.rows(); ++row)
    for (int block = 0; block < o.layout.column_blocks; ++block)
      ir.store(gpu::pack(ir, k.dtype, o.at(Axis::Rows, row, 2 * block), o.at(Axis::Rows, row, 2 * block + 1)),
               ir.offset(to, FragmentLayout::offset(Axis::Rows, row) * l.qPitch() + block * 16), 4);
  gpu::warpSync(ir);
  const int chunks = (l.dv + 7) / 8, total = 16 * l.m_frags * chunks;
  Val base = results.values(), stride = results.rowStride();
  for (int i = 0; i * 32 < total; ++i) {
    Val index = k.lane + i * 32;
    Val r = k.warp_row + index / chunks, column = index % chunks;
    Val row = k.first + r;
    Val wanted = row <= k.last;
    if ((i + 1) * 32 > total)
      wanted = wanted & (index < total);
    ir.ifThen(wanted, [&] {
      Val from = k.shared(l.q(), r * l.qPitch() + column * 16);
      Val dest = ir.offset(ir.offset(base, ir.toI64(row) * stride), ir.toI64(column) * 16);
      if (k.c.spec.alignment == 16) {
        ir.store(ir.load(ir.vec(ir.i32(), 4), from, 16), dest, 16);
        return;
      }
      for (int e = 0; e < 8; ++e) {
        const int at = e * k.bytes;
        auto body = [&] {
          ir.store(ir.load(ir.i16(), ir.offset(from, at), k.bytes), ir.offset(dest, at), k.bytes);
        };
        if (l.dv % 8 == 0)
          body();
        else
          ir.ifThen(column * 8 + e < l.dv, body);
      }
    });
  }
}

} // namespace

void storeResults(ItemView &k, softmax::State state) {
  Ir &ir = k.ir;
  k.setThread(gpu::again(ir, gpu::threadId(ir)));
  k.item = decodeWorkItem(ir, k.c.params, k.c.spec, gpu::again(ir, k.c.work_item));
  k.first = k.item.m * k.l.tile_m;
  const Sequence sequence(ir, k.c.params, k.item.batch, /*keys=*/std::nullopt);
  const ResultRows results(ir, k.c.params, k.c.spec, sequence, k.item);
  Val empty = results.lseEmpty(), scale = k.c.spec.dropout ? k.c.params.get("drop_scale") : Val{};
  const auto sink = softmax::sinkOf(ir, k.c.params, k.c.spec, k.item.head);
  std::vector<softmax::Finish> rows;
  for (int row = 0; row < k.rows(); ++row)
    rows.push_back(softmax::finishLine(ir, state, row, empty, scale, sink));
  storeLse(k, results, rows);
  if (k.c.spec.isPartial())
    storePartial(k, results, state.o);
  else
    storeOutput(k, results, state.o);
}

} // namespace flashplus::sm80_flash
