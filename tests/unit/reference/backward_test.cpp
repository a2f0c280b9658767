// SPDX-License-Identifier: BSD-3-Clause
// The backward reference: against central differences of the forward's, and against the definition written in
// the plainest way, which also can be made wrong in the ways that kernels are.
#include "reference/compare.h"
#include "reference/compare_backward.h"
#include "reference/numeric.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>

using namespace flashplus;
using namespace flashplus::reference;

namespace {

/// A mistake in plain(): of backward.md's list, those that a host can make.
enum class Bug {
  None,
  NoDelta,
  DeltaOfNextRow,
  DeltaUndropped, ///< Of o without dropout.
  PlusDlse,
  ScaleTwiceInDq,
  NoScaleInDk,
  GroupMissesHead,
  WrongKeyHead, ///< h % heads_k instead of h / group.
  MaskTransposed,
  MaskOfNextHead,
  NoDropoutScaleInDs,
  NoDropoutScaleInDv,
  DerivativeOfScore, ///< Softcap's derivative with s / cap instead of the tanh.
  NoDerivative,
  SlopeSign,
  LastKeyMissing,
  CausalTopLeft,
  WindowInclusive,
  EmptyRowsLeak,
  Log2eMissing,
  SumsIn16Bits,
};

struct Case {
  Problem p;
  std::vector<float> data[4]; ///< q, k, v, dout, as fp32 that the dtype holds.
  std::vector<uint16_t> stored[4];
  std::vector<double> dlse;
  std::vector<float> slopes;
  std::vector<std::vector<float>> aux;
  std::vector<int32_t> cu_q, cu_k, used_q, used_k;
  bool with_dlse = false;
  unsigned seed = 5;
  double softmax_width = 1; ///< Of the values of q.

  explicit Case(DType dtype = DType::F32) {
    p.dtype = dtype;
    p.batch = 2;
    p.seqlen_q = 6;
    p.seqlen_k = 13;
    p.heads_q = 4;
    p.heads_k = 2;
    p.head_dim_qk = 5;
    p.head_dim_v = 3;
    p.softmax_scale = 0.4f;
    p.lse_empty = std::numeric_limits<float>::infinity();
  }
  Case(const Case &) = delete;

  std::vector<float> random(int64_t n, unsigned salt) const {
    std::mt19937 engine(seed * 100 + salt);
    std::normal_distribution<float> normal;
    std::vector<float> v(static_cast<size_t>(n));
    for (float &x : v)
      x = normal(engine);
    return v;
  }
  void ragged(std::vector<int32_t> q, std::vector<int32_t> k) {
    cu_q = std::move(q);
    cu_k = std::move(k);
    p.cu_seqlens_q = cu_q.data();
    p.cu_seqlens_k = cu_k.data();
    p.batch = int64_t(cu_q.size()) - 1;
    p.total_q = cu_q.back();
    p.total_k = cu_k.back();
  }
  void used(std::vector<int32_t> q, std::vector<int32_t> k) {
    used_q = std::move(q);
    used_k = std::move(k);
    p.seqused_q = used_q.data();
    p.seqused_k = used_k.data();
  }
  void alibi() {
    slopes = {0.5f, 0.25f, 0.125f, 0.75f};
    slopes.resize(size_t(p.heads_q), 0.375f);
    p.alibi_slopes = slopes.data();
  }
  void score(const char *text, std::vector<float> scalars, std::vector<std::vector<int64_t>> shapes = {}) {
    p.score = *ScoreExpr::parse(text);
    p.scalars = std::move(scalars);
    REQUIRE(p.scalars.size() == p.score.scalars.size());
    REQUIRE(shapes.size() == p.score.tensors.size());
    for (const auto &shape : shapes) {
      AuxTensor t;
      int64_t n = 1;
      for (size_t d = shape.size(); d-- > 0;) {
        t.shape[d] = shape[d];
        t.strides[d] = n;
        n *= shape[d];
      }
      aux.push_back(random(n, 50 + unsigned(aux.size())));
      t.data = aux.back().data();
      p.tensors.push_back(t);
    }
  }

