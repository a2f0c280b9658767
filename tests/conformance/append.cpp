// SPDX-License-Identifier: BSD-3-Clause
// New keys and values into a cache, and attention to it in the same call: the whole cache bit by bit, o
// against fp64.
#include "tests/conformance/append_instance.h"
#include "tests/conformance/check.h"

#include <doctest/doctest.h>

using namespace flashplus;
using namespace flashplus::conformance;

namespace {

using Cache = AppendCase::Cache;

/// The forms of a cache.
std::vector<AppendCase> inEveryCache(const AppendCase &base) {
  std::vector<AppendCase> cases;
  for (Cache cache : {Cache::Plain, Cache::Indexed, Cache::Table, Cache::Compressed}) {
    cases.push_back(base);
    cases.back().cache = cache;
  }
  return cases;
}

void add(std::vector<AppendCase> &to, const std::vector<AppendCase> &more) {
  to.insert(to.end(), more.begin(), more.end());
}

} // namespace

TEST_SUITE_BEGIN("append");

TEST_CASE("append: every kind of cache, lengths at the edges of pages and of the cache") {
  std::vector<AppendCase> cases;
  for (int64_t fresh : {0, 1, 2, 3, 15, 16})
    add(cases, inEveryCache({.used = {0, 1, 15, 16, 17, 31, 64 - int32_t(fresh)}, .fresh = {fresh}}));
  add(cases, inEveryCache({.used = {0, 27}, .fresh = {100}, .sq = 9, .capacity = 127, .page_size = 7}));
  add(cases, inEveryCache({.used = {63}, .fresh = {1}, .num_splits = 3}));
  checkAppend(cases);
}

TEST_CASE("append: rotary embedding of both kinds, whole and in part, with positions of their own") {
  std::vector<AppendCase> cases;
  for (bool interleaved : {false, true})
    for (int64_t dim : {2, 10, 16, 32, 64})
      for (int64_t sq : {1, 5}) {
        AppendCase c = {.used = {0, 7, 40}, .fresh = {4}, .sq = sq, .cache = Cache::Table, .rotary_dim = dim};
        c.interleaved = interleaved;
        cases.push_back(c);
        c.offsets = {100, 0, 198}; // the last one leaves the table of positions
        cases.push_back(c);
        c.causal = false; // then all queries have one position
        cases.push_back(c);
        c.window_left = 9;
        cases.push_back(c);
      }
  checkAppend(cases);
}

TEST_CASE("append: head dims, and rows that are no multiple of 16 bytes") {
  std::vector<AppendCase> cases;
  for (auto [d, dv] :
       {std::pair<int64_t, int64_t>{128, 128}, {256, 256}, {96, 96}, {40, 40}, {33, 20}, {192, 128}})
    for (bool interleaved : {false, true}) {
      AppendCase c = {.used = {5, 20}, .fresh = {3}, .sq = 2, .d = d, .dv = dv, .cache = Cache::Table};
      c.rotary_dim = d / 2 * 2;
      c.interleaved = interleaved;
      cases.push_back(c);
    }
  AppendCase c = {.used = {5, 20}, .fresh = {3}, .cache = Cache::Table, .rotary_dim = 32};
  c.new_gap = 1;
  cases.push_back(c);
  c.new_gap = 0;
  c.cache_gap = 3;
  cases.push_back(c);
  c.cache_gap = 8; // still multiples of 16 bytes, unless they are fp32
  c.heads_first = true;
  cases.push_back(c);
  checkAppend(cases);
}

TEST_CASE("append: new keys and queries of different numbers") {
  std::vector<AppendCase> cases;
  for (Cache cache : {Cache::Table, Cache::Compressed, Cache::Indexed})
    for (int64_t rotary : {0, 64}) {
      AppendCase c = {
          .used = {0, 30, 9, 16}, .fresh = {5, 0, 1, 17}, .ragged_new = true, .sq = 3, .cache = cache};
      c.rotary_dim = rotary;
      cases.push_back(c);
      c.ragged_q = {5, 0, 1, 17};
      cases.push_back(c);
      c.fresh = {2}; // fewer than queries, and more
      c.ragged_new = false;
      cases.push_back(c);
    }
  checkAppend(cases);
}

