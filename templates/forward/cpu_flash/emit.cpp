// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/cpu_dropout.h"
#include "templates/common/cpu_rows.h"
#include "templates/common/key_rows.h"
#include "templates/common/result_rows.h"
#include "templates/common/score.h"
#include "templates/emit.h"
#include "templates/forward/cpu_flash/layout.h"
#include "templates/forward/cpu_tile.h"

#include <optional>

namespace flashplus {
namespace {

/// One call of the kernel: one tile of rows of one key head against its share of the keys. Row numbers and
/// loop indices are i64, positions inside a sequence i32.
class CpuFlash {
public:
  explicit CpuFlash(EmitContext &c)
      : c_(c), ir_(c.ir), l_(CpuFlashLayout::of(c.spec, c.schedule, c.target)),
        bytes_(dtypeBytes(c.spec.dtype)), packed_(l_.pairs ? cpu::Packed::Bf16Pairs : cpu::Packed::F32),
        item_(decodeWorkItem(ir_, c.params, c.spec, c.work_item, HeadsOfItem::Packed)),
        seq_(ir_, c.params, item_.batch, c.spec.keys), tile_(c, item_, seq_, l_.tile_m),
        mask_(ir_, c.params, c.spec, seq_), score_(ir_, c.params, *c.score, item_, seq_),
        vector_(ir_.vec(ir_.f32(), l_.lanes)) {
    if (c.spec.dropout)
      dropout_.emplace(ir_, c.params);
  }

  void emit() {
    ir_.ifThen(tile_.exists(), [&] {
      rows_ = tile_.rows();
      // Rows are computed in whole register blocks; those past the last one repeat it and are not stored.
      block_rows_ = ir_.ceilDiv(rows_, l_.mr) * l_.mr;
      if (seq_.pagedKeys())
        least_ = mask_.leastKey(queryRow(ir_.i64(0)));
      packQ();
      clearState();
      const Mask::Tiles tiles = mask_.tiles(queryRow(ir_.i64(0)), queryRow(rows_ - 1), l_.tile_n, item_.split,
                                            c_.spec.sharesKeys() ? c_.params.get("num_splits") : Val{});
      ir_.forLoop(tiles.begin, tiles.end, ir_.i32(1), [&](Val tile) { visitTile(tile * l_.tile_n); });
      countTiles(ir_, c_.params, [&] { return tiles.count(); });
      store();
    });
  }

private:
  Val queryRow(Val r) { return tile_.queryRow(r); }

  // --- scratch ---------------------------------------------------------------------------------------------
  Val scratch(int block, Val index) {
    return ir_.offset(ir_.offset(c_.scratch, int64_t(block) * 4), index * 4);
  }
  Val loadScalar(int block, Val index) { return ir_.load(ir_.f32(), scratch(block, index), 4); }
  void storeScalar(int block, Val index, Val value) { ir_.store(value, scratch(block, index), 4); }
  Val loadVector(int block, Val index) { return ir_.load(vector_, scratch(block, index), l_.lanes * 4); }
  void storeVector(int block, Val index, Val value) { ir_.store(value, scratch(block, index), l_.lanes * 4); }

  template <class Body> void forRange(Val begin, Val end, int step, Body body) {
    ir_.forLoop(begin, end, ir_.i64(step), [&](Val i) { body(i); });
  }
  template <class Body> void forRange(Val end, int step, Body body) { forRange(ir_.i64(0), end, step, body); }

  /// Calls body(first column (i64), columns in memory) for every `width` columns of a row of `dim` elements:
  /// a loop over the whole ones, so that code size does not grow with the head dim, and the rest.
  template <class Body> void forColumns(int dim, int width, Body body) {
    const int whole = dim / width * width;
    if (whole)
      forRange(ir_.i64(whole), width, [&](Val column) { body(column, width); });
    if (dim > whole)
      body(ir_.i64(whole), dim - whole);
  }