  /// Makes the tensors; call it after the sizes are set.
  BackwardProblem problem() {
    const int64_t heads[4] = {p.heads_q, p.heads_k, p.heads_k, p.heads_q};
    const int64_t dims[4] = {p.head_dim_qk, p.head_dim_qk, p.head_dim_v, p.head_dim_v};
    const int64_t rows[4] = {p.rowsQ(), p.rowsK(), p.rowsK(), p.rowsQ()};
    const int64_t lengths[4] = {p.seqlen_q, p.seqlen_k, p.seqlen_k, p.seqlen_q};
    const void *pointers[4];
    Strides strides[4];
    for (int t = 0; t < 4; ++t) {
      if (data[t].empty()) {
        data[t] = random(rows[t] * heads[t] * dims[t], unsigned(t));
        for (float &x : data[t])
          x = roundToStorage(p.dtype, t == 0 ? float(softmax_width) * x : x);
      }
      stored[t].resize(data[t].size());
      for (size_t i = 0; i < data[t].size() && p.dtype != DType::F32; ++i)
        storeElement(stored[t].data(), p.dtype, int64_t(i), data[t][i]);
      pointers[t] = p.dtype == DType::F32 ? static_cast<const void *>(data[t].data()) : stored[t].data();
      strides[t] = {lengths[t] * heads[t] * dims[t], heads[t] * dims[t], dims[t]};
    }
    p.q = pointers[0];
    p.k = pointers[1];
    p.v = pointers[2];
    p.q_strides = strides[0];
    p.k_strides = strides[1];
    p.v_strides = strides[2];
    BackwardProblem b;
    b.forward = p;
    b.dout = pointers[3];
    b.dout_strides = strides[3];
    if (with_dlse) {
      for (float x : random(rows[0] * heads[0], 9))
        dlse.push_back(double(x));
      b.dlse = dlse.data();
    }
    return b;
  }

  /// sum dO o + sum dlse lse of the forward reference.
  double loss(const BackwardProblem &b) const {
    const Output out = attentionFp64(b.forward, 1);
    double sum = 0;
    for (size_t i = 0; i < out.o.size(); ++i)
      if (out.valid[i / size_t(p.head_dim_v * p.heads_q)])
        sum += out.o[i] * double(data[3][i]);
    for (size_t i = 0; i < out.lse.size() && b.dlse; ++i)
      if (out.valid[i / size_t(p.heads_q)] && std::isfinite(out.lse[i]))
        sum += out.lse[i] * b.dlse[i];
    return sum;
  }

  /// Every gradient of the reference against central differences of `loss`.
  void checkDifferences() {
    BackwardProblem b = problem();
    const BackwardOutput out = backwardFp64(b, 3);
    auto check = [&](const char *what, float *values, size_t n, const std::vector<double> &gradient,
                     BackwardProblem &problem_of) {
      REQUIRE(gradient.size() == n);
      for (size_t i = 0; i < n; ++i) {
        const float kept = values[i];
        auto slope = [&](float step) {
          values[i] = kept + step;
          const double above = loss(problem_of), at_above = double(values[i]);
          values[i] = kept - step;
          const double below = loss(problem_of), at_below = double(values[i]);
          values[i] = kept;
          return (above - below) / (at_above - at_below);
        };
        const double wide = slope(0x1p-8f), near = slope(0x1p-9f), expected = near + (near - wide) / 3;
        CHECK_MESSAGE(std::fabs(gradient[i] - expected) <= 2e-6 * (1 + std::fabs(expected)),
                      what << "[" << i << "] is " << gradient[i] << ", by differences " << expected);
      }
    };
    check("dq", data[0].data(), data[0].size(), out.dq, b);
    check("dk", data[1].data(), data[1].size(), out.dk, b);
    check("dv", data[2].data(), data[2].size(), out.dv, b);
    REQUIRE(out.dtensors.size() == aux.size());
    for (size_t slot = 0; slot < aux.size(); ++slot)
      check("dtensor", aux[slot].data(), aux[slot].size(), out.dtensors[slot], b);
    check("dscalar", b.forward.scalars.data(), b.forward.scalars.size(), out.dscalars, b);
    if (p.softcap > 0)
      check("dsoftcap", &b.forward.softcap, 1, out.dsoftcap, b);
    if (p.alibi_slopes)
      check("dslopes", slopes.data(), slopes.size(), out.dslopes, b);
  }

