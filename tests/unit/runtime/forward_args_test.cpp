// SPDX-License-Identifier: BSD-3-Clause
// Bad arguments of a forward, through the C API: each is a status and a sentence that names the argument, its
// value and what is allowed. flashplus_spec_of makes all of the checks but that of null data.
#include "flashplus/flashplus.h"
#include "runtime/arguments/forward_args.h"
#include "tests/unit/runtime/problem.h"

#include <cmath>
#include <cstring>
#include <doctest/doctest.h>
#include <functional>
#include <string>
#include <thread>
#include <vector>

using namespace flashplus::test;

namespace {

std::string specOf(const flashplus_forward_args &args, flashplus_status *status = nullptr) {
  char *text = nullptr;
  const flashplus_status s = flashplus_spec_of(&args, &text);
  if (status)
    *status = s;
  std::string result = text ? text : "";
  flashplus_free_text(text);
  return result;
}

/// Changes a good problem in one place and wants `sentence` in the message.
void refused(const std::string &sentence, const std::function<void(Problem &)> &change, bool ragged = false,
             flashplus_status wanted = FLASHPLUS_INVALID_ARGUMENT) {
  Problem p(ragged);
  change(p);
  flashplus_status status;
  CHECK(specOf(p.args, &status).empty());
  const std::string message = flashplus_last_error();
  INFO(message);
  CHECK(status == wanted);
  CHECK_MESSAGE(message.find(sentence) != std::string::npos, sentence);
}

void raggedRefused(const std::string &sentence, const std::function<void(Problem &)> &change) {
  refused(sentence, change, true);
}

/// A changed good problem that must stay good.
std::string accepted(const std::function<void(Problem &)> &change, bool ragged = false) {
  Problem p(ragged);
  change(p);
  flashplus_status status;
  std::string text = specOf(p.args, &status);
  CHECK_MESSAGE(status == FLASHPLUS_OK, flashplus_last_error());
  return text;
}

} // namespace

TEST_CASE("good arguments give their spec") {
  CHECK(accepted([](Problem &) {}) ==
        "forward dtype=fp32 dqk=16 dv=24");
  CHECK(accepted([](Problem &) {}, true) ==
        "forward dtype=fp32 dqk=16 dv=24");
  CHECK(accepted([](Problem &p) { p.args.causal = 1; }).find(" right=1") != std::string::npos);
  CHECK(accepted([](Problem &p) { p.args.window_left = 0; }).find(" left=1") != std::string::npos);
  CHECK(accepted([](Problem &p) { p.args.window_right = 2147483647; }).find("right=1") != std::string::npos);
  CHECK(accepted([](Problem &p) { p.args.lse = nullptr; }) != "");
  CHECK(accepted([](Problem &p) { p.args.softcap = 30; }).find("tanh") != std::string::npos);
}

TEST_CASE("alignment follows pointers and strides") {
  auto align4 = [](const std::function<void(Problem &)> &change) {
    return accepted(change).find("align=4") != std::string::npos;
  };
  CHECK(!align4([](Problem &) {}));
  CHECK(align4([](Problem &p) { p.k.tensor.byte_offset = 4; }));
  CHECK(align4([](Problem &p) { p.v.useStrides()[1] = 50; }));
  CHECK(!align4([](Problem &p) { p.v.useStrides()[1] = 52; }));
  CHECK(align4([](Problem &p) { p.q.shape[3] = p.k.shape[3] = 15, p.q.useStrides(), p.k.useStrides(); }));
}

TEST_CASE("null") {
  CHECK(flashplus_spec_of(nullptr, nullptr) == FLASHPLUS_INVALID_ARGUMENT);
  CHECK(std::string(flashplus_last_error()) == "text is null");
  char *text;
  CHECK(flashplus_spec_of(nullptr, &text) == FLASHPLUS_INVALID_ARGUMENT);
  CHECK(std::string(flashplus_last_error()) == "args is null");
  refused("q is null; it must be a tensor", [](Problem &p) { p.args.q = nullptr; });
  refused("k is null", [](Problem &p) { p.args.k = nullptr; });
  refused("v is null", [](Problem &p) { p.args.v = nullptr; });
  refused("o is null", [](Problem &p) { p.args.o = nullptr; });
  refused("q has rank 4 and no shape", [](Problem &p) { p.q.tensor.shape = nullptr; });
}

