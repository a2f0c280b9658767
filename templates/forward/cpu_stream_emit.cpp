// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/cpu_rows.h"
#include "templates/common/score.h"
#include "templates/forward/cpu_stream_layout.h"
#include "templates/forward/cpu_tile.h"

namespace flashplus {
namespace {

/// One call of the kernel. Row numbers and loop indices are i64, positions inside a sequence i32.
class CpuStream {
public:
  explicit CpuStream(EmitContext &c)
      : c_(c), ir_(c.ir), l_(CpuStreamLayout::of(c.spec, c.schedule, c.target)), bytes_(dtypeBytes(c.spec.dtype)),
        item_(decodeWorkItem(ir_, c.params, c.spec, c.work_item, /*packs_heads=*/true)),
        seq_(ir_, c.params, item_.batch), tile_(c, item_, seq_, l_.tile_m), mask_(ir_, c.params, c.spec, seq_),
        score_(ir_, c.params, *c.score, item_, seq_), vector_(ir_.vec(ir_.f32(), l_.lanes)) {}

  void emit() {
    ir_.ifThen(tile_.exists(), [&] {
      first_ = tile_.queryRow(ir_.i64(0));
      last_ = tile_.queryRow(ir_.i64(l_.tile_m - 1));
      k_ = seq_.rows("k", item_.head_k, bytes_);
      v_ = seq_.rows("v", item_.head_k, bytes_);
      k_stride_ = c_.params.get("k_stride_s") * double(bytes_);
      v_stride_ = c_.params.get("v_stride_s") * double(bytes_);
      describeLanes();
      loadQ();
      scaleO({});
      const Mask::Tiles tiles = mask_.tiles(first_, last_, l_.tile_n, item_.split,
                                            c_.spec.split ? c_.params.get("num_splits") : Val{});
      const Vals state =
          ir_.forLoop(tiles.begin, tiles.end, ir_.i32(1), {ir_.negativeInfinity(vector_), ir_.constant(vector_, 0)},
                      [&](Val tile, const Vals &carried) { return visitTile(tile * double(l_.tile_n), carried[0], carried[1]); });
      tile_.count(tiles);
      store(state[0], cpu::segmentSum(ir_, state[1], l_.unroll));
    });
  }

private:
  /// How many keys ahead of its use a row is asked for. One request a chunk: the machine has few places for outstanding ones,
  /// and a burst would wait for them.
  static constexpr int kAhead = 16;

  Val scratch(int block, Val index) { return ir_.offset(ir_.offset(c_.scratch, int64_t(block) * 4), index * 4.0); }
  Val loadScalar(int block, Val index) { return ir_.load(ir_.f32(), scratch(block, index), 4); }
  Val loadVector(int block, Val index) { return ir_.load(vector_, scratch(block, index), l_.lanes * 4); }
  void storeVector(int block, Val index, Val value) { ir_.store(value, scratch(block, index), l_.lanes * 4); }

  /// Calls body(first column (i64), columns in memory) for the chunks of a row: a loop over the whole ones, and the rest.
  Vals forChunks(int dim, const Vals &inits, llvm::function_ref<Vals(Val column, int count, const Vals &carried)> body) {
    const int whole = dim / l_.chunk() * l_.chunk();
    Vals carried = inits;
    if (whole)
      carried = ir_.forLoop(ir_.i64(0), ir_.i64(whole), ir_.i64(l_.chunk()), carried,
                            [&](Val column, const Vals &c) { return body(column, l_.chunk(), c); });
    return dim > whole ? body(ir_.i64(whole), dim - whole, carried) : carried;
  }

  Val perLane(llvm::function_ref<Val(int lane)> value) {
    Val result = ir_.splat(value(0), l_.lanes);
    for (int lane = 1; lane < l_.lanes; ++lane)
      result = ir_.wrap(mlir::vector::InsertOp::create(ir_.builder, ir_.loc, value(lane).value, result.value, int64_t(lane)));
    return result;
  }

  /// The row, its head and its visible keys, and the number of the key among `unroll`, of every lane.
  void describeLanes() {
    Vals rows, heads;
    for (int r = 0; r < l_.tile_m; ++r) {
      rows.push_back(tile_.queryRow(ir_.i64(r)));
      heads.push_back(item_.head + ir_.toI32(tile_.groupHead(ir_.i64(r))));
    }
    query_ = perLane([&](int lane) { return rows[lane / l_.unroll]; });
    head_ = perLane([&](int lane) { return heads[lane / l_.unroll]; });
    numbers_ = perLane([&](int lane) { return ir_.i32(lane % l_.unroll); });
    lo_ = mask_.lo(query_);
    hi_ = mask_.hi(query_);
  }