  /// The definition, for a dense problem with softcap and ALiBi; each sum over what it is over.
  Gradients plain(Bug bug = Bug::None) const {
    const int64_t B = p.batch, Sq = p.seqlen_q, Sk = p.seqlen_k, H = p.heads_q, Hk = p.heads_k,
                  D = p.head_dim_qk, Dv = p.head_dim_v;
    auto at = [&](int t, int64_t b, int64_t row, int64_t head, int64_t c) {
      const int64_t rows = t == 0 || t == 3 ? Sq : Sk, heads = t == 0 || t == 3 ? H : Hk,
                    dim = t < 2 ? D : Dv;
      return size_t(((b * rows + row) * heads + head) * dim + c);
    };
    auto get = [&](int t, int64_t b, int64_t row, int64_t head, int64_t c) {
      return double(data[t][at(t, b, row, head, c)]);
    };
    Gradients out;
    out.dq.assign(data[0].size(), 0);
    out.dk.assign(data[1].size(), 0);
    out.dv.assign(data[2].size(), 0);
    out.dslopes.assign(slopes.size(), 0);
    const double scale = double(p.softmax_scale), r = double(p.dropout.scale), cap = double(p.softcap);
    std::vector<double> w(static_cast<size_t>(Sk)), dw = w, prob = w, z = w, dp = w;
    for (int64_t b = 0; b < B; ++b)
      for (int64_t h = 0; h < H; ++h) {
        const int64_t hk = bug == Bug::WrongKeyHead ? h % Hk : h / (H / Hk);
        std::vector<double> deltas;
        for (int pass = 0; pass < 2; ++pass)
          for (int64_t i = 0; i < Sq; ++i) {
            const int64_t diagonal = i + (bug == Bug::CausalTopLeft ? 0 : Sk - Sq);
            double sum = 0;
            for (int64_t j = 0; j < Sk; ++j) {
              const size_t n = size_t(j);
              const int64_t left = p.window_left + (bug == Bug::WindowInclusive ? 1 : 0);
              const bool sees = (p.window_left < 0 || j >= diagonal - left) &&
                                (p.window_right < 0 || j <= diagonal + p.window_right) &&
                                !(bug == Bug::LastKeyMissing && j == Sk - 1);
              double s = 0;
              for (int64_t c = 0; c < D; ++c)
                s += get(0, b, i, h, c) * get(1, b, j, hk, c);
              s *= scale;
              dw[n] = 1;
              w[n] = s;
              if (cap > 0) {
                const double t = std::tanh(s / cap);
                w[n] = cap * t;
                dw[n] = 1 - (bug == Bug::DerivativeOfScore ? s / cap * (s / cap) : t * t);
                if (bug == Bug::NoDerivative)
                  dw[n] = 1;
              }
              if (!slopes.empty())
                w[n] -= double(slopes[size_t(h)]) * std::fabs(double(i + Sk - Sq - j));
              prob[n] = sees ? std::exp(w[n]) : 0;
              sum += prob[n];
              const uint32_t head = uint32_t(b * H + h) + (bug == Bug::MaskOfNextHead);
              const bool across = bug == Bug::MaskTransposed;
              z[n] = dropoutKeeps(p.dropout, p.rng_seed, p.rng_offset, head, across ? j : i, across ? i : j);
            }
            const double lse_row = double(dlse.empty() ? 0 : dlse[size_t((b * Sq + i) * H + h)]);
            double delta = 0;
            for (int64_t j = 0; j < Sk; ++j) {
              const size_t n = size_t(j);
              prob[n] = sum == 0 ? 0 : prob[n] / sum;
              if (bug == Bug::Log2eMissing && prob[n] > 0)
                prob[n] = std::exp(w[n] - std::log(sum) * std::numbers::log2e_v<double> /
                                              std::numbers::log2e_v<double> * 1.4427);
              dp[n] = 0;
              for (int64_t c = 0; c < Dv; ++c)
                dp[n] += get(3, b, i, h, c) * get(2, b, j, hk, c);
              delta += prob[n] * (bug == Bug::DeltaUndropped ? 1 : z[n] * r) * dp[n];
            }
            if (sum == 0 && bug == Bug::EmptyRowsLeak)
              prob.assign(prob.size(), 1);
            delta -= bug == Bug::PlusDlse ? -lse_row : lse_row;
            if (pass == 0) {
              deltas.push_back(delta);
              continue;
            }
            if (bug == Bug::NoDelta)
              delta = 0;
            if (bug == Bug::DeltaOfNextRow)
              delta = deltas[size_t((i + 1) % Sq)];
            for (int64_t j = 0; j < Sk; ++j) {
              const size_t n = size_t(j);
              const double g = prob[n] * (z[n] * (bug == Bug::NoDropoutScaleInDs ? 1 : r) * dp[n] - delta),
                           ds = g * dw[n];
              for (int64_t c = 0; c < D; ++c)
                out.dq[at(0, b, i, h, c)] +=
                    scale * (bug == Bug::ScaleTwiceInDq ? scale : 1) * ds * get(1, b, j, hk, c);
              if (!slopes.empty())
                out.dslopes[size_t(h)] +=
                    (bug == Bug::SlopeSign ? 1 : -1) * g * std::fabs(double(i + Sk - Sq - j));
              if (bug == Bug::GroupMissesHead && h == H - 1)
                continue;
              for (int64_t c = 0; c < D; ++c)
                out.dk[at(1, b, j, hk, c)] += (bug == Bug::NoScaleInDk ? 1 : scale) * ds * get(0, b, i, h, c);
              for (int64_t c = 0; c < Dv; ++c)
                out.dv[at(2, b, j, hk, c)] +=
                    prob[n] * z[n] * (bug == Bug::NoDropoutScaleInDv ? 1 : r) * get(3, b, i, h, c);
              if (bug == Bug::SumsIn16Bits)
                for (int64_t c = 0; c < Dv; ++c) {
                  double &x = out.dv[at(2, b, j, hk, c)];
                  x = double(roundToStorage(p.dtype, float(x)));
                }
            }
          }
      }
    return out;
  }
};

} // namespace