  // --- packing ---------------------------------------------------------------------------------------------
  /// Vector `column` (in elements of the packed matrices) of a row in memory.
  Val loadElements(Val row, Val column, int count) {
    if (!l_.pairs)
      return cpu::loadRow(ir_, c_.spec.dtype, ir_.offset(row, column * bytes_), count);
    return ir_.bitcast(vector_, cpu::loadPairs(ir_, ir_.offset(row, column * 4), count));
  }
  /// Calls body(first element, elements in memory: stored ones, of which a pair has two) for every vector of
  /// a row of Q or K.
  template <class Body> void forElements(Body body) {
    const int a_dword = l_.pairs ? 2 : 1;
    forColumns(l_.dqk, l_.lanes * a_dword, [&](Val column, int count) { body(column / a_dword, count); });
  }

  Val scoreScale() {
    // With no score expression log2(e) rides on the scale; otherwise it is applied after the expression.
    Val scale = c_.params.get("softmax_scale");
    return score_.isIdentity() ? scale * softmax::kLog2E : scale;
  }

  void packQ() {
    Val scale = scoreScale();
    Val base = seq_.rows(Operand::Q, item_.head, bytes_);
    Val stride = c_.params.get("q_stride_s") * bytes_, head_stride = c_.params.get("q_stride_h") * bytes_;
    forRange(block_rows_, 1, [&](Val r) {
      Val row = ir_.offset(base, ir_.toI64(queryRow(r)) * stride + tile_.groupHead(r) * head_stride);
      forElements([&](Val column, int count) {
        Val x = loadElements(row, column, count);
        storeVector(l_.q(), r * l_.depth_pad + column, l_.pairs ? x : x * scale);
      });
    });
  }

  /// The rows of K or V of the item's sequence.
  struct TileRows {
    KeyRows source;
    int bytes;
    Val base, stride;       // absent of paged keys
    Val at(Val key) const { // i64
      Ir &ir = *key.ir;
      return source.paged() ? source.row(ir.toI32(key), bytes) : ir.offset(base, key * stride);
    }
  };
  TileRows tileRows(Operand operand) {
    const KeyRows source{seq_, operand, item_.head_k, least_};
    if (source.paged())
      return {source, bytes_, {}, {}};
    Val base = source.first(bytes_), stride = c_.params.get(operandInfo(operand).stride_s) * bytes_;
    return {source, bytes_, base, stride};
  }

  /// K's tile transposed, in panels. Rows past the last key repeat it; the mask hides them.
  void packK(Val key, Val keys) {
    const TileRows tile = tileRows(Operand::K);
    Val last = keys - 1, key0 = ir_.toI64(key);
    const int width = l_.panel();
    forRange(ir_.ceilDiv(keys, l_.lanes) * l_.lanes, l_.lanes, [&](Val j) {
      Vals rows;
      for (int lane = 0; lane < l_.lanes; ++lane)
        rows.push_back(tile.at(key0 + ir_.min(j + lane, last)));
      Val panel = j / width;
      Val at = panel * (width * l_.depth_pad) + (j - panel * width);
      forElements([&](Val column, int count) {
        Vals block;
        for (Val row : rows)
          block.push_back(loadElements(row, column, count));
        block = cpu::transpose(ir_, std::move(block));
        const int elements = l_.pairs ? (count + 1) / 2 : count;
        for (int i = 0; i < elements; ++i)
          storeVector(l_.kt(), at + (column + i) * width, block[i]);
      });
    });
  }

  /// V's tile in panels.
  void packV(Val key, Val keys) {
    const TileRows tile = tileRows(Operand::V);
    Val key0 = ir_.toI64(key);
    const int a_row = l_.pairs ? 2 : 1;
    forRange(ir_.ceilDiv(keys, a_row), 1, [&](Val i) {
      Val j = i * a_row;
      Val row = tile.at(key0 + j), next, has_next;
      if (l_.pairs) {
        has_next = j + 1 < keys;
        next = tile.source.paged() ? tile.at(key0 + ir_.min(j + 1, keys - 1))
                                   : ir_.select(has_next, ir_.offset(row, tile.stride), row);
      }
      forColumns(l_.dv, l_.panel(), [&](Val c0, int columns) {
        const int width = roundUp(columns, l_.lanes);
        Val panel = c0 * l_.v_rows + i * width;
        for (int c = 0; c < columns; c += l_.lanes) {
          const int count = std::min(l_.lanes, columns - c);
          Val from = (c0 + c) * bytes_;
          Val x = l_.pairs
                      ? ir_.bitcast(vector_, cpu::interleaveRows(ir_, ir_.offset(row, from),
                                                                 ir_.offset(next, from), has_next, count))
                      : cpu::loadRow(ir_, c_.spec.dtype, ir_.offset(row, from), count);
          storeVector(l_.v(), panel + c, x);
        }
      });
    });
  }