  void loadQ() {
    Val scale = c_.params.get("softmax_scale");
    if (score_.isIdentity()) // otherwise log2(e) is applied after the expression
      scale = scale * softmax::kLog2E;
    Val base = seq_.rows("q", item_.head, bytes_);
    Val stride = c_.params.get("q_stride_s") * double(bytes_), head_stride = c_.params.get("q_stride_h") * double(bytes_);
    ir_.forLoop(ir_.i64(0), ir_.i64(l_.tile_m), ir_.i64(1), [&](Val r) {
      Val row = ir_.offset(base, ir_.toI64(tile_.queryRow(r)) * stride + tile_.groupHead(r) * head_stride);
      forChunks(l_.dqk, {}, [&](Val column, int count, const Vals &) -> Vals {
        Vals x = cpu::loadChunk(ir_, c_.spec.dtype, ir_.offset(row, column * double(bytes_)), count);
        for (size_t i = 0; i < x.size(); ++i)
          storeVector(l_.q(), r * double(l_.depth_pad) + column + double(i * l_.lanes), x[i] * scale);
        return {};
      });
    });
  }

  /// O *= alpha, a factor per lane; without one O = 0.
  void scaleO(Val alpha) {
    for (int r = 0; r < l_.tile_m; ++r) {
      Val factor;
      if (alpha)
        factor = ir_.wrap(mlir::vector::ExtractOp::create(ir_.builder, ir_.loc, alpha.value, int64_t(r * l_.unroll)));
      ir_.forLoop(ir_.i64(0), ir_.i64(l_.dv_pad), ir_.i64(l_.lanes), [&](Val column) {
        Val at = column + double(r * l_.dv_pad);
        storeVector(l_.o(), at, alpha ? loadVector(l_.o(), at) * factor : ir_.constant(vector_, 0));
      });
    }
  }

  /// One tile of keys; returns the new state of the softmax: maxima, the same in all lanes of a row, and the lanes' sums.
  Vals visitTile(Val key, Val old_max, Val sum) {
    Val begin = ir_.i64(0), end = ir_.toI64(ir_.min(ir_.i32(l_.tile_n), seq_.k_len - key));
    if (c_.spec.bounded_left)
      begin = ir_.toI64(ir_.max(ir_.i32(0), mask_.lo(first_) - key)) / double(l_.unroll) * double(l_.unroll);
    if (c_.spec.bounded_right)
      end = ir_.min(end, ir_.toI64(mask_.hi(last_) - key));
    Val top = cpu::segmentMax(ir_, scores(key, begin, end), l_.unroll);
    Val new_max = ir_.fmax(old_max, top);
    Val base = softmax::reference(ir_, new_max);
    Val alpha = ir_.exp2(old_max - base);
    sum = ir_.forLoop(begin, end, ir_.i64(l_.unroll), {sum * alpha}, [&](Val j, const Vals &carried) -> Vals {
      Val at = j * double(l_.tile_m);
      Val p = ir_.exp2(loadVector(l_.s(), at) - base);
      storeVector(l_.s(), at, p);
      return {carried[0] + p};
    })[0];
    scaleO(alpha);
    addValues(key, begin, end);
    return {new_max, sum};
  }

  /// The scores of keys [begin, end) of the tile into scratch, -inf where a row does not see the key; returns the lanes' maxima.
  Val scores(Val key, Val begin, Val end) {
    Val key0 = ir_.toI64(key);
    return ir_.forLoop(begin, end, ir_.i64(l_.unroll), {ir_.negativeInfinity(vector_)}, [&](Val j, const Vals &top) -> Vals {
      Vals rows, later;
      for (int u = 0; u < l_.unroll; ++u) {
        Val row = key0 + ir_.min(j + double(u), end - 1.0); // keys past the last repeat it; the mask hides them
        rows.push_back(ir_.offset(k_, row * k_stride_));
        later.push_back(ir_.offset(k_, (key0 + j + double(u + kAhead)) * k_stride_));
      }
      Vals sums = forChunks(l_.dqk, Vals(l_.lanes, ir_.constant(vector_, 0)), [&](Val column, int count, const Vals &carried) {
        Vals acc = carried;
        std::vector<Vals> k;
        for (Val row : later)
          cpu::prefetch(ir_, ir_.offset(row, column * double(bytes_)));
        for (Val row : rows)
          k.push_back(cpu::loadChunk(ir_, c_.spec.dtype, ir_.offset(row, column * double(bytes_)), count));
        for (int r = 0; r < l_.tile_m; ++r)
          for (size_t i = 0; i < k[0].size(); ++i) {
            Val q = loadVector(l_.q(), column + double(r * l_.depth_pad + int(i) * l_.lanes));
            for (int u = 0; u < l_.unroll; ++u)
              acc[r * l_.unroll + u] = ir_.fma(q, k[u][i], acc[r * l_.unroll + u]);
          }
        return acc;
      });
      Val x = cpu::sumEach(ir_, sums);
      Val keys = numbers_ + (key + ir_.toI32(j));
      if (!score_.isIdentity())
        x = score_.apply(x, query_, keys, head_) * softmax::kLog2E;
      x = ir_.select((keys >= lo_) & (keys < hi_), x, ir_.negativeInfinity(vector_));
      storeVector(l_.s(), j * double(l_.tile_m), x);
      return {ir_.fmax(x, top[0])};
    })[0];
  }