TEST_CASE("backward reference: central differences of the forward") {
  Case plain;
  plain.checkDifferences();
  Case dlse;
  dlse.with_dlse = true;
  dlse.checkDifferences();
  for (auto [left, right] : {std::pair<int64_t, int64_t>{-1, 0}, {3, -1}, {2, 1}}) {
    Case window;
    window.p.window_left = left;
    window.p.window_right = right;
    window.with_dlse = true;
    window.checkDifferences();
  }
  Case empty; // the first rows see nothing
  empty.p.seqlen_k = 4;
  empty.p.window_right = 0;
  empty.checkDifferences();
  Case heads;
  heads.p.heads_q = 6;
  heads.p.heads_k = 1;
  heads.checkDifferences();
}

TEST_CASE("reference: the forward with dropout") {
  for (DType dtype : {DType::F32, DType::BF16}) {
    Case c(dtype);
    c.p.dropout = *Dropout::make(0.3);
    c.p.rng_seed = 3;
    c.p.rng_offset = 4;
    Problem p = c.problem().forward;
    const Output out = attentionFp64(p);
    Problem none = p;
    none.dropout = {};
    CHECK(out.lse == attentionFp64(none).lse);
    // o is linear in v, so that one key's probability comes out by v = 1 there alone, dropped or enlarged.
    for (int64_t key = 0; key < p.seqlen_k; ++key) {
      std::fill(c.data[2].begin(), c.data[2].end(), 0.0f);
      for (int64_t b = 0; b < p.batch; ++b)
        std::fill_n(c.data[2].begin() + (b * p.seqlen_k + key) * 2 * 3, 2 * 3, 1.0f);
      p = c.problem().forward;
      none = p;
      none.dropout = {};
      const Output with = attentionFp64(p), without = attentionFp64(none);
      for (int64_t row = 0; row < p.rowsQ(); ++row)
        for (int64_t h = 0; h < 4; ++h) {
          const size_t at = size_t((row * 4 + h) * 3);
          const bool kept =
              dropoutKeeps(p.dropout, 3, 4, uint32_t(row / p.seqlen_q * 4 + h), row % p.seqlen_q, key);
          CHECK(with.o[at] == doctest::Approx(kept ? without.o[at] / 0.7 : 0).epsilon(1e-6));
        }
    }
    const Output model = attentionStorageModel(p, 0.3);
    const Comparison comparison = compare(p, {model.o, model.lse});
    CHECK(comparison.good());
    CHECK(comparison.bound < (dtype == DType::F32 ? 1e-5 : 1e-2));
  }
}

