// SPDX-License-Identifier: BSD-3-Clause
#include "templates/backward/cpu_backward/pack.h"
#include "templates/backward/rows/row_values.h"
#include "templates/common/cpu_dropout.h"
#include "templates/common/mask.h"
#include "templates/common/result_rows.h"
#include "templates/common/score_gradient.h"

#include <optional>

namespace flashplus {
namespace {

using cpu_backward::Scratch;

/// (key head, share of the keys, batch entry), the shares of a head side by side, then the entries: what runs
/// at the same time is as far apart in memory as can be (CpuBackward::rotated()).
WorkItem decode(EmitContext &c) {
  Val splits = c.params.get("num_splits"), heads = c.params.get("heads_k"), batch = c.params.get("batch");
  Val rest = c.work_item / splits;
  WorkItem item;
  item.split = c.work_item % splits;
  item.batch = rest % batch;
  item.head_k = rest / batch;
  item.group = c.params.get("heads_q") / heads;
  item.head = item.head_k * item.group;
  return item;
}

/// One call of the kernel. Row numbers and loop indices are i64, positions inside a sequence i32.
class CpuBackward {
public:
  CpuBackward(EmitContext &c, const WorkItem &item)
      : c_(c), ir_(c.ir), l_(CpuBackwardLayout::of(c.spec, c.schedule, c.target)), item_(item),
        seq_(ir_, c.params, item_.batch), mask_(ir_, c.params, c.spec, seq_),
        score_(ir_, c.params, *c.score, item_, seq_), m_(c, l_), pack_(c, l_, seq_, m_) {
    if (c.spec.dropout)
      dropout_.emplace(ir_, c.params);
  }

  void emit() {
    Val tiles = ir_.ceilDiv(seq_.k_len, l_.tile_n), splits = c_.params.get("num_splits");
    clearDQ();
    Val own = ir_.toI64((tiles - item_.split + splits - 1) / splits); // 0 where there are fewer tiles
    forRange(own, 1,
             [&](Val i) { visitKeys((item_.split + ir_.toI32(rotated(i, own)) * splits) * l_.tile_n); });
    if (!c_.spec.isPartial())
      forHeads([&](Val head) { storeDQ(head); });
  }

  /// Of cpu.backward_score: what every `step`-th tile of keys, from tile `first` on, gives to the gradients
  /// of the score's own inputs. Into the sums of share `share`.
  void addScoreTerms(Val share, Val first, Val step) {
    share_ = share;
    Val tile = ir_.i32(l_.tile_n), tiles = ir_.ceilDiv(seq_.k_len, l_.tile_n);
    ir_.forLoop(first, tiles, step, [&](Val t) {
      Val key = t * tile, keys = ir_.toI64(ir_.min(tile, seq_.k_len - key));
      pack_.keys(item_.head_k, key, keys);
      const Mask::Rows seen = mask_.queries(key, key + ir_.toI32(keys) - 1);
      forTiles(seen, key, keys, [&](const Tile &t) {
        pack_.queries(t.head, t.query, t.rows, scoreScale());
        if (dropout_)
          drawTile(t);
        forRange(ir_.ceilDiv(t.rows, l_.mr) * l_.mr, l_.mr, [&](Val r0) { weights(t, r0); });
      });
    });
  }

private:
  bool ofScore() const { return c_.spec.op == Operation::BackwardScore; }
  template <class Body> void forHeads(Body body) {
    ir_.forLoop(ir_.i32(0), item_.group, ir_.i32(1), [&](Val g) { body(item_.head + g); });
  }
  template <class Body> void forRange(Val begin, Val end, int step, Body body) {
    m_.forRange(begin, end, step, body);
  }
  template <class Body> void forRange(Val end, int step, Body body) {
    m_.forRange(ir_.i64(0), end, step, body);
  }

  Val scoreScale() {
    // With no score expression log2(e) rides on the scale; otherwise it is applied after the expression.
    Val scale = c_.params.get("softmax_scale");
    return score_.isIdentity() ? scale * softmax::kLog2E : scale;
  }

  /// `i` of [0, count) (i64), from another start in each head. In rows of tensors that have all heads side by
  /// side these share pages. New ones are mapped by who writes them first, and heads that come at the same
  /// time to the same page all take the time of that.
  Val rotated(Val i, Val count) {
    constexpr int kOne = 1 << 16, kGoldenSection = 40503; // in 1 / kOne: any run of heads is spread out
    Val at = i + count * (ir_.toI64(item_.head_k) * kGoldenSection % kOne) / kOne;
    return ir_.select(at < count, at, at - count);
  }

