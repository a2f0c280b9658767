// SPDX-License-Identifier: BSD-3-Clause
// flashplus-snapshot FOLDER: what the compiler makes of every release variant and of random specs, as text in
// a folder, so that two builds can be compared kernel by kernel (scripts/compare_snapshots.py). A refactoring
// that should change no code is checked with it before and after.
//
// FOLDER/index.tsv has a line a kernel, tab-separated: target, name, file, launch schema, key (without the
// build id). The name is made of the spec's fields here and not of its text, so that kernels still pair up
// when the text changes. FOLDER/<target>/<number>.s is the kernel's PTX or x86 assembly, or the message of a
// failed compilation.
#include "compiler/compiler.h"
#include "runtime/kernels/kernel_table.h"
#include "templates/forward/planner.h"
#include "tools/flashplus/release_variants.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <random>
#include <set>
#include <thread>

using namespace flashplus;

namespace {

struct Row {
  std::string name;
  PlannedKernel kernel;
  std::string file, launch, key;
};

std::string nameOf(const PlannedKernel &k) {
  const KernelSpec &s = k.spec;
  std::string name(operationInfo(s.op).name);
  name += " " + std::string(dtypeName(s.dtype)) + " " + std::to_string(s.head_dim_qk) + "x" +
          std::to_string(s.head_dim_v);
  for (auto [set, word] :
       {std::pair{s.bounded_left, " left"}, {s.bounded_right, " right"}, {s.isPartial(), " split"}})
    name += set ? word : "";
  return name + " align" + std::to_string(s.alignment) + " {" + s.score.canonical() + "} " +
         k.schedule.text();
}

std::string describeLaunch(const LaunchSchema &l) {
  std::string text = l.entry + " threads=" + std::to_string(l.threads) +
                     " shared=" + std::to_string(l.shared_memory) + " scratch=" + std::to_string(l.scratch) +
                     " params=" + std::to_string(l.params_size) +
                     " blocks_per_sm=" + std::to_string(l.blocks_per_sm);
  for (const TensorMap &m : l.tensor_maps)
    text += " map=" + std::to_string(int(m.operand)) + ":" + std::to_string(m.box_rows) + "x" +
            std::to_string(m.box_columns);
  return text;
}

std::string oneLine(std::string text) {
  std::ranges::replace(text, '\n', '|');
  std::ranges::replace(text, '\t', ' ');
  return text;
}

/// Every kernel of the release variants.
void addReleases(const DeviceProfile &device, const std::vector<std::string> &dtypes,
                 std::vector<PlannedKernel> &out) {
  for (const tool::VariantRow &row : tool::releaseVariants())
    for (const std::string &dtype : dtypes)
      for (const KernelSpec &spec :
           tool::specsOfRow(row, *parseDType(dtype), *ScoreExpr::parse(tool::scoreText(row.score))))
        for (PlannedKernel &k : reachableKernels(spec, device))
          out.push_back(std::move(k));
}

/// Specs that no table row was made for, each with one schedule of those that planning may choose and one
/// that tuning may.
void addRandom(const DeviceProfile &device, int count, uint32_t seed, std::vector<PlannedKernel> &out) {
  std::mt19937 random(seed); // its sequence is the same everywhere; distributions are not
  auto below = [&](size_t n) { return size_t(random() % n); };
  constexpr const char *kScores[] = {"s",
                                     "s",
                                     "s",
                                     "cap * tanh(s / cap)",
                                     "s - slopes[h] * abs(q + sk - sq - k)",
                                     "s - slopes[b, h] * abs(q + sk - sq - k)",
                                     "s + bias[b, h, q, k]",
                                     "where(q - k < 8, s, s * 0.5)",
                                     "s + t[k] - exp(t[q])",
                                     "max(s, -30) + log(1 + p)"};
  const bool gpu = isGpu(device.target.isa);
  for (int i = 0; i < count; ++i) {
    KernelSpec spec;
    spec.dtype = gpu ? (below(2) ? DType::BF16 : DType::F16)
                     : std::array{DType::F16, DType::BF16, DType::F32}[below(3)];
    spec.head_dim_qk = 1 + int(below(kMaxHeadDim));
    if (below(2))
      spec.head_dim_qk = (spec.head_dim_qk + 7) / 8 * 8;
    spec.head_dim_v = below(4) ? spec.head_dim_qk : 1 + int(below(kMaxHeadDim));
    spec.bounded_left = below(3) == 0;
    spec.bounded_right = below(2) == 0;
    spec.results = below(4) == 0 ? Results::Partial : Results::Final;
    const int element = dtypeBytes(spec.dtype);
    const bool may_align = spec.head_dim_qk * element % 16 == 0 && spec.head_dim_v * element % 16 == 0;
    spec.alignment = may_align && below(4) ? 16 : element;
    spec.score = *ScoreExpr::parse(kScores[below(std::size(kScores))]);
    for (const auto &schedules : {feasibleSchedules(spec, device), scheduleSpace(spec, device)})
      if (!schedules.empty())
        out.push_back({spec, schedules[below(schedules.size())]});
  }
}

void compile(Row &e, const Target &target, const std::filesystem::path &file) {
  const Kernel description{e.kernel.spec, e.kernel.schedule, target};
  auto text = printStage(description, isGpu(target.isa) ? "ptx" : "asm", {});
  auto launch = launchSchema(e.kernel.spec, e.kernel.schedule, target);
  e.launch = launch ? describeLaunch(*launch) : launch.status().message();
  KernelKey key = KernelTable::keyOf(e.kernel, target);
  key.build.clear();
  e.key = oneLine(key.text());
  std::ofstream(file) << (text ? *text : text.status().message());
}

std::vector<Row> entriesOf(const Target &target, const std::vector<std::string> &dtypes, int random,
                           uint32_t seed) {
  std::vector<PlannedKernel> kernels;
  addReleases(offlineProfile(target), dtypes, kernels);
  addRandom(offlineProfile(target), random, seed, kernels);
  std::vector<Row> entries;
  std::set<std::string> seen;
  for (PlannedKernel &k : kernels)
    if (std::string name = nameOf(k); seen.insert(name).second)
      entries.push_back({std::move(name), std::move(k), {}, {}, {}});
  return entries;
}

} // namespace