TEST_CASE("backward reference: central differences with dropout") {
  Case c;
  c.p.dropout = *Dropout::make(0.3);
  c.p.rng_seed = 0x1234567890abcdef;
  c.p.rng_offset = 8;
  c.p.window_right = 0;
  c.with_dlse = true;
  c.checkDifferences();
}

TEST_CASE("backward reference: central differences of scores, their scalars and tensors") {
  Case caps;
  caps.p.softcap = 1.5f;
  caps.alibi();
  caps.checkDifferences();
  Case per_batch;
  per_batch.alibi();
  per_batch.slopes = {0.5f, 0.25f, 0.125f, 0.75f, 0.1f, 0.2f, 0.3f, 0.4f};
  per_batch.p.alibi_slopes = per_batch.slopes.data();
  per_batch.p.alibi_per_batch = true;
  per_batch.checkDifferences();
  Case bias;
  bias.score("c * s + bias[b, h, q, k] + row[q] - d * abs(q - k)", {0.7f, 0.1f}, {{2, 4, 6, 13}, {6}});
  bias.p.window_right = 2;
  bias.p.dropout = *Dropout::make(0.2);
  bias.checkDifferences();
  Case any; // indices that are clamped, elements that many scores share, an element that nothing reads
  any.score("where(k <= q * 4, c * tanh(s * t[h] / c) + u[q - k], exp(0 - s * s) + t[hk]) * u[0] + u[k / 2]",
            {0.9f}, {{5}, {11}});
  any.p.softcap = 3;
  any.checkDifferences();
}

TEST_CASE("backward reference: ragged sequences and rows in use") {
  Case c;
  c.ragged({0, 3, 3, 10}, {0, 9, 12, 26}); // a sequence without queries between two
  c.p.window_right = 0;
  c.p.dropout = *Dropout::make(0.25);
  c.checkDifferences();
  const BackwardOutput out = backwardFp64(c.problem());
  for (int64_t j = 9; j < 12; ++j)
    CHECK(out.dk[size_t(j * c.p.heads_k * c.p.head_dim_qk)] == 0);
  CHECK(out.valid_k[10] == 1);

  Case no_keys;
  no_keys.ragged({0, 3, 7}, {0, 0, 5});
  no_keys.checkDifferences();

  // The dense problem with each sequence cut short, by seqused alone and in packed rows: the same numbers.
  Case dense, packed;
  dense.used({4, 6}, {13, 12});
  packed.used({4, 6}, {13, 12});
  packed.ragged({0, 6, 12}, {0, 13, 26});
  packed.p.batch = 2;
  dense.checkDifferences();
  const BackwardOutput a = backwardFp64(dense.problem()), b = backwardFp64(packed.problem());
  CHECK(a.dq == b.dq);
  CHECK(a.dk == b.dk);
  CHECK(a.dv == b.dv);
  CHECK(a.valid_q == b.valid_q);
  CHECK(a.valid_k == b.valid_k);
  CHECK(a.valid_k[13 + 11] == 1);
  CHECK(a.valid_k[13 + 12] == 0);
}

TEST_CASE("backward reference: what the forward wrote is used") {
  Case c;
  const BackwardProblem own = c.problem();
  const Output forward = attentionFp64(own.forward);
  BackwardProblem given = own;
  given.o = forward.o.data();
  given.lse = forward.lse.data();
  CHECK(backwardFp64(given).dq == backwardFp64(own).dq);
  // Two shards of the keys with the lse and o of all: their dq add up.
  Case whole, first, second;
  whole.problem();
  for (Case *shard : {&first, &second}) {
    shard->p.seqlen_k = shard == &first ? 8 : 5;
    const int64_t from = shard == &first ? 0 : 8;
    for (int t : {0, 3})
      shard->data[t] = whole.data[t];
    for (int t : {1, 2}) {
      const int64_t row = t == 1 ? 2 * 5 : 2 * 3;
      for (int64_t b = 0; b < 2; ++b)
        shard->data[t].insert(shard->data[t].end(), whole.data[t].begin() + (b * 13 + from) * row,
                              whole.data[t].begin() + (b * 13 + from + shard->p.seqlen_k) * row);
    }
  }
  const BackwardOutput all = backwardFp64(whole.problem());
  const Output out = attentionFp64(whole.p);
  std::vector<double> sum(all.dq.size(), 0);
  for (Case *shard : {&first, &second}) {
    BackwardProblem b = shard->problem();
    b.o = out.o.data();
    b.lse = out.lse.data();
    const BackwardOutput part = backwardFp64(b);
    for (size_t i = 0; i < sum.size(); ++i)
      sum[i] += part.dq[i];
  }
  for (size_t i = 0; i < sum.size(); ++i)
    CHECK(sum[i] == doctest::Approx(all.dq[i]).epsilon(1e-12));
}