TEST_CASE("struct_size") {
  refused("args.struct_size is 8; it must be sizeof(flashplus_forward_args), ",
          [](Problem &p) { p.args.struct_size = 8; });
  refused("args.struct_size is 123456", [](Problem &p) { p.args.struct_size = 123456; });
  // An older caller's struct ends before the newer fields: what lies behind it is not read.
  Problem older;
  older.args.schedule = reinterpret_cast<const char *>(1);
  older.args.struct_size = offsetof(flashplus_forward_args, schedule);
  char *text = nullptr;
  CHECK(flashplus_spec_of(&older.args, &text) == FLASHPLUS_OK);
  flashplus_free_text(text);
}

TEST_CASE("rank and shape") {
  refused("q has rank 0; it must have 1 to 4 dimensions", [](Problem &p) { p.q.tensor.ndim = 0; });
  refused("k has rank 5; it must have 1 to 4 dimensions", [](Problem &p) { p.k.tensor.ndim = 5; });
  refused("k has rank -1", [](Problem &p) { p.k.tensor.ndim = -1; });
  refused("v has shape (2, 7, 2); it must have 4 dimensions, (batch, seqlen, heads, head_dim), without "
          "cu_seqlens",
          [](Problem &p) { p.v.tensor.ndim = 3; });
  raggedRefused("q has shape (10, 4); it must have 3 dimensions, (total, heads, head_dim), with cu_seqlens",
                [](Problem &p) { p.q.tensor.ndim = 2; });
  refused(
      "k has shape (3, 7, 2, 16); it must be (batch of q, seqlen_k, heads_k, head_dim of q) = (2, 7, 2, 16)",
      [](Problem &p) { p.k.shape[0] = 3; });
  refused(
      "k has shape (2, 7, 2, 8); it must be (batch of q, seqlen_k, heads_k, head_dim of q) = (2, 7, 2, 16)",
      [](Problem &p) { p.k.shape[3] = 8; });
  refused("v has shape (2, 6, 2, 24); it must be (batch, seqlen_k, heads_k, head_dim_v) = (2, 7, 2, 24)",
          [](Problem &p) { p.v.shape[1] = 6; });
  refused("o has shape (2, 5, 4, 16); it must be (batch, seqlen_q, heads_q, head_dim_v) = (2, 5, 4, 24)",
          [](Problem &p) { p.o.shape[3] = 16; });
  refused("lse has shape (2, 4, 6); it must be (batch, heads_q, seqlen_q) = (2, 4, 5)",
          [](Problem &p) { p.lse.shape[2] = 6; });
  raggedRefused("lse has shape (4, 9); it must be (heads_q, total_q) = (4, 10)",
                [](Problem &p) { p.lse.shape[1] = 9; });
  raggedRefused("v has shape (13, 2, 24); it must be (total_k, heads_k, head_dim_v) = (14, 2, 24)",
                [](Problem &p) { p.v.shape[0] = 13; });
}

TEST_CASE("negative and huge sizes") {
  refused("q has shape (2, -5, 4, 16); dimensions must not be negative",
          [](Problem &p) { p.q.shape[1] = -5; });
  refused("q has shape (2, 9223372036854775807, 4, 16); at most 2^48 elements are allowed",
          [](Problem &p) { p.q.shape[1] = INT64_MAX; });
  refused("at most 2^48 elements", [](Problem &p) { p.q.shape[0] = int64_t(1) << 44; });
  refused("rows; at most 1073741823 are allowed", [](Problem &p) {
    p.q.shape = {1, int64_t(1) << 30, 1, 16}, p.o.shape = {1, int64_t(1) << 30, 1, 24};
    p.k.shape = {1, 7, 1, 16}, p.v.shape = {1, 7, 1, 24};
    for (HostTensor *t : {&p.q, &p.k, &p.v, &p.o})
      t->tensor.shape = t->shape.data();
  });
  refused("batch is 1099511627776; at most 1073741823 are allowed", [](Problem &p) {
    for (HostTensor *t : {&p.q, &p.k, &p.v, &p.o})
      t->shape = {int64_t(1) << 40, 0, 1, 16}, t->tensor.shape = t->shape.data();
  });
  raggedRefused("batch 1048576 * heads of q 1048576 * rows of q 1024 is too large; at most 2^48 are allowed",
                [](Problem &p) {
                  const int64_t heads = 1 << 20, batch = 1 << 20, rows = 1024;
                  for (HostTensor *t : {&p.q, &p.k, &p.v, &p.o})
                    t->shape = {rows, heads, 16}, t->tensor.data = nullptr, t->tensor.shape = t->shape.data();
                  for (HostTensor *t : {&p.cu_q, &p.cu_k})
                    t->shape = {batch + 1}, t->tensor.data = nullptr, t->tensor.shape = t->shape.data();
                  p.args.lse = nullptr;
                  p.args.max_seqlen_q = p.args.max_seqlen_k = rows;
                });
}

