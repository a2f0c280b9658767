// SPDX-License-Identifier: BSD-3-Clause
// What judges the kernels is itself judged: by bit patterns, and by attention written in the plainest way.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "reference/compare.h"
#include "reference/numeric.h"

#include <cmath>
#include <limits>
#include <random>

using namespace flashplus;
using namespace flashplus::reference;

TEST_CASE("reference: 16-bit floats round to nearest even") {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float half = fp16ToFloat(uint16_t(bits)), brain = bf16ToFloat(uint16_t(bits));
    CHECK((std::isnan(half) ? std::isnan(fp16ToFloat(floatToFp16(half))) : floatToFp16(half) == bits));
    CHECK((std::isnan(brain) ? std::isnan(bf16ToFloat(floatToBf16(brain))) : floatToBf16(brain) == bits));
    // Halfway to the next value goes to the even one, a little more goes up.
    if ((bits & 0x7fff) < 0x7bff) {
      const float next = fp16ToFloat(uint16_t(bits + 1)), middle = half + (next - half) / 2;
      CHECK(floatToFp16(middle) == (bits & 1 ? bits + 1 : bits));
      CHECK(floatToFp16(std::nextafter(middle, next)) == bits + 1);
      CHECK(floatToFp16(std::nextafter(middle, half)) == bits);
    }
    if ((bits & 0x7fff) < 0x7f7f && (bits & 0x7fff) > 0x80) {
      const float next = bf16ToFloat(uint16_t(bits + 1)), middle = brain + (next - brain) / 2;
      CHECK(floatToBf16(middle) == (bits & 1 ? bits + 1 : bits));
      CHECK(floatToBf16(std::nextafter(middle, next)) == bits + 1);
    }
  }
  CHECK(fp16ToFloat(0x3c00) == 1.0f);
  CHECK(fp16ToFloat(0x0001) == 0x1p-24f);
  CHECK(fp16ToFloat(0xfbff) == -65504.0f);
  CHECK(floatToFp16(65520.0f) == 0x7c00);
  CHECK(floatToFp16(65519.0f) == 0x7bff);
  CHECK(bf16ToFloat(0x3f80) == 1.0f);
  CHECK(std::isnan(bf16ToFloat(floatToBf16(std::numeric_limits<float>::quiet_NaN()))));
}

namespace {

struct Random {
  std::mt19937 engine{7};
  std::normal_distribution<float> normal;
  std::vector<float> operator()(int64_t n) {
    std::vector<float> v(static_cast<size_t>(n));
    for (float &x : v)
      x = normal(engine);
    return v;
  }
};

constexpr int64_t kBatch = 2, kSq = 9, kSk = 37, kHq = 4, kHk = 2, kDqk = 5, kDv = 11;

struct Case {
  Random random;
  std::vector<float> q = random(kBatch * kSq * kHq * kDqk), k = random(kBatch * kSk * kHk * kDqk),
                     v = random(kBatch * kSk * kHk * kDv);
  Problem p;
  Case() {
    p.batch = kBatch;
    p.seqlen_q = kSq;
    p.seqlen_k = kSk;
    p.heads_q = kHq;
    p.heads_k = kHk;
    p.head_dim_qk = kDqk;
    p.head_dim_v = kDv;
    p.q = q.data();
    p.k = k.data();
    p.v = v.data();
    p.q_strides = {kSq * kHq * kDqk, kHq * kDqk, kDqk};
    p.k_strides = {kSk * kHk * kDqk, kHk * kDqk, kDqk};
    p.v_strides = {kSk * kHk * kDv, kHk * kDv, kDv};
    p.softmax_scale = 0.4f;
    p.lse_empty = std::numeric_limits<float>::infinity();
  }

