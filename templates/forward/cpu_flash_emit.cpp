// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/cpu_rows.h"
#include "templates/common/score.h"
#include "templates/emit.h"
#include "templates/forward/cpu_flash_layout.h"

namespace flashplus {
namespace {

/// One call of the kernel: one query tile of one head against its share of the keys. Loop indices are i64, positions
/// inside a sequence i32.
class CpuFlash {
public:
  explicit CpuFlash(EmitContext &c)
      : c_(c), ir_(c.ir), l_(CpuFlashLayout::of(c.spec, c.schedule, c.target)), bytes_(dtypeBytes(c.spec.dtype)),
        item_(decodeWorkItem(ir_, c.params, c.spec, c.work_item)), seq_(ir_, c.params, item_.batch),
        mask_(ir_, c.params, c.spec, seq_), score_(ir_, c.params, *c.score, c.spec.dtype, item_, seq_) {}

  void emit() {
    first_ = item_.m * double(l_.tile_m);
    ir_.ifThen(first_ < seq_.q_len, [&] {
      rows_ = ir_.min(ir_.i32(l_.tile_m), seq_.q_len - first_);
      last_ = first_ + rows_ - 1.0;
      // Rows are computed in whole register blocks; those past the last one repeat it and are not stored.
      block_rows_ = ir_.toI64(ir_.ceilDiv(rows_, l_.mr)) * double(l_.mr);
      vector_ = ir_.vec(ir_.f32(), l_.lanes);
      packQ();
      clearState();
      const Mask::Tiles tiles = mask_.tiles(first_, last_, l_.tile_n, item_.split,
                                            c_.spec.split ? c_.params.get("num_splits") : Val{});
      ir_.forLoop(tiles.begin, tiles.end, ir_.i32(1), [&](Val tile) { visitTile(tile * double(l_.tile_n)); });
      countTiles(tiles);
      store();
    });
  }

private:
  // --- scratch -----------------------------------------------------------------------------------------------
  Val scratch(int block, Val index) { return ir_.offset(ir_.offset(c_.scratch, int64_t(block) * 4), index * 4.0); }
  Val loadScalar(int block, Val index) { return ir_.load(ir_.f32(), scratch(block, index), 4); }
  void storeScalar(int block, Val index, Val value) { ir_.store(value, scratch(block, index), 4); }
  Val loadVector(int block, Val index) { return ir_.load(vector_, scratch(block, index), l_.lanes * 4); }
  void storeVector(int block, Val index, Val value) { ir_.store(value, scratch(block, index), l_.lanes * 4); }

  template <class Body> void forRange(Val end, int step, Body body) {
    ir_.forLoop(ir_.i64(0), end, ir_.i64(step), [&](Val i) { body(i); });
  }

  /// Calls body(first column (i64), columns in memory) for every vector of a row of `dim` elements: a loop over the
  /// whole ones, so that code size does not grow with the head dim, and the rest.
  template <class Body> void forColumns(int dim, Body body) {
    const int whole = dim / l_.lanes * l_.lanes;
    if (whole)
      forRange(ir_.i64(whole), l_.lanes, [&](Val column) { body(column, l_.lanes); });
    if (dim > whole)
      body(ir_.i64(whole), dim - whole);
  }

  // --- packing -----------------------------------------------------------------------------------------------
  void packQ() {
    // With no score expression log2(e) rides on Q; otherwise it is applied after the expression.
    Val scale = c_.params.get("softmax_scale");
    if (score_.isIdentity())
      scale = scale * softmax::kLog2E;
    Val base = seq_.rows("q", item_.head, bytes_), stride = c_.params.get("q_stride_s") * double(bytes_);
    Val valid = ir_.toI64(rows_) - 1.0, row0 = ir_.toI64(first_);
    forRange(block_rows_, 1, [&](Val r) {
      Val row = ir_.offset(base, (row0 + ir_.min(r, valid)) * stride);
      forColumns(l_.dqk, [&](Val column, int count) {
        Val x = cpu::loadRow(ir_, c_.spec.dtype, ir_.offset(row, column * double(bytes_)), count);
        storeVector(l_.q(), r * double(l_.dqk_pad) + column, x * scale);
      });
    });
  }

