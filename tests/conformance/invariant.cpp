// SPDX-License-Identifier: BSD-3-Clause
// What a result may not depend on, bit for bit: the rest of the batch (when asked for), how sequences are
// packed, and what other threads do.
#include "tests/conformance/check.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <thread>

using namespace flashplus;
using namespace flashplus::conformance;

namespace {

/// Results of entry b of `c` run as part of the whole.
reference::Actual entryOf(const Case &c, const reference::Actual &all, int64_t b) {
  const int64_t start = c.ragged() ? c.startQ(b) : b * c.sq, rows = c.lengthQ(b), width = c.hq * c.dimV();
  reference::Actual part;
  part.o.assign(all.o.begin() + start * width, all.o.begin() + (start + rows) * width);
  part.lse.assign(all.lse.begin() + start * c.hq, all.lse.begin() + (start + rows) * c.hq);
  return part;
}

Case alone(const Case &c, int64_t b) {
  Case one = c;
  one.batch = 1;
  one.sq = c.lengthQ(b);
  one.sk = c.lengthK(b);
  one.ragged_q.clear();
  one.ragged_k.clear();
  one.used_q.clear();
  one.used_k.clear();
  one.first_batch = b;
  return one;
}

bool same(const reference::Actual &a, const reference::Actual &b) { return a.o == b.o && a.lse == b.lse; }

} // namespace

TEST_SUITE_BEGIN("invariant");

TEST_CASE("invariant: a sequence alone equals it inside a batch") {
  for (Case c : forEveryDtype({
           {.batch = 3, .sq = 7, .sk = 300, .hq = 4, .hk = 2},
           {.batch = 5, .sq = 1, .sk = 1000, .hq = 1, .causal = true},
           {.batch = 3, .sq = 150, .sk = 200, .used_q = {1, 150, 20}, .used_k = {200, 9, 64}, .causal = true},
           {.ragged_q = {1, 200, 7, 64}, .ragged_k = {300, 200, 70, 1000}, .causal = true},
           {.hq = 4,
           .hk = 2,
           .d = 33,
           .ragged_q = {1, 200, 7},
           .ragged_k = {300, 200, 70},
           .window_left = 50,
           .alibi = Alibi::PerHead},
       })) {
    c.batch_invariant = true;
    c.num_splits = 0;
    const reference::Actual all = run(c);
    const PlanInfo plan = inspect(*makePlan(Instance(c)));
    for (int64_t b = 0; b < c.batches(); ++b) {
      // Where tiles of all heights sum in one order, only the plan tells.
      const PlanInfo one = inspect(*makePlan(Instance(alone(c, b))));
      CHECK_MESSAGE((one.tile_m == plan.tile_m && one.tile_n == plan.tile_n && one.num_splits == 1),
                    "plan of entry " << b << ": " << c.text());
      CHECK_MESSAGE(same(entryOf(c, all, b), run(alone(c, b))), "entry " << b << ": " << c.text());
    }
  }
}

/// A batch of `c`'s sequence, which has the values of entry kProbe, and others before and behind it.
Case company(const Case &c, int n) {
  constexpr int64_t kProbe = 20, kQueries[] = {1, 3, 40}, kKeys[] = {1, 63, 64, 65, 130, 333};
  Case in = c;
  const int64_t before = n % 4, behind = n / 4;
  in.ragged_q.clear(), in.ragged_k.clear();
  for (int64_t i = 0; i < before + 1 + behind; ++i) {
    in.ragged_q.push_back(i == before ? c.ragged_q[0] : kQueries[(n + i) % 3]);
    in.ragged_k.push_back(i == before ? c.ragged_k[0] : kKeys[(7 * n + i) % 6]);
  }
  in.first_batch = kProbe - before;
  return in;
}

/// Each of them once; on a CPU, where that is cheap, once per storage type.
std::vector<Case> few(std::vector<Case> cases) {
  return Session::get().onCpu() ? forEveryDtype(cases) : cases;
}

