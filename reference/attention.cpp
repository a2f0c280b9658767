// SPDX-License-Identifier: BSD-3-Clause
#include "reference/attention.h"

#include "reference/rows.h"
#include "reference/score_rows.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <mutex>
#include <thread>

namespace flashplus::reference {
namespace {

/// One query head of one sequence. T is the precision of the arithmetic; `rounds` makes it the model.
template <class T> class Head {
public:
  Head(const Problem &p, double shift, bool rounds, int64_t b, int64_t h, Output &out)
      : p_(p), shift_(T(shift)), rounds_(rounds), b_(b), h_(h), hk_(h / (p.heads_q / p.heads_k)),
        s_(sequenceOf(p, b)), out_(out), scores_(p),
        q_(gather<T>(p, p.q, p.q_strides, b, s_.first_q, h, s_.q_len, p.head_dim_qk)),
        k_(gather<T>(p, p.k, p.k_strides, b, s_.first_k, hk_, s_.k_len, p.head_dim_qk)),
        v_(gather<T>(p, p.v, p.v_strides, b, s_.first_k, hk_, s_.k_len, p.head_dim_v)) {}

  /// Returns the largest |score|.
  double run() {
    double largest = 0;
    if (const T sink = p_.sinks ? sinkOf(h_) : T(0); std::isfinite(sink))
      largest = std::fabs(double(sink));
    std::vector<T> s, o(size_t(p_.head_dim_v));
    for (int64_t i = 0; i < s_.q_len; ++i) {
      const auto [lo, hi] = visibleKeys(p_, s_, i);
      s.assign(size_t(hi - lo), 0);
      products(i, lo, s);
      scores_.apply({b_, h_, hk_, i, s_.q_len, s_.k_len}, lo, s);
      for (T x : s)
        if (std::isfinite(x))
          largest = std::max(largest, std::fabs(double(x)));
      const double lse = softmax(i, lo, s, o);
      const size_t index = size_t(rowOf(p_, s_, b_, i) * p_.heads_q + h_);
      out_.lse[index] = lse;
      std::copy(o.begin(), o.end(), out_.o.begin() + int64_t(index) * p_.head_dim_v);
    }
    return largest;
  }

private:
  T sinkOf(int64_t h) const { return T(loadElement(p_.sinks, p_.sink_dtype, h)); }

  void products(int64_t i, int64_t lo, std::vector<T> &s) const {
    const T *q = q_.data() + i * p_.head_dim_qk;
    for (size_t j = 0; j < s.size(); ++j) {
      const T *k = k_.data() + (lo + int64_t(j)) * p_.head_dim_qk;
      T sum = 0;
      for (int64_t c = 0; c < p_.head_dim_qk; ++c)
        sum += q[c] * k[c];
      s[j] = sum * T(p_.softmax_scale);
    }
  }

  double softmax(int64_t i, int64_t lo, const std::vector<T> &s, std::vector<T> &o) const {
    constexpr T kNone = -std::numeric_limits<T>::infinity();
    std::fill(o.begin(), o.end(), T(0));
    T top = kNone, sum = 0;
    for (T x : s) // a NaN is the largest, so that the row becomes NaN
      top = std::isnan(x) || x > top ? x : top;
    const T base = top + shift_;
    for (size_t j = 0; top != kNone && j < s.size(); ++j) {
      T p = std::exp(s[j] - base);
      sum += p;
      if (drops_ && !dropoutKeeps(p_.dropout, p_.rng_seed, p_.rng_offset, uint32_t(b_ * p_.heads_q + h_), i,
                                  lo + int64_t(j)))
        continue;
      if (rounds_)
        p = T(roundToStorage(p_.dtype, float(p)));
      const T *v = v_.data() + (lo + int64_t(j)) * p_.head_dim_v;
      for (int64_t c = 0; c < p_.head_dim_v; ++c)
        o[size_t(c)] += p * v[c];
    }
    const double without = sum == 0 ? double(p_.lse_empty) : double(base + std::log(sum));
    T scale = T(p_.dropout.scale), lse = T(without);
    if (p_.sinks) { // a score more, whose value is 0
      const T sink = sinkOf(h_), all = std::max(base, sink);
      if (all != kNone) {
        scale *= std::exp(base - all);
        sum = sum * std::exp(base - all) + std::exp(sink - all);
        lse = all + std::log(sum);
      }
    }
    if (sum == 0)
      return without;
    for (T &x : o)
      x = rounds_ ? T(roundToStorage(p_.dtype, float(x * scale / sum))) : x * scale / sum;
    return p_.lse_without_sinks ? without : double(lse);
  }

  const Problem &p_;
  const T shift_;
  const bool rounds_, drops_ = p_.dropout.drops();
  const int64_t b_, h_, hk_;
  const Sequence s_;
  Output &out_;
  ScoreRows<T> scores_;
  const std::vector<T> q_, k_, v_;
};

template <class T> Output compute(const Problem &p, double shift, bool rounds, int threads) {
  Output out;
  const int64_t rows = p.rowsQ();
  out.o.assign(size_t(rows * p.heads_q * p.head_dim_v), 0);
  out.lse.assign(size_t(rows * p.heads_q), 0);
  out.valid.assign(size_t(rows), 0);
  for (int64_t b = 0; b < p.batch; ++b) {
    const Sequence s = sequenceOf(p, b);
    const int64_t first = p.cu_seqlens_q ? s.first_q : b * p.seqlen_q;
    std::fill_n(out.valid.begin() + first, std::max<int64_t>(s.q_len, 0), uint8_t(1));
  }
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  auto work = [&] {
    double largest = 0;
    for (int64_t i; (i = next++) < p.batch * p.heads_q;)
      largest = std::max(largest, Head<T>(p, shift, rounds, i / p.heads_q, i % p.heads_q, out).run());
    std::lock_guard lock(mutex);
    out.max_score = std::max(out.max_score, largest);
  };
  if (threads <= 0)
    threads = int(std::max(1u, std::thread::hardware_concurrency()));
  std::vector<std::thread> workers;
  for (int64_t i = 1; i < std::min<int64_t>(threads, p.batch * p.heads_q); ++i)
    workers.emplace_back(work);
  work();
  for (std::thread &w : workers)
    w.join();
  return out;
}

} // namespace

Output attentionFp64(const Problem &problem, int threads) {
  return compute<double>(problem, 0, false, threads);
}

Output attentionStorageModel(const Problem &problem, double shift, int threads) {
  return compute<float>(problem, shift, true, threads);
}

} // namespace flashplus::reference
