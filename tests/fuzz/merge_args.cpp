// SPDX-License-Identifier: BSD-3-Clause
// Arguments of a merge with any sizes, strides, dtypes and devices: refused with a sentence, or a problem
// that plans (or is refused there) on a CPU and a GPU.
#include "runtime/arguments/merge_args.h"
#include "templates/merge/planner.h"
#include "tests/fuzz/call_input.h"
#include "tests/fuzz/seeds.h"

#include <cstdlib>

using namespace flashplus;
using namespace flashplus::fuzz;

std::vector<std::string> seeds() {
  std::string dense(96, '\1');
  dense[0] = 0;
  std::string ragged = dense;
  ragged[0] = 1;
  return {dense, ragged};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Input in(data, size);
  const auto flags = in.take<uint16_t>();
  const bool ragged = flags & 1;
  const DLDevice device{flags & 2 ? kDLCUDA : kDLCPU, 0};
  const DLDataType type = flags & 4 ? DLDataType{kDLFloat, 32, 1} : DLDataType{kDLBfloat, 16, 1};
  const DLDataType f32{kDLFloat, 32, 1};
  const int64_t batch = in.length(), sq = in.length(), hq = in.length(), d = in.length();
  flashplus_merge_args args = {.struct_size = sizeof args};
  Tensor o_a, lse_a, o_b, lse_b, o, lse;
  auto rows = [&](Tensor &t) {
    return ragged ? t.read(in, 3, {sq, hq, d}, type, device)
                  : t.read(in, 4, {batch, sq, hq, d}, type, device);
  };
  auto statistic = [&](Tensor &t) {
    return ragged ? t.read(in, 2, {hq, sq}, f32, device) : t.read(in, 3, {batch, hq, sq}, f32, device);
  };
  args.o_a = rows(o_a);
  args.lse_a = statistic(lse_a);
  args.o_b = rows(o_b);
  args.lse_b = statistic(lse_b);
  args.o = rows(o);
  if (flags & 8)
    args.lse = statistic(lse);
  if (flags & 16)
    args.o = const_cast<DLTensor *>(args.o_a);

  ScoreTable scores;
  MergeProblem problem;
  if (Status status = checkMergeArgs(&args, DataPointers::Optional, scores, problem); !status) {
    if (status.message().empty())
      std::abort();
    return 0;
  }
  const KernelSpec spec = problem.spec.spec();
  if (!spec.validate())
    std::abort();
  if (KernelSpec::parse(spec.text())->text() != spec.text())
    std::abort();
  for (const Target &target : {Target{Isa::X86_64_v3, 0}, Target{Isa::Sm80, 90}}) {
    auto plan = MergePlanner(spec, offlineProfile(target)).plan(problem.bounds, {});
    if (plan ? plan->workspace_bytes < 0 || plan->steps.empty() : plan.status().message().empty())
      std::abort();
  }
  return 0;
}
