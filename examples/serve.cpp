// SPDX-License-Identifier: BSD-3-Clause
// The inner loop of a batch server: packed sequences whose lengths change at every step, one plan for all of
// them.
//
//   serve [cpu|cuda]     default: the GPU if there is one
//
// A plan is made once for the largest step. A step then writes its lengths (cu_seqlens) where the kernels
// read them and runs: nothing is compiled, allocated or planned again. On a GPU the run is captured into a
// graph once and replayed; since lengths are read from device memory, the same graph serves every step.
//
// So that the result can be checked, q and k are 0 and all rows of v in sequence b hold the number b: so does
// o.
#include "cuda_stream.hpp"

#include <flashplus/flashplus.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace {

constexpr int64_t kMaxBatch = 16, kMaxTokens = 512, kHeadsQ = 8, kHeadsK = 2, kHeadDim = 64;
constexpr int kSteps = 6;

uint16_t bf16(float value) { // exact for the small numbers used here
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return uint16_t(bits >> 16);
}
float fromBf16(uint16_t half) {
  const uint32_t bits = uint32_t(half) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

int fail(const std::string &why) {
  std::fprintf(stderr, "serve: %s\n", why.c_str());
  return 1;
}

/// Random lengths that sum up to at most kMaxTokens; some sequences are empty.
std::vector<int32_t> lengthsOfStep(std::mt19937 &engine) {
  std::vector<int32_t> ends{0};
  for (int64_t b = 0; b < kMaxBatch; ++b)
    ends.push_back(ends.back() + int32_t(engine() % (kMaxTokens / kMaxBatch + 1)));
  return ends;
}

} // namespace

int main(int argc, char **argv) {
  const std::string where = argc > 1 ? argv[1] : "";
  if (argc > 2 || (!where.empty() && where != "cpu" && where != "cuda"))
    return fail("usage: serve [cpu|cuda]");

  flashplus::ContextOptions options;
  options.log = [](std::string_view warning) {
    std::fprintf(stderr, "%.*s\n", int(warning.size()), warning.data());
  };
  auto context = flashplus::Context::create(options);
  if (!context)
    return fail(context.error().message);
  std::optional<CudaStream> stream;
  if (where != "cpu") {
    stream.emplace();
    if (!*stream && where == "cuda")
      return fail(stream->problem);
    if (!*stream)
      stream.reset();
  }
  const DLDevice device = stream ? flashplus::cuda(0) : flashplus::cpu();
  void *const queue = stream ? stream->get() : nullptr;

  // Buffers for the largest step, filled once with zeros.
  const size_t q_bytes = size_t(kMaxTokens * kHeadsQ * kHeadDim) * 2,
               k_bytes = size_t(kMaxTokens * kHeadsK * kHeadDim) * 2;
  auto q = context->allocate(device, q_bytes), k = context->allocate(device, k_bytes);
  auto v = context->allocate(device, k_bytes), o = context->allocate(device, q_bytes);
  auto ends = context->allocate(device, size_t(kMaxBatch + 1) * 4);
  for (auto *memory : {&q, &k, &v, &o, &ends})
    if (!*memory)
      return fail(memory->error().message);
  std::vector<uint16_t> rows(size_t(kMaxTokens * kHeadsQ * kHeadDim), 0);
  for (auto *memory : {&q, &k})
    if (auto done = (*memory)->upload(rows.data()); !done)
      return fail(done.error().message);
  const std::vector<int32_t> none(size_t(kMaxBatch + 1), 0);
  if (auto done = ends->upload(none.data()); !done)
    return fail(done.error().message);

  using flashplus::DType;
  using flashplus::Tensor;
  flashplus::ForwardArgs args;
  args.q = Tensor(q->data(), DType::BF16, {kMaxTokens, kHeadsQ, kHeadDim}, device);
  args.k = Tensor(k->data(), DType::BF16, {kMaxTokens, kHeadsK, kHeadDim}, device);
  args.v = Tensor(v->data(), DType::BF16, {kMaxTokens, kHeadsK, kHeadDim}, device);
  args.o = Tensor(o->data(), DType::BF16, {kMaxTokens, kHeadsQ, kHeadDim}, device);
  args.cu_seqlens_q = args.cu_seqlens_k = Tensor(ends->data(), DType::I32, {kMaxBatch + 1}, device);
  args.max_seqlen_q = args.max_seqlen_k = kMaxTokens / kMaxBatch;
  args.causal = true;

  auto plan = context->plan(args); // compiles, or reads the cache
  if (!plan)
    return fail(plan.error().message);
  auto workspace = plan->allocateWorkspace();
  if (!workspace)
    return fail(workspace.error().message);
  if (stream) {
    if (!stream->beginCapture())
      return fail(stream->problem);
    auto recorded = plan->run(args, *workspace, queue);
    const bool captured = stream->endCapture();
    if (!recorded)
      return fail(recorded.error().message);
    if (!captured)
      return fail(stream->problem);
  }

  std::mt19937 engine(7);
  std::vector<uint16_t> results(rows.size());
  for (int step = 0; step < kSteps; ++step) {
    const std::vector<int32_t> lengths = lengthsOfStep(engine);
    for (int64_t b = 0; b < kMaxBatch; ++b)
      std::fill(rows.begin() + lengths[size_t(b)] * kHeadsK * kHeadDim,
                rows.begin() + lengths[size_t(b) + 1] * kHeadsK * kHeadDim, bf16(float(b)));
    if (auto done = v->upload(rows.data()); !done)
      return fail(done.error().message);
    if (auto done = ends->upload(lengths.data()); !done)
      return fail(done.error().message);

    if (stream) {
      if (!stream->replay())
        return fail(stream->problem);
    } else if (auto done = plan->run(args, *workspace, queue); !done) {
      return fail(done.error().message);
    }
    if (auto done = context->synchronize(device, queue); !done)
      return fail(done.error().message);

    if (auto done = o->download(results.data()); !done)
      return fail(done.error().message);
    int64_t wrong = 0;
    for (int64_t b = 0; b < kMaxBatch; ++b)
      for (int64_t i = lengths[size_t(b)] * kHeadsQ * kHeadDim;
           i < lengths[size_t(b) + 1] * kHeadsQ * kHeadDim; ++i)
        wrong += fromBf16(results[size_t(i)]) != float(b);
    std::printf("step %d on %s: %d tokens in %d sequences, %s\n", step, stream ? "cuda, replayed" : "cpu",
                lengths.back(), int(kMaxBatch), wrong ? "WRONG" : "as expected");
    if (wrong)
      return 1;
  }
  const flashplus_counters counters = context->counters();
  std::printf("%lld compiled, %lld from the cache\n", static_cast<long long>(counters.compiles),
              static_cast<long long>(counters.disk_hits));
  return 0;
}