TEST_CASE("heads and head dims") {
  refused("q has 4 heads and k has 3; k's must divide q's", [](Problem &p) { p.k.shape[2] = 3; });
  refused("q has 4 heads and k has 0", [](Problem &p) { p.k.shape[2] = 0; });
  refused("q has head_dim 257; it must be 1 to 256", [](Problem &p) { p.q.shape[3] = 257; });
  refused("q has head_dim 0; it must be 1 to 256", [](Problem &p) { p.q.shape[3] = 0; });
  refused("v has head_dim 1000; it must be 1 to 256", [](Problem &p) { p.v.shape[3] = 1000; });
}

TEST_CASE("dtypes") {
  refused("q has dtype float64; it must be float16, bfloat16 or float32",
          [](Problem &p) { p.q.tensor.dtype.bits = 64; });
  refused("q has dtype int32", [](Problem &p) { p.q.tensor.dtype.code = kDLInt; });
  refused("q has dtype float32x2", [](Problem &p) { p.q.tensor.dtype.lanes = 2; });
  refused("k has dtype float16; it must be q's, float32", [](Problem &p) { p.k.tensor.dtype.bits = 16; });
  refused("v has dtype bfloat16; it must be q's, float32", [](Problem &p) {
    p.v.tensor.dtype = {kDLBfloat, 16, 1};
  });
  refused("o has dtype uint32; it must be q's, float32", [](Problem &p) { p.o.tensor.dtype.code = kDLUInt; });
  refused("lse has dtype float16; it must be float32", [](Problem &p) { p.lse.tensor.dtype.bits = 16; });
  refused("q has dtype float32; on a GPU it must be float16 or bfloat16",
          [](Problem &p) {
            for (HostTensor *t : {&p.q, &p.k, &p.v, &p.o, &p.lse})
              t->tensor.device = {kDLCUDA, 0};
          },
          false, FLASHPLUS_UNSUPPORTED);
}

TEST_CASE("devices") {
  refused("q is on DLPack device type 8; it must be kDLCPU (1), kDLCUDA (2) or kDLExtDev (12), the emulator",
          [](Problem &p) { p.q.tensor.device.device_type = kDLMetal; });
  refused("v is on device type 2 number 1; it must be on the device of q (type 1 number 0)",
          [](Problem &p) { p.v.tensor.device = {kDLCUDA, 1}; });
  refused("lse is on device type 2", [](Problem &p) { p.lse.tensor.device.device_type = kDLCUDA; });
}

