// SPDX-License-Identifier: BSD-3-Clause
// Arguments of a backward: what only it has. What every operation shares is in forward_args_test.cpp and
// shared_args_test.cpp.
#include "runtime/arguments/backward_args.h"
#include "tests/unit/runtime/problem.h"

#include <doctest/doctest.h>

#include <functional>
#include <string>

namespace flashplus {
namespace {

/// The problem of problem.h with gradients.
struct Backward : test::Problem {
  explicit Backward(bool ragged = false)
      : test::Problem(ragged), dout(o.shape), dq(q.shape), dk(k.shape), dv(v.shape), dlse(lse.shape),
        delta(lse.shape) {
    a.q = args.q;
    a.k = args.k;
    a.v = args.v;
    a.o = args.o;
    a.lse = args.lse;
    a.dout = dout.get();
    a.dq = dq.get();
    a.dk = dk.get();
    a.dv = dv.get();
    a.dlse = dlse.get();
    a.delta = delta.get();
    a.cu_seqlens_q = args.cu_seqlens_q;
    a.cu_seqlens_k = args.cu_seqlens_k;
    a.max_seqlen_q = args.max_seqlen_q;
    a.max_seqlen_k = args.max_seqlen_k;
  }
  Status check(BackwardProblem &out) { return checkBackwardArgs(&a, data, scores, out); }

