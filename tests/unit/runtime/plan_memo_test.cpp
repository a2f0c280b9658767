// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/arguments/forward_args.h"
#include "runtime/arguments/public_structs.h"
#include "runtime/plans/plan_memo.h"
#include "tests/unit/runtime/problem.h"

#include <cstring>
#include <doctest/doctest.h>
#include <functional>
#include <thread>
#include <vector>

using namespace flashplus;

namespace {

ForwardProblem problemOf(test::Problem &p, ScoreTable &scores) {
  ForwardProblem problem;
  const Status status = checkForwardArgs(&p.args, DataPointers::Required, scores, problem);
  REQUIRE_MESSAGE(status.isOk(), status.message());
  return problem;
}

/// A key of number `n`, and a record whose every field follows from it.
PlanKey keyOf(int64_t n) {
  ForwardProblem problem;
  problem.bounds.batch = n;
  return PlanKey(problem);
}
LaunchRecord recordOf(int64_t n) {
  LaunchRecord record;
  std::memset(static_cast<void *>(&record), 0, sizeof record); // the bytes between members are compared, too
  for (int i = 0; i < kMaxSteps; ++i) {
    StepRecord &step = record.steps[i];
    step.kernel = reinterpret_cast<const ResidentKernel *>(n + i);
    step.item.rows = int32_t(n + 10 + i);
    step.item.num_splits = int32_t(n + 20 + i);
  }
  record.num_steps = kMaxSteps;
  record.workspace_bytes = n + 31;
  record.zeroed_bytes = n + 32;
  for (int i = 0; i < kMaxParts; ++i)
    record.parts[i] = n + 40 + i;
  return record;
}
bool isRecordOf(const LaunchRecord &r, int64_t n) {
  const LaunchRecord wanted = recordOf(n);
  return std::memcmp(&r, &wanted, sizeof r) == 0;
}

} // namespace

TEST_CASE("what an append changes in a plan is in its key") {
  std::vector<PlanKey> keys;
  for (bool append : {false, true})
    for (int64_t fresh : {int64_t(0), int64_t(1), int64_t(2), kMaxLength})
      for (bool rotates : {false, true})
        for (bool invariant : {false, true}) {
          ForwardProblem problem;
          problem.spec.append = append;
          problem.bounds.max_seqlen_new = fresh;
          problem.bounds.rotates_q = rotates;
          problem.batch_invariant = invariant;
          keys.emplace_back(problem);
          for (size_t i = 0; i + 1 < keys.size(); ++i)
            CHECK(!(keys[i] == keys.back()));
        }
}

TEST_CASE("which keys lie together in pages is in the key, beside the batch") {
  std::vector<PlanKey> keys;
  for (int64_t batch : {int64_t(0), int64_t(1), int64_t(1) << 48})
    for (int bit = 0; bit <= 30; ++bit) {
      ForwardProblem problem;
      problem.bounds.batch = batch;
      problem.bounds.key_run = 1 << bit;
      keys.emplace_back(problem);
      for (size_t i = 0; i + 1 < keys.size(); ++i)
        CHECK(!(keys[i] == keys.back()));
    }
}

TEST_CASE("whatever a plan depends on is in its key, and data pointers are not") {
  ScoreTable scores;
  test::Problem base;
  const PlanKey key(problemOf(base, scores));
  {
    test::Problem same;
    CHECK(PlanKey(problemOf(same, scores)) == key);
  }
  const std::vector<std::function<void(test::Problem &)>> changes = {
      [](auto &p) { p.q.shape[0] = p.k.shape[0] = p.v.shape[0] = p.o.shape[0] = p.lse.shape[0] = 1; },
      [](auto &p) { p.q.shape[1] = p.o.shape[1] = p.lse.shape[2] = 4; },
      [](auto &p) { p.k.shape[1] = p.v.shape[1] = 6; },
      [](auto &p) { p.q.shape[2] = p.o.shape[2] = p.lse.shape[1] = 2; },
      [](auto &p) { p.k.shape[2] = p.v.shape[2] = 1; },
      [](auto &p) { p.q.shape[3] = p.k.shape[3] = 8; },
      [](auto &p) { p.v.shape[3] = p.o.shape[3] = 20; },
      [](auto &p) {
        for (auto *t : {&p.q, &p.k, &p.v, &p.o})
          t->tensor.dtype = {kDLFloat, 16, 1};
      },
      [](auto &p) {
        for (auto *t : {&p.q, &p.k, &p.v, &p.o})
          t->tensor.dtype = {kDLBfloat, 16, 1};
      },
      [](auto &p) { p.k.tensor.byte_offset = 4; },
      [](auto &p) { p.args.causal = 1; },
      [](auto &p) { p.args.window_left = 3; },
      [](auto &p) { p.args.window_left = 4; },
      [](auto &p) { p.args.window_right = 3; },
      [](auto &p) { p.args.softcap = 3; },
      [](auto &p) { p.args.score = "s * 2"; },
      [](auto &p) { p.args.num_splits = 1; },
      [](auto &p) { p.args.num_splits = 2; },
      [](auto &p) { p.args.batch_invariant = 1; }};
  std::vector<PlanKey> keys{key};
  for (const auto &change : changes) {
    test::Problem p;
    change(p);
    const PlanKey changed(problemOf(p, scores));
    for (const PlanKey &other : keys)
      CHECK(!(changed == other));
    keys.push_back(changed);
  }
}