  // --- dQ in memory ----------------------------------------------------------------------------------------
  /// Columns in memory of a row of it: a part in the workspace has no room for whole vectors.
  int dqColumns() const { return c_.spec.isPartial() ? l_.dqk : l_.dqk_pad; }
  Val dqRow(Val head, Val row) {
    if (!c_.spec.isPartial()) {
      Val before = ir_.toI64(head - item_.head) * ir_.toI64(seq_.q_len);
      return m_.at(l_.elements(), (before + row) * l_.dqk_pad);
    }
    const RowValues values(ir_, c_.params, seq_, head);
    return ir_.offset(values.dqPart(ir_.toI64(item_.split), l_.dqk), row * (l_.dqk * 4));
  }
  void clearDQ() {
    forHeads([&](Val head) {
      forRange(ir_.toI64(seq_.q_len), 1, [&](Val row) {
        Val to = dqRow(head, row);
        m_.forColumns(dqColumns(), l_.lanes, [&](Val column, int count) {
          cpu::storeRow(ir_, DType::F32, m_.zero(), ir_.offset(to, column * 4), count);
        });
      });
    });
  }
  void storeDQ(Val head) {
    const int bytes = dtypeBytes(c_.spec.dtype);
    Val out = seq_.rows(Operand::DQ, head, bytes), stride = c_.params.get("dq_stride_s") * bytes;
    Val scale = c_.params.get("softmax_scale");
    Val rows = ir_.toI64(seq_.q_len);
    forRange(rows, 1, [&](Val i) {
      Val row = rotated(i, rows), from = dqRow(head, row), to = ir_.offset(out, row * stride);
      m_.forColumns(l_.dqk, l_.lanes, [&](Val column, int count) {
        Val x = cpu::loadRow(ir_, DType::F32, ir_.offset(from, column * 4), count) * scale;
        cpu::storeRow(ir_, c_.spec.dtype, x, ir_.offset(to, column * bytes), count);
      });
    });
  }

  // --- one tile of keys ------------------------------------------------------------------------------------
  void visitKeys(Val key) {
    Val keys = ir_.toI64(ir_.min(ir_.i32(l_.tile_n), seq_.k_len - key));
    pack_.keys(item_.head_k, key, keys);
    m_.clear(l_.dk(), l_.tile_n * l_.dqk_pad);
    m_.clear(l_.dvSum(), l_.tile_n * l_.dv_pad);
    const Mask::Rows seen = mask_.queries(key, key + ir_.toI32(keys) - 1);
    countTiles(ir_, c_.params, [&] {
      return ir_.max(ir_.i32(0), ir_.ceilDiv(seen.end - seen.begin, l_.tile_m)) * item_.group;
    });
    forTiles(seen, key, keys, [&](const Tile &t) { visitTile(t); });
    storeKeys(Operand::DK, l_.dk(), l_.dqk, l_.dqk_pad, key, keys, c_.params.get("softmax_scale"));
    storeKeys(Operand::DV, l_.dvSum(), l_.dv, l_.dv_pad, key, keys, dropout_ ? dropout_->scale() : Val{});
  }

  void storeKeys(Operand operand, int block, int dim, int pad, Val key, Val keys, Val scale) {
    const DType dtype = c_.spec.dtypeOf(operand);
    const int bytes = dtypeBytes(dtype);
    Val stride = c_.params.get(operandInfo(operand).stride_s) * bytes;
    Val out = ir_.offset(seq_.rows(operand, item_.head_k, bytes), ir_.toI64(key) * stride);
    forRange(keys, 1, [&](Val row) {
      m_.forColumns(dim, l_.lanes, [&](Val column, int count) {
        Val x = m_.loadVector(block, row * pad + column);
        cpu::storeRow(ir_, dtype, scale ? x * scale : x,
                      ir_.offset(ir_.offset(out, row * stride), column * bytes), count);
      });
    });
  }

  // --- a tile of keys and a tile of queries ----------------------------------------------------------------
  struct Tile {
    Val head;  ///< i32
    Val query; ///< First query row of the tile, i32.
    Val rows;  ///< Query rows in it, i64.
    Val key, keys;
    Val row(Val r) const { return query + query.ir->toI32(query.ir->min(r, rows - 1)); }
  };

  /// body(tile) for the queries in `seen` of all heads.
  template <class Body> void forTiles(const Mask::Rows &seen, Val key, Val keys, Body body) {
    forHeads([&](Val head) {
      ir_.forLoop(seen.begin, seen.end, ir_.i32(l_.tile_m), [&](Val query) {
        Val rows = ir_.toI64(ir_.min(ir_.i32(l_.tile_m), seen.end - query));
        body(Tile{head, query, rows, key, keys});
      });
    });
  }