  test::HostTensor dout, dq, dk, dv, dlse, delta;
  flashplus_backward_args a = FLASHPLUS_BACKWARD_ARGS_INIT;
  DataPointers data = DataPointers::Required;
  ScoreTable scores;
};

using Tensor = test::HostTensor Backward::*;

void refused(const std::string &sentence, const std::function<void(Backward &)> &change,
             bool ragged = false) {
  Backward b(ragged);
  change(b);
  BackwardProblem out;
  const Status status = b.check(out);
  INFO(status.message());
  CHECK(status.code() == StatusCode::InvalidArgument);
  CHECK_MESSAGE(status.message().find(sentence) != std::string::npos, sentence);
}

BackwardProblem accepted(
    const std::function<void(Backward &)> &change = [](Backward &) {}, bool ragged = false) {
  Backward b(ragged);
  change(b);
  BackwardProblem out;
  const Status status = b.check(out);
  CHECK_MESSAGE(status.isOk(), status.message());
  return out;
}

} // namespace

TEST_CASE("backward args: every tensor has its place in the params") {
  for (bool ragged : {false, true}) {
    Backward b(ragged);
    b.dk.useStrides()[ragged ? 0 : 1] = 40;
    BackwardProblem out;
    REQUIRE(b.check(out));
    const BackwardParams &p = out.params;
    CHECK(out.spec.op == Operation::Backward);
    for (auto [at, tensor] : {std::pair{(const void *)p.q, &b.q},
                              {p.k, &b.k},
                              {p.v, &b.v},
                              {p.o, &b.o},
                              {p.lse, &b.lse},
                              {p.dout, &b.dout},
                              {p.dq, &b.dq},
                              {p.dk, &b.dk},
                              {p.dv, &b.dv},
                              {p.dlse, &b.dlse},
                              {p.delta, &b.delta}})
      CHECK(at == tensor->tensor.data);
    CHECK(p.dq_stride_s == 4 * 16);
    CHECK(p.dk_stride_s == 40);
    CHECK(p.dv_stride_h == 24);
    CHECK(p.dout_stride_s == 4 * 24);
    CHECK(p.delta_stride_h == (ragged ? 10 : 5));
    CHECK(p.dlse_stride_b == (ragged ? 0 : 20));
    CHECK(p.softmax_scale == 0.25f);
    CHECK(!out.empty);
  }
}

TEST_CASE("backward args: dlse and delta may be left out, the rest may not") {
  const BackwardProblem without = accepted([](Backward &b) { b.a.dlse = nullptr, b.a.delta = nullptr; });
  CHECK(without.params.dlse == nullptr);
  CHECK(without.params.delta == nullptr);
  refused("o is null", [](Backward &b) { b.a.o = nullptr; });
  refused("lse is null", [](Backward &b) { b.a.lse = nullptr; });
  refused("dout is null", [](Backward &b) { b.a.dout = nullptr; });
  refused("dq is null", [](Backward &b) { b.a.dq = nullptr; });
  refused("dk is null", [](Backward &b) { b.a.dk = nullptr; });
  refused("dv is null", [](Backward &b) { b.a.dv = nullptr; });
}

TEST_CASE("backward args: gradients have the shapes of what they are the gradient of") {
  refused(
      "dq has shape (2, 6, 4, 16); it must be (batch of q, seqlen_q, heads_q, head_dim of q) = (2, 5, 4, 16)",
      [](Backward &b) { b.dq.shape[1] = 6; });
  refused(
      "dk has shape (2, 7, 4, 16); it must be (batch of q, seqlen_k, heads_k, head_dim of q) = (2, 7, 2, 16)",
      [](Backward &b) { b.dk.shape[2] = 4; });
  refused("dv has shape (2, 7, 2, 16); it must be (batch, seqlen_k, heads_k, head_dim_v) = (2, 7, 2, 24)",
          [](Backward &b) { b.dv.shape[3] = 16; });
  refused("dout has shape (2, 5, 4, 16); it must be (batch, seqlen_q, heads_q, head_dim_v) = (2, 5, 4, 24)",
          [](Backward &b) { b.dout.shape[3] = 16; });
  refused(
      "dk has shape (13, 2, 16); it must be (total_k, heads_k, head_dim of q) = (14, 2, 16)",
      [](Backward &b) { b.dk.shape[0] = 13; }, true);
  refused("lse has shape (2, 4, 6); it must be (batch, heads_q, seqlen_q) = (2, 4, 5)",
          [](Backward &b) { b.lse.shape[2] = 6; });
  for (auto [name, tensor] : {std::pair{"dlse", &Backward::dlse}, {"delta", &Backward::delta}}) {
    refused(std::string(name) + " has shape (2, 4, 6); it must be (batch, heads_q, seqlen_q) = (2, 4, 5)",
            [tensor = tensor](Backward &b) { (b.*tensor).shape[2] = 6; });
    refused(
        std::string(name) + " has shape (4, 9); it must be (heads_q, total_q) = (4, 10)",
        [tensor = tensor](Backward &b) { (b.*tensor).shape[1] = 9; }, true);
  }
}

TEST_CASE("backward args: dtypes, devices and strides") {
  refused("dq has dtype float16; it must be q's, float32", [](Backward &b) {
    b.dq.tensor.dtype = {kDLFloat, 16, 1};
  });
  refused("dout has dtype bfloat16; it must be q's, float32", [](Backward &b) {
    b.dout.tensor.dtype = {kDLBfloat, 16, 1};
  });
  refused("delta has dtype float64; it must be float32", [](Backward &b) {
    b.delta.tensor.dtype = {kDLFloat, 64, 1};
  });
  refused("dv is on device type 2 number 1", [](Backward &b) { b.dv.tensor.device = {kDLCUDA, 1}; });
  refused("dlse is on device type 2 number 0", [](Backward &b) { b.dlse.tensor.device = {kDLCUDA, 0}; });
  for (Tensor tensor : std::initializer_list<Tensor>{&Backward::dq, &Backward::dk, &Backward::dv})
    refused("has stride 0 in dimension 1; an output's must be at least 1",
            [tensor](Backward &b) { (b.*tensor).useStrides()[1] = 0; });
  refused("delta has stride 0", [](Backward &b) { b.delta.useStrides()[1] = 0; });
  accepted([](Backward &b) { // what is only read may repeat
    b.dout.useStrides()[1] = 0;
    b.dlse.useStrides()[1] = 0;
  });
}

TEST_CASE("backward args: the alignment is that of the least aligned row, gradients too") {
  CHECK(accepted().spec.alignment == 16);
  for (Tensor tensor :
       std::initializer_list<Tensor>{&Backward::dout, &Backward::dq, &Backward::dk, &Backward::dv})
    CHECK(accepted([tensor](Backward &b) { (b.*tensor).tensor.byte_offset = 4; }).spec.alignment == 4);
}

TEST_CASE("backward args: a gradient has memory of its own, but dq, dk and dv may lie in one tensor") {
  refused("dq has the memory of q; a gradient needs memory of its own",
          [](Backward &b) { b.a.dq = b.q.get(); });
  refused("dq has the memory of dk", [](Backward &b) { b.dk.tensor.data = b.dq.tensor.data; });
  refused("dk has the memory of dv", [](Backward &b) { // by what an offset makes of it
    b.dv.tensor.data = static_cast<char *>(b.dk.tensor.data) - 64;
    b.dv.tensor.byte_offset = 64;
  });
  // (2, 7, 8, 16), of which the first four heads are dq's.
  const auto packed = [](Backward &b) {
    for (Tensor tensor :
         std::initializer_list<Tensor>{&Backward::q, &Backward::dq, &Backward::o, &Backward::dout})
      (b.*tensor).shape[1] = 7;
    for (Tensor tensor : std::initializer_list<Tensor>{&Backward::lse, &Backward::dlse, &Backward::delta})
      (b.*tensor).shape[2] = 7;
    for (Tensor tensor :
         std::initializer_list<Tensor>{&Backward::v, &Backward::o, &Backward::dout, &Backward::dv})
      (b.*tensor).shape[3] = 16;
    static test::HostTensor whole({2, 7, 8, 16});
    int64_t head = 0;
    for (Tensor tensor : std::initializer_list<Tensor>{&Backward::dq, &Backward::dk, &Backward::dv}) {
      (b.*tensor).tensor.data = whole.as<float>() + head * 16;
      (b.*tensor).useStrides() = {7 * 8 * 16, 8 * 16, 16, 1};
      (b.*tensor).tensor.strides = (b.*tensor).strides.data();
      head += (b.*tensor).shape[2];
    }
  };
  accepted(packed);
}

TEST_CASE("backward args: without query rows gradients of keys are written; without anything, nothing") {
  auto rows = [](int64_t sq, int64_t sk) {
    return [=](Backward &b) {
      for (Tensor tensor :
           std::initializer_list<Tensor>{&Backward::q, &Backward::o, &Backward::dq, &Backward::dout})
        (b.*tensor).shape[1] = sq;
      for (Tensor tensor :
           std::initializer_list<Tensor>{&Backward::k, &Backward::v, &Backward::dk, &Backward::dv})
        (b.*tensor).shape[1] = sk;
      for (Tensor tensor : std::initializer_list<Tensor>{&Backward::lse, &Backward::dlse, &Backward::delta})
        (b.*tensor).shape[2] = sq;
    };
  };
  CHECK(!accepted(rows(0, 7)).empty);
  CHECK(!accepted(rows(5, 0)).empty);
  CHECK(accepted(rows(0, 0)).empty);
}

TEST_CASE("backward args: keys without query heads") {
  refused("q has 0 heads and k has ", [](Backward &b) {
    for (test::HostTensor *t : {&b.q, &b.o, &b.dout, &b.dq})
      t->shape[2] = 0;
    for (test::HostTensor *t : {&b.lse, &b.dlse, &b.delta})
      t->shape[1] = 0;
  });
}

/// A score of a tensor `bias` (heads_q), a scalar `gain`, slopes and softcap, all with gradients.
struct Scored : Backward {
  Scored() : heads(a.q->shape[2]), slopes({heads}), bias({heads}), dslopes({heads}), dbias({heads}) {
    a.score = "gain * s + bias[h]";
    a.softcap = 2;
    a.alibi_slopes = slopes.get();
    tensor = {"bias", bias.get()};
    a.score_tensors = &tensor;
    a.score_scalars = &scalar;
    a.num_score_tensors = a.num_score_scalars = 1;
    a.dalibi_slopes = dslopes.get();
    a.dsoftcap = dsoftcap.get();
    wanted[0] = {"gain", dgain.get()};
    wanted[1] = {"bias", dbias.get()};
    a.score_gradients = wanted;
    a.num_score_gradients = 2;
  }
  int64_t heads;
  test::HostTensor slopes, bias, dslopes, dbias, dsoftcap{{1}}, dgain{{1}};
  flashplus_score_tensor tensor;
  flashplus_score_scalar scalar = {"gain", 1.5f};
  flashplus_score_gradient wanted[2];
};

TEST_CASE("backward args: gradients of the score's own inputs") {
  Scored s;
  BackwardProblem out;
  const Status status = s.check(out);
  REQUIRE_MESSAGE(status.isOk(), status.message());
  // Scalars gain, softcap; tensors bias, slopes: in the order in which the score has them.
  const ScoreExpr &expr = out.spec.score->expr;
  CHECK(out.spec.score_grads == ((1 << expr.scalars.size()) - 1) + (3 << kMaxScoreScalars));
  CHECK(out.params.dscalar[expr.scalars[0] == "gain" ? 0 : 1] == s.dgain.get()->data);
  CHECK(out.params.dscalar[expr.scalars[0] == "gain" ? 1 : 0] == s.dsoftcap.get()->data);
  CHECK(out.params.daux[expr.tensors[0].name == "bias" ? 0 : 1] == s.dbias.get()->data);
  CHECK(out.params.daux[expr.tensors[0].name == "bias" ? 1 : 0] == s.dslopes.get()->data);
  CHECK(out.params.daux_stride[0] == 1);
  CHECK(out.score_gradients.elements[kMaxScoreScalars] == s.heads);
  CHECK(accepted().spec.score_grads == 0);
}

TEST_CASE("backward args: gradients of a score's inputs that are refused") {
  auto refuse = [](const std::string &sentence, const std::function<void(Scored &)> &change) {
    Scored s;
    change(s);
    BackwardProblem out;
    const Status status = s.check(out);
    INFO(status.message());
    CHECK(status.code() == StatusCode::InvalidArgument);
    CHECK_MESSAGE(status.message().find(sentence) != std::string::npos, sentence);
  };
  refuse("score_gradients names 'nobody', which is no tensor or scalar of the score",
         [](Scored &s) { s.wanted[0].name = "nobody"; });
  refuse("score_gradients names '(null)'", [](Scored &s) { s.wanted[0].name = nullptr; });
  refuse("score_gradients names 'flashplus_slopes'",
         [](Scored &s) { s.wanted[0].name = "flashplus_slopes"; });
  refuse("score gradient of 'bias' is given twice", [](Scored &s) { s.wanted[0] = s.wanted[1]; });
  refuse("score gradient of 'gain' is null", [](Scored &s) { s.wanted[0].tensor = nullptr; });
  refuse("score gradient of 'gain' has shape (2); it must be that of one element = (1)",
         [](Scored &s) { s.dgain.shape[0] = 2; });
  refuse("score gradient of 'bias' has shape (1); it must have that of score tensor 'bias'",
         [](Scored &s) { s.dbias.shape[0] = 1; });
  refuse("dalibi_slopes has shape (1); it must have that of alibi_slopes",
         [](Scored &s) { s.dslopes.shape[0] = 1; });
  refuse("it must be compact, which is 1 there", [](Scored &s) { s.dbias.useStrides()[0] = 2; });
  refuse("dalibi_slopes is given and alibi_slopes is null", [](Scored &s) { s.a.alibi_slopes = nullptr; });
  refuse("dsoftcap is given and softcap is 0", [](Scored &s) { s.a.softcap = 0; });
  refuse("num_score_gradients is 2 and score_gradients is null",
         [](Scored &s) { s.a.score_gradients = nullptr; });
  refuse("num_score_gradients is -1", [](Scored &s) { s.a.num_score_gradients = -1; });
  refuse("dalibi_slopes has the memory of alibi_slopes",
         [](Scored &s) { s.a.dalibi_slopes = s.slopes.get(); });
  refuse("score gradient of 'bias' has the memory of another gradient",
         [](Scored &s) { s.wanted[1].tensor = s.dslopes.get(); });
  refuse("any_order is 2", [](Scored &s) { s.a.any_order = 2; });
}

TEST_CASE("backward args: struct_size and the schedule") {
  refused("args.struct_size is 8; it must be sizeof(flashplus_backward_args), ",
          [](Backward &b) { b.a.struct_size = 8; });
  BackwardProblem out;
  ScoreTable scores;
  const Status status = checkBackwardArgs(nullptr, DataPointers::Required, scores, out);
  CHECK(status.message() == "args is null");
  CHECK(std::string(accepted([](Backward &b) { b.a.schedule = "x"; }).schedule) == "x");
  CHECK(accepted([](Backward &b) { b.a.schedule = ""; }).schedule == nullptr);
}

} // namespace flashplus
