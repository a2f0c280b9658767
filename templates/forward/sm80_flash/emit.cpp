// SPDX-License-Identifier: BSD-3-Clause
#include "ir/async_copy.h"
#include "ir/carried.h"
#include "ir/mma.h"
#include "ir/warp.h"
#include "templates/common/mask.h"
#include "templates/common/result_rows.h"
#include "templates/common/score.h"
#include "templates/common/score_tile.h"
#include "templates/emit.h"
#include "templates/forward/sm80_flash/layout.h"

#include <numeric>

namespace flashplus {
namespace {

/// A tile on its way from global to shared memory: rows of `dim` elements, padded to `dim_pad` with zeros.
struct TileLoad {
  Val stride; ///< Elements between rows, i64.
  int dim, dim_pad, rows, pitch;
  bool zeros; ///< Rows past the last valid one are zeros, else they repeat it.
  // A whole tile in passes: the block covers `rows_a_pass` rows, neighbouring lanes `columns` chunks of 16 bytes of one.
  int columns, rows_a_pass;
  Val row, column; ///< Where the thread stands in a pass.
  Val from, to;    ///< Its chunk in row 0 of the sequence, and in the tile.
};

/// One thread's view. Fragment element e of a 16 x 8 accumulator lies at row lane / 4 + 8 (e / 2) and column
/// 2 (lane % 4) + e % 2 (PTX ISA, mma.m16n8k16).
class Sm80Flash {
public:
  explicit Sm80Flash(EmitContext &c)
      : c_(c), ir_(c.ir), l_(Sm80FlashLayout::of(c.spec, c.schedule)), dtype_(c.spec.dtype),
        bytes_(dtypeBytes(dtype_)),
        item_(decodeWorkItem(ir_, c.params, c.spec, c.work_item)), seq_(ir_, c.params, item_.batch),
        mask_(ir_, c.params, c.spec, seq_),
        m_blocks_(l_.m_frags), s_blocks_(l_.tile_n / 8), o_blocks_(l_.dv_pad / 8) {}

  void emit() {
    first_ = item_.m * l_.tile_m;
    ir_.ifThen(first_ < seq_.q_len, [&] {
      last_ = ir_.min(first_ + l_.tile_m, seq_.q_len) - 1;
      thread_ = gpu::threadId(ir_);
      lane_ = thread_ % 32;
      warp_row_ = (thread_ / 32) * (16 * l_.m_frags);
      prepareAddresses();

      const Mask::Tiles tiles = mask_.tiles(first_, last_, l_.tile_n, item_.split,
                                            c_.spec.sharesKeys() ? c_.params.get("num_splits") : Val{});
      countTiles(ir_, c_.params, [&] { return tiles.count(); }, [&](Val counting) { return counting & (thread_ == 0); });
      const State state = carry::ifElse(
          ir_, tiles.begin < tiles.end, [&] { return loop(tiles); }, [&] { return initialState(); });
      store(state);
    });
  }

private:
  /// What the loop over keys carries. Rows of a thread are numbered 2 * fragment + half.
  struct State {
    Vals o;
    Vals max, sum; ///< One a row.
    Val odd;       ///< Of two stages, the one that is computed on; i32.
    void fields(auto &&each) { each(o, max, sum, odd); }
  };
  int oIndex(int mf, int block, int e) const { return (mf * o_blocks_ + block) * 4 + e; }

  State initialState() {
    const size_t rows = size_t(2 * m_blocks_);
    return {Vals(rows * size_t(o_blocks_) * 2, ir_.f32(0)), Vals(rows, ir_.negativeInfinity(ir_.f32())), Vals(rows, ir_.f32(0)), {}};
  }