  void visitTile(const Tile &t) {
    pack_.queries(t.head, t.query, t.rows, scoreScale());
    if (dropout_)
      drawTile(t);
    Val block_rows = ir_.ceilDiv(t.rows, l_.mr) * l_.mr;
    forRange(block_rows, l_.mr, [&](Val r0) {
      weights(t, r0);
      multiplyDQ(t, r0);
    });
    multiplyKeys(t, l_.p(), l_.doutPanels(), l_.dvSum(), l_.dv_pad);
    multiplyKeys(t, l_.ds(), l_.qPanels(), l_.dk(), l_.dqk_pad);
  }

  /// Keys of the tile, as columns, that rows r0 .. r0 + mr - 1 see some of.
  std::pair<Val, Val> columns(const Tile &t, Val r0) {
    Val begin = ir_.i64(0), end = t.keys;
    if (c_.spec.bounded_left)
      begin = ir_.toI64(ir_.max(ir_.i32(0), mask_.lo(t.row(r0)) - t.key)) / l_.panel() * l_.panel();
    if (c_.spec.bounded_right)
      end = ir_.max(begin, ir_.min(t.keys, ir_.toI64(mask_.hi(t.row(r0 + (l_.mr - 1))) - t.key)));
    return {ir_.min(begin, end), end};
  }

  /// P and dS of rows r0 .. r0 + mr - 1: 0 where a key is hidden.
  void weights(const Tile &t, Val r0) {
    auto [begin, end] = columns(t, r0);
    Val computed = ir_.ceilDiv(end, l_.panel()) * l_.panel();
    if ((c_.spec.bounded_left || c_.spec.bounded_right) && !ofScore())
      for (int r = 0; r < l_.mr; ++r)
        for (auto [from, to] : {std::pair{ir_.i64(0), begin}, {computed, ir_.i64(l_.tile_n)}})
          forRange(from, to, l_.panel(), [&](Val column) {
            for (int block : {l_.p(), l_.ds()})
              m_.clear(block, l_.panel(), (r0 + r) * l_.tile_n + column);
          });
    multiplyScores(l_.q(), l_.dqk_pad, l_.dqk, l_.kt(), r0, begin, computed, l_.p());
    multiplyScores(l_.dout(), l_.dv_pad, l_.dv, l_.vt(), r0, begin, computed, l_.ds());
    Val first = t.row(r0), last = t.row(r0 + (l_.mr - 1));
    Val hidden =
        (t.key + ir_.toI32(begin) < mask_.lo(last)) | (t.key + ir_.toI32(computed) > mask_.hi(first));
    auto rows = [&](bool masked) { // rows past the last one repeat it: no terms are theirs
      Val count = ofScore() ? ir_.min(ir_.i64(l_.mr), t.rows - r0) : ir_.i64(l_.mr);
      forRange(count, 1, [&](Val r) { rowWeights(t, r0 + r, begin, computed, masked); });
      return Vals();
    };
    ir_.ifElse(
        hidden, [&] { return rows(true); }, [&] { return rows(false); });
  }

  /// `out` [row][key] of the block's rows = left [row][i] right [i][key].
  void multiplyScores(int left, int left_pad, int depth, int right, Val r0, Val begin, Val end, int out) {
    const int right_pad = left_pad;
    forRange(begin, end, l_.panel(), [&](Val j0) {
      Vals acc = cpu::multiplyBlock(
          ir_, cpu::Packed::F32, l_.mr, l_.nr, ir_.i64(0), ir_.i64(depth), Vals(l_.mr * l_.nr, m_.zero()),
          [&](int r, Val i) { return m_.at(left, (r0 + r) * left_pad + i); },
          [&](Val i) { return m_.at(right, j0 * right_pad + i * l_.panel()); });
      for (int r = 0; r < l_.mr; ++r)
        for (int c = 0; c < l_.nr; ++c)
          m_.storeVector(out, (r0 + r) * l_.tile_n + j0 + c * l_.lanes, acc[r * l_.nr + c]);
    });
  }

