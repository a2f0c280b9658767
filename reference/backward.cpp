// SPDX-License-Identifier: BSD-3-Clause
#include "reference/backward.h"

#include "reference/rows.h"
#include "reference/score_rows.h"
#include "spec/score_gradient.h"

#include <cmath>
#include <mutex>
#include <thread>
#include <type_traits>

namespace flashplus::reference {
namespace {

/// The caller's expression, then softcap, then ALiBi, as one, with the values of its scalars and tensors.
struct FullScore {
  ScoreExpr expr;
  std::vector<float> scalars;
  std::vector<AuxTensor> tensors;
};

FullScore fullScore(const Problem &p) {
  FullScore full{p.score, p.scalars, p.tensors};
  std::vector<ScoreNode> &nodes = full.expr.nodes;
  auto add = [&](ScoreOp op, std::vector<int> operands = {}, int slot = 0) {
    nodes.push_back({.op = op, .slot = slot, .operands = std::move(operands)});
    return int(nodes.size()) - 1;
  };
  int w = p.score.isIdentity() ? add(ScoreOp::Score) : int(nodes.size()) - 1;
  if (p.softcap > 0) {
    const int cap = add(ScoreOp::Scalar, {}, int(full.scalars.size()));
    full.scalars.push_back(p.softcap);
    full.expr.scalars.push_back("softcap");
    w = add(ScoreOp::Mul, {cap, add(ScoreOp::Tanh, {add(ScoreOp::Div, {w, cap})})});
  }
  if (p.alibi_slopes) {
    std::vector<int> indices = {add(ScoreOp::Head)};
    AuxTensor slopes{p.alibi_slopes, {1}, {p.heads_q}};
    if (p.alibi_per_batch) {
      indices.insert(indices.begin(), add(ScoreOp::Batch));
      slopes = {p.alibi_slopes, {p.heads_q, 1}, {p.batch, p.heads_q}};
    }
    const int slope = add(ScoreOp::Tensor, std::move(indices), int(full.tensors.size()));
    const int from = add(ScoreOp::Sub, {add(ScoreOp::Add, {add(ScoreOp::Query), add(ScoreOp::SeqlenK)}),
                                        add(ScoreOp::SeqlenQ)});
    const int distance = add(ScoreOp::Abs, {add(ScoreOp::Sub, {from, add(ScoreOp::Key)})});
    full.expr.tensors.push_back({"slopes", int(nodes[size_t(slope)].operands.size())});
    full.tensors.push_back(slopes);
    add(ScoreOp::Sub, {w, add(ScoreOp::Mul, {slope, distance})});
  }
  return full;
}

/// Sums of derivatives by what many scores share: one per worker, added up at the end.
template <class T> struct Shared {
  std::vector<T> sums;
  std::vector<double> squares; ///< Of the errors' scales.

  explicit Shared(size_t n) : sums(n, T(0)), squares(n, 0) {}
};

template <class T> class Backward {
  static constexpr bool kScales = std::is_same_v<T, double>; ///< Only fp64's are asked for.

public:
  Backward(const BackwardProblem &problem, const BackwardModel &model, bool rounds)
      : p_(problem.forward), problem_(problem), model_(model), rounds_(rounds), score_(fullScore(p_)),
        gradient_(differentiate(score_.expr)) {
    if (!problem.o || !problem.lse)
      forward_ = rounds ? attentionStorageModel(p_, model.shift) : attentionFp64(p_);
    o_ = problem.o ? problem.o : forward_.o.data();
    lse_ = problem.lse ? problem.lse : forward_.lse.data();
    for (const AuxTensor &t : score_.tensors) {
      size_t n = 1;
      for (size_t d = 0; d < size_t(score_.expr.tensors[starts_.size()].rank); ++d)
        n *= size_t(std::max<int64_t>(t.shape[d], 0));
      starts_.push_back(shared_);
      shared_ += n;
    }
    starts_.push_back(shared_);
    shared_ += score_.scalars.size();
  }

  BackwardOutput run(int threads);

private:
  struct Worker;
  double item(Worker &worker, int64_t b, int64_t hk);
  void addShared(Worker &worker, const std::vector<T> &p, const std::vector<T> &g, double delta_scale);
  void finish(BackwardOutput &out, const Shared<T> &shared) const;
  T rounded(T x) const { return rounds_ ? T(roundToStorage(p_.dtype, float(x))) : x; }

  const Problem &p_;
  const BackwardProblem &problem_;
  const BackwardModel model_;
  const bool rounds_;
  const FullScore score_;
  const ScoreGradient gradient_;
  Output forward_;
  const double *o_, *lse_;
  std::vector<size_t>
      starts_; ///< Where each tensor's elements begin among what is shared, and the scalars last.
  size_t shared_ = 0;
  BackwardOutput out_;
};

template <class T> struct Backward<T>::Worker {
  NodeRows<T> nodes;
  Shared<T> shared;
  /// A run of scores of one row that read the same element.
  struct Run {
    T sum = 0, product = 0;
    double squares = 0;
  };
  void add(size_t element, const Run &run, double delta_scale) {
    shared.sums[element] += run.sum;
    const double of_delta = delta_scale * double(run.product);
    shared.squares[element] += run.squares + of_delta * of_delta;
  }
};

/// What the scores of one row, the last evaluated, give to scalars and elements of tensors.
template <class T>
void Backward<T>::addShared(Worker &worker, const std::vector<T> &p, const std::vector<T> &g,
                            double delta_scale) {
  auto share = [&](int node, auto elementOf) {
    const std::vector<T> &by = worker.nodes.values(node);
    typename Worker::Run run;
    size_t element = 0;
    for (size_t at = 0; at < p.size(); ++at) {
      if (p[at] == 0)
        continue;
      if (const size_t next = elementOf(at); next != element) {
        worker.add(element, run, delta_scale);
        run = {};
        element = next;
      }
      const T term = g[at] == 0 ? T(0) : g[at] * by[at];
      run.sum += term;
      run.product += p[at] * by[at];
      run.squares += double(term) * double(term);
    }
    worker.add(element, run, delta_scale);
  };
  for (const ScoreGradient::Read &read : gradient_.reads)
    share(read.adjoint, [&](size_t at) {
      return starts_[size_t(read.slot)] + size_t(worker.nodes.element(read.node, at));
    });
  for (size_t slot = 0; slot < gradient_.dscalars.size(); ++slot)
    if (!gradient_.isConstant(gradient_.dscalars[slot], 0))
      share(gradient_.dscalars[slot], [&](size_t) { return starts_.back() + slot; });
}

/// One key head of one sequence with all query heads of it. Returns the largest |score|.
template <class T> double Backward<T>::item(Worker &worker, int64_t b, int64_t hk) {
  const Sequence seq = sequenceOf(p_, b);
  const int64_t group = p_.heads_q / p_.heads_k, dqk = p_.head_dim_qk, dv = p_.head_dim_v;
  const auto k = gather<T>(p_, p_.k, p_.k_strides, b, seq.first_k, hk, seq.k_len, dqk);
  const auto v = gather<T>(p_, p_.v, p_.v_strides, b, seq.first_k, hk, seq.k_len, dv);
  std::vector<T> dk(k.size(), T(0)), dv_sum(v.size(), T(0)), dq(size_t(dqk), T(0));
  std::vector<double> dk_squares(k.size(), 0), dv_squares(v.size(), 0), dq_squares(dq.size(), 0),
      dq_delta(dq.size(), 0);
  const T scale = T(p_.softmax_scale), enlarged = T(std::exp(model_.shift)), r = T(p_.dropout.scale);
  const bool drops = p_.dropout.drops();
  double largest = 0;
  std::vector<T> s, p, dp, g;
  for (int64_t h = hk * group; h < (hk + 1) * group; ++h) {
    const auto q = gather<T>(p_, p_.q, p_.q_strides, b, seq.first_q, h, seq.q_len, dqk);
    const auto dout = gather<T>(p_, problem_.dout, problem_.dout_strides, b, seq.first_q, h, seq.q_len, dv);
    for (int64_t i = 0; i < seq.q_len; ++i) {
      const size_t row = size_t(rowOf(p_, seq, b, i) * p_.heads_q + h);
      const T lse = T(lse_[row]);
      const auto [lo, hi] = visibleKeys(p_, seq, i);
      if (std::isinf(lse) || hi == lo)
        continue; // dq stays 0
      const T *qi = q.data() + i * dqk, *doi = dout.data() + i * dv;
      T delta = 0;
      double delta_squares = 0;
      for (int64_t c = 0; c < dv; ++c) {
        const T term = doi[c] * T(o_[row * size_t(dv) + size_t(c)]);
        delta += term;
        delta_squares += double(term) * double(term);
      }
      if (problem_.dlse)
        delta -= T(problem_.dlse[row]);

      s.assign(size_t(hi - lo), T(0));
      for (int64_t j = lo; j < hi; ++j) {
        T sum = 0;
        for (int64_t c = 0; c < dqk; ++c)
          sum += qi[c] * k[size_t(j * dqk + c)];
        s[size_t(j - lo)] = sum * scale;
      }
      worker.nodes.evaluate({b, h, hk, i, seq.q_len, seq.k_len}, lo, s);
      const std::vector<T> &w = worker.nodes.values(gradient_.value),
                           &dwds = worker.nodes.values(gradient_.ds);
      p.assign(s.size(), T(0));
      dp.assign(s.size(), T(0));
      g.assign(s.size(), T(0));
      for (int64_t j = lo; j < hi; ++j) {
        const size_t at = size_t(j - lo);
        if (std::isfinite(w[at]))
          largest = std::max(largest, std::fabs(double(w[at])));
        p[at] = std::exp(w[at] - lse);
        if (p[at] == 0 || (drops && !dropoutKeeps(p_.dropout, p_.rng_seed, p_.rng_offset,
                                                  uint32_t(b * p_.heads_q + h), i, j)))
          continue;
        const T stored = rounded(p[at] * enlarged);
        for (int64_t c = 0; c < dv; ++c) {
          const size_t to = size_t(j * dv + c);
          dp[at] += doi[c] * v[to];
          dv_sum[to] += stored * doi[c];
          if constexpr (kScales) {
            const double term = double(p[at] * r * doi[c]);
            dv_squares[to] += term * term;
          }
        }
        dp[at] *= r;
        const double of_o = double(p[at]) * double(dp[at]); // o was summed from rounded probabilities
        delta_squares += of_o * of_o;
      }
      const double delta_scale = std::sqrt(delta_squares);

      std::fill(dq.begin(), dq.end(), T(0));
      std::fill(dq_squares.begin(), dq_squares.end(), 0);
      std::fill(dq_delta.begin(), dq_delta.end(), 0);
      for (int64_t j = lo; j < hi; ++j) {
        const size_t at = size_t(j - lo);
        if (p[at] == 0)
          continue; // whatever the derivatives are there
        g[at] = (model_.rounds_p ? rounded(p[at] * enlarged) / enlarged : p[at]) * (dp[at] - delta);
        const T ds = rounded(g[at] == 0 ? T(0) : g[at] * dwds[at] * enlarged);
        const double from_delta = double(p[at] * dwds[at]) * delta_scale;
        for (int64_t c = 0; c < dqk; ++c) {
          const size_t to = size_t(j * dqk + c);
          dq[size_t(c)] += ds * k[to];
          dk[to] += ds * qi[c];
          if constexpr (!kScales)
            continue;
          const double by_k = double(ds) * double(k[to]), by_q = double(ds) * double(qi[c]),
                       of_delta = from_delta * double(qi[c]);
          dq_squares[size_t(c)] += by_k * by_k;
          dq_delta[size_t(c)] += from_delta * double(k[to]);
          dk_squares[to] += by_q * by_q + of_delta * of_delta;
        }
      }
      for (int64_t c = 0; c < dqk; ++c) {
        const size_t to = row * size_t(dqk) + size_t(c);
        out_.dq[to] = double(rounded(dq[size_t(c)] * scale / enlarged));
        out_.scales.dq[to] = std::hypot(double(scale) * std::sqrt(dq_squares[size_t(c)]),
                                        double(scale) * dq_delta[size_t(c)], out_.dq[to]);
      }

      addShared(worker, p, g, delta_scale);
    }
  }
  auto store = [&](std::vector<double> &to, std::vector<double> &scales, const std::vector<T> &sums,
                   const std::vector<double> &squares, int64_t dim, T factor, T square_factor) {
    for (int64_t j = 0; j < seq.k_len; ++j)
      for (int64_t c = 0; c < dim; ++c) {
        const size_t from = size_t(j * dim + c),
                     at = size_t((keyRowOf(p_, seq, b, j) * p_.heads_k + hk) * dim + c);
        to[at] = double(rounded(sums[from] * factor));
        // Of three numbers the C++ library works it out; of two it asks glibc 2.35.
        scales[at] = std::hypot(double(square_factor) * std::sqrt(squares[from]), to[at], 0.0);
      }
  };
  store(out_.dk, out_.scales.dk, dk, dk_squares, dqk, scale / enlarged, scale);
  store(out_.dv, out_.scales.dv, dv_sum, dv_squares, dv, r / enlarged, T(1));
  return largest;
}

template <class T> BackwardOutput Backward<T>::run(int threads) {
  auto zeros = [](int64_t n) { return std::vector<double>(size_t(n), 0); };
  out_.dq = out_.scales.dq = zeros(p_.rowsQ() * p_.heads_q * p_.head_dim_qk);
  out_.dk = out_.scales.dk = zeros(p_.rowsK() * p_.heads_k * p_.head_dim_qk);
  out_.dv = out_.scales.dv = zeros(p_.rowsK() * p_.heads_k * p_.head_dim_v);
  out_.valid_q.assign(size_t(p_.rowsQ()), 0);
  out_.valid_k.assign(size_t(p_.rowsK()), 0);
  for (int64_t b = 0; b < p_.batch; ++b) {
    const Sequence s = sequenceOf(p_, b);
    std::fill_n(out_.valid_q.begin() + rowOf(p_, s, b, 0), std::max<int64_t>(s.q_len, 0), uint8_t(1));
    std::fill_n(out_.valid_k.begin() + keyRowOf(p_, s, b, 0), std::max<int64_t>(s.k_len, 0), uint8_t(1));
  }
  const int64_t items = p_.batch * p_.heads_k;
  const int64_t most = threads > 0 ? threads : int64_t(std::max(1u, std::thread::hardware_concurrency()));
  const int64_t count = std::clamp<int64_t>(most, 1, std::max<int64_t>(items, 1));
  std::vector<Worker> workers(
      size_t(count),
      Worker{NodeRows<T>(gradient_.nodes, score_.scalars, score_.tensors), Shared<T>(shared_)});
  std::mutex mutex;
  auto work = [&](int64_t first) {
    double largest = 0;
    for (int64_t i = first; i < items;
         i += count) // which items a worker sums does not depend on the time they take
      largest = std::max(largest, item(workers[size_t(first)], i / p_.heads_k, i % p_.heads_k));
    std::lock_guard lock(mutex);
    out_.max_score = std::max(out_.max_score, largest);
  };
  std::vector<std::thread> others;
  for (int64_t i = 1; i < count; ++i)
    others.emplace_back(work, i);
  work(0);
  for (std::thread &t : others)
    t.join();

  Shared<T> total(shared_);
  for (const Worker &worker : workers)
    for (size_t i = 0; i < shared_; ++i) {
      total.sums[i] += worker.shared.sums[i];
      total.squares[i] += worker.shared.squares[i];
    }
  finish(out_, total);
  return std::move(out_);
}

template <class T> void Backward<T>::finish(BackwardOutput &out, const Shared<T> &shared) const {
  auto part = [&](size_t from, size_t to, std::vector<double> &sums, std::vector<double> &scales) {
    for (size_t i = from; i < to; ++i) {
      sums.push_back(double(shared.sums[i]));
      scales.push_back(std::hypot(std::sqrt(shared.squares[i]), double(shared.sums[i]), 0.0));
    }
  };
  out.dtensors.resize(p_.tensors.size());
  out.scales.dtensors.resize(p_.tensors.size());
  for (size_t slot = 0; slot < p_.tensors.size(); ++slot)
    part(starts_[slot], starts_[slot + 1], out.dtensors[slot], out.scales.dtensors[slot]);
  if (p_.alibi_slopes)
    part(starts_[p_.tensors.size()], starts_.back(), out.dslopes, out.scales.dslopes);
  const size_t scalars = starts_.back(), own = scalars + p_.scalars.size();
  part(scalars, own, out.dscalars, out.scales.dscalars);
  part(own, scalars + score_.scalars.size(), out.dsoftcap, out.scales.dsoftcap);
}

} // namespace

BackwardOutput backwardFp64(const BackwardProblem &problem, int threads) {
  return Backward<double>(problem, {}, false).run(threads);
}

BackwardOutput backwardStorageModel(const BackwardProblem &problem, const BackwardModel &model, int threads) {
  return Backward<float>(problem, model, true).run(threads);
}

} // namespace flashplus::reference
