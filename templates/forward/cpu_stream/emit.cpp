// SPDX-License-Identifier: BSD-3-Clause
#include "ir/carried.h"
#include "templates/common/cpu_dropout.h"
#include "templates/common/cpu_rows.h"
#include "templates/common/result_rows.h"
#include "templates/common/score.h"
#include "templates/forward/cpu_stream/layout.h"
#include "templates/forward/cpu_tile.h"

#include <optional>

namespace flashplus {
namespace {

/// One call of the kernel. Row numbers and loop indices are i64, positions inside a sequence i32.
class CpuStream {
public:
  explicit CpuStream(EmitContext &c)
      : c_(c), ir_(c.ir), l_(CpuStreamLayout::of(c.spec, c.schedule, c.target)),
        bytes_(dtypeBytes(c.spec.dtype)),
        item_(decodeWorkItem(ir_, c.params, c.spec, c.work_item, HeadsOfItem::Groups)),
        first_head_(item_.head_k), seq_(ir_, c.params, item_.batch, c.spec.keys),
        tile_(c, item_, seq_, l_.tile_m), mask_(ir_, c.params, c.spec, seq_),
        score_(ir_, c.params, *c.score, item_, seq_), vector_(ir_.vec(ir_.f32(), l_.lanes)) {
    if (c.spec.dropout)
      dropout_.emplace(ir_, c.params);
  }

  void emit() {
    ir_.ifThen(tile_.exists(), [&] {
      first_ = tile_.queryRow(ir_.i64(0));
      last_ = tile_.queryRow(ir_.i64(l_.tile_m - 1));
      k_stride_ = c_.params.get("k_stride_s") * bytes_;
      v_stride_ = c_.params.get("v_stride_s") * bytes_;
      describeLanes();
      const Mask::Tiles tiles = mask_.tiles(first_, last_, l_.tile_n, item_.split,
                                            c_.spec.sharesKeys() ? c_.params.get("num_splits") : Val{});
      forHeads([&] { start(); });
      if (l_.paged)
        ir_.ifThen(tiles.begin < tiles.end, [&] { findRows(tiles.begin); });
      ir_.forLoop(tiles.begin, tiles.end, ir_.i32(1), [&](Val tile) {
        // A share's last tile asks for itself: what follows is another thread's.
        ahead_ = ir_.select(tile + 1 < tiles.end, ir_.i64(l_.tile_n), ir_.i64(0));
        if (l_.paged) {
          Val next = ir_.min(tile + 1, tiles.end - 1);
          findRows(next);
          rows_ = rowsOf(tile);
          next_rows_ = rowsOf(next);
        }
        forHeads([&] { visitTile(tile * l_.tile_n); });
      });
      countTiles(ir_, c_.params, [&] { return ir_.max(ir_.i32(0), tiles.count() * item_.key_heads); });
      forHeads([&] { store(); });
    });
  }

private:
  static constexpr int kLineBytes = 64;

  Val scratch(Val base, int block, Val index) {
    return ir_.offset(ir_.offset(base, int64_t(block) * 4), index * 4);
  }
  Val loadScalar(int block, Val index) { return ir_.load(ir_.f32(), scratch(state_, block, index), 4); }
  Val loadVector(int block, Val index) {
    return ir_.load(vector_, scratch(state_, block, index), l_.lanes * 4);
  }
  void storeVector(int block, Val index, Val value) {
    ir_.store(value, scratch(state_, block, index), l_.lanes * 4);
  }
  Val scores(Val index) { return scratch(c_.scratch, l_.s(), index); }