  void clearState() {
    Val zero = ir_.constant(vector_, 0);
    forRange(block_rows_, 1, [&](Val r) {
      forRange(ir_.i64(l_.dv_pad), l_.lanes,
               [&](Val column) { storeVector(l_.o(), r * l_.dv_pad + column, zero); });
      storeScalar(l_.rowMax(), r, ir_.negativeInfinity(ir_.f32()));
      storeScalar(l_.rowSum(), r, ir_.f32(0));
    });
  }

  // --- one tile of keys ------------------------------------------------------------------------------------
  void visitTile(Val key) {
    Val keys = ir_.toI64(ir_.min(ir_.i32(l_.tile_n), seq_.k_len - key));
    packK(key, keys);
    packV(key, keys);
    if (dropout_)
      drawTile(key, keys);
    forRange(block_rows_, l_.mr, [&](Val r0) { visitBlock(r0, key, keys); });
  }

  /// Rows r0 .. r0 + mr - 1 of the tile against the panels of keys that one of them sees.
  void visitBlock(Val r0, Val key, Val keys) {
    const int width = l_.panel();
    Val first = queryRow(r0), last = queryRow(r0 + (l_.mr - 1));
    Val begin = ir_.i64(0), end = keys;
    if (c_.spec.bounded_left)
      begin = ir_.toI64(ir_.max(ir_.i32(0), mask_.lo(first) - key)) / width * width;
    if (c_.spec.bounded_right)
      end = ir_.min(keys, ir_.toI64(mask_.hi(last) - key));
    auto visit = [&] {
      Val computed = ir_.ceilDiv(end, l_.panel()) * width;
      multiplyQK(r0, begin, computed);
      if (!score_.isIdentity())
        applyScore(r0, key, begin, computed);
      Val hidden = (key + ir_.toI32(begin) < mask_.lo(last)) | (key + ir_.toI32(computed) > mask_.hi(first));
      ir_.ifThen(hidden, [&] { applyMask(r0, key, begin, computed); });
      softmaxRows(r0, begin, computed);
      if (dropout_)
        dropRows(r0, begin, computed);
      multiplyPV(r0, begin, end);
    };
    if (c_.spec.bounded_left || c_.spec.bounded_right)
      ir_.ifThen(begin < end, visit);
    else
      visit();
  }

  /// S = Q K^T into scratch.
  void multiplyQK(Val r0, Val begin, Val end) {
    const Vals zero(l_.mr * l_.nr, ir_.constant(vector_, 0));
    Val scale = l_.pairs ? scoreScale() : Val{};
    forRange(begin, end, l_.panel(), [&](Val j0) {
      Vals acc = cpu::multiplyBlock(
          ir_, packed_, l_.mr, l_.nr, ir_.i64(0), ir_.i64(l_.depth), zero,
          [&](int r, Val i) { return scratch(l_.q(), (r0 + r) * l_.depth_pad + i); },
          [&](Val i) { return scratch(l_.kt(), j0 * l_.depth_pad + i * l_.panel()); });
      for (int r = 0; r < l_.mr; ++r)
        for (int c = 0; c < l_.nr; ++c) {
          Val x = acc[r * l_.nr + c];
          storeVector(l_.s(), j0 + (r * l_.tile_n + c * l_.lanes), l_.pairs ? x * scale : x);
        }
    });
  }

  /// Calls body(row in the block, row of the tile) for the rows of a block.
  template <class Body> void forBlockRows(Val r0, Body body) {
    forRange(ir_.i64(l_.mr), 1, [&](Val r) { body(r, r0 + r); });
  }