  /// S and dP of one row -> P and dS.
  void rowWeights(const Tile &t, Val r, Val begin, Val end, bool masked) {
    Val row = t.row(r), at = r * l_.tile_n;
    const RowValues values(ir_, c_.params, seq_, t.head);
    Val offset = ir_.toI64(row) * 4;
    Val lse = ir_.load(ir_.f32(), ir_.offset(values.lse(), offset), 4);
    Val delta = ir_.load(ir_.f32(), ir_.offset(values.delta(), offset), 4);
    Val lo = mask_.lo(row) - t.key, hi = mask_.hi(row) - t.key;
    Val bits = dropout_ ? keptBits(ir_.min(r, t.rows - 1)) : Val{};
    forRange(begin, end, l_.lanes, [&](Val column) {
      Val s = m_.loadVector(l_.p(), at + column), dp = m_.loadVector(l_.ds(), at + column);
      const auto score = score_.evaluate(s, row, t.key + ir_.toI32(column), t.head);
      Val exponent = score_.isIdentity() ? score.value : score.value * softmax::kLog2E;
      Val p = ir_.exp2(exponent - lse), kept;
      if (dropout_) {
        kept = dropout_->kept(bits, column);
        dp = ir_.select(kept, dp * dropout_->scale(), m_.zero());
      }
      Val ds = p * (dp - delta);
      if (score.slope) // which may be anything where a score is -inf
        ds = ir_.select(p == m_.zero(), m_.zero(), ds * score.slope);
      if (ofScore()) {
        addTermsOf(score.derivatives, p, ds, masked ? visible(lo, hi, column) : Val{});
        return;
      }
      if (kept)
        p = ir_.select(kept, p, m_.zero()); // as dV's
      if (masked) {
        Val seen = visible(lo, hi, column);
        p = ir_.select(seen, p, m_.zero());
        ds = ir_.select(seen, ds, m_.zero());
      }
      m_.storeVector(l_.p(), at + column, p);
      m_.storeVector(l_.ds(), at + column, ds);
    });
  }

  /// Whether the lanes' keys from `column` on are in [lo, hi).
  Val visible(Val lo, Val hi, Val column) {
    Val key = m_.laneNumbers() + ir_.toI32(column);
    return (key >= lo) & (key < hi);
  }

  /// What a vector of scores with the probabilities p and g = p (dP - delta) gives to the gradients of the
  /// score's own inputs.
  void addTermsOf(const std::vector<ScoreDerivative> &derivatives, Val p, Val g, Val seen) {
    Val counts = p != m_.zero(); // a derivative may be anything where it is not so
    if (seen)
      counts = counts & seen;
    for (const ScoreDerivative &d : derivatives)
      addTerms(ir_, c_.params, d, ir_.select(counts, g * d.values.front(), m_.zero()), share_);
  }

  Val keptBits(Val r) { return ir_.offset(m_.at(l_.kept(), ir_.i64(0)), r * (l_.tile_n / 8)); }

  /// Which keys of the tile's rows are kept, as far as some row sees them.
  void drawTile(const Tile &t) {
    Val first = t.row(ir_.i64(0)), last = t.row(t.rows - 1), begin = ir_.i64(0), end = t.keys;
    if (c_.spec.bounded_left)
      begin = ir_.toI64(ir_.max(ir_.i32(0), mask_.lo(first) - t.key));
    if (c_.spec.bounded_right)
      end = ir_.min(t.keys, ir_.toI64(mask_.hi(last) - t.key));
    dropout_->drawTile(item_.batch, t.head, first, last + 1, t.key, begin, end, [&](Val row) {
      Val r = ir_.toI64(row - t.query);
      return keptBits(ir_.select((r >= ir_.i64(0)) & (r < t.rows), r, ir_.i64(l_.tile_m)));
    });
  }

  /// dQ += dS K of rows r0 .. r0 + mr - 1.
  void multiplyDQ(const Tile &t, Val r0) {
    auto [begin, end] = columns(t, r0);
    m_.forColumns(l_.dqk_pad, l_.panel(), [&](Val c0, int width) {
      const int nr = width / l_.lanes;
      Vals acc = cpu::multiplyBlock(
          ir_, cpu::Packed::F32, l_.mr, nr, begin, end, Vals(size_t(l_.mr * nr), m_.zero()),
          [&](int r, Val j) { return m_.at(l_.ds(), (r0 + r) * l_.tile_n + j); },
          [&](Val j) { return m_.at(l_.k(), c0 * l_.tile_n + j * width); });
      for (int r = 0; r < l_.mr; ++r)
        ir_.ifThen(r0 + r < t.rows, [&] {
          Val to = ir_.offset(dqRow(t.head, ir_.toI64(t.query) + r0 + r), c0 * 4);
          for (int c = 0; c < nr; ++c)
            addTo(ir_.offset(to, int64_t(c) * l_.lanes * 4), acc[r * nr + c], c0, c * l_.lanes);
        });
    });
  }