  /// Calls body for every key head of the item, which is then what item_ and the pointers are of.
  void forHeads(llvm::function_ref<void()> body) {
    ir_.forLoop(ir_.i32(0), item_.key_heads, ir_.i32(1), [&](Val number) {
      item_.head_k = first_head_ + number;
      item_.head = item_.head_k * item_.group;
      state_ = ir_.offset(c_.scratch, ir_.toI64(number) * (l_.headDwords() * 4));
      auto rows = [&](Operand operand) {
        return l_.paged ? seq_.pool(operand, item_.head_k, bytes_) : seq_.rows(operand, item_.head_k, bytes_);
      };
      k_ = rows(Operand::K);
      v_ = rows(Operand::V);
      body();
    });
  }

  /// Calls body(first column (i64), columns in memory) for the chunks of a row: loops over `together` whole
  /// ones and over one, and the rest.
  Vals forChunks(int dim, int together, const Vals &inits,
                 llvm::function_ref<Vals(Val column, int count, const Vals &carried)> body) {
    Vals carried = inits;
    int done = 0;
    for (int size : {together * l_.chunk(), l_.chunk()}) {
      const int begin = done;
      done += (dim - begin) / size * size;
      if (done > begin)
        carried = ir_.forLoop(ir_.i64(begin), ir_.i64(done), ir_.i64(size), carried,
                              [&](Val column, const Vals &c) { return body(column, size, c); });
    }
    return dim > done ? body(ir_.i64(done), dim - done, carried) : carried;
  }

  Val perLane(llvm::function_ref<Val(int lane)> value) {
    Val result = ir_.splat(value(0), l_.lanes);
    for (int lane = 1; lane < l_.lanes; ++lane)
      result = ir_.wrap(mlir::vector::InsertOp::create(ir_.builder, ir_.loc, value(lane).value, result.value,
                                                       int64_t(lane)));
    return result;
  }

  /// The row, its head in the group and its visible keys, and the number of the key among `unroll`, of every
  /// lane.
  void describeLanes() {
    Vals rows, heads;
    for (int r = 0; r < l_.tile_m; ++r) {
      rows.push_back(tile_.queryRow(ir_.i64(r)));
      heads.push_back(ir_.toI32(tile_.groupHead(ir_.i64(r))));
    }
    query_ = perLane([&](int lane) { return rows[lane / l_.unroll]; });
    group_head_ = perLane([&](int lane) { return heads[lane / l_.unroll]; });
    numbers_ = perLane([&](int lane) { return ir_.i32(lane % l_.unroll); });
    lo_ = mask_.lo(query_);
    hi_ = mask_.hi(query_);
  }

  /// The state of a head before its first key.
  void start() {
    loadQ();
    ir_.forLoop(ir_.i64(0), ir_.i64(l_.tile_m * l_.dv_pad), ir_.i64(l_.lanes),
                [&](Val at) { storeVector(l_.o(), at, ir_.constant(vector_, 0)); });
    storeVector(l_.rowMax(), ir_.i64(0), ir_.negativeInfinity(vector_));
    storeVector(l_.rowSum(), ir_.i64(0), ir_.constant(vector_, 0));
  }

  void loadQ() {
    Val scale = c_.params.get("softmax_scale");
    if (score_.isIdentity()) // otherwise log2(e) is applied after the expression
      scale = scale * softmax::kLog2E;
    Val base = seq_.rows(Operand::Q, item_.head, bytes_);
    Val stride = c_.params.get("q_stride_s") * bytes_, head_stride = c_.params.get("q_stride_h") * bytes_;
    ir_.forLoop(ir_.i64(0), ir_.i64(l_.tile_m), ir_.i64(1), [&](Val r) {
      Val row = ir_.offset(base, ir_.toI64(tile_.queryRow(r)) * stride + tile_.groupHead(r) * head_stride);
      forChunks(l_.dqk, 1, {}, [&](Val column, int count, const Vals &) -> Vals {
        Vals x = cpu::loadChunk(ir_, c_.spec.dtype, ir_.offset(row, column * bytes_), count);
        for (size_t i = 0; i < x.size(); ++i)
          storeVector(l_.q(), r * l_.depth_pad + column + i * l_.lanes, x[i] * scale);
        return {};
      });
    });
  }

