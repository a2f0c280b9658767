// SPDX-License-Identifier: BSD-3-Clause
// What a gradient may not depend on, bit for bit: the run, the number of threads, the place in a batch, how
// sequences are packed; and what else a plan may be run for.
#include "tests/conformance/backward_check.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <thread>

using namespace flashplus;
using namespace flashplus::conformance;

namespace {

bool same(const reference::Gradients &a, const reference::Gradients &b) {
  return a.dq == b.dq && a.dk == b.dk && a.dv == b.dv;
}

reference::Gradients gradientsOf(const BackwardCase &c) {
  const auto actual = runBackwardCase(c);
  REQUIRE(actual);
  return *actual;
}

/// Of entry b of `c` run as part of the whole.
reference::Gradients entryOf(const Case &c, const reference::Gradients &all, int64_t b) {
  auto part = [&](const std::vector<double> &values, int64_t start, int64_t rows, int64_t width) {
    return std::vector<double>(values.begin() + start * width, values.begin() + (start + rows) * width);
  };
  const int64_t q = c.ragged() ? c.startQ(b) : b * c.sq, k = c.ragged() ? c.startK(b) : b * c.sk;
  reference::Gradients g;
  g.dq = part(all.dq, q, c.lengthQ(b), c.hq * c.d);
  g.dk = part(all.dk, k, c.lengthK(b), c.hk * c.d);
  g.dv = part(all.dv, k, c.lengthK(b), c.hk * c.dimV());
  return g;
}

/// Of several shares of the keys, and several tiles a share.
const Case kLong = {.batch = 2, .sq = 97, .sk = 300, .hq = 4, .hk = 2, .d = 40, .causal = true};

} // namespace

TEST_SUITE_BEGIN("backward_invariant");

TEST_CASE("backward invariant: many runs give the same bits") {
  for (const BackwardCase &c : forEveryDtype({BackwardCase{.forward = kLong, .dlse = true, .delta = true}})) {
    BackwardInstance instance(c);
    const PlanPtr plan = makeBackwardPlan(instance);
    REQUIRE(plan);
    const BackwardOutputs first = runBackwardPlan(instance, *plan);
    for (int i = 1; i < Session::get().rounds(20, 3); ++i)
      CHECK_MESSAGE(runBackwardPlan(instance, *plan) == first, "run " << i << ": " << c.text());
  }
}

TEST_CASE("backward invariant: where any order will do, one kernel adds dq up on Hopper") {
  if (Session::get().onCpu())
    return;
  auto planText = [](int64_t head_dim, bool any_order) {
    BackwardInstance instance({.forward = {.sq = 100, .sk = 100, .d = head_dim}, .any_order = any_order});
    const PlanPtr plan = makeBackwardPlan(instance);
    return std::string(flashplus_plan_describe(plan.get()));
  };
  if (planText(64, false).find("sm90.") == std::string::npos)
    return;
  for (int64_t head_dim : {16, 32, 48, 64, 128}) { // so that the cases of this suite are of it
    CHECK(planText(head_dim, true).find("sm90.backward ") != std::string::npos);
    CHECK(planText(head_dim, false).find("sm90.backward ") == std::string::npos);
  }
}

TEST_CASE("backward invariant: any number of threads gives the same bits") {
  if (!Session::get().onCpu())
    return;
  Case one = kLong; // fewer items than threads, and one share
  one.batch = 1;
  one.hq = one.hk = 1;
  Case small = one;
  small.sk = 60;
  Case scored = kLong; // sums that all heads share, and such that each head has alone
  scored.score = "gain * s + bias[k] + far[h, q - k]";
  scored.aux = {{.name = "bias", .shape = {300}}, {.name = "far", .shape = {4, 20}}};
  scored.scalars = {{"gain", 0.7f}};
  Case apart = kLong;
  apart.alibi = Alibi::PerBatch;
  const std::vector<BackwardCase> cases = forEveryDtype(backwards({kLong, one, small, scored, apart}));
  std::vector<std::unique_ptr<BackwardInstance>> instances;
  std::vector<BackwardOutputs> expected;
  for (const BackwardCase &c : cases) {
    instances.push_back(std::make_unique<BackwardInstance>(c));
    expected.push_back(runBackward(*instances.back()));
  }
  std::string cache = (std::filesystem::temp_directory_path() / "conformance-XXXXXX").string();
  REQUIRE(mkdtemp(cache.data()) != nullptr); // so that kernels are compiled once
  for (int threads : {1, 2, 3, 7}) {
    flashplus_context_options options = {.struct_size = sizeof options};
    options.cache_dir = cache.c_str();
    options.num_threads = threads;
    flashplus_context *context = nullptr;
    require(flashplus_context_create(&options, &context), "flashplus_context_create");
    for (size_t i = 0; i < cases.size(); ++i)
      CHECK_MESSAGE(runBackward(*instances[i], context) == expected[i],
                    threads << " threads: " << cases[i].text());
    flashplus_context_destroy(context);
  }
  std::filesystem::remove_all(cache);
}

