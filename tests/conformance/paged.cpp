// SPDX-License-Identifier: BSD-3-Clause
// Keys in pages: of any size, in any order, in every form of a table. Slots of no key are NaN in K and in V,
// and entries that no query reads are no pages.
#include "tests/conformance/check.h"

#include <doctest/doctest.h>

#include <cstring>
#include <sys/mman.h>

using namespace flashplus;
using namespace flashplus::conformance;

namespace {

using Form = Pages::Form;

/// The lengths at which pages of this size begin and end, among those of others.
std::vector<int64_t> lengths(int64_t size) {
  std::vector<int64_t> result;
  for (int64_t n : {int64_t(0), int64_t(1), size - 1, size, size + 1, 2 * size, 3 * size - 1, int64_t(130)})
    result.push_back(std::min<int64_t>(n, 700));
  return result;
}

} // namespace

TEST_SUITE_BEGIN("paged");

TEST_CASE("paged: pages of any size, and lengths at their edges") {
  std::vector<Case> cases;
  for (int64_t size : {1, 2, 3, 8, 16, 24, 48, 64, 256, 1024}) {
    Case c = {.hq = 4, .hk = 2, .d = 32, .pages = {.size = size}};
    c.ragged_k = lengths(size);
    c.ragged_q = {1, 1, 1, 1, 1, 1, 1, 1};
    cases.push_back(c);
    c.ragged_q = {3, 1, 20, 1, 70, 2, 5, 130};
    c.causal = true;
    cases.push_back(c);
  }
  check(forEveryDtype(cases));
}

TEST_CASE("paged: forms of a table") {
  std::vector<Case> cases;
  for (Form form : {Form::Table, Form::Indices, Form::Rows, Form::Order}) {
    const int64_t size = form == Form::Rows || form == Form::Order ? 90 : 16;
    for (bool causal : {false, true})
      for (int64_t sq : {1, 5, 40}) {
        Case c = {.batch = 4, .sq = sq, .sk = 77, .hq = 4, .hk = 2, .d = 64, .causal = causal};
        c.pages = {.size = size, .form = form};
        c.used_k = {77, 0, 16, 33};
        if (form != Form::Order) // with nothing that says so it is no cache
          cases.push_back(c);
        c.leftpad = {3, 0, 0, 13};
        cases.push_back(c);
      }
  }
  check(forEveryDtype(cases));
}

TEST_CASE("paged: a table of one page a token") {
  check(forEveryDtype({
      {.batch = 3,
       .sq = 1,
       .sk = 200,
       .hq = 8,
       .hk = 2,
       .used_k = {200, 1, 129},
       .pages = {.size = 1, .form = Form::Indices}},
      {.batch = 3,
       .sq = 64,
       .sk = 200,
       .hq = 8,
       .hk = 2,
       .used_k = {200, 70, 129},
       .causal = true,
       .pages = {.size = 1, .form = Form::Indices}},
  }));
}

TEST_CASE("paged: all slots of a cache, without lengths") {
  for (Form form : {Form::Table, Form::Indices, Form::Rows})
    for (int64_t size : {96, 32})
      if (size == 96 || form != Form::Rows)
        check(forEveryDtype({{.batch = 2, .sq = 3, .sk = 96, .pages = {.size = size, .form = form}}}));
}

TEST_CASE("paged: orders of memory") {
  std::vector<Case> cases;
  for (bool heads_first : {false, true})
    for (bool interleaved : {false, true})
      for (int64_t gap : {0, 3, 8}) {
        Case c = {.batch = 2, .sq = 9, .sk = 100, .hq = 4, .hk = 2, .d = 40, .used_k = {100, 35}};
        c.pages = {.size = 16, .heads_first = heads_first, .interleaved = interleaved};
        c.k_layout.gap = gap;
        c.v_layout.gap = interleaved ? 0 : 2 * gap;
        c.k_layout.shift = gap == 3;
        cases.push_back(c);
        c.sq = 1;
        cases.push_back(c);
      }
  check(forEveryDtype(cases));
}

TEST_CASE("paged: entries that share a row of the cache") {
  Case c = {.batch = 3, .sq = 4, .sk = 70, .causal = true, .used_k = {70, 5, 33}};
  c.k_layout.broadcast = c.v_layout.broadcast = true;
  c.pages = {.size = 80, .form = Form::Rows};
  check(forEveryDtype({c}));
}