TEST_CASE("backward reference: rows whose scores are all -inf contribute nothing") {
  for (float empty : {-std::numeric_limits<float>::infinity(), std::numeric_limits<float>::infinity()}) {
    Case c;
    c.p.lse_empty = empty;
    c.score("c * s + bias[q]", {2.0f}, {{6}});
    c.aux[0][2] = -std::numeric_limits<float>::infinity();
    c.with_dlse = true;
    const BackwardProblem b = c.problem();
    for (const BackwardOutput &out : {backwardFp64(b), backwardStorageModel(b)}) {
      for (const auto *gradient : {&out.dq, &out.dk, &out.dv, &out.dscalars, &out.dtensors[0]})
        for (double x : *gradient)
          CHECK(std::isfinite(x));
      CHECK(out.dq[size_t(2 * 4 * 5)] == 0);
      CHECK(out.dtensors[0][2] == 0);
      CHECK(out.dq[size_t(1 * 4 * 5)] != 0);
    }
    CHECK(compareBackward(b, backwardStorageModel(b, {0.2})).complaint() == "");
  }
  // Single keys, of which the derivatives are infinite or NaN as well.
  Case c;
  c.score("s * scale[k] + bias[k]", {}, {{13}, {13}});
  c.aux[0][4] = c.aux[1][4] = -std::numeric_limits<float>::infinity();
  c.data[0].assign(size_t(2 * 6 * 4 * 5), 1.0f);
  c.data[1].assign(size_t(2 * 13 * 2 * 5), 1.0f);
  const BackwardOutput out = backwardFp64(c.problem());
  for (const Gradients *gradients : {static_cast<const Gradients *>(&out), &out.scales})
    for (const auto *gradient :
         {&gradients->dq, &gradients->dk, &gradients->dv, &gradients->dtensors[0], &gradients->dtensors[1]})
      for (double x : *gradient)
        CHECK(std::isfinite(x));
}

TEST_CASE("backward model: rounds P, dS, o and the results, and nothing else") {
  // By fp64 with roundings; fp32 sums end on the other side of one now and then.
  for (bool rounds_p : {false, true}) {
    Case c(DType::BF16);
    c.p.batch = 1;
    c.p.heads_q = c.p.heads_k = 1;
    c.p.seqlen_q = c.p.seqlen_k = 40;
    c.p.head_dim_qk = c.p.head_dim_v = 16;
    const BackwardProblem b = c.problem();
    const BackwardOutput model = backwardStorageModel(b, {0, rounds_p});
    auto rounded = [](double x) { return double(roundToStorage(DType::BF16, float(x))); };
    std::vector<double> dq(40 * 16, 0), dk(40 * 16, 0), dv(40 * 16, 0);
    auto get = [&](int t, int row, int d) { return double(c.data[t][size_t(row * 16 + d)]); };
    for (int i = 0; i < 40; ++i) {
      double w[40], dp[40] = {}, top = -1e300, sum = 0, delta = 0;
      for (int j = 0; j < 40; ++j) {
        w[j] = 0;
        for (int d = 0; d < 16; ++d) {
          w[j] += double(c.p.softmax_scale) * get(0, i, d) * get(1, j, d);
          dp[j] += get(3, i, d) * get(2, j, d);
        }
        top = std::max(top, w[j]);
      }
      for (int j = 0; j < 40; ++j)
        sum += std::exp(w[j] - top);
      for (int d = 0; d < 16; ++d) {
        double o = 0;
        for (int j = 0; j < 40; ++j)
          o += rounded(std::exp(w[j] - top)) * get(2, j, d);
        delta += get(3, i, d) * rounded(o / sum);
      }
      for (int j = 0; j < 40; ++j) {
        const double p = std::exp(w[j] - top) / sum,
                     ds = rounded((rounds_p ? rounded(p) : p) * (dp[j] - delta));
        for (int d = 0; d < 16; ++d) {
          dv[size_t(j * 16 + d)] += rounded(p) * get(3, i, d);
          dq[size_t(i * 16 + d)] += double(c.p.softmax_scale) * ds * get(1, j, d);
          dk[size_t(j * 16 + d)] += double(c.p.softmax_scale) * ds * get(0, i, d);
        }
      }
    }
    auto same = [&](const std::vector<double> &emulated, const std::vector<double> &got) {
      int equal = 0;
      for (size_t i = 0; i < got.size(); ++i)
        equal += rounded(emulated[i]) == got[i];
      return equal;
    };
    CHECK(same(dq, model.dq) > 40 * 16 * 97 / 100);
    CHECK(same(dk, model.dk) > 40 * 16 * 97 / 100);
    CHECK(same(dv, model.dv) > 40 * 16 * 97 / 100);
  }
}

