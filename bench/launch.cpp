// SPDX-License-Identifier: BSD-3-Clause
// What a launch costs on the host beyond the kernel: the C API on the CPU device, one thread, with a kernel
// that only returns (tests/unit/runtime/fake_compiler.cpp). Prints nanoseconds a call, the median of 21
// rounds. bench_launch [libfake_compiler.so]: the library's path on another machine than it was built on.
#include "flashplus/flashplus.h"
#include "runtime/devices/cuda/cuda_device.h"
#include "runtime/arguments/forward_args.h"
#include "runtime/plans/plan_memo.h"
#include "templates/forward/planner.h"
#include "tests/unit/runtime/libraries.h"
#include "tests/unit/runtime/problem.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

using namespace flashplus;
using test::HostTensor;

namespace {

template <class Body> double nanoseconds(Body body, int calls = 20000) {
  std::vector<double> rounds;
  for (int round = 0; round < 21; ++round) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < calls; ++i)
      body();
    rounds.push_back(
        std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count() / calls);
  }
  std::sort(rounds.begin(), rounds.end());
  return rounds[rounds.size() / 2];
}

void must(flashplus_status status) {
  if (status != FLASHPLUS_OK) {
    std::fprintf(stderr, "%s\n", flashplus_last_error());
    std::exit(1);
  }
}

void show(const char *what, double ns) { std::printf("%-64s %9.0f ns\n", what, ns); }

/// A driver that does nothing, at once.
cuda::Driver idleDriver() {
  cuda::Driver d;
  d.version = 13000;
  d.deviceGet = [](cuda::CUdevice *device, int) { return *device = 0; };
  d.deviceGetName = [](char *text, int, cuda::CUdevice) { return int(*text = 0); };
  d.deviceGetAttribute = [](int *value, int which, cuda::CUdevice) {
    *value = which == cuda::kComputeCapabilityMajor ? 9 : which == cuda::kComputeCapabilityMinor ? 0 : 232448;
    return 0;
  };
  d.deviceTotalMem = [](size_t *, cuda::CUdevice) { return 0; };
  d.primaryCtxRetain = [](cuda::CUcontext *c, cuda::CUdevice) { return *c = c, 0; };
  d.primaryCtxRelease = [](cuda::CUdevice) { return 0; };
  d.ctxGetCurrent = [](cuda::CUcontext *c) { return *c = nullptr, 0; };
  d.ctxPushCurrent = [](cuda::CUcontext) { return 0; };
  d.ctxPopCurrent = [](cuda::CUcontext *) { return 0; };
  d.moduleLoadData = [](cuda::CUmodule *, const void *) { return 0; };
  d.moduleGetFunction = [](cuda::CUfunction *, cuda::CUmodule, const char *) { return 0; };
  d.moduleUnload = [](cuda::CUmodule) { return 0; };
  d.tensorMapEncodeTiled = [](void *, int, uint32_t, void *, const uint64_t *, const uint64_t *,
                              const uint32_t *, const uint32_t *, int, int, int, int) { return 0; };
  d.tensorMapReplaceAddress = [](void *, void *) { return 0; };
  d.funcSetAttribute = [](cuda::CUfunction, int, int) { return 0; };
  d.launchKernel = [](cuda::CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                      cuda::CUstream, void **, void **) { return 0; };
  return d;
}

} // namespace

