// SPDX-License-Identifier: BSD-3-Clause
// A third operation and a further field, made by a row each (more.h), on their way through spec, key, a plan
// of three steps, artifact and launch record.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "cache/key.h"
#include "runtime/plans/launch_record.h"
#include "runtime/plans/tuning_record.h"
#include "templates/registry.h"

#include <doctest/doctest.h>

using namespace flashplus;

namespace {

KernelSpec probe() {
  KernelSpec spec;
  spec.op = Operation::Probe;
  spec.dtype = DType::F16;
  spec.head_dim_v = 64;
  return spec;
}

} // namespace

TEST_CASE("its specs have its fields, text and name") {
  CHECK(operationInfo(Operation(kNumOperations - 1)).name == "probe");
  KernelSpec spec = probe();
  CHECK(spec.text() == "probe dtype=fp16 dv=64");
  CHECK(kernelName(spec) == "flashplus_probe_fp16_dv64");
  spec.colour = 5;
  spec.score = *ScoreExpr::parse("s * x");
  CHECK(spec.text() == "probe dtype=fp16 dv=64 colour=5 score={s * p0}");
  auto back = KernelSpec::parse(spec.text());
  REQUIRE_MESSAGE(back.isOk(), back.status().message());
  CHECK(static_cast<const SpecFields &>(*back) == spec);
  CHECK(SpecFields::kPackedWords == 2); // its field no longer fits the word of the others
  CHECK(back->pack() == spec.pack());
  CHECK(probe().pack() != spec.pack());
  CHECK(!KernelSpec::parse("probe dtype=fp16 dqk=64 dv=64").isOk());
  CHECK(operationNames().ends_with(", probe"));
}

TEST_CASE("a new field at its default changes no text, and drops no cell of a tuning record") {
  KernelSpec forward;
  forward.head_dim_qk = forward.head_dim_v = 64;
  CHECK(forward.text() == "forward dtype=bf16 dqk=64 dv=64");
  // As 0.1 wrote it, which knew of no colour.
  const std::string record =
      R"({"format":"flashplus-tuning 1","device":{"model":"M","target":"sm_80@sm_90"},"cells":[
    {"spec":"forward dtype=bf16 dqk=64 dv=64 left=0 right=1 split=0 align=16 score={s}","queries":512,"keys":512,
     "best":"sm80.flash stages=2 tile_m=128 tile_n=64 warps=4"}]})";
  auto parsed = parseTuningRecord(record, "a test");
  REQUIRE_MESSAGE(parsed.isOk(), parsed.status().message());
  REQUIRE(parsed->cells.size() == 1);
  CHECK(parsed->cells[0].spec.colour == 3);
  CHECK(parsed->cells[0].spec.text() == "forward dtype=bf16 dqk=64 dv=64 right=1");
}

TEST_CASE("its params are in its key") {
  const OperationInfo &info = operationInfo(Operation::Probe);
  CHECK(info.params_size == sizeof(ProbeParams));
  REQUIRE(info.mapped.size() == 1);
  CHECK(info.mapped[0] == Operand::V);
  KernelKey key;
  key.spec = probe().text();
  key.params = paramLayoutText(info.params, info.params_size);
  CHECK(key.params == "v:ptr@0 beats:i32@8 size=16");
  CHECK(*KernelKey::parse(key.text()) == key);
}

TEST_CASE("a plan of three steps becomes a launch record, and its artifact comes back") {
  LaunchSchema launch;
  launch.entry = kernelName(probe());
  launch.threads = 128;
  launch.params_size = sizeof(ProbeParams);
  launch.tensor_maps = {{Operand::V, 8, 64}};
  const Bounds bounds{2, 100, 50, 200, 8, 4, -1, -1};
  Plan plan;
  for (int rows : {16, 32, 64}) {
    const ItemShape item{.rows = rows, .num_splits = 2, .packs_heads = rows == 64};
    plan.steps.push_back({probe(), {"probe.any", {}}, launch, item, geometryOf(item, bounds).items});
  }
  CHECK(plan.steps[0].work_items == 2 * 8 * 7 * 2);
  CHECK(plan.steps[2].work_items == 2 * 4 * 4 * 2); // rows of two packed heads
  plan.parts[2] = {256, 64};
  plan.workspace_bytes = 320;

  const auto *kernels = reinterpret_cast<const char *>(&plan); // three addresses; nobody looks behind them
  const ResidentKernel *resident[3];
  for (int i = 0; i < 3; ++i)
    resident[i] = reinterpret_cast<const ResidentKernel *>(kernels + i);
  const LaunchRecord record = recordOf(plan, resident);
  REQUIRE(record.num_steps == 3);
  for (int i = 0; i < 3; ++i) {
    CHECK(record.steps[i].kernel == resident[i]);
    CHECK(record.steps[i].op == Operation::Probe);
    CHECK(record.steps[i].maps);
    CHECK(geometryOf(record.steps[i].item, bounds).items == plan.steps[size_t(i)].work_items);
  }
  char workspace[320];
  CHECK(record.part(workspace, 2) == workspace + 256);
  CHECK(record.part(workspace, 1) == nullptr);

  Artifact artifact;
  artifact.kind = CodeKind::Ptx;
  artifact.code = {'p'};
  artifact.launch = launch;
  auto again = parseArtifact(serializeArtifact(artifact));
  REQUIRE_MESSAGE(again.isOk(), again.status().message());
  CHECK(*again == artifact);
}

TEST_CASE("an algorithm that nobody wrote is answered with a sentence") {
  const auto launch = launchSchema(probe(), {"sm80.flash", {}}, *Target::parse("sm_80"));
  REQUIRE(!launch.isOk());
  CHECK(launch.status().message().find("is not an algorithm for this operation") != std::string::npos);
}