TEST_CASE("invariant: one sequence in twenty batches, also with its keys in a fixed number of shares") {
  for (Case c : few({
           {.ragged_q = {1}, .ragged_k = {301}, .num_splits = 0},
           {.ragged_q = {1}, .ragged_k = {301}, .causal = true, .num_splits = 16},
           {.ragged_q = {70}, .ragged_k = {200}, .causal = true, .num_splits = 0},
           {.ragged_q = {1}, .ragged_k = {301}, .num_splits = 16, .pages = {.size = 16}},
           {.ragged_q = {35}, .ragged_k = {200}, .causal = true, .num_splits = 0, .pages = {.size = 12}},
       })) {
    c.hq = 4, c.hk = 2, c.d = 32;
    c.batch_invariant = true;
    const reference::Actual alone = entryOf(company(c, 0), run(company(c, 0)), 0);
    const int batches = Session::get().rounds(20, 6); // 6 have each place in the batch, and sizes around it
    for (int n = 1; n < batches; ++n) {
      const Case in = company(c, n);
      CHECK_MESSAGE(same(alone, entryOf(in, run(in), n % 4)), in.text());
    }
  }
}

TEST_CASE("invariant: a prompt whole, in pieces, and token by token") {
  constexpr int64_t kTokens = 150;
  for (Case whole : few({{.sq = kTokens, .sk = kTokens, .causal = true},
                         {.sq = kTokens, .sk = kTokens, .causal = true, .window_left = 70},
                         {.sq = kTokens, .sk = kTokens, .causal = true, .pages = {.size = 16}}})) {
    whole.hq = 4, whole.hk = 2, whole.d = 32;
    whole.num_splits = 0;
    whole.batch_invariant = true;
    // Values of a token, whichever call it is in.
    const auto from = [](int64_t start) -> Fill {
      return [start](char tensor, int64_t, int64_t row, int64_t head, int64_t c) {
        const auto x = uint32_t((tensor == 'q' ? row + start : row) * 131 + head * 31 + c * 7 + tensor);
        return float(int32_t(x * 2654435761u >> 20) - 2048) / 1024;
      };
    };
    whole.fill = from(0);
    if (whole.pages.size)
      whole.used_k = {int32_t(kTokens)};
    const reference::Actual all = run(whole);
    for (int64_t piece : {64, 37, 1})
      for (int64_t start = piece == 1 ? kTokens - 3 : 0; start < kTokens; start += piece) {
        Case part = whole;
        part.sq = std::min(piece, kTokens - start);
        part.sk = start + part.sq;
        if (part.pages.size)
          part.used_k = {int32_t(part.sk)};
        part.fill = from(start);
        const reference::Actual got = run(part);
        const int64_t width = whole.hq * whole.dimV();
        CHECK_MESSAGE(std::equal(got.o.begin(), got.o.end(), all.o.begin() + start * width), part.text());
        CHECK_MESSAGE(std::equal(got.lse.begin(), got.lse.end(), all.lse.begin() + start * whole.hq),
                      part.text());
      }
  }
}

TEST_CASE("invariant: dense, packed and partly used sequences are the same problem") {
  for (Case c : forEveryDtype({{.batch = 2, .sq = 70, .sk = 130, .hq = 4, .hk = 2, .causal = true}})) {
    const reference::Actual dense = run(c);
    Case packed = c;
    packed.ragged_q = {70, 70};
    packed.ragged_k = {130, 130};
    CHECK_MESSAGE(same(dense, run(packed)), packed.text());
    packed.max_q = packed.max_k = 1 << 20;
    packed.tail_q = packed.tail_k = 0;
    CHECK_MESSAGE(same(dense, run(packed)), packed.text());
    Case used = c;
    used.used_q = {70, 70};
    used.used_k = {130, 130};
    CHECK_MESSAGE(same(dense, run(used)), used.text());
  }
}

TEST_CASE("invariant: lse may be left out") {
  for (Case c :
       forEveryDtype({{.sq = 97, .sk = 130, .causal = true}, {.sq = 7, .sk = 300, .num_splits = 3}})) {
    const reference::Actual with = run(c);
    c.want_lse = false;
    CHECK_MESSAGE(with.o == run(c).o, c.text());
  }
}