int main(int argc, char **argv) {
  flashplus_context_options options{};
  options.struct_size = sizeof options;
  options.cache_dir = "";
  options.compiler_path = argc > 1 ? argv[1] : test::kFakeCompiler;
  options.num_threads = 1;
  flashplus_context *context = nullptr;
  must(flashplus_context_create(&options, &context));

  test::Problem p(1, 1, 512, 1, 1, 128); // one work item
  flashplus_plan *plan = nullptr;
  must(flashplus_plan_create(context, &p.args, &plan));
  show("plan_run", nanoseconds([&] { must(flashplus_plan_run(plan, &p.args, nullptr, 0, nullptr)); }));
  show("forward, kernel resident", nanoseconds([&] { must(flashplus_forward(context, &p.args, nullptr)); }));

  test::Problem scored(1, 1, 512, 1, 1, 128);
  HostTensor slopes({1});
  scored.args.softcap = 30;
  scored.args.alibi_slopes = slopes.get();
  scored.args.causal = 1;
  flashplus_plan *scored_plan = nullptr;
  must(flashplus_plan_create(context, &scored.args, &scored_plan));
  show("plan_run, softcap and ALiBi",
       nanoseconds([&] { must(flashplus_plan_run(scored_plan, &scored.args, nullptr, 0, nullptr)); }));
  show("forward, softcap and ALiBi",
       nanoseconds([&] { must(flashplus_forward(context, &scored.args, nullptr)); }));

  test::Problem text(1, 1, 512, 1, 1, 128);
  const flashplus_score_scalar cap{"cap", 30};
  text.args.score = "cap * tanh(s / cap)";
  text.args.score_scalars = &cap;
  text.args.num_score_scalars = 1;
  must(flashplus_forward(context, &text.args, nullptr));
  show("forward, score as text", nanoseconds([&] { must(flashplus_forward(context, &text.args, nullptr)); }));

  test::Problem packed(true);
  must(flashplus_forward(context, &packed.args, nullptr));
  flashplus_plan *packed_plan = nullptr;
  must(flashplus_plan_create(context, &packed.args, &packed_plan));
  show("plan_run, cu_seqlens (8 work items)",
       nanoseconds([&] { must(flashplus_plan_run(packed_plan, &packed.args, nullptr, 0, nullptr)); }));

  int64_t length = 0;
  test::Problem growing(1, 1, 4096, 1, 1, 128);
  growing.args.k = growing.k.get();
  show("forward, seqlen_k grows by one each call", nanoseconds([&] {
         growing.k.shape[1] = growing.v.shape[1] = 1 + length++ % 4096;
         must(flashplus_forward(context, &growing.args, nullptr));
       }));
  show("plan_create and plan_destroy, kernel resident", nanoseconds(
                                                            [&] {
                                                              flashplus_plan *made = nullptr;
                                                              must(flashplus_plan_create(context, &p.args,
                                                                                         &made));
                                                              flashplus_plan_destroy(made);
                                                            },
                                                            2000));
  ScoreTable scores;
  show("  of these: checking the arguments", nanoseconds([&] {
         ForwardProblem problem;
         if (!checkForwardArgs(&p.args, DataPointers::Required, scores, problem))
           std::exit(1);
       }));
  ForwardProblem problem;
  (void)checkForwardArgs(&p.args, DataPointers::Required, scores, problem);
  const KernelSpec spec = problem.spec.spec();
  const DeviceProfile profile = offlineProfile({Isa::X86_64_v3, 0});
  show("planForward (templates), which makes a planner",
       nanoseconds(
           [&] {
             if (!planForward(spec, problem.bounds, profile, {}))
               std::exit(1);
           },
           2000));
  const ForwardPlanner planner(spec, profile);
  show("  of these: ForwardPlanner::plan (templates)", nanoseconds(
                                                           [&] {
                                                             if (!planner.plan(problem.bounds, {}))
                                                               std::exit(1);
                                                           },
                                                           2000));

  PlanMemo memo;
  memo.put(PlanKey(problem), {});
  LaunchRecord record;
  show("  of these: finding a resident plan", nanoseconds([&] {
         if (!memo.find(PlanKey(problem), record))
           std::exit(1);
       }));

  const cuda::Driver driver = idleDriver();
  auto device = createCudaDevice(driver, 0);
  Artifact artifact;
  artifact.kind = CodeKind::Cubin;
  auto kernel = (*device)->load(artifact);
  show("CUDA device launch over an idle driver", nanoseconds([&] {
         if (!(*device)->launch(**kernel, &problem.params, {.items = 1}, {}, nullptr))
           std::exit(1);
       }));
  artifact.launch.tensor_maps = {{Operand::Q, 128, 64}, {Operand::K, 128, 64}, {Operand::V, 128, 64}};
  auto mapped = (*device)->load(artifact);
  TensorLayout tensors[3];
  for (TensorLayout &t : tensors)
    t = {&t, {128, 512, 1, 1}, {256, 256, 131072}, DType::F16};
  show("  with the tensor maps of q, k and v", nanoseconds([&] {
         if (!(*device)->launch(**mapped, &problem.params, {.items = 1}, tensors, nullptr))
           std::exit(1);
       }));

  std::vector<std::thread> threads;
  std::vector<double> times(2);
  for (double &time : times)
    threads.emplace_back([&] {
      test::Problem own(1, 1, 512, 1, 1, 128);
      time = nanoseconds([&] { must(flashplus_forward(context, &own.args, nullptr)); });
    });
  for (std::thread &t : threads)
    t.join();
  show("forward from two threads at once, the slower", std::max(times[0], times[1]));
  for (flashplus_plan *made : {plan, scored_plan, packed_plan})
    flashplus_plan_destroy(made);
  flashplus_context_destroy(context);
}
