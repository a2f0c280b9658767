// SPDX-License-Identifier: BSD-3-Clause
// Spec -> attn op -> spec, for every field and every score operation.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "ir/dialect/Attn.h"
#include "compiler/passes/Passes.h"
#include "templates/forward/planner.h"

#include "mlir/IR/MLIRContext.h"
#include "mlir/IR/Verifier.h"

using namespace flashplus;

namespace {

/// The text of a spec after it was an operation.
std::string roundTrip(const KernelSpec &spec, const char *schedule, const char *target) {
  mlir::DialectRegistry registry;
  registerFlashplusDialects(registry);
  mlir::MLIRContext context(registry, mlir::MLIRContext::Threading::DISABLED);
  context.loadAllAvailableDialects();
  mlir::OwningOpRef<mlir::ModuleOp> module = mlir::ModuleOp::create(mlir::UnknownLoc::get(&context));
  auto *op = attn::buildOp(*module, {spec, *Schedule::parse(schedule), *Target::parse(target)});
  REQUIRE(mlir::succeeded(mlir::verify(*module)));
  auto back = attn::describeOp(op);
  REQUIRE_MESSAGE(back, back.status().message());
  CHECK(back->schedule.text() == Schedule::parse(schedule)->text());
  CHECK(back->target.text() == Target::parse(target)->text());
  return back->spec.text();
}

KernelSpec forward() {
  KernelSpec spec;
  spec.dtype = DType::BF16;
  spec.head_dim_qk = spec.head_dim_v = 64;
  return spec;
}

constexpr const char *kSchedule = "cpu.flash mr=6 nr=2 tile_m=96 tile_n=64";

} // namespace

TEST_CASE("every field of a spec survives the way through IR") {
  std::vector<KernelSpec> specs(9, forward());
  specs[1].dtype = DType::F16;
  specs[2].dtype = DType::F32;
  specs[3].head_dim_qk = 128;
  specs[4].head_dim_v = 256;
  specs[5].bounded_left = true;
  specs[6].bounded_right = true;
  specs[7].results = Results::Partial;
  specs[8].alignment = 2;
  for (const KernelSpec &spec : specs)
    CHECK(roundTrip(spec, kSchedule, "x86-64-v3") == spec.text());
  KernelSpec gradients = forward();
  gradients.op = Operation::BackwardScore;
  gradients.score = *ScoreExpr::parse("p0 * tanh(s / p0) + t0[h, q - k] * t0[h, q - k] * exp(p1)");
  gradients.score_grads = 3 | 1 << kMaxScoreScalars;
  CHECK(roundTrip(gradients, "cpu.backward_score mr=6 nr=2 tile_m=48 tile_n=96", "x86-64-v3") ==
        gradients.text());
  KernelSpec combine;
  combine.op = Operation::Combine;
  combine.dtype = DType::F16;
  combine.head_dim_v = 72;
  combine.alignment = 2;
  CHECK(roundTrip(combine, "gpu.combine rows=4", "sm_80@sm_90") == combine.text());
}

TEST_CASE("every score expression survives the way through IR") {
  for (const char *text : {
           "s",
           "cap * tanh(s / cap)",
           "s - slopes[h] * abs(q + sk - sq - k)",
           "s + bias[b, h, q, k]",
           "where(k - q < 7, s, -1e30) + table[k - q + 100]",
           "min(s, p) + max(exp(s), log(abs(s) + 1)) * sqrt(abs(-s))",
           "(s <= 1) + (s > 2) * (s >= 3) - (s == 4) / (2 + (s != 5))",
           "s * b + hk - sq * sk + h",
           "s + t[q + sk - sq - k, abs(-k) * 2, min(h, 3), max(b, -hk)] - t[k / 2, 2.5, 1e30, 0 / 0]",
           "s + t[k, -1, u[k - 1], s] * u[0] + u[q * sk + k]",
           "where(k - q < 7, s + t[k - q], t[3 - -q])",
           "where(k <= q and (k % 2 == 0 or not s) or p, s % 3 + floor(s / 2), -inf)",
           "s + t[(q - k) % 64, k % 2.5, floor(k / 16)] * sigmoid(u[h])",
       }) {
    KernelSpec spec = forward();
    auto score = ScoreExpr::parse(text);
    REQUIRE_MESSAGE(score, text);
    spec.score = *score;
    CHECK_MESSAGE(roundTrip(spec, kSchedule, "x86-64-v3") == spec.text(), text);
  }
}