TEST_CASE("strides and addresses") {
  refused("q has stride 2 in its last dimension; it must be 1", [](Problem &p) { p.q.useStrides()[3] = 2; });
  refused("v has stride 0 in its last dimension", [](Problem &p) { p.v.useStrides()[3] = 0; });
  refused("lse has stride 5 in its last dimension", [](Problem &p) { p.lse.useStrides()[2] = 5; });
  refused("k has stride -16 in dimension 1; strides must be 0 to 2^48",
          [](Problem &p) { p.k.useStrides()[1] = -16; });
  refused("k has stride 9223372036854775807 in dimension 0",
          [](Problem &p) { p.k.useStrides()[0] = INT64_MAX; });
  refused("it must not reach beyond 2^48 elements",
          [](Problem &p) { p.k.useStrides()[1] = int64_t(1) << 47; });
  refused("o has stride 0 in dimension 0; an output's must be at least 1",
          [](Problem &p) { p.o.useStrides()[0] = 0; });
  refused("lse has stride 0 in dimension 1", [](Problem &p) { p.lse.useStrides()[1] = 0; });
  refused("k has data at an address that is not a multiple of its element size, 4 bytes",
          [](Problem &p) { p.k.tensor.byte_offset = 2; });
  raggedRefused("cu_seqlens_q has data at an address that is not a multiple",
                [](Problem &p) { p.cu_q.tensor.byte_offset = 1; });
  refused("tile_counter is not a multiple of 8 bytes",
          [](Problem &p) { p.args.tile_counter = reinterpret_cast<int64_t *>(uintptr_t(4)); });
  accepted([](Problem &p) { p.k.useStrides()[0] = 0; }); // one K for the whole batch
  accepted([](Problem &p) { p.k.useStrides()[0] = p.k.strides[1] = p.k.strides[2] = 16; });
}

TEST_CASE("cu_seqlens") {
  refused("cu_seqlens_k is null and the other is not; give both or none",
          [](Problem &p) { p.args.cu_seqlens_q = p.cu_q.get(); });
  raggedRefused("cu_seqlens_q is null and the other is not",
                [](Problem &p) { p.args.cu_seqlens_q = nullptr; });
  raggedRefused("cu_seqlens_q[0] is 1; it must be 0", [](Problem &p) { p.cu_q.as<int32_t>()[0] = 1; });
  raggedRefused("cu_seqlens_k[2] is 6, less than 7 before it; it must not decrease",
                [](Problem &p) { p.cu_k.as<int32_t>()[2] = 6; });
  raggedRefused("cu_seqlens_q ends at 11; there are only 10 rows", [](Problem &p) {
    p.cu_q.as<int32_t>()[2] = 11, p.args.max_seqlen_q = 7;
  });
  raggedRefused("max_seqlen_q is 5, but cu_seqlens_q holds a sequence of 6 rows; it must be at least that",
                [](Problem &p) { p.args.max_seqlen_q = 5; });
  raggedRefused("max_seqlen_k is -1; it must be 0 to 1073741823",
                [](Problem &p) { p.args.max_seqlen_k = -1; });
  raggedRefused("max_seqlen_k is 9000000000", [](Problem &p) { p.args.max_seqlen_k = 9000000000; });
  raggedRefused("cu_seqlens_q has dtype float32; it must be int32",
                [](Problem &p) { p.cu_q.tensor.dtype = {kDLFloat, 32, 1}; });
  raggedRefused("cu_seqlens_q has shape (1, 3); it must have 1 dimension", [](Problem &p) {
    p.cu_q.shape = {1, 3}, p.cu_q.tensor.shape = p.cu_q.shape.data(), p.cu_q.tensor.ndim = 2;
  });
  raggedRefused("cu_seqlens_q has 0 elements; it must have batch + 1",
                [](Problem &p) { p.cu_q.shape[0] = 0; });
  raggedRefused("cu_seqlens_k has shape (2); it must be (batch + 1) = (3)",
                [](Problem &p) { p.cu_k.shape[0] = 2; });
  raggedRefused("cu_seqlens_q has stride 2", [](Problem &p) { p.cu_q.useStrides()[0] = 2; });
  accepted([](Problem &p) { p.args.max_seqlen_q = 1000000; }, true);
  // an empty sequence
  accepted([](Problem &p) { p.cu_q.as<int32_t>()[1] = 10, p.args.max_seqlen_q = 10; }, true);
}

TEST_CASE("seqused") {
  HostTensor used = HostTensor::int32({3, -2});
  refused("seqused_k[1] is -2; it must not be negative", [&](Problem &p) { p.args.seqused_k = used.get(); });
  HostTensor three = HostTensor::int32({3, 2, 1});
  refused("seqused_q has shape (3); it must be (batch) = (2)",
          [&](Problem &p) { p.args.seqused_q = three.get(); });
}

