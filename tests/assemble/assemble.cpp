// SPDX-License-Identifier: BSD-3-Clause
// assemble TARGET: assembles kernels of the release variants for a target on all processors and fails on a
// spill, a stack frame, an assembler warning about serialised instructions, or a launch that cannot fit.
// Which: all in bf16 for sm_80 and sm_90a and a fixed eighth of the rest, or all (`make release-check`,
// tests/soak.h). assemble --choice: only what would be chosen, for every target, and whether that is as said.
#include "compiler/codegen/nvjitlink.h"
#include "compiler/codegen/ptxas.h"
#include "compiler/compiler.h"
#include "templates/backward/planner.h"
#include "templates/forward/planner.h"
#include "tests/soak.h"
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

/// As in CMakeLists.txt.
constexpr const char *kTargets[] = {"sm_80@sm_80", "sm_80@sm_86", "sm_80@sm_90", "sm_90a"};

/// Dropout and pages are in no release's list, but must not spill where they are used.
bool isPlain(const tool::VariantRow &row, DType dtype) {
  return row.score == tool::ScoreMode::Plain && dtype == DType::BF16 && row.head_dim_qk == row.head_dim_v &&
         (row.head_dim_qk == 64 || row.head_dim_qk == 128 || row.head_dim_qk == 256);
}

std::vector<PlannedKernel> releaseKernels(const Target &target) {
  std::vector<PlannedKernel> kernels;
  std::set<std::string> seen;
  for (const tool::VariantRow &row : tool::releaseVariants())
    for (DType dtype : {DType::F16, DType::BF16})
      for (const KernelSpec &spec :
           tool::specsOfRow(row, dtype, *ScoreExpr::parse(tool::scoreText(row.score)))) {
        auto add = [&](std::vector<PlannedKernel> reachable) {
          for (PlannedKernel &kernel : reachable)
            if (seen.insert(kernel.spec.text() + kernel.schedule.text()).second)
              kernels.push_back(std::move(kernel));
        };
        const DeviceProfile device = offlineProfile(target);
        auto addBoth = [&](KernelSpec forward) {
          add(reachableKernels(forward, device));
          forward.op = Operation::Backward;
          add(reachableBackwardKernels(forward, device));
        };
        addBoth(spec);
        if (KernelSpec dropout = spec; isPlain(row, dtype)) {
          dropout.dropout = true;
          addBoth(dropout);
          KernelSpec paged = spec;
          paged.keys = KeyAddressing::Paged;
          add(reachableKernels(paged, device));
          KernelSpec sinks = spec;
          sinks.sinks = Sinks::BF16;
          if (spec.bounded_right && spec.bounded_left == (row.head_dim_qk == 64)) // gpt-oss's are of D 64
            add(reachableKernels(sinks, device));
        }
      }
  return kernels;
}

/// Whether a run that does not assemble everything assembles this kernel: those that most people run, and of
/// what differs from them in a type's name or in the chip an eighth, always the same, and another one for
/// each chip.
bool alwaysAssembled(const PlannedKernel &kernel, const Target &target) {
  const bool most_used = kernel.spec.dtype == DType::BF16 && (target.isa == Isa::Sm90a || target.chip == 80);
  return most_used || test::inShare(target.text() + kernel.spec.text() + kernel.schedule.text(), 8);
}

/// Whether the choice is what it is said to be; 0 or 1, to exit with.
int checkChoice() {
  int wrong = 0;
  for (const char *name : kTargets) {
    const auto target = Target::parse(name);
    if (!target)
      return 1;
    size_t all = 0, chosen = 0, bf16 = 0, bf16_chosen = 0;
    for (const PlannedKernel &kernel : releaseKernels(*target)) {
      const bool is_bf16 = kernel.spec.dtype == DType::BF16, is_chosen = alwaysAssembled(kernel, *target);
      ++all;
      chosen += is_chosen;
      bf16 += is_bf16;
      bf16_chosen += is_bf16 && is_chosen;
    }
    const bool whole = bf16 == bf16_chosen,
               main = std::string(name) == "sm_80@sm_80" || std::string(name) == "sm_90a";
    // An eighth by a hash: between a twentieth and a fifth.
    const size_t rest = main ? all - bf16 : all, rest_chosen = main ? chosen - bf16_chosen : chosen;
    const bool good =
        whole == main && rest_chosen * 20 >= rest && rest_chosen * 5 <= rest && bf16 > 0 && rest > 0;
    std::printf("%s %s: %zu of %zu kernels, %zu of %zu in bf16\n", good ? "ok  " : "FAIL", name, chosen, all,
                bf16_chosen, bf16);
    wrong += !good;
  }
  return wrong != 0;
}

/// Empty when the kernel is good.
/// What the assembler may spill of a kernel: nothing, but for one algorithm on chips before sm_90, where it
/// still is several times as fast as what would take its place (docs/rationale/decode.md, "What is open").
int mostSpilled(const PlannedKernel &kernel, const Target &target) {
  return kernel.schedule.algorithm == "sm80.decode" && target.chip < 90 ? 1024 : 0;
}

std::string check(const PlannedKernel &kernel, const Target &target) {
  flashplus_compile_times times{};
  auto artifact =
      compileKernel({kernel.spec, kernel.schedule, target},
                    {{std::getenv("FLASHPLUS_NVJITLINK"), std::getenv("FLASHPLUS_PTXAS")}}, times);
  if (!artifact)
    return artifact.status().message();
  if (artifact->kind != CodeKind::Cubin)
    return "was not assembled";
  const Resources &r = artifact->resources;
  if (r.registers <= 0 || r.spill_bytes < 0)
    return "the assembler reported no resources";
  const int most = mostSpilled(kernel, target);
  if (r.spill_bytes > most || r.stack_bytes > most)
    return "spills " + std::to_string(r.spill_bytes) + " bytes, stack " + std::to_string(r.stack_bytes) +
           " bytes";
  if (r.registers * artifact->launch.threads > 65536)
    return std::to_string(r.registers) + " registers times " + std::to_string(artifact->launch.threads) +
           " threads do not fit a multiprocessor";
  return {};
}

} // namespace

int main(int argc, char **argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s TARGET|--choice\n", argv[0]);
    return 2;
  }
  if (std::string(argv[1]) == "--choice")
    return checkChoice();
  auto target = Target::parse(argv[1]);
  if (!target) {
    std::fprintf(stderr, "%s\n", target.status().message().c_str());
    return 2;
  }
  const Status found = target->isa == Isa::Sm90a
                           ? Ptxas::find(std::getenv("FLASHPLUS_PTXAS")).status()
                           : NvJitLink::open(std::getenv("FLASHPLUS_NVJITLINK")).status();
  if (!found) {
    std::printf("%s\n", found.message().c_str());
    return std::getenv("CI") ? 1 : 77;
  }
  std::vector<PlannedKernel> kernels = releaseKernels(*target);
  const size_t all = kernels.size();
  if (!test::soak())
    std::erase_if(kernels, [&](const PlannedKernel &kernel) { return !alwaysAssembled(kernel, *target); });
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
  std::printf("%zu of %zu kernels for %s, %d failed\n", kernels.size(), all, target->text().c_str(),
              failures.load());
  return kernels.empty() || failures ? 1 : 0;
}