  /// S = score(S) log2(e), in place.
  void applyScore(Val r0, Val key, Val begin, Val end) {
    forBlockRows(r0, [&](Val r, Val row) {
      Val query = queryRow(row), head = item_.head + ir_.toI32(tile_.groupHead(row));
      forRange(begin, end, l_.lanes, [&](Val column) {
        Val at = r * l_.tile_n + column;
        Val x = score_.apply(loadVector(l_.s(), at), query, key + ir_.toI32(column), head);
        storeVector(l_.s(), at, x * softmax::kLog2E);
      });
    });
  }

  /// S = -inf where the row does not see the key.
  void applyMask(Val r0, Val key, Val begin, Val end) {
    Val numbers = laneNumbers();
    forBlockRows(r0, [&](Val r, Val row) {
      Val query = queryRow(row);
      Val lo = mask_.lo(query) - key, hi = mask_.hi(query) - key;
      forRange(begin, end, l_.lanes, [&](Val column) {
        Val at = r * l_.tile_n + column;
        Val keys = numbers + ir_.toI32(column);
        Val x = ir_.select((keys >= lo) & (keys < hi), loadVector(l_.s(), at), ir_.negativeInfinity(vector_));
        storeVector(l_.s(), at, x);
      });
    });
  }

  /// S -> P, and the rows' maxima, sums and factors.
  void softmaxRows(Val r0, Val begin, Val end) {
    forBlockRows(r0, [&](Val r, Val row) {
      Val at = r * l_.tile_n;
      // One running value a vector of the panel: chains that do not wait for each other.
      Vals top = ir_.forLoop(begin, end, ir_.i64(l_.panel()), Vals(l_.nr, ir_.negativeInfinity(vector_)),
                             [&](Val column, const Vals &carried) {
                               Vals next;
                               for (int c = 0; c < l_.nr; ++c)
                                 next.push_back(
                                     ir_.fmax(loadVector(l_.s(), at + column + c * l_.lanes), carried[c]));
                               return next;
                             });
      for (int c = 1; c < l_.nr; ++c)
        top[0] = ir_.fmax(top[0], top[c]);
      Val old_max = loadScalar(l_.rowMax(), row);
      Val new_max = ir_.fmax(old_max, cpu::reduceMax(ir_, top[0]));
      Val base = softmax::reference(ir_, new_max);
      Val alpha = ir_.exp2(old_max - base);
      Vals sum = ir_.forLoop(begin, end, ir_.i64(l_.panel()), Vals(l_.nr, ir_.constant(vector_, 0)),
                             [&](Val column, const Vals &carried) {
                               Vals next;
                               for (int c = 0; c < l_.nr; ++c) {
                                 Val where = at + column + c * l_.lanes;
                                 Val p = ir_.exp2(loadVector(l_.s(), where) - base);
                                 next.push_back(carried[c] + p);
                                 storeProbabilities(where, p);
                               }
                               return next;
                             });
      for (int c = 1; c < l_.nr; ++c)
        sum[0] = sum[0] + sum[c];
      storeScalar(l_.rowMax(), row, new_max);
      storeScalar(l_.rowSum(), row, loadScalar(l_.rowSum(), row) * alpha + cpu::reduceSum(ir_, sum[0]));
      storeScalar(l_.rowAlpha(), r, alpha);
    });
  }

  Val pairsAt(Val at) { return ir_.offset(ir_.offset(c_.scratch, int64_t(l_.p()) * 4), at * 2); }

  void storeProbabilities(Val at, Val p) {
    if (!l_.pairs)
      return storeVector(l_.s(), at, p);
    cpu::storeRow(ir_, DType::BF16, p, pairsAt(at), l_.lanes);
  }

  Val keptBits(Val row) { return ir_.offset(scratch(l_.kept(), ir_.i64(0)), row * (l_.tile_n / 8)); }