  /// Adds to a vector of a row of dQ, column c0 + c; the row's last one may be cut.
  void addTo(Val pointer, Val x, Val c0, int c) {
    auto add = [&](int count) {
      cpu::storeRow(ir_, DType::F32, cpu::loadRow(ir_, DType::F32, pointer, count) + x, pointer, count);
      return Vals();
    };
    const int rest = dqColumns() % l_.lanes;
    if (!rest)
      add(l_.lanes);
    else
      ir_.ifElse(
          c0 + c == l_.dqk - rest, [&] { return add(rest); }, [&] { return add(l_.lanes); });
  }

  /// `sum` [key][column] += weights^T right: dV += P^T dO, dK += dS^T Q.
  void multiplyKeys(const Tile &t, int weights, int right, int sum, int pad) {
    forRange(ir_.ceilDiv(t.keys, l_.mr) * l_.mr, l_.mr, [&](Val k0) {
      Val first = t.key + ir_.toI32(k0);
      const Mask::Rows seen = mask_.queries(first, first + (l_.mr - 1));
      Val begin = ir_.i64(0), end = t.rows;
      if (c_.spec.bounded_right)
        begin = ir_.max(begin, ir_.toI64(seen.begin - t.query));
      if (c_.spec.bounded_left)
        end = ir_.min(end, ir_.toI64(seen.end - t.query));
      m_.forColumns(pad, l_.panel(), [&](Val c0, int width) {
        const int nr = width / l_.lanes;
        auto at = [&](int r, int c) { return (k0 + r) * pad + c0 + c * l_.lanes; };
        Vals init;
        for (int r = 0; r < l_.mr; ++r)
          for (int c = 0; c < nr; ++c)
            init.push_back(m_.loadVector(sum, at(r, c)));
        Vals acc = cpu::multiplyBlock(
            ir_, cpu::Packed::F32, l_.mr, nr, begin, end, init,
            [&](int r, Val i) { return m_.at(weights, i * l_.tile_n + k0 + r); },
            [&](Val i) { return m_.at(right, c0 * l_.tile_m + i * width); });
        for (int r = 0; r < l_.mr; ++r)
          for (int c = 0; c < nr; ++c)
            m_.storeVector(sum, at(r, c), acc[r * nr + c]);
      });
    });
  }

  EmitContext &c_;
  Ir &ir_;
  const CpuBackwardLayout l_;
  const WorkItem item_;
  const Sequence seq_;
  const Mask mask_;
  const Score score_;
  Scratch m_;
  cpu_backward::Pack pack_;
  Val share_;                         // of cpu.backward_score
  std::optional<CpuDropout> dropout_; // of a spec with dropout
};

} // namespace

void emitCpuBackward(EmitContext &c) { CpuBackward(c, decode(c)).emit(); }

/// A work item is (batch entry, key head, share of the work). Sums are of one item alone: where two entries,
/// or two heads, may give to the same element, the items of the first one do all of them, and the others
/// nothing; shares have sums each of their own. Their tiles of keys are dealt out from another one in each
/// head, so that short sequences load them alike.
void emitCpuBackwardScore(EmitContext &c) {
  Ir &ir = c.ir;
  Val shares = c.params.get("score_shares"), heads = c.params.get("heads_k"), batches = c.params.get("batch");
  Val share = c.work_item % shares, rest = c.work_item / shares, zero = ir.i32(0), one = ir.i32(1);
  WorkItem item;
  item.head_k = rest % heads;
  item.batch = rest / heads;
  item.group = c.params.get("heads_q") / heads;
  item.split = share;
  const ApartBy apart = apartBy(*c.score);
  auto own = [&](Val number, Val all, bool is_apart) -> std::pair<Val, Val> {
    if (is_apart)
      return {number, number + 1};
    return {zero, ir.select(number == 0, all, zero)};
  };
  const auto [first_batch, end_batch] = own(item.batch, batches, apart.batch);
  const auto [first_head, end_head] = own(item.head_k, heads, apart.head_k);
  ir.forLoop(first_batch, end_batch, one, [&](Val batch) {
    ir.forLoop(first_head, end_head, one, [&](Val head_k) {
      WorkItem part = item;
      part.batch = batch;
      part.head_k = head_k;
      part.head = head_k * part.group;
      CpuBackward(c, part).addScoreTerms(share, (share + batch * heads + head_k) % shares, shares);
    });
  });
}

} // namespace flashplus