  // --- addresses -----------------------------------------------------------------------------------------------
  void prepareAddresses() {
    auto tile = [&](Operand operand, Val head, int dim, int dim_pad, int rows, int pitch, int shared, bool zeros) {
      TileLoad t{c_.params.get(operandInfo(operand).stride_s), dim, dim_pad, rows, pitch, zeros};
      t.columns = std::gcd(dim_pad / 8, 32);
      t.rows_a_pass = l_.threads() / t.columns;
      t.row = thread_ / t.columns;
      t.column = thread_ % t.columns;
      t.from = ir_.offset(ir_.offset(seq_.rows(operand, head, bytes_), ir_.toI64(t.row) * (t.stride * bytes_)),
                          ir_.toI64(t.column) * 16);
      t.to = this->shared(shared, t.row * pitch + t.column * 16);
      return t;
    };
    q_ = tile(Operand::Q, item_.head, l_.dqk, l_.dqk_pad, l_.tile_m, l_.qPitch(), l_.q(), false);
    k_ = tile(Operand::K, item_.head_k, l_.dqk, l_.dqk_pad, l_.tile_n, l_.kPitch(), l_.k(), false);
    v_ = tile(Operand::V, item_.head_k, l_.dv, l_.dv_pad, l_.tile_n, l_.vPitch(), l_.v(), true);
    // ldmatrix addresses. Q and V: lane -> row lane % 16, columns 8 (lane / 16). K is read as the column operand: matrices 0
    // and 1 are the two column halves of keys 0-7, 2 and 3 those of keys 8-15. (In Q's order one address would serve both,
    // but an operand's two registers must be neighbours, and each would have to be moved.)
    Val row16 = lane_ % 16, half16 = lane_ / 16;
    q_address_ = shared(l_.q(), (warp_row_ + row16) * l_.qPitch() + half16 * 16);
    v_address_ = shared(l_.v(), row16 * l_.vPitch() + half16 * 16);
    Val key = lane_ % 8 + half16 * 8, half8 = (lane_ / 8) % 2;
    k_address_ = shared(l_.k(), key * l_.kPitch() + half8 * 16);
  }

  Val shared(int64_t base, Val bytes) { return ir_.offset(ir_.offset(c_.scratch, bytes), base); }

  // --- global -> shared ----------------------------------------------------------------------------------------
  /// Starts loading rows [row, row + rows) into the buffer `stage` bytes (none: 0) after the first. Nothing past `last` is
  /// read. Keys past it may be anything finite, since the mask hides their scores; values must be zeros, since their
  /// probabilities of 0 do not hide an infinity.
  void load(const TileLoad &t, Val row, Val last, Val stage = {}) {
    Val to = stage ? ir_.offset(t.to, stage) : t.to;
    if (c_.spec.alignment != 16)
      return loadElements(t, row, last, to);
    ir_.ifElse(
        row + (t.rows - 1) <= last, [&] { return loadWhole(t, row, to), Vals(); },
        [&] { return loadEdge(t, row, last, to), Vals(); });
  }