  /// One tile of keys. Kept of the softmax are the maxima, the same in all lanes of a row, and the lanes'
  /// sums.
  void visitTile(Val key) {
    Val begin = ir_.i64(0), end = ir_.toI64(ir_.min(ir_.i32(l_.tile_n), seq_.k_len - key));
    if (c_.spec.bounded_left)
      begin = ir_.toI64(ir_.max(ir_.i32(0), mask_.lo(first_) - key)) / l_.unroll * l_.unroll;
    if (c_.spec.bounded_right)
      end = ir_.min(end, ir_.toI64(mask_.hi(last_) - key));
    Val top = cpu::segmentMax(ir_, addScores(key, begin, end), l_.unroll);
    Val old_max = loadVector(l_.rowMax(), ir_.i64(0));
    Val new_max = ir_.fmax(old_max, top);
    Val base = softmax::reference(ir_, new_max);
    Val alpha = ir_.exp2(old_max - base);
    Val sum = loadVector(l_.rowSum(), ir_.i64(0)) * alpha;
    sum = carry::forLoop(ir_, begin, end, ir_.i64(l_.unroll), sum, [&](Val j, Val so_far) {
      Val at = scores(j * l_.tile_m);
      Val p = ir_.exp2(ir_.load(vector_, at, l_.lanes * 4) - base);
      Val kept = p; // the sum has all of them
      if (dropout_) {
        Val keep = dropout_->keepLanes(item_.batch, group_head_ + item_.head, query_,
                                       numbers_ + (key + ir_.toI32(j)));
        kept = ir_.select(keep, p, ir_.constant(vector_, 0));
      }
      ir_.store(kept, at, l_.lanes * 4);
      return so_far + p;
    });
    storeVector(l_.rowMax(), ir_.i64(0), new_max);
    storeVector(l_.rowSum(), ir_.i64(0), sum);
    addValues(key, begin, end, alpha);
  }

  /// Where the rows of a tile lie, in scratch.
  Val rowsOf(Val tile) {
    return ir_.offset(ir_.offset(c_.scratch, int64_t(l_.rows()) * 4),
                      ir_.toI64(tile & 1) * int64_t(l_.tileRows() * 4));
  }
  Val rowPlace(Val rows, Operand operand, Val j) {
    return ir_.offset(operand == Operand::V ? ir_.offset(rows, int64_t(l_.tile_n) * 8) : rows, j * 8);
  }

  /// Finds the rows of a tile's keys, once for all heads. Those past the last key, or before the first that a
  /// row sees, stand for it: none of them has a page for sure.
  void findRows(Val tile) {
    Val rows = rowsOf(tile), last = seq_.k_len - 1, least = mask_.leastKey(first_);
    ir_.forLoop(ir_.i64(0), ir_.i64(l_.tile_n), ir_.i64(1), [&](Val j) {
      Val key = ir_.min(tile * l_.tile_n + ir_.toI32(j), last);
      if (least)
        key = ir_.max(key, least);
      for (Operand operand : {Operand::K, Operand::V})
        ir_.store(seq_.pagedRow(operand, key, bytes_), rowPlace(rows, operand, j), 8);
    });
  }

  /// A row of K or V, and the bytes from it to the one that is asked for meanwhile: that as many keys into
  /// the next tile.
  struct Row {
    Val at, ahead;
  };
  /// Key `j` (i64) of the tile whose first key is `key0` (i64).
  Row row(Operand operand, Val key0, Val j) {
    const bool keys = operand == Operand::K;
    Val base = keys ? k_ : v_, stride = keys ? k_stride_ : v_stride_;
    if (!l_.paged)
      return {ir_.offset(base, (key0 + j) * stride), {}};
    Val now = ir_.load(ir_.i64(), rowPlace(rows_, operand, j), 8);
    return {ir_.offset(base, now), ir_.load(ir_.i64(), rowPlace(next_rows_, operand, j), 8) - now};
  }