TEST_CASE("mask, scale and the rest") {
  refused("window_left is -2; it must be -1 (unbounded) or more",
          [](Problem &p) { p.args.window_left = -2; });
  refused("window_right is -9", [](Problem &p) { p.args.window_right = -9; });
  const float infinite = INFINITY;
  refused("softmax_scale is inf; it must be finite", [&](Problem &p) { p.args.softmax_scale = &infinite; });
  refused("lse_empty is NaN", [](Problem &p) { p.args.lse_empty = NAN; });
  refused("num_splits is -1; it must be 0 to 128", [](Problem &p) { p.args.num_splits = -1; });
  refused("softcap is -1.000000; it must be 0 (off) or a positive number",
          [](Problem &p) { p.args.softcap = -1; });
  refused("softcap is nan", [](Problem &p) { p.args.softcap = NAN; });
  refused("softcap is inf", [](Problem &p) { p.args.softcap = INFINITY; });
}

TEST_CASE("ALiBi slopes") {
  HostTensor slopes({3});
  refused("alibi_slopes has shape (3); it must be (heads_q) or (batch, heads_q) = (2, 4)",
          [&](Problem &p) { p.args.alibi_slopes = slopes.get(); });
  HostTensor good({2, 4});
  CHECK(accepted([&](Problem &p) { p.args.alibi_slopes = good.get(); }).find("t0[b, h]") !=
        std::string::npos);
  refused("alibi_slopes has dtype float16; it must be float32", [&](Problem &p) {
    good.tensor.dtype.bits = 16;
    p.args.alibi_slopes = good.get();
  });
}

TEST_CASE("a score that does not parse is refused with its column") {
  refused("column 5", [](Problem &p) { p.args.score = "s + * 2"; });
  // columns are the caller's own
  refused("column 3", [](Problem &p) { p.args.score = "s @ 2", p.args.softcap = 3; });
  refused("score uses the scalar 'cap', which score_scalars does not give",
          [](Problem &p) { p.args.score = "s * cap"; });
  refused("score uses the tensor 'bias', which score_tensors does not give",
          [](Problem &p) { p.args.score = "s + bias[h]"; });
  refused("names must not begin with 'flashplus_'", [](Problem &p) {
    p.args.score = "s * flashplus_softcap", p.args.softcap = 1;
  });
  refused("names must not begin with 'flashplus_'",
          [](Problem &p) { p.args.score = "s + flashplus_slopes[h]"; });
  const flashplus_score_scalar scalar{"cap", 1};
  refused("score_scalars gives 'cap', which the score does not use", [&](Problem &p) {
    p.args.score = "s * 2", p.args.score_scalars = &scalar, p.args.num_score_scalars = 1;
  });
  refused("score_scalars gives 'cap', which the score does not use",
          [&](Problem &p) { p.args.score_scalars = &scalar, p.args.num_score_scalars = 1; });
  refused("num_score_scalars is 1 and score_scalars is null; they must agree",
          [&](Problem &p) { p.args.num_score_scalars = 1; });
  refused("num_score_tensors is -1", [&](Problem &p) { p.args.num_score_tensors = -1; });
  // good alone, too long with a softcap around it
  const std::string longest = "s + " + std::string(4090, ' ') + "1";
  refused("score together with softcap or alibi_slopes", [&](Problem &p) {
    p.args.score = longest.c_str(), p.args.softcap = 1;
  });
}

TEST_CASE("a tensor that the score reads") {
  HostTensor bias({4});
  flashplus_score_tensor named{"bias", bias.get()};
  auto with = [&](const char *score) {
    return [&, score](Problem &p) {
      p.args.score = score, p.args.score_tensors = &named, p.args.num_score_tensors = 1;
    };
  };
  CHECK(accepted(with("s + bias[h]")).find("t0[h]") != std::string::npos);
  accepted(with("s + bias[3]"));
  accepted(with("s + bias[min(q, 3)]"));
  refused("score tensor 'bias' has shape (4); the score reads it with 2 indices", with("s + bias[h, q]"));
  refused("score tensor 'bias' has shape (4); the score reads dimension 0 by k, so it must be at least 7",
          with("s + bias[k]"));
  refused("the score reads dimension 0 by q, so it must be at least 5", with("s + bias[h] + bias[q]"));
  refused("the score reads dimension 0 by a number, so it must be at least 5", with("s + bias[4]"));
  // What is worked out is clamped by the kernel, which needs an element for that.
  accepted(with("s + bias[-1] + bias[k + 1e9] + bias[0 / 0]"));
  bias.shape[0] = 0;
  refused("score tensor 'bias' has shape (0); the score reads it, so it must have an element",
          with("s + bias[k - 1]"));
  bias.shape[0] = 4;
  // How long packed sequences are is not known here.
  Problem ragged(true);
  with("s + bias[k]")(ragged);
  flashplus_status status;
  CHECK(specOf(ragged.args, &status) != "");
  bias.tensor.dtype.bits = 16;
  refused("score tensor 'bias' has dtype float16; it must be float32", with("s + bias[h]"));
  named.tensor = nullptr;
  refused("score uses the tensor 'bias', which score_tensors does not give", with("s + bias[h]"));
}