TEST_CASE("backward rule: accepts the definition and other roundings") {
  for (DType dtype : {DType::F32, DType::F16, DType::BF16})
    for (unsigned seed = 1; seed <= 5; ++seed) {
      Case c(dtype);
      c.seed = seed;
      c.p.softcap = 2;
      c.alibi();
      c.with_dlse = true;
      c.p.window_right = 0;
      c.p.dropout = *Dropout::make(0.3);
      const BackwardProblem b = c.problem();
      CHECK(compareBackward(b, c.plain()).complaint() == "");
      for (double shift : {0.1, 0.37, 0.61}) {
        const BackwardComparison model = compareBackward(b, backwardStorageModel(b, {shift}));
        CHECK_MESSAGE(model.good(), dtypeName(dtype) << " seed " << seed << ": " << model.complaint());
        CHECK(model.parts.size() == 5); // dq, dk, dv, dsoftcap, dslopes
      }
      const BackwardComparison roles = compareBackward(b, backwardStorageModel(b, {0.2, true}), true);
      CHECK_MESSAGE(roles.good(), roles.complaint());
    }
}

TEST_CASE("backward rule: shapes whose rows are exactly zero, peaked or long") {
  for (DType dtype : {DType::F32, DType::F16, DType::BF16}) {
    CAPTURE(dtypeName(dtype));
    auto accepts = [](Case &c) {
      const BackwardProblem b = c.problem();
      const BackwardComparison model = compareBackward(b, backwardStorageModel(b, {0.3}));
      CHECK_MESSAGE(model.good(), model.complaint());
      CHECK(compareBackward(b, c.plain()).complaint() == "");
    };
    Case one(dtype); // a row that sees one key has ds = 0 exactly, and rounds all the same
    one.p.window_left = one.p.window_right = 0;
    accepts(one);
    Case zero(dtype); // dO = 0
    zero.data[3].assign(size_t(2 * 6 * 4 * 3), 0.0f);
    accepts(zero);
    Case peaked(dtype);
    peaked.softmax_width = 40;
    accepts(peaked);
    Case flat(dtype);
    flat.softmax_width = 0;
    accepts(flat);
    Case longer(dtype);
    longer.p.seqlen_q = longer.p.seqlen_k = 150;
    longer.p.window_right = 0;
    accepts(longer);
    Case single(dtype);
    single.p.batch = single.p.seqlen_q = single.p.heads_q = single.p.heads_k = 1;
    accepts(single);
  }
}