TEST_CASE("what was put is found, and the newest stays when the table is full") {
  PlanMemo memo;
  LaunchRecord found;
  CHECK(!memo.find(keyOf(1), found));
  memo.put(keyOf(1), recordOf(1));
  REQUIRE(memo.find(keyOf(1), found));
  CHECK(isRecordOf(found, 1));
  CHECK(!memo.find(keyOf(2), found));
  memo.put(keyOf(1), recordOf(9)); // replaced, not added
  REQUIRE(memo.find(keyOf(1), found));
  CHECK(isRecordOf(found, 9));
  int kept = 0;
  for (int64_t n = 0; n < 10000; ++n) {
    memo.put(keyOf(n), recordOf(n));
    REQUIRE(memo.find(keyOf(n), found));
    CHECK(isRecordOf(found, n));
  }
  for (int64_t n = 0; n < 10000; ++n)
    if (memo.find(keyOf(n), found)) {
      ++kept;
      CHECK(isRecordOf(found, n));
    }
  CHECK(kept == 1024); // every slot holds one
  int spread = 0; // the hash spreads neighbouring sizes
  PlanMemo fresh;
  for (int64_t n = 0; n < 512; ++n)
    fresh.put(keyOf(n), recordOf(n));
  for (int64_t n = 0; n < 512; ++n)
    spread += fresh.find(keyOf(n), found);
  CHECK(spread > 460);
}

TEST_CASE("a record comes back whole, however little of it there is") {
  CHECK(SpecFields::kPackedWords == 2); // words follow from the fields
  CHECK(PlanKey::kWords == 10);
  PlanMemo memo;
  for (int64_t steps = 1; steps <= kMaxSteps; ++steps)
    for (int64_t workspace : {0, 512}) {
      LaunchRecord record, found;
      record.num_steps = steps;
      for (int64_t i = 0; i < steps; ++i)
        record.steps[i] = {reinterpret_cast<const ResidentKernel *>(100 + i), Operation::Combine, i % 2 == 0,
                           {.rows = int32_t(10 + i), .num_splits = int32_t(20 + i)}};
      record.workspace_bytes = workspace;
      if (workspace) {
        record.zeroed_bytes = 256;
        record.parts[0] = 0;
        record.parts[kMaxParts - 1] = 256;
      }
      memo.put(keyOf(2 * steps + (workspace != 0)), record);
      REQUIRE(memo.find(keyOf(2 * steps + (workspace != 0)), found));
      CHECK(found.num_steps == steps);
      CHECK(found.workspace_bytes == workspace);
      CHECK(found.zeroed_bytes == record.zeroed_bytes);
      for (int i = 0; i < kMaxParts; ++i)
        CHECK(found.parts[i] == record.parts[i]);
      for (int64_t i = 0; i < steps; ++i) {
        CHECK(found.steps[i].kernel == record.steps[i].kernel);
        CHECK(found.steps[i].op == Operation::Combine);
        CHECK(found.steps[i].maps == (i % 2 == 0));
        CHECK(found.steps[i].item.rows == 10 + i);
        CHECK(found.steps[i].item.num_splits == 20 + i);
      }
    }
}

TEST_CASE("readers among writers see whole records or none") {
  // Twelve keys that share one set of slots, so that writers overwrite just what readers look at.
  std::vector<int64_t> keys;
  for (int64_t n = 0; keys.size() < 12; ++n)
    if (keyOf(n).hash() % 256 == 0)
      keys.push_back(n);
  PlanMemo memo;
  std::atomic<bool> stop{false};
  std::atomic<int64_t> wrong{0}, hits{0};
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 2; ++t)
    threads.emplace_back([&, t] {
      for (size_t i = t; !stop; i += 5)
        memo.put(keyOf(keys[i % keys.size()]), recordOf(keys[i % keys.size()]));
    });
  for (size_t t = 0; t < 2; ++t)
    threads.emplace_back([&] {
      for (size_t i = 0; i < 1000000; ++i) {
        LaunchRecord found;
        const int64_t n = keys[i % keys.size()];
        if (memo.find(keyOf(n), found)) {
          ++hits;
          wrong += !isRecordOf(found, n);
        }
      }
    });
  threads[2].join();
  threads[3].join();
  stop = true;
  threads[0].join();
  threads[1].join();
  CHECK(wrong == 0);
  CHECK(hits > 0);
}