TEST_CASE("names of scalars and tensors do not make another spec") {
  using namespace flashplus;
  ScoreTable scores;
  auto fields = [&](const char *score, const char *name) {
    Problem p;
    const flashplus_score_scalar scalar{name, 2};
    p.args.score = score, p.args.score_scalars = &scalar, p.args.num_score_scalars = 1;
    ForwardProblem problem;
    const Status status = checkForwardArgs(&p.args, DataPointers::Required, scores, problem);
    REQUIRE_MESSAGE(status.isOk(), status.message());
    CHECK(problem.params.scalar[0] == 2);
    return problem.spec;
  };
  const ProblemSpec a = fields("s * x", "x"), b = fields("s * y", "y"), c = fields("s * x", "x"),
                    d = fields("s / x", "x");
  CHECK(a.score == c.score); // found, not parsed again
  CHECK(a.score != b.score);
  CHECK(a.sameSpec(b));
  CHECK(a.spec().text() == b.spec().text());
  CHECK(!a.sameSpec(d));
}

TEST_CASE("scores that differ in a number are one spec, with another scalar") {
  using namespace flashplus;
  ScoreTable scores;
  auto check = [&](const char *score) {
    Problem p;
    p.args.score = score;
    ForwardProblem problem;
    const Status status = checkForwardArgs(&p.args, DataPointers::Required, scores, problem);
    REQUIRE_MESSAGE(status.isOk(), status.message());
    return problem;
  };
  const ForwardProblem half = check("s * 0.5"), quarter = check("s * 0.25");
  CHECK(half.spec.sameSpec(quarter.spec));
  CHECK(half.spec.spec().text() == quarter.spec.spec().text());
  CHECK(half.params.scalar[0] == 0.5f);
  CHECK(quarter.params.scalar[0] == 0.25f);
}

TEST_CASE("threads that ask for one score get one form, and parse it about once") {
  flashplus::ScoreTable scores;
  std::vector<std::vector<const flashplus::ScoreForm *>> found(4);
  std::vector<std::thread> threads;
  for (auto &mine : found)
    threads.emplace_back([&] {
      for (int i = 0; i < 300; ++i) {
        const std::string text = "s * " + std::to_string(i % 150 + 2);
        for (int rank : {0, 2}) {
          auto form = scores.find({text, i % 2 == 0, rank});
          mine.push_back(form ? *form : nullptr);
        }
      }
    });
  for (std::thread &t : threads)
    t.join();
  for (size_t i = 0; i < found[0].size(); ++i) {
    CHECK(found[0][i] != nullptr);
    for (const auto &other : found)
      CHECK(found[0][i] == other[i]);
    if (i >= 300)
      CHECK(found[0][i] == found[0][i - 300]);
  }
  CHECK(found[0][0] != found[0][1]);
  CHECK(found[0][0] != found[0][2]);
  CHECK(!scores.find({"s +", false, 0}));
}

TEST_CASE("null data is for plans and specs only") {
  Problem p;
  p.k.tensor.data = nullptr;
  flashplus_status status;
  CHECK(specOf(p.args, &status) != "");
  flashplus::ForwardProblem problem;
  flashplus::ScoreTable scores;
  const auto refusal = checkForwardArgs(&p.args, flashplus::DataPointers::Required, scores, problem);
  CHECK(refusal.message() == "k has null data; it must point to (2, 7, 2, 16) elements");
}