  /// K's tile transposed: [dqk_pad][tile_n]. Rows past the last key repeat it; the mask hides them.
  void packK(Val key, Val keys) {
    Val base = seq_.rows("k", item_.head_k, bytes_), stride = c_.params.get("k_stride_s") * double(bytes_);
    Val valid = ir_.toI64(keys) - 1.0, key0 = ir_.toI64(key);
    forRange(ir_.toI64(ir_.ceilDiv(keys, l_.lanes)) * double(l_.lanes), l_.lanes, [&](Val j) {
      Vals rows;
      for (int lane = 0; lane < l_.lanes; ++lane)
        rows.push_back(ir_.offset(base, (key0 + ir_.min(j + double(lane), valid)) * stride));
      forColumns(l_.dqk, [&](Val column, int count) {
        Vals block;
        for (Val row : rows)
          block.push_back(cpu::loadRow(ir_, c_.spec.dtype, ir_.offset(row, column * double(bytes_)), count));
        block = cpu::transpose(ir_, std::move(block));
        for (int i = 0; i < count; ++i)
          storeVector(l_.kt(), j + (column + double(i)) * double(l_.tile_n), block[i]);
      });
    });
  }

  void packV(Val key, Val keys) {
    Val base = seq_.rows("v", item_.head_k, bytes_), stride = c_.params.get("v_stride_s") * double(bytes_);
    Val key0 = ir_.toI64(key);
    forRange(ir_.toI64(keys), 1, [&](Val j) {
      Val row = ir_.offset(base, (key0 + j) * stride);
      forColumns(l_.dv, [&](Val column, int count) {
        storeVector(l_.v(), j * double(l_.dv_pad) + column,
                    cpu::loadRow(ir_, c_.spec.dtype, ir_.offset(row, column * double(bytes_)), count));
      });
    });
  }

  void clearState() {
    Val zero = ir_.constant(vector_, 0);
    forRange(block_rows_, 1, [&](Val r) {
      forColumns(l_.dv_pad, [&](Val column, int) { storeVector(l_.o(), r * double(l_.dv_pad) + column, zero); });
      storeScalar(l_.rowMax(), r, ir_.negativeInfinity(ir_.f32()));
      storeScalar(l_.rowSum(), r, ir_.f32(0));
    });
  }

  // --- one tile of keys --------------------------------------------------------------------------------------
  void visitTile(Val key) {
    Val keys = ir_.min(ir_.i32(l_.tile_n), seq_.k_len - key);
    packK(key, keys);
    packV(key, keys);
    multiplyQK();
    if (!score_.isIdentity())
      applyScore(key);
    ir_.ifThen(mask_.needsMask(first_, last_, key, l_.tile_n), [&] { applyMask(key); });
    softmaxRows();
    multiplyPV(ir_.toI64(keys));
  }

  /// S = Q K^T into scratch.
  void multiplyQK() {
    Vals zero(l_.mr * l_.nr, ir_.constant(vector_, 0));
    forRange(block_rows_, l_.mr, [&](Val r0) {
      forRange(ir_.i64(l_.tile_n), l_.nr * l_.lanes, [&](Val j0) {
        Vals acc = cpu::multiplyBlock(
            ir_, l_.mr, l_.nr, ir_.i64(l_.dqk), zero,
            [&](int r, Val i) { return loadScalar(l_.q(), (r0 + double(r)) * double(l_.dqk_pad) + i); },
            [&](Val i) { return scratch(l_.kt(), i * double(l_.tile_n) + j0); });
        for (int r = 0; r < l_.mr; ++r)
          for (int c = 0; c < l_.nr; ++c)
            storeVector(l_.s(), (r0 + double(r)) * double(l_.tile_n) + j0 + double(c * l_.lanes), acc[r * l_.nr + c]);
      });
    });
  }