TEST_CASE("append: left padding") {
  for (Cache cache : {Cache::Plain, Cache::Indexed, Cache::Table}) {
    AppendCase c = {.used = {3, 20, 9}, .fresh = {2}, .sq = 2, .cache = cache, .leftpad = {3, 17, 0}};
    c.rotary_dim = 32;
    checkAppend({c});
  }
}

TEST_CASE("append: slots by number, some of them dropped") {
  AppendCase c = {.used = {0, 30, 9, 16}, .fresh = {3}, .sq = 3, .cache = Cache::Table, .slot_mapping = true};
  std::vector<AppendCase> cases = {c};
  c.dropped = {1, 5};
  cases.push_back(c);
  c.dropped = {6, 7, 8}; // a whole sequence: its length stays
  cases.push_back(c);
  c.rotary_dim = 64;
  c.cache = Cache::Compressed;
  c.fresh = {3, 1, 3, 0};
  c.ragged_new = true;
  c.dropped = {3};
  cases.push_back(c);
  checkAppend(cases);
}

TEST_CASE("append: sequences that fill up a batch") {
  for (Cache cache : {Cache::Table, Cache::Compressed})
    for (int32_t entry : {-1, -7, 1 << 20}) {
      AppendCase c = {.used = {0, 30, 0}, .fresh = {1}, .cache = cache, .idle = {0, 2}, .idle_entry = entry};
      c.rotary_dim = 64;
      if (entry > 0 && Session::get().onCpu())
        continue; // no page at all is an error there (unit tests)
      checkAppend({c});
    }
}

TEST_CASE("append: rows that find no room are refused on a CPU and dropped elsewhere") {
  for (Cache cache : {Cache::Plain, Cache::Indexed, Cache::Table, Cache::Compressed}) {
    AppendCase c = {.used = {63, 61, 64}, .fresh = {2}, .sq = 2, .cache = cache, .rotary_dim = 64};
    if (!Session::get().onCpu()) {
      checkAppend({c});
      continue;
    }
    AppendInstance instance(c);
    CHECK(flashplus_forward(Session::get().context(), &instance.args(), nullptr) ==
          FLASHPLUS_INVALID_ARGUMENT);
    CHECK(std::string(flashplus_last_error()) ==
          "k_new adds 2 keys to sequence 0, of which seqused_k says 63; its "
          "cache has room for 64");
  }
}

TEST_CASE("append: one plan serves a loop of steps, whatever the lengths are") {
  const Session &s = Session::get();
  AppendCase large = {.used = {40, 40, 40}, .fresh = {4}, .sq = 4, .cache = Cache::Table, .rotary_dim = 64};
  AppendInstance bound(large);
  flashplus_plan *made = nullptr;
  require(flashplus_plan_create(s.context(), &bound.args(), &made), large.text());
  const PlanPtr plan(made);
  const DeviceBuffer workspace = freshWorkspace(*plan); // one for all steps: what a step leaves does no harm
  for (int32_t step = 0; step < 6; ++step) {
    AppendCase c = large;
    c.used = {step, 17 * step % 60, 60 - step};
    c.fresh = {step % 5};
    c.sq = step % 4 + 1;
    if (step % 2) // a smaller batch
      c.used.pop_back();
    AppendInstance instance(c);
    require(flashplus_plan_run(plan.get(), &instance.args(), workspace.data(), workspace.size(), nullptr),
            c.text());
    require(flashplus_synchronize(s.context(), s.device(), nullptr), c.text());
    instance.judge();
  }
  AppendCase more = large;
  more.fresh = {5};
  AppendInstance instance(more);
  CHECK(flashplus_plan_run(plan.get(), &instance.args(), workspace.data(), workspace.size(), nullptr) ==
        FLASHPLUS_INVALID_ARGUMENT);
  CHECK(std::string(flashplus_last_error()) ==
        "args have a seqlen of new keys of 5; the plan was made for at most 4");
  more = large;
  more.rotary_dim = 0;
  AppendInstance plain(more);
  require(flashplus_plan_run(plan.get(), &plain.args(), workspace.data(), workspace.size(), nullptr),
          more.text());
  require(flashplus_synchronize(s.context(), s.device(), nullptr), more.text());
  plain.judge();
}

TEST_CASE("append: keys are written where there is no query") {
  AppendCase c = {.used = {3, 20}, .fresh = {2}, .sq = 0, .cache = Cache::Table};
  checkAppend({c});
}

TEST_SUITE_END();