TEST_CASE("paged: masks, scores and head dims") {
  std::vector<Case> cases;
  for (int64_t size : {3, 16, 64}) {
    Case base = {.batch = 3, .sq = 37, .sk = 300, .hq = 6, .hk = 2, .used_k = {300, 64, 201}};
    base.pages.size = size;
    std::vector<Case> more(9, base);
    more[1].causal = true;
    more[2].window_left = 20, more[2].causal = true;
    more[3].window_left = 0, more[3].window_right = 0;
    more[4].softcap = 5;
    more[5].alibi = Alibi::PerBatch, more[5].causal = true;
    more[6].score = "s + 0.1 * b - k / sk + q / sq";
    more[7].d = 20, more[7].dv = 100, more[7].hq = 2;
    more[8].leftpad = {7, 64, 1}, more[8].window_left = 50;
    cases.insert(cases.end(), more.begin(), more.end());
    for (Case &c : more)
      c.sq = 2;
    cases.insert(cases.end(), more.begin(), more.end());
  }
  for (int64_t d : {8, 128, 256})
    cases.push_back(
        {.batch = 2, .sq = 20, .sk = 150, .d = d, .causal = true, .used_k = {150, 3}, .pages = {.size = 32}});
  check(forEveryDtype(cases));
}

TEST_CASE("paged: packed queries, with lengths of either kind") {
  for (bool cumulative : {false, true}) {
    Case c = {.hq = 4, .hk = 4, .causal = true, .pages = {.size = 16, .cumulative = cumulative}};
    c.ragged_q = {5, 0, 17, 1, 130, 0, 64};
    c.ragged_k = {9, 4, 0, 33, 170, 0, 64};
    Case padded = c, bounded = c, rows = c;
    padded.leftpad = {0, 3, 5, 1, 16, 2, 33};
    bounded.max_k = 1; // changes the plan, not the result
    rows.pages.size = 200;
    rows.pages.form = Form::Order;
    check(forEveryDtype({c, padded, bounded, rows}));
  }
}

TEST_CASE("paged: shares of the keys") {
  for (int splits : {2, 5, 128}) {
    Case c = {.batch = 3, .sq = 4, .sk = 700, .hq = 4, .hk = 2, .used_k = {700, 0, 33}, .num_splits = splits};
    Case window = c, tokens = c;
    c.pages.size = 64;
    tokens.pages = {.size = 1, .form = Form::Indices};
    window.pages.size = 24;
    window.window_left = 300;
    window.causal = true;
    check(forEveryDtype({c, tokens, window}));
  }
}

/// Devices on which sm90.flash runs.
bool isHopper() {
  if (Session::get().onCpu())
    return false;
  const Instance instance({.sq = 200, .sk = 200, .d = 64});
  const PlanPtr plan = makePlan(instance);
  return std::string(flashplus_plan_describe(plan.get())).find("sm90.flash") != std::string::npos;
}

TEST_CASE("paged: tiles of several boxes, and boxes of several tiles") {
  if (!isHopper())
    return;
  std::vector<Case> cases;
  for (const char *schedule : {"sm90.flash pingpong=0 q_stages=1 stages=2 tile_m=64 tile_n=80",
                               "sm90.flash pingpong=1 q_stages=2 stages=3 tile_m=128 tile_n=128"})
    for (int64_t size : {8, 16, 24, 64, 256}) {
      Case c = {.batch = 5, .sq = 70, .sk = 400, .hq = 4, .hk = 2, .d = 64, .schedule = schedule};
      c.used_k = {400, 0, int32_t(size), int32_t(size + 1), int32_t(std::min<int64_t>(400, 3 * size - 1))};
      c.pages = {.size = size, .form = size == 24 ? Form::Indices : Form::Table, .heads_first = size == 16,
                 .interleaved = size == 64};
      cases.push_back(c);
      c.causal = true;
      c.window_left = 30; // entries before it are none
      c.sq = 150;
      cases.push_back(c);
    }
  for (Form form : {Form::Rows, Form::Order}) { // a page a sequence: one box a tile, from anywhere on
    Case c = {.batch = 4, .sq = 90, .sk = 300, .hq = 2, .hk = 1, .d = 128, .used_k = {300, 0, 16, 233}};
    c.pages = {.size = 331, .form = form};
    c.leftpad = {3, 0, 31, 13};
    cases.push_back(c);
  }
  check(forEveryDtype(cases));
}

