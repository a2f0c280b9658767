// SPDX-License-Identifier: BSD-3-Clause
// Arguments of a merge.
#include "runtime/arguments/merge_args.h"
#include "runtime/arguments/public_structs.h"
#include "tests/unit/runtime/problem.h"

#include <doctest/doctest.h>

#include <functional>
#include <string>

namespace flashplus {
namespace {

using test::HostTensor;

/// batch 2, seqlen 5, heads 4, d 24, fp32; or packed, 10 rows.
struct Merge {
  explicit Merge(bool ragged = false)
      : o_a(ragged ? std::vector<int64_t>{10, 4, 24} : std::vector<int64_t>{2, 5, 4, 24}), o_b(o_a.shape),
        o(o_a.shape), lse_a(ragged ? std::vector<int64_t>{4, 10} : std::vector<int64_t>{2, 4, 5}),
        lse_b(lse_a.shape), lse(lse_a.shape) {
    a = {sizeof a, o_a.get(), lse_a.get(), o_b.get(), lse_b.get(), o.get(), lse.get()};
  }
  Status check(MergeProblem &out) { return checkMergeArgs(&a, data, scores, out); }

  HostTensor o_a, o_b, o, lse_a, lse_b, lse;
  flashplus_merge_args a = {};
  DataPointers data = DataPointers::Required;
  ScoreTable scores;
};

void refused(const std::string &sentence, const std::function<void(Merge &)> &change, bool ragged = false) {
  Merge m(ragged);
  change(m);
  MergeProblem out;
  const Status status = m.check(out);
  CHECK(status.code() == StatusCode::InvalidArgument);
  CHECK(status.message() == sentence);
}

void accepted(const std::function<void(Merge &)> &change, bool ragged = false) {
  Merge m(ragged);
  change(m);
  MergeProblem out;
  const Status status = m.check(out);
  CHECK_MESSAGE(status.isOk(), status.message());
}

} // namespace

TEST_CASE("merge args: every tensor has its place in the params") {
  for (bool ragged : {false, true}) {
    Merge m(ragged);
    const size_t row = ragged ? 0 : 1;
    m.o_b.useStrides()[row] = 100;
    m.o.useStrides()[row + 1] = 32;
    m.lse_b.useStrides()[row] = 12;
    MergeProblem out;
    REQUIRE(m.check(out));
    const MergeParams &p = out.params;
    for (auto [at, tensor] : {std::pair{(const void *)p.o_a, &m.o_a},
                              {p.o_b, &m.o_b},
                              {p.o, &m.o},
                              {p.lse_a, &m.lse_a},
                              {p.lse_b, &m.lse_b},
                              {p.lse, &m.lse}})
      CHECK(at == tensor->tensor.data);
    CHECK(p.o_a_stride_b == (ragged ? 0 : 480));
    CHECK(p.o_a_stride_s == 96);
    CHECK(p.o_a_stride_h == 24);
    CHECK(p.o_b_stride_s == 100);
    CHECK(p.o_stride_h == 32);
    CHECK(p.lse_a_stride_b == (ragged ? 0 : 20));
    CHECK(p.lse_b_stride_h == 12);
    CHECK(p.lse_stride_h == (ragged ? 10 : 5));
    CHECK(p.batch == (ragged ? 1 : 2));
    CHECK(p.seqlen_q == (ragged ? 10 : 5));
    CHECK(p.heads_q == 4);
    CHECK(out.spec.spec().text() == "merge dtype=fp32 dv=24 align=4");
    CHECK(out.bounds.total_q == 10);
    CHECK(!out.empty);
    m.a.lse = nullptr;
    MergeProblem without;
    REQUIRE(m.check(without));
    CHECK(without.params.lse == nullptr);
  }
}

TEST_CASE("merge args: only lse may be left out") {
  refused("o_a is null; it must be a tensor", [](Merge &m) { m.a.o_a = nullptr; });
  refused("lse_a is null; it must be a tensor", [](Merge &m) { m.a.lse_a = nullptr; });
  refused("o_b is null; it must be a tensor", [](Merge &m) { m.a.o_b = nullptr; });
  refused("lse_b is null; it must be a tensor", [](Merge &m) { m.a.lse_b = nullptr; });
  refused("o is null; it must be a tensor", [](Merge &m) { m.a.o = nullptr; });
  MergeProblem out;
  ScoreTable scores;
  CHECK(checkMergeArgs(nullptr, DataPointers::Required, scores, out).message() == "args is null");
  refused("args.struct_size is 8; it must be sizeof(flashplus_merge_args), " +
              std::to_string(sizeof(flashplus_merge_args)),
          [](Merge &m) { m.a.struct_size = 8; });
}

TEST_CASE("merge args: shapes, dtypes, strides, devices") {
  refused("o_a has shape (5, 24); it must have 4 dimensions, (batch, seqlen, heads, d), or 3, (total, heads, "
          "d)",
          [](Merge &m) { m.o_a.tensor.ndim = 2, m.o_a.shape[1] = 24, m.o_a.shape[0] = 5; });
  refused("o_a has head_dim 257; it must be 1 to 256", [](Merge &m) { m.o_a.shape[3] = 257; });
  refused("o_a has head_dim 0; it must be 1 to 256", [](Merge &m) { m.o_a.shape[3] = 0; });
  refused("rows of o_a is 2147483648; at most " + std::to_string(kMaxLength) + " are allowed", [](Merge &m) {
    m.o_a.useStrides()[1] = 0;
    m.o_a.shape[1] = int64_t(1) << 31;
  });
  refused("o_b has shape (2, 5, 3, 24); it must be that of o_a = (2, 5, 4, 24)",
          [](Merge &m) { m.o_b.shape[2] = 3; });
  refused("o has shape (10, 4, 16); it must be that of o_a = (10, 4, 24)",
          [](Merge &m) { m.o.shape[2] = 16; }, /*ragged=*/true);
  refused("lse_b has shape (2, 5, 4); it must be (batch, heads_q, seqlen_q) = (2, 4, 5)",
          [](Merge &m) { std::swap(m.lse_b.shape[1], m.lse_b.shape[2]); });
  refused("lse has shape (4, 9); it must be (heads_q, total_q) = (4, 10)",
          [](Merge &m) { m.lse.shape[1] = 9; }, /*ragged=*/true);
  refused("o_a has dtype int32; it must be float16, bfloat16 or float32",
          [](Merge &m) { m.o_a.tensor.dtype = {kDLInt, 32, 1}; });
  refused("o_b has dtype float16; it must be o_a's, float32",
          [](Merge &m) { m.o_b.tensor.dtype = {kDLFloat, 16, 1}; });
  refused("lse_a has dtype bfloat16; it must be float32",
          [](Merge &m) { m.lse_a.tensor.dtype = {kDLBfloat, 16, 1}; });
  refused("lse_b is on device type 2 number 0; it must be on the device of o_a (type 1 number 0)",
          [](Merge &m) { m.lse_b.tensor.device = {kDLCUDA, 0}; });
  for (auto tensor : {&Merge::o_a, &Merge::o_b, &Merge::o, &Merge::lse_a, &Merge::lse_b, &Merge::lse}) {
    Merge m;
    (m.*tensor).useStrides().back() = 2;
    MergeProblem out;
    CHECK(m.check(out).message().find("stride") != std::string::npos);
  }
}

TEST_CASE("merge args: what is written may be a side's, with its strides, and nothing else's") {
  accepted([](Merge &m) { m.a.o = m.o_a.get(), m.a.lse = m.lse_b.get(); });
  accepted([](Merge &m) { m.a.o = m.o_b.get(), m.a.lse = m.lse_a.get(); }, true);
  refused("o has the memory of o_b and stride 24 in dimension 1; in place it must have the strides of o_b, "
          "96 there",
          [](Merge &m) {
            m.o.tensor.data = m.o_b.tensor.data;
            m.o.useStrides() = {480, 24, 120, 1};
          });
  refused("lse has the memory of lse_a and stride 8 in dimension 1; in place it must have the strides of "
          "lse_a, 5 there",
          [](Merge &m) {
            m.lse.tensor.data = m.lse_a.tensor.data;
            m.lse.useStrides()[1] = 8;
          });
  refused("o has the memory of lse_b; it needs memory of its own",
          [](Merge &m) { m.o.tensor.data = m.lse_b.tensor.data; });
  refused("lse has the memory of o_a; it needs memory of its own",
          [](Merge &m) { m.lse.tensor.data = m.o_a.tensor.data; });
  refused("lse has the memory of o; it needs memory of its own",
          [](Merge &m) { m.lse.tensor.data = m.o.tensor.data; });
}

TEST_CASE("merge args: nothing to compute") {
  for (size_t dimension : {size_t(0), size_t(1), size_t(2)}) {
    Merge m;
    for (HostTensor *t : {&m.o_a, &m.o_b, &m.o})
      t->shape[dimension] = 0;
    for (HostTensor *t : {&m.lse_a, &m.lse_b, &m.lse})
      t->shape[dimension == 0 ? 0 : 3 - dimension] = 0;
    MergeProblem out;
    const Status status = m.check(out);
    CHECK_MESSAGE(status.isOk(), status.message());
    CHECK(out.empty);
  }
}

} // namespace flashplus