  /// The definition, one query row at a time, the score by ScoreExpr::evaluate.
  Output plain() const {
    Output out;
    for (int64_t b = 0; b < kBatch; ++b)
      for (int64_t i = 0; i < kSq; ++i)
        for (int64_t h = 0; h < kHq; ++h) {
          const int64_t hk = h * kHk / kHq;
          std::vector<double> o(kDv, 0);
          double sum = 0;
          for (int64_t j = 0; j < kSk; ++j) {
            const int64_t diagonal = i + kSk - kSq;
            if ((p.window_left >= 0 && j < diagonal - p.window_left) ||
                (p.window_right >= 0 && j > diagonal + p.window_right))
              continue;
            double s = 0;
            for (int64_t d = 0; d < kDqk; ++d)
              s += double(q[size_t(((b * kSq + i) * kHq + h) * kDqk + d)]) *
                   double(k[size_t(((b * kSk + j) * kHk + hk) * kDqk + d)]);
            s *= double(p.softmax_scale);
            if (!p.score.isIdentity())
              s = p.score.evaluate({s, b, h, hk, i, j, kSq, kSk},
                                   std::vector<double>(p.scalars.begin(), p.scalars.end()),
                                   [&](int slot, std::span<const int64_t> at) {
                                     int64_t offset = 0;
                                     for (size_t d = 0; d < at.size(); ++d)
                                       offset += std::min(at[d], p.tensors[size_t(slot)].shape[d] - 1) *
                                                 p.tensors[size_t(slot)].strides[d];
                                     return double(p.tensors[size_t(slot)].data[offset]);
                                   });
            if (p.softcap > 0)
              s = double(p.softcap) * std::tanh(s / double(p.softcap));
            if (p.alibi_slopes)
              s -= double(p.alibi_slopes[h]) * std::fabs(double(diagonal - j));
            const double e = std::exp(s);
            sum += e;
            for (int64_t d = 0; d < kDv; ++d)
              o[size_t(d)] += e * double(v[size_t(((b * kSk + j) * kHk + hk) * kDv + d)]);
          }
          out.lse.push_back(sum == 0 ? double(p.lse_empty) : std::log(sum));
          for (double x : o)
            out.o.push_back(sum == 0 ? 0 : x / sum);
        }
    return out;
  }

  void check() const {
    const Output expected = plain();
    for (int threads : {1, 3}) {
      const Output got = attentionFp64(p, threads);
      REQUIRE(got.o.size() == expected.o.size());
      for (size_t i = 0; i < got.o.size(); ++i)
        CHECK(got.o[i] == doctest::Approx(expected.o[i]).epsilon(1e-12));
      for (size_t i = 0; i < got.lse.size(); ++i)
        CHECK(
            (got.lse[i] == expected.lse[i] || got.lse[i] == doctest::Approx(expected.lse[i]).epsilon(1e-12)));
    }
    CHECK(compare(p, {expected.o, expected.lse}).good());
  }
};

} // namespace

TEST_CASE("reference: plain attention") { Case().check(); }

TEST_CASE("reference: windows, empty rows included") {
  for (auto [left, right] : {std::pair<int64_t, int64_t>{-1, 0}, {0, 0}, {3, -1}, {2, 5}, {100, 100}}) {
    Case c;
    c.p.window_left = left;
    c.p.window_right = right;
    c.check();
  }
  Case c;
  c.p.seqlen_k = 4; // sq > sk: the first rows see nothing under a causal mask
  c.p.k_strides.b = c.p.v_strides.b = 0;
  c.p.window_right = 0;
  const Output out = attentionFp64(c.p);
  CHECK(std::isinf(out.lse[0]));
  CHECK(out.o[0] == 0);
  CHECK(std::isfinite(out.lse.back()));
}

TEST_CASE("reference: a row of NaN is NaN, not a row without keys") {
  Case c;
  c.q[0] = std::numeric_limits<float>::quiet_NaN(); // row 0 of head 0
  for (const Output &out : {attentionFp64(c.p), attentionStorageModel(c.p)}) {
    CHECK(std::isnan(out.o[0]));
    CHECK(std::isnan(out.lse[0]));
    CHECK(std::isfinite(out.lse[1]));
  }
}