  /// Loads a chunk of a row, and asks for that of the next tile: one request a line, for the machine has few
  /// places for outstanding ones and a burst would wait for them.
  Vals loadAndAskAhead(const Row &row, Val stride, Val column, int count) {
    Val at = ir_.offset(row.at, column * bytes_);
    Val next = ir_.offset(at, row.ahead ? row.ahead : ahead_ * stride);
    for (int line = 0; line < count * bytes_; line += kLineBytes)
      cpu::prefetch(ir_, ir_.offset(next, int64_t(line)));
    return cpu::loadChunk(ir_, c_.spec.dtype, at, count);
  }

  /// The scores of keys [begin, end) of the tile into scratch, -inf where a row does not see the key; returns
  /// the lanes' maxima.
  Val addScores(Val key, Val begin, Val end) {
    Val key0 = ir_.toI64(key);
    return carry::forLoop(
        ir_, begin, end, ir_.i64(l_.unroll), ir_.negativeInfinity(vector_), [&](Val j, Val top) {
          std::vector<Row> rows;
          for (int u = 0; u < l_.unroll; ++u) // keys past the last repeat it; the mask hides them
            rows.push_back(row(Operand::K, key0, ir_.min(j + u, end - 1)));
          Vals sums = forChunks(l_.dqk, 1, Vals(l_.lanes, ir_.constant(vector_, 0)),
                                [&](Val column, int count, const Vals &carried) {
                                  Vals acc = carried;
                                  std::vector<Vals> k;
                                  for (const Row &row : rows)
                                    k.push_back(loadAndAskAhead(row, k_stride_, column, count));
                                  for (int r = 0; r < l_.tile_m; ++r)
                                    for (size_t i = 0; i < k[0].size(); ++i) {
                                      Val q =
                                          loadVector(l_.q(), column + (r * l_.depth_pad + int(i) * l_.lanes));
                                      for (int u = 0; u < l_.unroll; ++u)
                                        acc[r * l_.unroll + u] = ir_.fma(q, k[u][i], acc[r * l_.unroll + u]);
                                    }
                                  return acc;
                                });
          Val x = cpu::sumEach(ir_, sums);
          Val keys = numbers_ + (key + ir_.toI32(j));
          if (!score_.isIdentity())
            x = score_.apply(x, query_, keys, group_head_ + item_.head) * softmax::kLog2E;
          x = ir_.select((keys >= lo_) & (keys < hi_), x, ir_.negativeInfinity(vector_));
          ir_.store(x, scores(j * l_.tile_m), l_.lanes * 4);
          return ir_.fmax(x, top);
        });
  }