  /// Which keys of the tile's rows are kept, as far as some row sees them.
  void drawTile(Val key, Val keys) {
    Val first = queryRow(ir_.i64(0)), last = queryRow(rows_ - 1), begin = ir_.i64(0), end = keys;
    if (c_.spec.bounded_left)
      begin = ir_.toI64(ir_.max(ir_.i32(0), mask_.lo(first) - key));
    if (c_.spec.bounded_right)
      end = ir_.min(keys, ir_.toI64(mask_.hi(last) - key));
    forRange(ir_.toI64(item_.group), 1, [&](Val g) {
      auto bits = [&](Val query) {
        Val row = tile_.rowOf(query, g);
        return keptBits(ir_.select((row >= ir_.i64(0)) & (row < rows_), row, ir_.i64(l_.tile_m)));
      };
      dropout_->drawTile(item_.batch, item_.head + ir_.toI32(g), first, last + 1, key, begin, end, bits);
    });
  }

  /// P = 0 where it is dropped, in place.
  void dropRows(Val r0, Val begin, Val end) {
    Val type_zero = ir_.constant(ir_.vec(ir_.i16(), l_.lanes), 0);
    forBlockRows(r0, [&](Val r, Val row) {
      Val bits = keptBits(ir_.min(row, rows_ - 1));
      forRange(begin, end, l_.lanes, [&](Val column) {
        Val keep = dropout_->kept(bits, column), at = r * l_.tile_n + column;
        if (!l_.pairs)
          return storeVector(l_.s(), at, ir_.select(keep, loadVector(l_.s(), at), ir_.constant(vector_, 0)));
        Val pointer = pairsAt(at), p = ir_.load(type_zero.type(), pointer, 2 * l_.lanes);
        ir_.store(ir_.select(keep, p, type_zero), pointer, 2 * l_.lanes);
      });
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
  void multiplyPV(Val r0, Val begin, Val end) {
    const int left = l_.pairs ? l_.p() : l_.s(), left_stride = l_.pairs ? l_.tile_n / 2 : l_.tile_n;
    const int a_row = l_.pairs ? 2 : 1;
    forColumns(l_.dv_pad, l_.panel(), [&](Val c0, int columns) {
      const int nr = columns / l_.lanes;
      auto at = [&](int r, int c) { return (r0 + r) * l_.dv_pad + c0 + c * l_.lanes; };
      Vals init;
      for (int r = 0; r < l_.mr; ++r) {
        Val alpha = loadScalar(l_.rowAlpha(), ir_.i64(r));
        for (int c = 0; c < nr; ++c)
          init.push_back(loadVector(l_.o(), at(r, c)) * alpha);
      }
      Vals acc = cpu::multiplyBlock(
          ir_, packed_, l_.mr, nr, begin / a_row, ir_.ceilDiv(end, a_row), init,
          [&](int r, Val j) { return scratch(left, j + r * left_stride); },
          [&](Val j) { return scratch(l_.v(), c0 * l_.v_rows + j * columns); });
      for (int r = 0; r < l_.mr; ++r)
        for (int c = 0; c < nr; ++c)
          storeVector(l_.o(), at(r, c), acc[r * nr + c]);
    });
  }

  // --- results ---------------------------------------------------------------------------------------------
  void store() {
    tile_.store([&](Val r) { return loadScalar(l_.rowMax(), r); },
                [&](Val r) { return loadScalar(l_.rowSum(), r); },
                [&](Val r, DType dtype, Val row, Val factor) {
                  forColumns(l_.dv, l_.lanes, [&](Val column, int count) {
                    cpu::storeRow(ir_, dtype, loadVector(l_.o(), r * l_.dv_pad + column) * factor,
                                  ir_.offset(row, column * dtypeBytes(dtype)), count);
                  });
                });
  }

  EmitContext &c_;
  Ir &ir_;
  CpuFlashLayout l_;
  int bytes_;
  cpu::Packed packed_;
  WorkItem item_;
  Sequence seq_;
  CpuTile tile_;
  Mask mask_;
  Score score_;
  mlir::Type vector_;
  Val rows_, block_rows_; // i64
  Val least_;             // KeyRows::least
  std::optional<CpuDropout> dropout_; // of a spec with dropout
};

} // namespace

void emitCpuFlash(EmitContext &context) { CpuFlash(context).emit(); }

} // namespace flashplus
