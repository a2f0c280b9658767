// SPDX-License-Identifier: BSD-3-Clause
// Training without a framework: one attention layer on the CPU learns what another one does.
//
//   train [steps]     default: 60
//
// The layer projects tokens x to q = x Wq, k = x Wk and v = x Wv and attends causally. The loss is the mean
// square of what its output is off by; its gradient is dout, from which flashplus_backward makes dq, dk and
// dv. Those of the weights are x^T dq, x^T dk and x^T dv, and a step goes against them. The teacher is a
// layer of the same kind whose weights are near those that training starts with. Leaves with 1 if the loss
// did not fall to a twentieth.
#include <flashplus/flashplus.hpp>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

namespace {

using Floats = std::vector<float>;

constexpr int64_t kBatch = 4, kSeqlen = 48, kHeads = 4, kHeadDim = 16;
constexpr int64_t kTokens = kBatch * kSeqlen, kWidth = kHeads * kHeadDim;
constexpr float kRate = 8; // of a loss that is a mean over kTokens * kWidth numbers

int fail(const std::string &why) {
  std::fprintf(stderr, "train: %s\n", why.c_str());
  return 1;
}

/// (kTokens, kWidth) = x (kTokens, kWidth) times w (kWidth, kWidth)
void project(const Floats &x, const Floats &w, Floats &to) {
  for (int64_t t = 0; t < kTokens; ++t)
    for (int64_t j = 0; j < kWidth; ++j) {
      float sum = 0;
      for (int64_t i = 0; i < kWidth; ++i)
        sum += x[size_t(t * kWidth + i)] * w[size_t(i * kWidth + j)];
      to[size_t(t * kWidth + j)] = sum;
    }
}

/// w -= rate x^T gradient
void descend(const Floats &x, const Floats &gradient, Floats &w) {
  for (int64_t i = 0; i < kWidth; ++i)
    for (int64_t j = 0; j < kWidth; ++j) {
      float sum = 0;
      for (int64_t t = 0; t < kTokens; ++t)
        sum += x[size_t(t * kWidth + i)] * gradient[size_t(t * kWidth + j)];
      w[size_t(i * kWidth + j)] -= kRate * sum;
    }
}

struct Layer {
  Floats q_weight, k_weight, v_weight;
  Floats q, k, v, o, lse; ///< Of the last forward.

  Layer(std::mt19937 &engine)
      : q_weight(size_t(kWidth * kWidth)), k_weight(q_weight), v_weight(q_weight),
        q(size_t(kTokens * kWidth)), k(q), v(q), o(q), lse(size_t(kTokens * kHeads)) {
    std::normal_distribution<float> normal(0, 1 / 8.0f); // 1 / sqrt(kWidth)
    for (Floats *weight : {&q_weight, &k_weight, &v_weight})
      for (float &w : *weight)
        w = normal(engine);
  }

  flashplus::Tensor tensor(const Floats &values) const {
    return flashplus::Tensor(values.data(), flashplus::DType::F32, {kBatch, kSeqlen, kHeads, kHeadDim});
  }
  flashplus::Tensor lseTensor() const {
    return flashplus::Tensor(lse.data(), flashplus::DType::F32, {kBatch, kHeads, kSeqlen});
  }

  flashplus::Expected<void> forward(const flashplus::Context &context, const Floats &x) {
    project(x, q_weight, q);
    project(x, k_weight, k);
    project(x, v_weight, v);
    flashplus::ForwardArgs args;
    args.q = tensor(q), args.k = tensor(k), args.v = tensor(v), args.o = tensor(o);
    args.lse = lseTensor(); // the backward reads it
    args.causal = true;
    return context.forward(args);
  }

  /// From the gradient of o to a step of the weights. After forward(), whose mask and tensors it takes.
  flashplus::Expected<void> backward(const flashplus::Context &context, const Floats &x, const Floats &dout) {
    Floats dq(q.size()), dk(k.size()), dv(v.size()); // could hold anything: each element is written
    auto tq = tensor(q), tk = tensor(k), tv = tensor(v), to = tensor(o), tdout = tensor(dout),
         tlse = lseTensor();
    auto tdq = tensor(dq), tdk = tensor(dk), tdv = tensor(dv);
    flashplus_backward_args args{}; // zeros are full attention
    args.struct_size = sizeof args;
    args.q = tq.dl(), args.k = tk.dl(), args.v = tv.dl(), args.o = to.dl();
    args.lse = tlse.dl();
    args.dout = tdout.dl();
    args.dq = tdq.dl(), args.dk = tdk.dl(), args.dv = tdv.dl();
    args.causal = 1;
    if (auto code = flashplus_backward(context.handle(), &args, nullptr); code != FLASHPLUS_OK)
      return flashplus::Error{code, flashplus_last_error()};
    descend(x, dq, q_weight);
    descend(x, dk, k_weight);
    descend(x, dv, v_weight);
    return {};
  }
};

/// Mean square of a - b, and its gradient by a.
double lossOf(const Floats &a, const Floats &b, Floats &gradient) {
  double loss = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const float off = a[i] - b[i];
    loss += double(off) * off;
    gradient[i] = 2 * off / float(a.size());
  }
  return loss / double(a.size());
}

} // namespace

int main(int argc, char **argv) {
  const int steps = argc > 1 ? std::atoi(argv[1]) : 60;
  if (argc > 2 || steps < 1)
    return fail("usage: train [steps]");
  auto context = flashplus::Context::create();
  if (!context)
    return fail(context.error().message);

  std::mt19937 engine(7);
  std::normal_distribution<float> normal;
  Floats x(size_t(kTokens * kWidth));
  for (float &value : x)
    value = normal(engine);
  Layer student(engine), teacher = student;
  for (Floats *weight : {&teacher.q_weight, &teacher.k_weight, &teacher.v_weight})
    for (float &w : *weight)
      w += normal(engine) / 16;
  if (auto done = teacher.forward(*context, x); !done)
    return fail(done.error().message);

  Floats dout(x.size());
  double first = 0, loss = 0;
  for (int step = 0; step <= steps; ++step) {
    if (auto done = student.forward(*context, x); !done)
      return fail(done.error().message);
    loss = lossOf(student.o, teacher.o, dout);
    if (step == 0)
      first = loss;
    if (step % 10 == 0 || step == steps)
      std::printf("step %3d  loss %.6f\n", step, loss);
    if (step == steps)
      break;
    if (auto done = student.backward(*context, x, dout); !done)
      return fail(done.error().message);
  }
  const flashplus_counters counters = context->counters();
  std::printf("%lld compiled, %lld from the cache\n", static_cast<long long>(counters.compiles),
              static_cast<long long>(counters.disk_hits));
  if (!(loss < first / 20))
    return fail("the loss did not fall to a twentieth of " + std::to_string(first));
  return 0;
}