  /// O = alpha O + P V, with a factor per lane.
  void addValues(Val key, Val begin, Val end, Val alpha) {
    Val first = ir_.toI64(key);
    Vals factors;
    for (int r = 0; r < l_.tile_m; ++r)
      factors.push_back(ir_.wrap(
          mlir::vector::ExtractOp::create(ir_.builder, ir_.loc, alpha.value, int64_t(r * l_.unroll))));
    // Two chunks at a time where there are registers for their sums: a probability is loaded once for both.
    const int together = 4 * l_.tile_m <= isaInfo(c_.target.isa).vector_registers / 2 ? 2 : 1;
    forChunks(l_.dv, together, {}, [&](Val column, int count, const Vals &) -> Vals {
      const int chunks = (count + l_.chunk() - 1) / l_.chunk();
      auto at = [&](int i) { return column + i * l_.lanes; };
      Vals sums;
      for (int r = 0; r < l_.tile_m; ++r)
        for (int i = 0; i < 2 * chunks; ++i)
          sums.push_back(loadVector(l_.o(), at(i) + r * l_.dv_pad) * factors[r]);
      /// Key j of the tile, whose probability for row r is at `p` + r * unroll.
      auto add = [&](Val j, Val p, const Vals &carried) {
        Vals v, next = carried;
        const Row row = this->row(Operand::V, first, j);
        for (int chunk = 0; chunk < chunks; ++chunk) {
          Vals some = loadAndAskAhead(row, v_stride_, at(2 * chunk),
                                      std::min(count - chunk * l_.chunk(), l_.chunk()));
          some.resize(2, ir_.constant(vector_, 0));
          v.insert(v.end(), some.begin(), some.end());
        }
        for (int r = 0; r < l_.tile_m; ++r) {
          Val factor = ir_.splat(ir_.load(ir_.f32(), scores(p + r * l_.unroll), 4), l_.lanes);
          for (int i = 0; i < 2 * chunks; ++i)
            next[r * 2 * chunks + i] = ir_.fma(factor, v[i], carried[r * 2 * chunks + i]);
        }
        return next;
      };
      Val whole = end - ((end - begin) & ir_.i64(l_.unroll - 1));
      sums = ir_.forLoop(begin, whole, ir_.i64(l_.unroll), sums, [&](Val j, const Vals &carried) {
        Vals next = carried;
        for (int u = 0; u < l_.unroll; ++u)
          next = add(j + u, j * l_.tile_m + u, next);
        return next;
      });
      sums = ir_.forLoop(whole, end, ir_.i64(1), sums, [&](Val j, const Vals &carried) {
        return add(j, whole * l_.tile_m + (j - whole), carried);
      });
      for (int r = 0; r < l_.tile_m; ++r)
        for (int i = 0; i < 2 * chunks; ++i)
          storeVector(l_.o(), at(i) + r * l_.dv_pad, sums[r * 2 * chunks + i]);
      return {};
    });
  }

  void store() {
    storeVector(l_.rowSum(), ir_.i64(0),
                cpu::segmentSum(ir_, loadVector(l_.rowSum(), ir_.i64(0)), l_.unroll));
    tile_.store([&](Val r) { return loadScalar(l_.rowMax(), r * l_.unroll); },
                [&](Val r) { return loadScalar(l_.rowSum(), r * l_.unroll); },
                [&](Val r, DType dtype, Val row, Val factor) {
                  forChunks(l_.dv, 1, {}, [&](Val column, int count, const Vals &) -> Vals {
                    Val at = r * l_.dv_pad + column;
                    Vals x{loadVector(l_.o(), at), loadVector(l_.o(), at + l_.lanes)};
                    if (c_.spec.dtype == DType::BF16)
                      x = cpu::orderPairs(ir_, x[0], x[1]);
                    for (int i = 0; i < 2 && i * l_.lanes < count; ++i)
                      cpu::storeRow(ir_, dtype, x[i] * factor,
                                    ir_.offset(row, (column + i * l_.lanes) * dtypeBytes(dtype)),
                                    std::min(l_.lanes, count - i * l_.lanes));
                    return {};
                  });
                });
  }

  EmitContext &c_;
  Ir &ir_;
  CpuStreamLayout l_;
  int bytes_;
  WorkItem item_;   // head and head_k are those at work
  Val first_head_;  // key head, i32
  Sequence seq_;
  CpuTile tile_;
  Mask mask_;
  Score score_;
  mlir::Type vector_;
  Val first_, last_;                         // query rows of the tile's ends, i32
  Val ahead_;                                // keys from the tile at work to the next, i64
  Val state_, k_, v_;                        // of the head at work: its scratch, rows of the sequence
  Val k_stride_, v_stride_;                  // bytes, i64
  Val rows_, next_rows_;                     // rowsOf() the tile at work and the next one
  Val query_, group_head_, numbers_, lo_, hi_; // of every lane, i32
  std::optional<CpuDropout> dropout_;          // of a spec with dropout
};

} // namespace

void emitCpuStream(EmitContext &context) { CpuStream(context).emit(); }

} // namespace flashplus