TEST_CASE("reference: scores") {
  const std::vector<float> slopes = {0.5f, 0.25f, 0.125f, 1.0f};
  std::vector<float> bias = Random()(kBatch * kHq * kSq * kSk);
  Case c;
  c.p.score = *ScoreExpr::parse(
      "where(k <= q * 4, c * s + bias[b, h, q, k], max(s, -abs(k - sk / 2)) + exp(-h) * (hk != b))");
  c.p.scalars = {0.75f};
  c.p.tensors = {{bias.data(), {kHq * kSq * kSk, kSq * kSk, kSk, 1}, {kBatch, kHq, kSq, kSk}}};
  c.check();
  c.p.softcap = 2;
  c.p.alibi_slopes = slopes.data();
  c.check();
}

TEST_CASE("reference: indices are clamped, and whole ones are exact in the model too") {
  const std::vector<float> table = Random()(3 * kSk);
  for (const char *score : {"s + t[b - 1, q - k]", "s + t[0 / 0, exp(100) * k]", "s + t[-1e38, k + 1e9]",
                            "s + t[q + sk - sq - k, k * 1e20]", "s + t[h, k + 16777216 - 16777216]"}) {
    CAPTURE(score);
    Case c;
    c.p.score = *ScoreExpr::parse(score);
    c.p.tensors = {{table.data(), {kSk, 1}, {3, kSk}}};
    c.check();
    const Output model = attentionStorageModel(c.p);
    CHECK(compare(c.p, {model.o, model.lse}).good());
  }
}

TEST_CASE("reference: sequences of a ragged problem, and rows in use") {
  Case c;
  // The dense problem with each sequence cut short, once by cu_seqlens and once by seqused: the same numbers.
  const int32_t used_q[] = {4, 9}, used_k[] = {37, 20};
  c.p.seqused_q = used_q;
  c.p.seqused_k = used_k;
  const Output dense = attentionFp64(c.p);
  const int32_t cu_q[] = {0, kSq, 2 * kSq}, cu_k[] = {0, kSk, 2 * kSk};
  c.p.cu_seqlens_q = cu_q;
  c.p.cu_seqlens_k = cu_k;
  c.p.total_q = kBatch * kSq;
  const Output ragged = attentionFp64(c.p);
  CHECK(dense.o == ragged.o);
  CHECK(dense.lse == ragged.lse);
  CHECK(dense.valid == ragged.valid);
  CHECK(dense.valid[3] == 1);
  CHECK(dense.valid[4] == 0);
  CHECK(dense.valid[kSq] == 1);
}

TEST_CASE("reference: the rule accepts the model and refuses a wrong key, a NaN and a wrong lse") {
  for (DType dtype : {DType::F32, DType::F16, DType::BF16}) {
    CAPTURE(dtypeName(dtype));
    Case c;
    std::vector<uint32_t> storage[3];
    const void *stored[3];
    int n = 0;
    for (const auto *source : {&c.q, &c.k, &c.v}) {
      storage[n].resize(source->size());
      for (size_t i = 0; i < source->size(); ++i)
        storeElement(storage[n].data(), dtype, int64_t(i), (*source)[i]);
      stored[n] = storage[n].data();
      ++n;
    }
    c.p.dtype = dtype;
    c.p.q = stored[0];
    c.p.k = stored[1];
    c.p.v = stored[2];
    const Output model = attentionStorageModel(c.p, 0.3);
    const Comparison good = compare(c.p, {model.o, model.lse});
    CHECK(good.good());
    CHECK(good.rows == kBatch * kSq * kHq);
    if (dtype != DType::F32)
      CHECK(good.error > 0);

    Problem off_by_one = c.p;
    off_by_one.window_left = kSk - kSq + kSq - 2; // the last row misses the first key
    const Output wrong = attentionStorageModel(off_by_one);
    CHECK_FALSE(compare(c.p, {wrong.o, model.lse}).good());
    CHECK_FALSE(compare(c.p, {model.o, wrong.lse}).good());

    Actual poisoned{model.o, model.lse};
    poisoned.o[5] = std::numeric_limits<double>::quiet_NaN();
    CHECK_FALSE(compare(c.p, poisoned).good());
  }
}