  /// Runs body(row number in the tile (i64), query row (i32)) over the tile, rows past the last repeating it.
  template <class Body> void forRows(Body body) {
    forRange(block_rows_, 1, [&](Val r) { body(r, ir_.min(first_ + ir_.toI32(r), last_)); });
  }

  /// S = score(S) log2(e), in place.
  void applyScore(Val key) {
    forRows([&](Val r, Val row) {
      forRange(ir_.i64(l_.tile_n), l_.lanes, [&](Val column) {
        Val at = r * double(l_.tile_n) + column;
        Val x = score_.apply(loadVector(l_.s(), at), row, key + ir_.toI32(column));
        storeVector(l_.s(), at, x * softmax::kLog2E);
      });
    });
  }

  /// S = -inf where the row does not see the key.
  void applyMask(Val key) {
    Val numbers = laneNumbers();
    forRows([&](Val r, Val row) {
      Val lo = mask_.lo(row) - key, hi = mask_.hi(row) - key;
      forRange(ir_.i64(l_.tile_n), l_.lanes, [&](Val column) {
        Val at = r * double(l_.tile_n) + column;
        Val keys = numbers + ir_.toI32(column);
        Val x = ir_.select((keys >= lo) & (keys < hi), loadVector(l_.s(), at), ir_.negativeInfinity(vector_));
        storeVector(l_.s(), at, x);
      });
    });
  }

  /// S -> P in place, and the rows' maxima, sums and factors.
  void softmaxRows() {
    const int vectors = l_.tile_n / l_.lanes;
    forRange(block_rows_, 1, [&](Val r) {
      Val at = r * double(l_.tile_n);
      Vals t;
      Val top;
      for (int c = 0; c < vectors; ++c) {
        t.push_back(loadVector(l_.s(), at + double(c * l_.lanes)));
        top = top ? ir_.fmax(top, t[c]) : t[c];
      }
      Val old_max = loadScalar(l_.rowMax(), r);
      Val new_max = ir_.fmax(old_max, cpu::reduceMax(ir_, top));
      Val base = softmax::reference(ir_, new_max);
      Val alpha = ir_.exp2(old_max - base);
      Val sum;
      for (int c = 0; c < vectors; ++c) {
        Val p = ir_.exp2(t[c] - base);
        storeVector(l_.s(), at + double(c * l_.lanes), p);
        sum = sum ? sum + p : p;
      }
      storeScalar(l_.rowMax(), r, new_max);
      storeScalar(l_.rowSum(), r, loadScalar(l_.rowSum(), r) * alpha + cpu::reduceSum(ir_, sum));
      storeScalar(l_.rowAlpha(), r, alpha);
    });
  }

  Val laneNumbers() {
    llvm::SmallVector<int32_t> numbers(l_.lanes);
    for (int i = 0; i < l_.lanes; ++i)
      numbers[i] = i;
    auto type = mlir::cast<mlir::VectorType>(ir_.vec(ir_.i32(), l_.lanes));
    mlir::Attribute attr = mlir::DenseElementsAttr::get(type, llvm::ArrayRef<int32_t>(numbers));
    return ir_.wrap(mlir::arith::ConstantOp::create(ir_.builder, ir_.loc, mlir::cast<mlir::TypedAttr>(attr)));
  }

  /// O = alpha O + P V.
  void multiplyPV(Val keys) {
    const int vectors = l_.dv_pad / l_.lanes, whole = vectors / l_.nr * l_.nr;
    forRange(block_rows_, l_.mr, [&](Val r0) {
      if (whole)
        forRange(ir_.i64(whole * l_.lanes), l_.nr * l_.lanes, [&](Val c0) { multiplyPVBlock(r0, c0, l_.nr, keys); });
      if (vectors > whole)
        multiplyPVBlock(r0, ir_.i64(whole * l_.lanes), vectors - whole, keys);
    });
  }

