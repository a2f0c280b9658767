// SPDX-License-Identifier: BSD-3-Clause
// assemble <target>: assembles every release variant for a target on all cores and fails on a spill, a stack frame, an
// assembler warning about serialised instructions, or a launch that cannot fit.
#include "compiler/codegen/nvjitlink.h"
#include "compiler/codegen/ptxas.h"
#include "compiler/compiler.h"
#include "templates/plan.h"
#include "tools/flashplus/release_variants.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <set>
#include <string>
#include <thread>

using namespace flashplus;

namespace {

const char *scoreText(tool::ScoreMode mode) {
  switch (mode) {
  case tool::ScoreMode::Plain:
    return "s";
  case tool::ScoreMode::Softcap:
    return "cap * tanh(s / cap)";
  case tool::ScoreMode::AlibiPerHead:
    return "s - slopes[h] * abs(q + sk - sq - k)";
  case tool::ScoreMode::AlibiPerBatchAndHead:
    return "s - slopes[b, h] * abs(q + sk - sq - k)";
  }
  return "s";
}

std::vector<PlannedKernel> releaseKernels(const Target &target) {
  std::vector<PlannedKernel> kernels;
  std::set<std::string> seen;
  for (const tool::VariantRow &row : tool::releaseVariants())
    for (DType dtype : {DType::F16, DType::BF16})
      for (const KernelSpec &spec : tool::specsOfRow(row, dtype, *ScoreExpr::parse(scoreText(row.score))))
        for (PlannedKernel &kernel : reachableKernels(spec, offlineProfile(target)))
          if (seen.insert(kernel.spec.text() + kernel.schedule.text()).second)
            kernels.push_back(std::move(kernel));
  return kernels;
}

/// Empty when the kernel is good.
std::string check(const PlannedKernel &kernel, const Target &target) {
  flashplus_compile_times times{};
  auto artifact = compileKernel({kernel.spec, kernel.schedule, target}, {std::getenv("FLASHPLUS_NVJITLINK"), std::getenv("FLASHPLUS_PTXAS")}, times);
  if (!artifact)
    return artifact.status().message();
  if (artifact->kind != CodeKind::Cubin)
    return "was not assembled";
  const Resources &r = artifact->resources;
  if (r.registers <= 0 || r.spill_bytes < 0)
    return "the assembler reported no resources";
  if (r.spill_bytes > 0 || r.stack_bytes > 0)
    return "spills " + std::to_string(r.spill_bytes) + " bytes, stack " + std::to_string(r.stack_bytes) + " bytes";
  if (r.registers * artifact->launch.threads > 65536)
    return std::to_string(r.registers) + " registers times " + std::to_string(artifact->launch.threads) +
           " threads do not fit a multiprocessor";
  return {};
}

} // namespace

int main(int argc, char **argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s TARGET\n", argv[0]);
    return 2;
  }
  auto target = Target::parse(argv[1]);
  if (!target) {
    std::fprintf(stderr, "%s\n", target.status().message().c_str());
    return 2;
  }
  const Status found = target->isa == Isa::Sm90a ? Ptxas::find(std::getenv("FLASHPLUS_PTXAS")).status()
                                                 : NvJitLink::open(std::getenv("FLASHPLUS_NVJITLINK")).status();
  if (!found) {
    std::printf("%s\n", found.message().c_str());
    return std::getenv("CI") ? 1 : 77;
  }
  const auto kernels = releaseKernels(*target);
  std::atomic<size_t> next{0};
  std::atomic<int> failures{0};
  std::mutex print;
  auto work = [&] {
    for (size_t i; (i = next++) < kernels.size();)
      if (const std::string problem = check(kernels[i], *target); !problem.empty()) {
        std::lock_guard lock(print);
        ++failures;
        std::printf("FAIL %s | %s: %s\n", kernels[i].spec.text().c_str(), kernels[i].schedule.text().c_str(),
                    problem.c_str());
      }
  };
  std::vector<std::thread> workers;
  for (unsigned i = 0; i < std::max(1u, std::thread::hardware_concurrency()); ++i)
    workers.emplace_back(work);
  for (std::thread &w : workers)
    w.join();
  std::printf("%zu kernels for %s, %d failed\n", kernels.size(), target->text().c_str(), failures.load());
  return kernels.empty() || failures ? 1 : 0;
}