TEST_CASE("paged: a plan for pages that are copied in boxes runs on others that can be") {
  if (!isHopper())
    return;
  Case c = {.batch = 2, .sq = 200, .sk = 300, .hq = 2, .hk = 1, .d = 64, .used_k = {300, 33}};
  c.dtype = DType::BF16;
  c.pages.size = 64;
  const Instance planned(c);
  const PlanPtr plan = makePlan(planned);
  REQUIRE(std::string(flashplus_plan_describe(plan.get())).find("sm90.flash") != std::string::npos);
  for (int64_t size : {8, 16, 32}) {
    Case other = c;
    other.pages.size = size;
    Instance instance(other);
    runPlan(instance, *plan);
    const reference::Comparison result =
        reference::compare(instance.reference(), instance.unpack(instance.readO(), instance.readLse()));
    CHECK_MESSAGE(result.error <= result.bound, other.text());
  }
  c.pages.size = 12;
  Instance small(c);
  DeviceBuffer workspace = freshWorkspace(*plan);
  const flashplus_status status = flashplus_plan_run(plan.get(), &small.args(), workspace.data(),
                                                     flashplus_plan_workspace(plan.get()), nullptr);
  INFO(flashplus_last_error());
  CHECK(status == FLASHPLUS_INVALID_ARGUMENT);
  CHECK(std::string(flashplus_last_error()).find("pages of 4 keys") != std::string::npos);
}

TEST_CASE("paged: a pool whose pages are more than 2^31 elements apart") {
  if (Session::get().device().device_type != kDLCPU)
    return;
  // Two pages of four tokens, a heads' stride and a page's that no int32 holds; memory that is not touched is
  // none. Keys are 0 and the value of token t is t, so that the result is the mean of what is seen.
  constexpr int64_t kPage = (int64_t(1) << 31) + 64, kTokens = 4, kDim = 16;
  const size_t bytes = size_t(kPage * 3) * sizeof(float);
  void *memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    MESSAGE("no address space of " << bytes << " bytes; not tested");
    return;
  }
  auto *pool = static_cast<float *>(memory);
  int64_t pool_shape[] = {3, kTokens, 1, kDim}, pool_strides[] = {kPage, kDim, kDim, 1};
  int64_t row_shape[] = {1, 1, 1, kDim}, table_shape[] = {1, 2}, used_shape[] = {1};
  float q[kDim] = {}, o[kDim] = {};
  int32_t table[] = {2, 1}, used[] = {7};
  const auto tensor = [](void *data, int64_t *shape, int rank, int64_t *strides, DLDataType type) {
    return DLTensor{data, {kDLCPU, 0}, rank, type, shape, strides, 0};
  };
  const DLDataType f32 = {kDLFloat, 32, 1}, i32 = {kDLInt, 32, 1};
  // K is the first half of each page, V the second.
  DLTensor tk = tensor(pool, pool_shape, 4, pool_strides, f32), tv = tk;
  tv.data = pool + kPage / 2;
  for (int64_t t = 0; t < 7; ++t)
    for (int64_t c = 0; c < kDim; ++c)
      pool[kPage / 2 + (t < 4 ? 2 : 1) * kPage + t % 4 * kDim + c] = float(t);
  DLTensor tq = tensor(q, row_shape, 4, nullptr, f32), to = tensor(o, row_shape, 4, nullptr, f32);
  DLTensor tb = tensor(table, table_shape, 2, nullptr, i32), tu = tensor(used, used_shape, 1, nullptr, i32);
  for (const char *schedule : {"cpu.stream heads=8 tile_m=1 tile_n=16", ""}) {
    flashplus_forward_args args = FLASHPLUS_FORWARD_ARGS_INIT;
    args.q = &tq, args.k = &tk, args.v = &tv, args.o = &to;
    args.block_table = &tb, args.seqused_k = &tu;
    args.schedule = *schedule ? schedule : nullptr;
    std::fill_n(o, kDim, kNaN);
    CHECK_MESSAGE(flashplus_forward(Session::get().context(), &args, nullptr) == FLASHPLUS_OK,
                  flashplus_last_error());
    for (float x : o)
      CHECK(x == doctest::Approx(3));
  }
  munmap(memory, bytes);
}

TEST_SUITE_END();