  /// A tile that ends inside the sequence: no limits, and an addition a pass.
  void loadWhole(const TileLoad &t, Val row, Val to) {
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
  Val placeAnew(TileLoad &t) {
    Val thread = gpu::again(ir_, thread_);
    t.row = thread / t.columns;
    t.column = thread % t.columns;
    return gpu::again(ir_, t.stride) * bytes_;
  }

  /// The sequence's last tile: a loop, since few tiles come here.
  void loadEdge(TileLoad t, Val row, Val last, Val to) {
    Val stride = placeAnew(t);
    ir_.rareLoop(t.row, ir_.i32(t.rows), ir_.i32(t.rows_a_pass), [&](Val r) {
      Val from = ir_.offset(t.from, ir_.toI64(ir_.min(row + r, last) - t.row) * stride);
      loadRow(t, from, ir_.offset(to, (r - t.row) * t.pitch), t.zeros ? row + r <= last : Val{});
    });
  }

  /// This thread's chunks of one row; zeros where `valid` (none: everywhere) is false, and in the padding.
  void loadRow(const TileLoad &t, Val from, Val to, Val valid) {
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
  void loadElements(TileLoad t, Val row, Val last, Val to) {
    Val stride = placeAnew(t);
    ir_.forLoop(t.row, ir_.i32(t.rows), ir_.i32(t.rows_a_pass), [&](Val r) {
      Val from = ir_.offset(t.from, ir_.toI64(ir_.min(row + r, last) - t.row) * stride);
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

  // --- the loop over key tiles -----------------------------------------------------------------------------------
  Val keyOf(Val tile) { return tile * l_.tile_n; }
  Val lastKey() { return seq_.k_len - 1; }
  void loadKeys(Val tile, Val stage) { load(k_, keyOf(tile), lastKey(), stage); }
  void loadValues(Val tile, Val stage) { load(v_, keyOf(tile), lastKey(), stage); }

  /// Ends a group of asynchronous copies; rows that are aligned to an element only are copied at once.
  void commit() {
    if (c_.spec.alignment == 16)
      gpu::commitGroup(ir_);
  }

  /// All copies of this thread so far are done; then those of the block, and every warp is done with what it read.
  void arrive() {
    if (c_.spec.alignment == 16)
      gpu::waitGroup(ir_, 0);
    gpu::barrier(ir_);
  }

  /// One tile after the other. At least one tile.
  State loop(const Mask::Tiles &tiles) {
    const bool twice = l_.stages == 2;
    load(q_, first_, last_);
    loadKeys(tiles.begin, {});
    if (twice)
      loadValues(tiles.begin, {});
    commit();
    State start = initialState();
    if (twice)
      start.odd = ir_.i32(0);
    State end = carry::forLoop(ir_, tiles.begin, tiles.end, ir_.i32(1), start, [&](Val tile, const State &now) {
      Val k_stage, v_stage, other;
      if (twice) {
        k_stage = now.odd * l_.kStage();
        v_stage = now.odd * l_.vStage();
        other = now.odd ^ 1;
      }
      arrive();
      if (twice) {
        ir_.ifThen(tile + 1 < tiles.end, [&] {
          loadKeys(tile + 1, other * l_.kStage());
          loadValues(tile + 1, other * l_.vStage());
        });
        commit();
      } else {
        loadValues(tile, {});
        commit();
      }
      Vals s = multiplyQK(k_stage);
      if (!twice) {
        arrive();
        ir_.ifThen(tile + 1 < tiles.end, [&] { loadKeys(tile + 1, {}); });
        commit();
      }
      const TileScores scored = scores(std::move(s), keyOf(tile));
      const TileExponents exponents(ir_, scored);
      State next = softmaxPV(masked(scored.values, keyOf(tile), exponents), exponents, now, v_stage);
      next.odd = other;
      return next;
    });
    end.odd = {};
    return end;
  }

  int sIndex(int mf, int block, int e) const { return (mf * s_blocks_ + block) * 4 + e; }

  Vals multiplyQK(Val stage) {
    Val keys = stage ? ir_.offset(k_address_, stage) : k_address_;
    Vals s(m_blocks_ * s_blocks_ * 4, ir_.f32(0));
    for (int step = 0; step < l_.dqk_pad / 16; ++step) {
      std::vector<Vals> a;
      for (int mf = 0; mf < m_blocks_; ++mf)
        a.push_back(gpu::loadMatrix4(ir_, ir_.offset(q_address_, mf * 16 * l_.qPitch() + step * 32), false));
      for (int pair = 0; pair < s_blocks_ / 2; ++pair) {
        Vals b = gpu::loadMatrix4(ir_, ir_.offset(keys, pair * 16 * l_.kPitch() + step * 32), false);
        for (int mf = 0; mf < m_blocks_; ++mf)
          for (int n = 0; n < 2; ++n)
            accumulate(s, sIndex(mf, 2 * pair + n, 0), a[mf], {b[2 * n], b[2 * n + 1]});
      }
    }
    return s;
  }

  void accumulate(Vals &acc, int at, const Vals &a, const Vals &b) {
    Vals d = gpu::mma16816(ir_, dtype_, a, b, {acc[at], acc[at + 1], acc[at + 2], acc[at + 3]});
    std::copy(d.begin(), d.end(), acc.begin() + at);
  }

  /// Row 0 of this thread's, worked out anew: as registers through the loop the rows would make others spill.
  Val firstRowAnew(Val thread) { return first_ + (thread / 32) * (16 * m_blocks_) + thread % 32 / 4; }
  /// From it to row `row` (2 * fragment + half).
  static int toRow(int row) { return row / 2 * 16 + row % 2 * 8; }

  TileScores scores(Vals products, Val key) {
    // Without a score nobody asks for rows.
    const bool anew = !isPlainScore(*c_.score) && !l_.hasRoomForShortCuts();
    Val thread = anew ? gpu::again(ir_, thread_) : thread_;
    Val from = anew ? firstRowAnew(thread) : first_ + warp_row_ + lane_ / 4;
    ScoreTile tile;
    for (int row = 0; row < 2 * m_blocks_; ++row)
      tile.rows.push_back(ir_.min(from + toRow(row), last_));
    tile.key = key + (anew ? thread % 32 : lane_) % 4 * 2;
    for (int mf = 0; mf < m_blocks_; ++mf)
      for (int block = 0; block < s_blocks_; ++block)
        for (int e = 0; e < 4; ++e)
          tile.elements.push_back({2 * mf + e / 2, block * 8 + e % 2});
    tile.short_cuts = l_.hasRoomForShortCuts();
    return tileScores(ir_, c_.params, *c_.score, item_, seq_, tile, std::move(products), c_.params.get("softmax_scale"));
  }

  /// -inf where the mask hides a key; negated where that gives the order of the scores.
  Vals masked(const Vals &s, Val key, const TileExponents &exponents) {
    return ir_.ifElse(
        mask_.needsMask(first_, last_, key, l_.tile_n) | exponents.negative,
        [&] {
          Vals masked = s;
          // Rows past the last one see what they like.
          Val thread = gpu::again(ir_, thread_);
          Val column = key + thread % 4 * 2, from = firstRowAnew(thread);
          for (int row = 0; row < 2 * m_blocks_; ++row) {
            Val query = from + toRow(row);
            Val lo = c_.spec.bounded_left ? mask_.lo(query) - column : Val{}, hi = mask_.hi(query) - column;
            for (int block = 0; block < s_blocks_; ++block)
              for (int e = 0; e < 2; ++e) {
                Val at = ir_.i32(block * 8 + e);
                Val &x = masked[sIndex(row / 2, block, row % 2 * 2 + e)];
                Val seen = lo ? (at >= lo) & (at < hi) : at < hi;
                x = ir_.select(seen, x * exponents.sign, ir_.negativeInfinity(ir_.f32()));
              }
          }
          return masked;
        },
        [&] { return s; });
  }

  /// Over the four threads that share a row.
  Val reduceRow(Val x, llvm::function_ref<Val(Val, Val)> combine) {
    x = combine(x, gpu::shuffleXor(ir_, x, 1));
    return combine(x, gpu::shuffleXor(ir_, x, 2));
  }

  /// What makes a row's values probabilities, 2^(value * scale + minus), and their sum.
  struct Row {
    Val minus;
    Val sum;
  };

  /// Takes the maxima of a tile, as base-2 scores, into the state, and scales what is summed in it so far where one moved. That
  /// is in its own branch, so that no factor is kept until the products with V.
  std::vector<Row> raiseMaxima(const Vals &s, const TileExponents &exponents, State &state) {
    std::vector<Row> rows;
    Vals alpha;
    auto fmax = [&](Val a, Val b) { return ir_.fmax(a, b); };
    Val moved, one = ir_.f32(1);
    for (int row = 0; row < 2 * m_blocks_; ++row) {
      const int mf = row / 2, half = row % 2 * 2;
      Val top[2]; // two chains: one would be bound by latency
      for (int block = 0; block < s_blocks_; ++block)
        for (int e = 0; e < 2; ++e) {
          Val x = s[sIndex(mf, block, half + e)];
          top[e] = top[e] ? fmax(top[e], x) : x;
        }
      Val &max = state.max[row];
      // A shift is this thread's own: it has the key of the thread's first element in it.
      Val highest = fmax(top[0], top[1]);
      highest = exponents.shifted() ? reduceRow(exponents.score(highest, row), fmax)
                                    : exponents.score(reduceRow(highest, fmax), row);
      Val new_max = fmax(max, highest);
      Val reference = softmax::reference(ir_, new_max);
      alpha.push_back(ir_.exp2(max - reference)); // exactly 1 for a maximum that has not moved
      Val differs = alpha[row] != one;
      moved = moved ? moved | differs : differs;
      rows.push_back({exponents.minus(reference, row), {}});
      max = new_max;
    }
    state = carry::ifElse(
        ir_, gpu::anyLane(ir_, moved),
        [&] {
          State scaled = state;
          for (int row = 0; row < 2 * m_blocks_; ++row) {
            scaled.sum[row] = scaled.sum[row] * alpha[row];
            for (int block = 0; block < o_blocks_; ++block)
              for (int e = 0; e < 2; ++e) {
                Val &o = scaled.o[oIndex(row / 2, block, row % 2 * 2 + e)];
                o = o * alpha[row];
              }
          }
          return scaled;
        },
        [&] { return state; });
    return rows;
  }

  /// Probabilities of 16 keys, packed as one A operand: two neighbouring accumulator blocks of S.
  Vals probabilities(const Vals &s, Val scale, std::vector<Row> &rows, int mf, int step) {
    Vals a;
    for (int block = 2 * step; block < 2 * step + 2; ++block)
      for (int half = 0; half < 2; ++half) {
        Row &row = rows[2 * mf + half];
        Val p[2];
        for (int e = 0; e < 2; ++e)
          p[e] = ir_.exp2(ir_.fma(s[sIndex(mf, block, 2 * half + e)], scale, row.minus));
        Val both = p[0] + p[1];
        row.sum = row.sum ? row.sum + both : both;
        a.push_back(gpu::pack(ir_, dtype_, p[0], p[1]));
      }
    return a;
  }

  /// Values -> O and the sums, which stay per thread until the end.
  State softmaxPV(const Vals &s, const TileExponents &exponents, State state, Val stage) {
    Val values = stage ? ir_.offset(v_address_, stage) : v_address_;
    std::vector<Row> rows = raiseMaxima(s, exponents, state);
    for (int step = 0; step < l_.tile_n / 16; ++step) {
      std::vector<Vals> a;
      for (int mf = 0; mf < m_blocks_; ++mf)
        a.push_back(probabilities(s, exponents.scale, rows, mf, step));
      for (int pair = 0; pair < o_blocks_ / 2; ++pair) {
        Vals b = gpu::loadMatrix4(ir_, ir_.offset(values, step * 16 * l_.vPitch() + pair * 32), true);
        for (int mf = 0; mf < m_blocks_; ++mf)
          for (int n = 0; n < 2; ++n)
            accumulate(state.o, oIndex(mf, 2 * pair + n, 0), a[mf], {b[2 * n], b[2 * n + 1]});
      }
    }
    for (int row = 0; row < 2 * m_blocks_; ++row)
      state.sum[row] = state.sum[row] + rows[row].sum;
    return state;
  }

  // --- results -----------------------------------------------------------------------------------------------
  void store(const State &state) {
    // Where the results go is worked out anew, so that no register holds it through the loop.
    thread_ = gpu::again(ir_, gpu::threadId(ir_));
    lane_ = thread_ % 32;
    warp_row_ = (thread_ / 32) * (16 * l_.m_frags);
    item_ = decodeWorkItem(ir_, c_.params, c_.spec, gpu::again(ir_, c_.work_item));
    first_ = item_.m * l_.tile_m;
    const Sequence sequence(ir_, c_.params, item_.batch, false);
    const ResultRows results(ir_, c_.params, c_.spec, sequence, item_);
    Val empty = results.lseEmpty();
    Vals out = state.o;
    std::vector<softmax::Finish> rows;
    for (int row = 0; row < 2 * m_blocks_; ++row) {
      Val sum = reduceRow(state.sum[row], [](Val a, Val b) { return a + b; });
      rows.push_back(softmax::finish(ir_, state.max[row], sum, empty));
      for (int block = 0; block < o_blocks_; ++block)
        for (int e = 0; e < 2; ++e) {
          Val &x = out[oIndex(row / 2, block, row % 2 * 2 + e)];
          x = x * rows[row].factor;
        }
    }
    storeLse(results, rows);
    if (c_.spec.isPartial())
      storePartial(results, out);
    else
      storeOutput(results, out);
  }

  Val threadRow(int row) { return first_ + warp_row_ + lane_ / 4 + (row / 2 * 16 + row % 2 * 8); }

  void storeLse(const ResultRows &results, const std::vector<softmax::Finish> &rows) {
    Val wanted = lane_ % 4 == 0, base = results.lse();
    wanted = results.storesLse(wanted);
    for (int row = 0; row < 2 * m_blocks_; ++row) {
      Val r = threadRow(row);
      ir_.ifThen(wanted & (r <= last_), [&] { ir_.store(rows[row].lse, ir_.offset(base, ir_.toI64(r) * 4), 4); });
    }
  }

  /// From registers.
  void storePartial(const ResultRows &results, const Vals &out) {
    Val base = results.values(), stride = results.rowStride();
    for (int row = 0; row < 2 * m_blocks_; ++row) {
      Val r = threadRow(row);
      ir_.ifThen(r <= last_, [&] {
        Val to = ir_.offset(base, ir_.toI64(r) * stride);
        for (int block = 0; block < o_blocks_; ++block)
          for (int e = 0; e < 2; ++e) {
            Val column = (lane_ % 4) * 2 + (block * 8 + e);
            auto body = [&] {
              ir_.store(out[oIndex(row / 2, block, row % 2 * 2 + e)], ir_.offset(to, ir_.toI64(column) * 4), 4);
            };
            if (block * 8 + 8 <= l_.dv)
              body();
            else
              ir_.ifThen(column < l_.dv, body);
          }
      });
    }
  }

  /// Through the warp's own rows of Q's memory, so that global stores are whole chunks.
  void storeOutput(const ResultRows &results, const Vals &out) {
    if (l_.stages == 2)
      gpu::warpSync(ir_); // the warp's last reads of Q are done; with one stage a barrier came after them
    Val to = shared(l_.q(), (warp_row_ + lane_ / 4) * l_.qPitch() + (lane_ % 4) * 4);
    for (int row = 0; row < 2 * m_blocks_; ++row)
      for (int block = 0; block < o_blocks_; ++block) {
        auto at = [&](int e) { return out[oIndex(row / 2, block, row % 2 * 2 + e)]; };
        ir_.store(gpu::pack(ir_, dtype_, at(0), at(1)),
                  ir_.offset(to, (row / 2 * 16 + row % 2 * 8) * l_.qPitch() + block * 16), 4);
      }
    gpu::warpSync(ir_);
    Val base = results.values(), stride = results.rowStride();
    const int chunks = (l_.dv + 7) / 8, total = 16 * m_blocks_ * chunks;
    for (int i = 0; i * 32 < total; ++i) {
      Val index = lane_ + i * 32;
      Val r = warp_row_ + index / chunks, column = index % chunks;
      Val row = first_ + r;
      Val wanted = row <= last_;
      if ((i + 1) * 32 > total)
        wanted = wanted & (index < total);
      ir_.ifThen(wanted, [&] {
        Val from = shared(l_.q(), r * l_.qPitch() + column * 16);
        Val dest = ir_.offset(ir_.offset(base, ir_.toI64(row) * stride), ir_.toI64(column) * 16);
        if (c_.spec.alignment == 16) {
          ir_.store(ir_.load(ir_.vec(ir_.i32(), 4), from, 16), dest, 16);
          return;
        }
        for (int e = 0; e < 8; ++e) {
          auto body = [&] { ir_.store(ir_.load(ir_.i16(), ir_.offset(from, bytes_ * e), bytes_), ir_.offset(dest, bytes_ * e), bytes_); };
          if (l_.dv % 8 == 0)
            body();
          else
            ir_.ifThen(column * 8 + e < l_.dv, body);
        }
      });
    }
  }

  EmitContext &c_;
  Ir &ir_;
  Sm80FlashLayout l_;
  DType dtype_;
  int bytes_; ///< Of an element.
  WorkItem item_;
  Sequence seq_;
  Mask mask_;
  const int m_blocks_, s_blocks_, o_blocks_;
  Val first_, last_, thread_, lane_, warp_row_;
  TileLoad q_, k_, v_;
  Val q_address_, k_address_, v_address_;
};

} // namespace

void emitSm80Flash(EmitContext &context) { Sm80Flash(context).emit(); }

} // namespace flashplus