TEST_CASE("invariant: many threads, one context") {
  const std::vector<Case> cases =
      forEveryDtype({{.batch = 2, .sq = 97, .sk = 130, .hq = 4, .hk = 2, .causal = true},
                     {.sq = 7, .sk = 500, .num_splits = 3},
                     {.ragged_q = {3, 0, 70}, .ragged_k = {50, 5, 70}, .causal = true},
                     {.batch = 3, .sq = 1, .sk = 300, .hq = 8, .d = 33, .softcap = 3}});
  std::vector<Outputs> expected;
  for (const Case &c : cases) {
    Instance instance(c);
    expected.push_back(runForward(instance));
  }
  // Threads own their tensors; what they share is the context, its kernels and the workers.
  std::vector<std::unique_ptr<Instance>> instances;
  constexpr int kThreads = 4;
  const int rounds = Session::get().rounds(5, 2);
  for (int t = 0; t < kThreads; ++t)
    for (const Case &c : cases) {
      instances.push_back(std::make_unique<Instance>(c));
      instances.back()->resetOutputs();
    }
  std::atomic<int> failed{0}, different{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (int round = 0; round < rounds; ++round)
        for (size_t i = 0; i < cases.size(); ++i) {
          const size_t at = (i + size_t(t)) % cases.size();
          Instance &instance = *instances[size_t(t) * cases.size() + at];
          const Session &s = Session::get();
          if (flashplus_forward(s.context(), &instance.args(), nullptr) != FLASHPLUS_OK ||
              flashplus_synchronize(s.context(), s.device(), nullptr) != FLASHPLUS_OK) {
            ++failed;
            continue;
          }
          different += instance.readO() != expected[at].o || instance.readLse() != expected[at].lse;
        }
    });
  for (std::thread &t : threads)
    t.join();
  CHECK(failed == 0);
  CHECK(different == 0);
}

TEST_CASE("invariant: many threads, one plan, a workspace each") {
  const Case c = {.batch = 2, .sq = 20, .sk = 700, .hq = 4, .hk = 2, .causal = true, .num_splits = 4};
  Instance first(c);
  const PlanPtr plan = makePlan(first);
  const Outputs expected = runPlan(first, *plan);
  constexpr int kThreads = 4;
  const int rounds = Session::get().rounds(20, 3);
  std::vector<std::unique_ptr<Instance>> instances;
  std::vector<DeviceBuffer> workspaces;
  for (int t = 0; t < kThreads; ++t) {
    instances.push_back(std::make_unique<Instance>(c));
    instances.back()->resetOutputs();
    workspaces.push_back(freshWorkspace(*plan));
  }
  std::atomic<int> failed{0}, different{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      const Session &s = Session::get();
      for (int round = 0; round < rounds; ++round) {
        const DeviceBuffer &workspace = workspaces[size_t(t)];
        if (flashplus_plan_run(plan.get(), &instances[size_t(t)]->args(), workspace.data(), workspace.size(),
                               nullptr) != FLASHPLUS_OK ||
            flashplus_synchronize(s.context(), s.device(), nullptr) != FLASHPLUS_OK)
          ++failed;
        else
          different +=
              instances[size_t(t)]->readO() != expected.o || instances[size_t(t)]->readLse() != expected.lse;
      }
    });
  for (std::thread &t : threads)
    t.join();
  CHECK(failed == 0);
  CHECK(different == 0);
}

TEST_CASE("invariant: a plan runs every problem within its bounds") {
  for (const Case &largest :
       forEveryDtype({{.batch = 3, .sq = 97, .sk = 300, .hq = 4, .hk = 2, .causal = true},
                      {.batch = 3, .sq = 9, .sk = 700, .hq = 4, .hk = 2, .causal = true, .num_splits = 3}})) {
    const PlanPtr plan = makePlan(Instance(largest));
    for (auto [batch, sq, sk] :
         {std::tuple<int64_t, int64_t, int64_t>{3, 9, 300}, {1, 1, 1}, {2, 5, 0}, {0, 1, 1}}) {
      Case c = largest;
      c.batch = batch;
      c.sq = sq;
      c.sk = sk;
      Instance instance(c);
      const Outputs outputs = runPlan(instance, *plan);
      CHECK_MESSAGE(reference::compare(instance.reference(), instance.unpack(outputs.o, outputs.lse)).good(),
                    c.text());
      std::string where;
      CHECK_MESSAGE(instance.untouched(outputs.o, outputs.lse, where), where << ": " << c.text());
    }
  }
}

TEST_SUITE_END();