TEST_CASE("backward invariant: the place in a batch does not matter") {
  Case dense = kLong;
  dense.batch = 3;
  Case packed = kLong;
  packed.ragged_q = {97, 5, 64};
  packed.ragged_k = {97, 70, 200};
  for (const BackwardCase &c : chosen(forEveryDtype(backwards({dense, packed})))) {
    const reference::Gradients all = gradientsOf(c);
    BackwardCase turned = c; // its entry b has the numbers of entry b + 1
    turned.forward.first_batch = 1;
    for (std::vector<int64_t> *lengths : {&turned.forward.ragged_q, &turned.forward.ragged_k})
      if (!lengths->empty())
        std::rotate(lengths->begin(), lengths->begin() + 1, lengths->end());
    const reference::Gradients others = gradientsOf(turned);
    for (int64_t b = 1; b < c.forward.batches(); ++b)
      CHECK_MESSAGE(same(entryOf(c.forward, all, b), entryOf(turned.forward, others, b - 1)),
                    "entry " << b << ": " << c.text());
    if (Session::get().onCpu())
      continue; // there the batch decides how many shares the keys have
    BackwardCase alone = c;
    alone.forward.batch = 1;
    alone.forward.first_batch = 1;
    alone.forward.sq = c.forward.lengthQ(1);
    alone.forward.sk = c.forward.lengthK(1);
    alone.forward.ragged_q.clear();
    alone.forward.ragged_k.clear();
    CHECK_MESSAGE(same(entryOf(c.forward, all, 1), gradientsOf(alone)), "alone: " << c.text());
  }
}

TEST_CASE("backward invariant: dense, packed and partly used sequences are the same problem") {
  for (const BackwardCase &c : chosen(forEveryDtype(backwards({kLong})))) {
    const reference::Gradients dense = gradientsOf(c);
    BackwardCase packed = c;
    packed.forward.ragged_q = {97, 97};
    packed.forward.ragged_k = {300, 300};
    CHECK_MESSAGE(same(dense, gradientsOf(packed)), packed.text());
    BackwardCase used = c;
    used.forward.used_q = {97, 97};
    used.forward.used_k = {300, 300};
    CHECK_MESSAGE(same(dense, gradientsOf(used)), used.text());
  }
}

TEST_CASE("backward invariant: delta may be left out, and max_seqlen_k is a bound only") {
  for (BackwardCase c : chosen(forEveryDtype(backwards({kLong})))) {
    c.delta = true;
    const reference::Gradients with = gradientsOf(c);
    c.delta = false;
    CHECK_MESSAGE(same(with, gradientsOf(c)), c.text());
    c.forward.ragged_q = {97, 97};
    c.forward.ragged_k = {300, 300};
    c.forward.max_k = 384; // as many tiles as a CPU has shares; more shares would be another sum
    CHECK_MESSAGE(same(with, gradientsOf(c)), c.text());
  }
}

TEST_CASE("backward invariant: a plan runs every problem within its bounds") {
  Case largest = kLong;
  largest.batch = 3;
  for (const BackwardCase &planned : chosen(forEveryDtype(backwards({largest})))) {
    BackwardInstance largest_instance(planned);
    const PlanPtr plan = makeBackwardPlan(largest_instance);
    REQUIRE(plan);
    for (auto [batch, sq, sk, hq, hk] :
         {std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t>{3, 9, 300, 4, 2},
          {1, 1, 1, 4, 2},
          {2, 5, 0, 4, 2},
          {2, 0, 5, 4, 2},
          {0, 1, 1, 4, 2},
          {3, 97, 50, 4, 4},
          {2, 70, 130, 3, 1}}) {
      BackwardCase c = planned;
      c.forward.batch = batch;
      c.forward.sq = sq;
      c.forward.sk = sk;
      c.forward.hq = hq;
      c.forward.hk = hk;
      BackwardInstance instance(c);
      const BackwardOutputs outputs = runBackwardPlan(instance, *plan);
      const auto result =
          reference::compareBackward(instance.gradientReference(), instance.unpackGradients(outputs));
      CHECK_MESSAGE(result.good(), result.complaint() << ": " << c.text());
      std::string where;
      CHECK_MESSAGE(instance.gradientsUntouched(outputs, where), where << ": " << c.text());
    }
  }
}

TEST_CASE("backward invariant: many threads, one plan, a workspace each") {
  const BackwardCase c = {.forward = kLong, .dlse = true};
  BackwardInstance first(c);
  const PlanPtr plan = makeBackwardPlan(first);
  REQUIRE(plan);
  const BackwardOutputs expected = runBackwardPlan(first, *plan);
  constexpr int kThreads = 4;
  std::vector<std::unique_ptr<BackwardInstance>> instances;
  std::vector<DeviceBuffer> workspaces;
  for (int t = 0; t < kThreads; ++t) {
    instances.push_back(std::make_unique<BackwardInstance>(c));
    instances.back()->resetGradients();
    workspaces.push_back(freshWorkspace(*plan));
  }
  std::atomic<int> failed{0}, different{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      const Session &s = Session::get();
      BackwardInstance &instance = *instances[size_t(t)];
      const DeviceBuffer &workspace = workspaces[size_t(t)];
      for (int round = 0; round < s.rounds(20, 2); ++round) {
        const bool direct = round % 2 == 1;
        const flashplus_status status =
            direct ? flashplus_backward(s.context(), &instance.gradientArgs(), nullptr)
                   : flashplus_backward_plan_run(plan.get(), &instance.gradientArgs(), workspace.data(),
                                                 workspace.size(), nullptr);
        if (status != FLASHPLUS_OK ||
            flashplus_synchronize(s.context(), s.device(), nullptr) != FLASHPLUS_OK) {
          ++failed;
          continue;
        }
        const BackwardOutputs got = instance.readGradients(); // the counter goes on
        different += got.dq != expected.dq || got.dk != expected.dk || got.dv != expected.dv;
      }
    });
  for (std::thread &t : threads)
    t.join();
  CHECK(failed == 0);
  CHECK(different == 0);
}

TEST_SUITE_END();
