// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/tile_load.h"

#include "ir/async_copy.h"
#include "ir/carried.h"
#include "ir/warp.h"

#include <numeric>

namespace flashplus {

TileLoad TileLoader::tile(const Rows &rows) {
  TileLoad t{rows.stride, rows.dim, rows.dim_pad, rows.rows, rows.pitch, rows.zeros};
  t.columns = std::gcd(rows.dim_pad / 8, 32);
  t.rows_a_pass = threads_ / t.columns;
  t.row = thread_ / t.columns;
  t.column = thread_ % t.columns;
  if (rows.source.paged())
    t.paged_row = [source = rows.source, bytes = bytes_](Val row) { return source.row(row, bytes); };
  else
    t.from = ir_.offset(ir_.offset(rows.source.first(bytes_), ir_.toI64(t.row) * (t.stride * bytes_)),
                        ir_.toI64(t.column) * 16);
  t.to = ir_.offset(ir_.offset(memory_, t.row * rows.pitch + t.column * 16), int64_t(rows.shared));
  return t;
}

void TileLoader::commit() {
  if (groups_)
    gpu::commitGroup(ir_);
}

void TileLoader::arrive() {
  if (groups_)
    gpu::waitGroup(ir_, 0);
  gpu::barrier(ir_);
}

void TileLoader::load(const TileLoad &t, Val row, Val last, Val stage) {
  Val to = stage ? ir_.offset(t.to, stage) : t.to;
  if (alignment_ != 16)
    return loadElements(t, row, last, to);
  if (t.paged_row)
    return loadPaged(t, row, last, to);
  ir_.ifElse(
      row + (t.rows - 1) <= last, [&] { return loadWhole(t, row, to), Vals(); },
      [&] { return loadEdge(t, row, last, to), Vals(); });
}

/// A tile whose rows are found one by one.
void TileLoader::loadPaged(const TileLoad &t, Val row, Val last, Val to) {
  for (int r = 0; r < t.rows; r += t.rows_a_pass) {
    auto copy = [&] {
      Val at = row + t.row + r;
      loadRow(t, t.pagedChunk(ir_, ir_.min(at, last)), ir_.offset(to, r * t.pitch),
              t.zeros ? at <= last : Val{});
    };
    if (r + t.rows_a_pass <= t.rows)
      copy();
    else
      ir_.ifThen(t.row + r < t.rows, copy);
  }
}

/// A tile that ends inside the sequence: no limits, and an addition a pass.
void TileLoader::loadWhole(const TileLoad &t, Val row, Val to) {
  // The stride anew: multiples of it would stay in registers through the loop.
  Val stride = gpu::again(ir_, t.stride) * bytes_;
  Val from = ir_.offset(t.from, ir_.toI64(row) * stride), pass = stride * t.rows_a_pass;
  for (int r = 0; r < t.rows; r += t.rows_a_pass) {
    auto copy = [&] { loadRow(t, from, ir_.offset(to, r * t.pitch), {}); };
    if (r + t.rows_a_pass <= t.rows)
      copy();
    else
      ir_.ifThen(t.row + r < t.rows, copy);
    if (r + t.rows_a_pass < t.rows)
      from = ir_.offset(from, pass);
  }
}

/// Where the thread stands, worked out anew; bytes between rows.
Val TileLoader::placeAnew(TileLoad &t) {
  Val thread = gpu::again(ir_, thread_);
  t.row = thread / t.columns;
  t.column = thread % t.columns;
  return gpu::again(ir_, t.stride) * bytes_;
}

/// The sequence's last tile: a loop, since few tiles come here.
void TileLoader::loadEdge(TileLoad t, Val row, Val last, Val to) {
  Val stride = placeAnew(t);
  ir_.rareLoop(t.row, ir_.i32(t.rows), ir_.i32(t.rows_a_pass), [&](Val r) {
    Val from = ir_.offset(t.from, ir_.toI64(ir_.min(row + r, last) - t.row) * stride);
    loadRow(t, from, ir_.offset(to, (r - t.row) * t.pitch), t.zeros ? row + r <= last : Val{});
  });
}

/// This thread's chunks of one row; zeros where `valid` (none: everywhere) is false, and in the padding.
void TileLoader::loadRow(const TileLoad &t, Val from, Val to, Val valid) {
  for (int c = 0; c < t.dim_pad / 8; c += t.columns) {
    Val source = ir_.offset(from, c * 16), dest = ir_.offset(to, c * 16), inside = valid;
    if ((c + t.columns) * 8 > t.dim) {
      // Head dims are multiples of 8 here, so a chunk is all data or all padding.
      Val data = t.column + c < t.dim / 8;
      inside = valid ? valid & data : data;
      // Padding reads nothing, but its address is one inside the row, too.
      source = ir_.select(data, source, c ? from : ir_.offset(from, t.column * -16));
    }
    if (inside)
      gpu::copyAsync16(ir_, dest, source, ir_.select(inside, ir_.i32(16), ir_.i32(0)));
    else
      gpu::copyAsync16(ir_, dest, source);
  }
}

/// Element by element: rows that are only aligned to an element.
void TileLoader::loadElements(TileLoad t, Val row, Val last, Val to) {
  Val stride = placeAnew(t);
  ir_.forLoop(t.row, ir_.i32(t.rows), ir_.i32(t.rows_a_pass), [&](Val r) {
    Val from = t.paged_row ? t.pagedChunk(ir_, ir_.min(row + r, last))
                           : ir_.offset(t.from, ir_.toI64(ir_.min(row + r, last) - t.row) * stride);
    Val dest = ir_.offset(to, (r - t.row) * t.pitch);
    ir_.forLoop(t.column, ir_.i32(t.dim_pad / 8), ir_.i32(t.columns), [&](Val column) {
      Val valid = t.zeros ? row + r <= last : Val{}, chunk = (column - t.column) * 16;
      Val packed = ir_.constant(ir_.vec(ir_.i16(), 8), 0), source = ir_.offset(from, ir_.toI64(chunk));
      for (int e = 0; e < 8; ++e) {
        Val at = column * 8 + e;
        auto read = [&] { return ir_.load(ir_.i16(), ir_.offset(source, bytes_ * e), bytes_); };
        auto zero = [&] { return ir_.constant(ir_.i16(), 0); };
        Val inside = t.dim == t.dim_pad ? valid : valid ? (at < t.dim) & valid : at < t.dim;
        Val element = inside ? carry::ifElse(ir_, inside, read, zero) : read();
        packed = ir_.wrap(
            mlir::vector::InsertOp::create(ir_.builder, ir_.loc, element.value, packed.value, int64_t(e)));
      }
      ir_.store(packed, ir_.offset(dest, chunk), 16);
    });
  });
}

} // namespace flashplus