TEST_CASE("the default scale is 1 / sqrt(head_dim), rounded once") {
  // The Python face gives head_dim ** -0.5 or leaves the scale out; results may not depend on which.
  for (int64_t d = 1; d <= flashplus::kMaxHeadDim; ++d) {
    Problem p(1, 1, 1, 1, 1, d);
    flashplus::ScoreTable scores;
    flashplus::ForwardProblem problem;
    REQUIRE(checkForwardArgs(&p.args, flashplus::DataPointers::Required, scores, problem).isOk());
    CHECK(problem.params.softmax_scale == float(std::pow(double(d), -0.5)));
  }
}

TEST_CASE("sinks: one of each query head, of a dtype of their own") {
  auto sinks = [](std::vector<int64_t> shape, DLDataTypeCode code = kDLFloat, uint8_t bits = 32) {
    return HostTensor(std::move(shape), {uint8_t(code), bits, 1});
  };
  for (auto [code, bits, word] :
       {std::tuple{kDLFloat, 32, "fp32"}, {kDLFloat, 16, "fp16"}, {kDLBfloat, 16, "bf16"}})
    for (bool ragged : {false, true}) {
      HostTensor good = sinks({4}, code, uint8_t(bits));
      const std::string text = accepted([&](Problem &p) { p.args.sinks = good.get(); }, ragged);
      CHECK(text.find(std::string(" sinks=") + word) != std::string::npos);
    }
  auto given = [&](HostTensor &bad, const std::string &sentence) {
    refused(sentence, [&](Problem &p) { p.args.sinks = bad.get(); });
  };
  HostTensor five = sinks({5}), square = sinks({4, 1}), whole = sinks({4}, kDLInt), apart = sinks({4}),
             elsewhere = sinks({4}), good = sinks({4});
  given(five, "sinks has shape (5); it must be (heads_q) = (4)");
  given(square, "sinks has shape (4, 1); it must be (heads_q) = (4)");
  given(whole, "sinks has dtype int32; it must be float16, bfloat16 or float32");
  apart.useStrides()[0] = 2;
  given(apart, "sinks has ");
  elsewhere.tensor.device = {kDLCUDA, 0};
  given(elsewhere, "sinks is on device type 2 number 0; it must be on the device of q");
  refused("lse_without_sinks is 1 and sinks is null", [](Problem &p) { p.args.lse_without_sinks = 1; });
  refused("lse_without_sinks is 2; it must be 0 or 1", [&](Problem &p) {
    p.args.sinks = good.get();
    p.args.lse_without_sinks = 2;
  });
  refused("args.reserved3 is 1; it must be 0", [](Problem &p) { p.args.reserved3 = 1; });
}

TEST_CASE("dropout: a rate alone drops, a state alone does not, and both are checked") {
  const auto drops = [](const std::string &spec) { return spec.find(" dropout=1") != std::string::npos; };
  HostTensor state({2}, {kDLInt, 64, 1}), three({3}, {kDLInt, 64, 1}), floats({2});
  CHECK(!drops(accepted([](Problem &p) { p.args.dropout_seed = 5; })));
  CHECK(!drops(accepted([&](Problem &p) { p.args.rng_state = state.get(); })));
  for (const bool ragged : {false, true}) {
    CHECK(drops(accepted([](Problem &p) { p.args.dropout_p = 0.25f; }, ragged)));
    CHECK(drops(accepted(
        [&](Problem &p) {
          p.args.dropout_p = 0.25f;
          p.args.rng_state = state.get();
        },
        ragged)));
  }
  for (auto [p, value] : {std::pair{-0.5f, "-0.5"}, {1.0f, "1"}, {NAN, "nan"}})
    refused("dropout_p is " + std::string(value) + "; it must be at least 0 and below 1",
            [p = p](Problem &problem) { problem.args.dropout_p = p; });
  refused("rng_state has shape (3)", [&](Problem &p) { p.args.rng_state = three.get(); });
  refused("rng_state has dtype float32; it must be int64 or uint64",
          [&](Problem &p) { p.args.rng_state = floats.get(); });
}