  void multiplyPVBlock(Val r0, Val c0, int nr, Val keys) {
    auto at = [&](int r, int c) { return (r0 + double(r)) * double(l_.dv_pad) + c0 + double(c * l_.lanes); };
    Vals init;
    for (int r = 0; r < l_.mr; ++r) {
      Val alpha = loadScalar(l_.rowAlpha(), r0 + double(r));
      for (int c = 0; c < nr; ++c)
        init.push_back(loadVector(l_.o(), at(r, c)) * alpha);
    }
    Vals acc = cpu::multiplyBlock(
        ir_, l_.mr, nr, keys, init,
        [&](int r, Val j) { return loadScalar(l_.s(), (r0 + double(r)) * double(l_.tile_n) + j); },
        [&](Val j) { return scratch(l_.v(), j * double(l_.dv_pad) + c0); });
    for (int r = 0; r < l_.mr; ++r)
      for (int c = 0; c < nr; ++c)
        storeVector(l_.o(), at(r, c), acc[r * nr + c]);
  }

  // --- results -----------------------------------------------------------------------------------------------
  void countTiles(const Mask::Tiles &tiles) {
    Val counter = c_.params.get("tile_counter");
    ir_.ifThen(ir_.isNull(counter) == ir_.boolean(false), [&] {
      Val count = ir_.toI64(ir_.max(ir_.i32(0), tiles.end - tiles.begin));
      mlir::LLVM::AtomicRMWOp::create(ir_.builder, ir_.loc, mlir::LLVM::AtomicBinOp::add, counter.value, count.value,
                                      mlir::LLVM::AtomicOrdering::monotonic);
    });
  }

  void store() {
    Val row0 = ir_.toI64(first_);
    Val empty = c_.spec.split ? ir_.negativeInfinity(ir_.f32()) : c_.params.get("lse_empty");
    Val o, stride, lse, has_lse;
    if (c_.spec.split) {
      // partial_o [split][row][head][dv], partial_lse [split][head][row]
      Val rows = c_.params.get("rows_q"), heads = ir_.toI64(c_.params.get("heads_q"));
      Val split = ir_.toI64(item_.split), head = ir_.toI64(item_.head);
      stride = heads * double(l_.dv * 4);
      o = ir_.offset(c_.params.get("partial_o"),
                     ((split * rows + seq_.firstRow()) * heads + head) * double(l_.dv * 4));
      lse = ir_.offset(c_.params.get("partial_lse"), ((split * heads + head) * rows + seq_.firstRow()) * 4.0);
      has_lse = ir_.boolean(true);
    } else {
      stride = c_.params.get("o_stride_s") * double(bytes_);
      o = seq_.rows("o", item_.head, bytes_);
      lse = seq_.lse(item_.head);
      has_lse = ir_.isNull(c_.params.get("lse")) == ir_.boolean(false);
    }
    const DType dtype = c_.spec.split ? DType::F32 : c_.spec.dtype;
    forRange(ir_.toI64(rows_), 1, [&](Val r) {
      auto finish = softmax::finish(ir_, loadScalar(l_.rowMax(), r), loadScalar(l_.rowSum(), r), empty);
      Val row = ir_.offset(o, (row0 + r) * stride);
      forColumns(l_.dv, [&](Val column, int count) {
        cpu::storeRow(ir_, dtype, loadVector(l_.o(), r * double(l_.dv_pad) + column) * finish.factor,
                      ir_.offset(row, column * double(dtypeBytes(dtype))), count);
      });
      ir_.ifThen(has_lse, [&] { ir_.store(finish.lse, ir_.offset(lse, (row0 + r) * 4.0), 4); });
    });
  }

  EmitContext &c_;
  Ir &ir_;
  CpuFlashLayout l_;
  int bytes_;
  WorkItem item_;
  Sequence seq_;
  Mask mask_;
  Score score_;
  mlir::Type vector_;
  Val first_, last_, rows_, block_rows_;
};

} // namespace

void emitCpuFlash(EmitContext &context) { CpuFlash(context).emit(); }

} // namespace flashplus