int main(int argc, char **argv) {
  CLI::App app("Writes what the compiler makes of every release variant and of random specs, for "
               "scripts/compare_snapshots.py");
  std::string folder;
  std::vector<std::string> names{"x86-64-v3", "x86-64-v4", "x86-64-v4+avx512bf16", "sm_80", "sm_90a"};
  std::vector<std::string> dtypes{"fp16", "bf16", "fp32"};
  int random = 60, jobs = int(std::max(1u, std::thread::hardware_concurrency()));
  uint32_t seed = 1;
  app.add_option("folder", folder, "Where to write; made if it is not there")->required();
  app.add_option("--target", names, "Targets, with commas; default: all")->delimiter(',');
  app.add_option("--dtype", dtypes, "Dtypes of the release variants, with commas; default: all")
      ->delimiter(',')
      ->check(CLI::IsMember({"fp16", "bf16", "fp32"}));
  app.add_option("--random", random, "Random specs a target")
      ->check(CLI::Range(0, 100000))
      ->capture_default_str();
  app.add_option("--seed", seed, "Of the random specs")->capture_default_str();
  app.add_option("--jobs", jobs, "Threads")->check(CLI::Range(1, 1024))->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  std::filesystem::create_directories(folder);
  std::ofstream index(folder + "/index.tsv");
  for (const std::string &name : names) {
    auto target = Target::parse(name);
    if (!target) {
      std::fprintf(stderr, "%s\n", target.status().message().c_str());
      return 2;
    }
    std::filesystem::create_directories(folder + "/" + name);
    std::vector<Row> entries = entriesOf(*target, dtypes, random, seed);
    std::atomic<size_t> next{0};
    std::vector<std::jthread> workers;
    for (int i = 0; i < jobs; ++i)
      workers.emplace_back([&] {
        for (size_t at; (at = next++) < entries.size();) {
          entries[at].file = name + "/" + std::to_string(at) + ".s";
          compile(entries[at], *target, std::filesystem::path(folder) / entries[at].file);
        }
      });
    workers.clear(); // waits
    for (const Row &e : entries)
      index << name << '\t' << oneLine(e.name) << '\t' << e.file << '\t' << e.launch << '\t' << e.key << '\n';
    std::printf("%s: %zu kernels\n", name.c_str(), entries.size());
  }
  index.flush();
  if (!index) {
    std::fprintf(stderr, "%s/index.tsv could not be written\n", folder.c_str());
    return 1;
  }
  return 0;
}