  /// O += P V.
  void addValues(Val key, Val begin, Val end) {
    // So many keys at a time that their rows stay in the first-level cache from chunk to chunk: rows at a power-of-two stride
    // share few of its sets.
    constexpr int kKeys = 8;
    Val key0 = ir_.toI64(key);
    ir_.forLoop(begin, end, ir_.i64(kKeys), [&](Val j0) {
      Val stop = ir_.min(j0 + double(kKeys), end);
      forChunks(l_.dv, {}, [&](Val column, int count, const Vals &) -> Vals {
        const int vectors = c_.spec.dtype == DType::BF16 || count > l_.lanes ? 2 : 1;
        auto at = [&](int r, int i) { return column + double(r * l_.dv_pad + i * l_.lanes); };
        Vals init;
        for (int r = 0; r < l_.tile_m; ++r)
          for (int i = 0; i < vectors; ++i)
            init.push_back(loadVector(l_.o(), at(r, i)));
        Vals acc = ir_.forLoop(j0, stop, ir_.i64(1), init, [&](Val j, const Vals &carried) {
          Vals next;
          auto row = [&](Val key) { return ir_.offset(v_, key * v_stride_ + column * double(bytes_)); };
          cpu::prefetch(ir_, row(key0 + j + double(kAhead)));
          Vals v = cpu::loadChunk(ir_, c_.spec.dtype, row(key0 + j), count);
          Val inside = j & ir_.i64(l_.unroll - 1);
          Val p_at = (j - inside) * double(l_.tile_m) + inside;
          for (int r = 0; r < l_.tile_m; ++r) {
            Val p = ir_.splat(loadScalar(l_.s(), p_at + double(r * l_.unroll)), l_.lanes);
            for (int i = 0; i < vectors; ++i)
              next.push_back(ir_.fma(p, v[i], carried[r * vectors + i]));
          }
          return next;
        });
        for (int r = 0; r < l_.tile_m; ++r)
          for (int i = 0; i < vectors; ++i)
            storeVector(l_.o(), at(r, i), acc[r * vectors + i]);
        return {};
      });
    });
  }

  void store(Val maximum, Val sum) {
    storeVector(l_.rowMax(), ir_.i64(0), maximum);
    storeVector(l_.rowSum(), ir_.i64(0), sum);
    tile_.store([&](Val r) { return loadScalar(l_.rowMax(), r * double(l_.unroll)); },
                [&](Val r) { return loadScalar(l_.rowSum(), r * double(l_.unroll)); },
                [&](Val r, DType dtype, Val row, Val factor) {
                  forChunks(l_.dv, {}, [&](Val column, int count, const Vals &) -> Vals {
                    Val at = r * double(l_.dv_pad) + column;
                    Vals x{loadVector(l_.o(), at), loadVector(l_.o(), at + double(l_.lanes))};
                    if (c_.spec.dtype == DType::BF16)
                      x = cpu::orderPairs(ir_, x[0], x[1]);
                    for (int i = 0; i < 2 && i * l_.lanes < count; ++i)
                      cpu::storeRow(ir_, dtype, x[i] * factor,
                                    ir_.offset(row, (column + double(i * l_.lanes)) * double(dtypeBytes(dtype))),
                                    std::min(l_.lanes, count - i * l_.lanes));
                    return {};
                  });
                });
  }

  EmitContext &c_;
  Ir &ir_;
  CpuStreamLayout l_;
  int bytes_;
  WorkItem item_;
  Sequence seq_;
  CpuTile tile_;
  Mask mask_;
  Score score_;
  mlir::Type vector_;
  Val first_, last_;                         // query rows of the tile's ends, i32
  Val k_, v_, k_stride_, v_stride_;          // rows of the sequence; bytes, i64
  Val query_, head_, numbers_, lo_, hi_;     // of every lane, i32
};

} // namespace

void emitCpuStream(EmitContext &context) { CpuStream(context).emit(); }

} // namespace flashplus
