// SPDX-License-Identifier: BSD-3-Clause
// What the arguments of every operation share, through a second set of arguments: a backward's, as far as
// rows, lengths, mask, score and tensor maps go. Only its struct, its params and the dozen lines of check()
// are its own.
#include "runtime/arguments/lengths.h"
#include "runtime/arguments/mask_args.h"
#include "runtime/arguments/operands.h"
#include "runtime/arguments/score_binding.h"
#include "runtime/plans/plan_memo.h"
#include "runtime/plans/tensor_layouts.h"
#include "tests/unit/runtime/problem.h"

#include <doctest/doctest.h>
#include <functional>

namespace flashplus {
namespace {

#define GRADIENT_PARAMS(X)                                                                                   \
  X(Ptr, q, 1)                                                                                               \
  X(Ptr, k, 1)                                                                                               \
  X(Ptr, v, 1)                                                                                               \
  X(Ptr, dk, 1)                                                                                              \
  X(Ptr, dlse, 1)                                                                                            \
  X(Ptr, cu_seqlens_q, 1)                                                                                    \
  X(Ptr, cu_seqlens_k, 1)                                                                                    \
  X(Ptr, seqused_q, 1)                                                                                       \
  X(Ptr, seqused_k, 1)                                                                                       \
  X(Ptr, aux, kMaxScoreTensors)                                                                              \
  X(I64, q_stride_b, 1)                                                                                      \
  X(I64, q_stride_s, 1)                                                                                      \
  X(I64, q_stride_h, 1)                                                                                      \
  X(I64, k_stride_b, 1)                                                                                      \
  X(I64, k_stride_s, 1)                                                                                      \
  X(I64, k_stride_h, 1)                                                                                      \
  X(I64, v_stride_b, 1)                                                                                      \
  X(I64, v_stride_s, 1)                                                                                      \
  X(I64, v_stride_h, 1)                                                                                      \
  X(I64, dk_stride_b, 1)                                                                                     \
  X(I64, dk_stride_s, 1)                                                                                     \
  X(I64, dk_stride_h, 1)                                                                                     \
  X(I64, dlse_stride_b, 1)                                                                                   \
  X(I64, dlse_stride_h, 1)                                                                                   \
  X(I64, rows_q, 1)                                                                                          \
  X(I64, rows_k, 1)                                                                                          \
  X(I64, aux_stride, kMaxScoreTensors *kMaxScoreTensorRank)                                                  \
  X(I32, batch, 1)                                                                                           \
  X(I32, seqlen_q, 1)                                                                                        \
  X(I32, seqlen_k, 1)                                                                                        \
  X(I32, heads_q, 1)                                                                                         \
  X(I32, heads_k, 1)                                                                                         \
  X(I32, window_left, 1)                                                                                     \
  X(I32, window_right, 1)                                                                                    \
  X(F32, scalar, kMaxScoreScalars)                                                                           \
  X(I32, aux_last, kMaxScoreTensors *kMaxScoreTensorRank)

} // namespace

FLASHPLUS_PARAMS(GradientParams, GRADIENT_PARAMS);

namespace {

struct GradientProblem : AttentionProblem {
  static constexpr Operation kOperation = Operation::Combine; // any but a forward
  GradientParams params;
};

/// The arguments of tests/unit/runtime/problem.h with a gradient of k and of lse.
struct GradientArgs : flashplus_forward_args {
  DLTensor *dk = nullptr;
  const DLTensor *dlse = nullptr;
};

struct Gradient : test::Problem {
  explicit Gradient(bool ragged = false) : test::Problem(ragged), dk(k.shape), dlse(lse.shape) {
    static_cast<flashplus_forward_args &>(a) = args;
    a.dk = dk.get();
    a.dlse = dlse.get();
  }
  test::HostTensor dk, dlse;
  GradientArgs a;
};

Status check(const GradientArgs &a, ScoreTable &scores, GradientProblem &out) {
  TensorReader reader(DataPointers::Required);
  TensorSizes sizes;
  GradientParams &p = out.params;
  out.spec.op = GradientProblem::kOperation;
  OperandArg operands[] = {
      {"q", Operand::Q, a.q}, {"k", Operand::K, a.k}, {"v", Operand::V, a.v}, {"dk", Operand::K, a.dk, true}};
  FLASHPLUS_RETURN_IF_ERROR(checkOperands(reader, operands, a.cu_seqlens_q, a.cu_seqlens_k, out.spec, sizes));
  out.device = reader.device();
  const auto &[q, k, v, dk] = operands;
  setRows(q.view, sizes.ragged, p.q, p.q_stride_b, p.q_stride_s, p.q_stride_h);
  setRows(k.view, sizes.ragged, p.k, p.k_stride_b, p.k_stride_s, p.k_stride_h);
  setRows(v.view, sizes.ragged, p.v, p.v_stride_b, p.v_stride_s, p.v_stride_h);
  setRows(dk.view, sizes.ragged, p.dk, p.dk_stride_b, p.dk_stride_s, p.dk_stride_h);
  LengthArrays arrays;
  FLASHPLUS_RETURN_IF_ERROR(checkLengths(reader, lengthArgs(a), sizes, out, arrays));
  setLengths(arrays, sizes, out.bounds, p);
  FLASHPLUS_RETURN_IF_ERROR(checkMask(maskArgs(a), out));
  setMask(out.bounds, p);
  FLASHPLUS_RETURN_IF_ERROR(bindScore(reader, scoreArgs(a), scores, sizes, out, scoreParams(p)));
  TensorView dlse;
  FLASHPLUS_RETURN_IF_ERROR(checkRowStatistic(reader, "dlse", a.dlse, /*written=*/false, sizes, dlse));
  setRowStatistic(dlse, sizes.ragged, p.dlse, p.dlse_stride_b, p.dlse_stride_h);
  return Status::ok();
}

void refused(const std::string &sentence, const std::function<void(Gradient &)> &change,
             bool ragged = false) {
  Gradient g(ragged);
  change(g);
  ScoreTable scores;
  GradientProblem out;
  const Status status = check(g.a, scores, out);
  INFO(status.message());
  CHECK(status.code() == StatusCode::InvalidArgument);
  CHECK_MESSAGE(status.message().find(sentence) != std::string::npos, sentence);
}

} // namespace

TEST_CASE("params of a second operation are filled in by their names") {
  ScoreTable scores;
  Gradient g;
  g.a.causal = 1;
  g.a.window_left = 3;
  g.a.softcap = 20;
  test::HostTensor used = test::HostTensor::int32({3, 7});
  g.a.seqused_k = used.get();
  GradientProblem out;
  const Status status = check(g.a, scores, out);
  REQUIRE_MESSAGE(status.isOk(), status.message());
  const GradientParams &p = problemAs<GradientProblem>(out).params;
  CHECK(p.dk == g.dk.tensor.data);
  CHECK(p.dk_stride_b == 7 * 2 * 16);
  CHECK(p.dk_stride_s == 2 * 16);
  CHECK(p.dk_stride_h == 16);
  CHECK(p.dlse == g.dlse.tensor.data);
  CHECK(p.dlse_stride_b == 4 * 5);
  CHECK(p.dlse_stride_h == 5);
  CHECK(p.cu_seqlens_q == nullptr);
  CHECK(p.seqused_q == nullptr);
  CHECK(p.seqused_k == used.tensor.data);
  CHECK(p.rows_q == 10);
  CHECK(p.rows_k == 14);
  CHECK(p.batch == 2);
  CHECK(p.seqlen_q == 5);
  CHECK(p.seqlen_k == 7);
  CHECK(p.heads_q == 4);
  CHECK(p.heads_k == 2);
  CHECK(p.window_left == 3);
  CHECK(p.window_right == 0);
  CHECK(p.scalar[0] == 20);
  CHECK(out.spec.bounded_left);
  CHECK(out.spec.bounded_right);
  CHECK(out.spec.head_dim_qk == 16);
  CHECK(out.spec.head_dim_v == 24);
  CHECK(out.spec.dtype == DType::F32);
  CHECK(out.bounds.total_q == 10);
  CHECK(!out.empty);
}

TEST_CASE("its key is not that of another operation with the same fields") {
  ScoreTable scores;
  Gradient g;
  GradientProblem out;
  REQUIRE(check(g.a, scores, out));
  const PlanKey key(out);
  out.spec.op = Operation::Forward;
  CHECK(!(PlanKey(out) == key));
}

TEST_CASE("tensor maps are read off its params, dense and ragged") {
  ScoreTable scores;
  for (bool ragged : {false, true}) {
    Gradient g(ragged);
    GradientProblem out;
    REQUIRE(check(g.a, scores, out));
    const auto layouts = tensorLayouts<Operand::K, Operand::V>(out.params, out.spec);
    const int64_t rows = ragged ? 14 : 7, batch = ragged ? 1 : 2, entry = ragged ? 0 : 4;
    CHECK(layouts[size_t(Operand::Q)] == TensorLayout{});
    CHECK(layouts[size_t(Operand::K)] ==
          TensorLayout{
              g.k.tensor.data, {16, rows, 2, batch}, {2 * 16 * 4, 16 * 4, entry * 7 * 2 * 16}, DType::F32});
    CHECK(layouts[size_t(Operand::V)] ==
          TensorLayout{
              g.v.tensor.data, {24, rows, 2, batch}, {2 * 24 * 4, 24 * 4, entry * 7 * 2 * 24}, DType::F32});
  }
}

TEST_CASE("its own tensors are refused by their names") {
  refused(
      "dk has shape (2, 6, 2, 16); it must be (batch of q, seqlen_k, heads_k, head_dim of q) = (2, 7, 2, 16)",
      [](Gradient &g) { g.dk.shape[1] = 6; });
  refused(
      "dk has shape (13, 2, 16); it must be (total_k, heads_k, head_dim of q) = (14, 2, 16)",
      [](Gradient &g) { g.dk.shape[0] = 13; }, true);
  refused("dk has stride 0 in dimension 1; an output's must be at least 1",
          [](Gradient &g) { g.dk.useStrides()[1] = 0; });
  refused("dk has dtype float16; it must be q's, float32", [](Gradient &g) {
    g.dk.tensor.dtype = {kDLFloat, 16, 1};
  });
  refused("dk is null; it must be a tensor", [](Gradient &g) { g.a.dk = nullptr; });
  refused("dk is on device type 2 number 1; it must be on the device of q (type 1 number 0)",
          [](Gradient &g) {
            g.dk.tensor.device = {kDLCUDA, 1};
          });
  refused("dlse has shape (2, 4, 6); it must be (batch, heads_q, seqlen_q) = (2, 4, 5)",
          [](Gradient &g) { g.dlse.shape[2] = 6; });
  refused("dlse has dtype int32; it must be float32", [](Gradient &g) {
    g.dlse.tensor.dtype = {kDLInt, 32, 1};
  });
}

TEST_CASE("a statistic that is only read may repeat its elements") {
  ScoreTable scores;
  Gradient g;
  g.dlse.useStrides()[1] = 0;
  GradientProblem out;
  CHECK(check(g.a, scores, out));
}

} // namespace flashplus