TEST_CASE("backward rule: refuses planted bugs") {
  for (DType dtype : {DType::F32, DType::BF16}) {
    CAPTURE(dtypeName(dtype));
    auto refuses = [&](Bug bug, auto change) {
      Case c(dtype);
      change(c);
      const BackwardProblem b = c.problem();
      CHECK(compareBackward(b, c.plain()).complaint() == "");
      CHECK_MESSAGE(!compareBackward(b, c.plain(bug)).good(), "bug " << int(bug));
    };
    auto nothing = [](Case &) {};
    auto causal = [](Case &c) { c.p.window_right = 0; };
    auto dropout = [](Case &c) { c.p.dropout = *Dropout::make(0.17); };
    auto large = [](Case &c) {
      c.p.seqlen_q = c.p.seqlen_k = 100;
      c.p.batch = 1;
    };
    refuses(Bug::NoDelta, nothing);
    refuses(Bug::NoDelta, large);
    refuses(Bug::DeltaOfNextRow, nothing);
    refuses(Bug::DeltaOfNextRow, large);
    refuses(Bug::DeltaUndropped, dropout);
    refuses(Bug::PlusDlse, [](Case &c) { c.with_dlse = true; });
    refuses(Bug::ScaleTwiceInDq, nothing);
    refuses(Bug::NoScaleInDk, nothing);
    refuses(Bug::GroupMissesHead, nothing);
    refuses(Bug::WrongKeyHead, nothing);
    refuses(Bug::MaskTransposed, dropout);
    refuses(Bug::MaskTransposed, [](Case &c) {
      c.p.seqlen_q = c.p.seqlen_k = 64;
      c.p.dropout = *Dropout::make(0.02);
    });
    refuses(Bug::MaskOfNextHead, dropout);
    refuses(Bug::NoDropoutScaleInDs, dropout);
    refuses(Bug::NoDropoutScaleInDv, dropout);
    refuses(Bug::DerivativeOfScore, [](Case &c) { c.p.softcap = 2; });
    refuses(Bug::NoDerivative, [](Case &c) { c.p.softcap = 5; });
    refuses(Bug::SlopeSign, [](Case &c) { c.alibi(); });
    refuses(Bug::LastKeyMissing, nothing);
    refuses(Bug::LastKeyMissing, large);
    refuses(Bug::CausalTopLeft, causal);
    refuses(Bug::WindowInclusive, [](Case &c) { c.p.window_left = 4; });
    refuses(Bug::WindowInclusive, [&](Case &c) {
      large(c);
      c.p.window_left = 60;
    });
    refuses(Bug::EmptyRowsLeak, [](Case &c) {
      c.p.seqlen_k = 4;
      c.p.window_right = 0;
    });
    refuses(Bug::Log2eMissing, nothing);
    if (dtype != DType::F32)
      refuses(Bug::SumsIn16Bits, large);

    Case c(dtype);
    const BackwardProblem b = c.problem();
    Gradients poisoned = c.plain();
    poisoned.dk[3] = std::numeric_limits<double>::quiet_NaN();
    CHECK_FALSE(compareBackward(b, poisoned).good());
    Gradients one_wrong = c.plain();
    one_wrong.dq[size_t((7 * 4 + 3) * 5 + 2)] += 10;
    const BackwardComparison wrong = compareBackward(b, one_wrong);
    CHECK_FALSE(wrong.good());
    CHECK(wrong.parts[0].error > wrong.parts[0].bound);
    CHECK(wrong.parts[0].worst_row == 7);
    CHECK(wrong.parts[0].worst_head == 3);
    CHECK(wrong.parts[0].absolute_error == doctest::Approx(10));
    CHECK(wrong.parts[0].rows == 2 * 6 * 4);
    CHECK(wrong.parts[1].good());
    // A row of small gradients does not hide behind the others.
    Case small(dtype);
    small.problem();
    for (size_t i = (7 * 4 + 3) * 3; i < (7 * 4 + 4) * 3; ++i)
      small.data[3][i] = std::ldexp(small.data[3][i], -12);
    const BackwardProblem small_row = small.problem();
    Gradients half = small.plain();
    CHECK(compareBackward(small_row, half).good());
    for (size_t i = (7 * 4 + 3) * 5; i < (7 * 4 + 4) * 5; ++i)
      half.dq[i] *= 1.5;
    const BackwardComparison::Part hidden = compareBackward(small_row, half).parts[0];
    CHECK(hidden.error > hidden.bound);
    CHECK(hidden.rms > hidden.rms_bound);
    Gradients short_one = c.plain();
    short_one.dv.pop_back();
    CHECK_FALSE(compareBackward(b, short_one).good());
    Gradients only_dv;
    only_dv.dv = c.plain().dv;
    CHECK(compareBackward(b, only_dv).good());
    CHECK(compareBackward(b, only_dv).parts.size() == 1);
  }
}
