// SPDX-License-Identifier: BSD-3-Clause
// Runs the emulator's instruction cases on a GPU.
//
//   emulator_record FILE           compares the GPU with the definitions and with what FILE holds
//   emulator_record FILE --write   writes what the GPU gave to FILE (tests/emulator/data/recorded.txt)
//   emulator_record --ptx DIR      writes the cases' PTX to DIR, a file each; needs no GPU
//
// Leaves with 77 (a skip for CTest) and the reason when there is no GPU.
#include "runtime/devices/cuda/cuda_driver.h"
#include "tests/emulator/record/worker.h"
#include "tests/emulator/recorded.h"
#include "tests/emulator/run.h"

#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>

using namespace flashplus;
using namespace flashplus::emu::test;

int main(int argc, char **argv) {
  if (argc == 3 && std::strcmp(argv[1], "--ptx") == 0) {
    for (const Case &c : allCases()) {
      std::ofstream file(std::string(argv[2]) + "/" + c.name + ".ptx");
      file << c.ptx;
      file.close();
      if (!file) {
        std::printf("%s cannot be written to %s\n", c.name.c_str(), argv[2]);
        return 1;
      }
    }
    return 0;
  }
  const bool write = argc == 3 && std::strcmp(argv[2], "--write") == 0;
  if (argc < 2 || argc > 3 || (argc == 3 && !write)) {
    std::fprintf(stderr, "usage: %s FILE [--write] | --ptx DIR\n", argv[0]);
    return 2;
  }
  const std::vector<Case> cases = allCases();
  auto worker = std::make_unique<Worker>(cases, 0);
  const Gpu gpu = worker->gpu();
  if (!gpu.count) {
    std::printf("skipped: %s\n", gpu.name);
    return 77;
  }

  Recorded recorded = write ? Recorded{} : readRecorded(argv[1]);
  if (!recorded.error.empty()) {
    std::printf("%s: %s\n", argv[1], recorded.error.c_str());
    return 1;
  }
  int ran = 0, skipped = 0, failed = 0, unrecorded = 0, unlike_definition = 0, unlike_record = 0;
  for (size_t i = 0; i < cases.size(); ++i) {
    const Case &c = cases[i];
    if (!supports(gpu, c)) {
      ++skipped;
      continue;
    }
    if (!worker)
      worker = std::make_unique<Worker>(cases, i);
    if (!worker->gpu().count) {
      std::printf("%s: %s\n", c.name.c_str(), worker->gpu().name);
      return 1;
    }
    const auto [error, output] = worker->next();
    ++ran;
    if (!error.empty()) {
      worker.reset();
      ++failed;
      std::printf("FAILED  %s: %s\n", c.name.c_str(), error.c_str());
      continue;
    }
    std::vector<uint8_t> want(c.output_bytes, kUntouched);
    c.expect(c.input, want);
    if (const std::string difference = compare(c, output, std::span<const uint8_t>(want));
        !difference.empty()) {
      ++unlike_definition;
      std::printf("DIFFERS %s from the definition: %s\n", c.name.c_str(), difference.c_str());
    }
    if (write) {
      Recorded::Result r;
      r.input_hash = hashOf(c);
      r.output_hash = hashOf(std::span<const uint8_t>(output));
      if (c.tolerance.kind != Tolerance::Kind::Exact)
        r.output = output;
      recorded.results.emplace(c.name, std::move(r));
    } else if (const auto it = recorded.results.find(c.name); it != recorded.results.end()) {
      const std::string difference =
          it->second.input_hash != hashOf(c) ? "the case has changed since" : compare(c, output, it->second);
      if (!difference.empty()) {
        ++unlike_record;
        std::printf("DIFFERS %s from the record: %s\n", c.name.c_str(), difference.c_str());
      }
    } else {
      ++unrecorded;
    }
  }
  const std::string comment = std::string(gpu.name) + ", compute capability " + std::to_string(gpu.major) +
                              "." + std::to_string(gpu.minor) + ", driver for CUDA " +
                              cuda::versionText(gpu.version);
  std::printf(
      "%s: %d cases ran, %d need a newer GPU, %d failed, %d differ from the definition, %d from the record, "
      "%d are in no record\n",
      comment.c_str(), ran, skipped, failed, unlike_definition, unlike_record, unrecorded);
  if (write && !writeRecorded(argv[1], recorded, comment)) {
    std::printf("%s cannot be written\n", argv[1]);
    return 1;
  }
  return failed || unlike_definition || unlike_record ? 1 : 0;
}
