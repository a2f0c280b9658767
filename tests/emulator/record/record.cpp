// SPDX-License-Identifier: BSD-3-Clause
// Runs the emulator's instruction cases on a GPU.
//
//   emulator_record FILE           compares the GPU with the definitions and with what FILE holds
//   emulator_record FILE --write   writes what the GPU gave to FILE (tests/emulator/data/recorded.txt)
//   emulator_record --ptx DIR      writes the cases' PTX to DIR, a file each; needs no GPU
//
// Leaves with 77 (a skip for CTest) and the reason when there is no GPU.
#include "runtime/cuda_driver.h"
#include "tests/emulator/recorded.h"
#include "tests/emulator/run.h"

#include <cstdio>
#include <cstring>
#include <fstream>

using namespace flashplus;
using namespace flashplus::emu::test;

namespace {

/// The driver's form of a map, for memory at `input`.
cuda::CUresult encode(const cuda::Driver &d, const emu::TensorMapContents &m, cuda::CUdeviceptr input,
                      void *out) {
  // Numbers of the driver's enumerations, part of its stable ABI (cuda.h, CUtensorMap*).
  const int type = m.element_bytes / 2; // of 1, 2 or 4 bytes: uint8, uint16, uint32
  const int swizzle = m.swizzle_bytes == 128 ? 3 : m.swizzle_bytes == 64 ? 2 : m.swizzle_bytes == 32 ? 1 : 0;
  const uint32_t element_strides[5] = {1, 1, 1, 1, 1};
  return d.tensorMapEncodeTiled(out, type, m.rank, reinterpret_cast<void *>(input + m.address), m.extent,
                                m.stride, m.box, element_strides, /*interleave=*/0, swizzle, /*promotion=*/0,
                                /*fill=*/0);
}

/// What `c` leaves in its output on the current context; `error` if a call failed.
std::vector<uint8_t> runOnGpu(const cuda::Driver &d, const Case &c, std::string &error) {
  std::vector<uint8_t> output(c.output_bytes, kUntouched);
  cuda::CUmodule module = nullptr;
  cuda::CUdeviceptr in = 0, out = 0;
  auto step = [&](const char *name, cuda::CUresult r) {
    if (r != cuda::kSuccess && error.empty())
      error = d.failure(name, r).message();
    return error.empty();
  };
  cuda::CUfunction function = nullptr;
  if (step("cuModuleLoadData", d.moduleLoadData(&module, c.ptx.c_str())) &&
      step("cuModuleGetFunction", d.moduleGetFunction(&function, module, "test")) &&
      step("cuFuncSetAttribute",
           d.funcSetAttribute(function, cuda::kFuncMaxDynamicSharedMemory, int(c.dynamic_shared))) &&
      step("cuMemAlloc", d.memAlloc(&in, std::max<size_t>(c.input.size(), 1))) &&
      step("cuMemAlloc", d.memAlloc(&out, c.output_bytes)) &&
      step("cuMemcpyHtoD", d.memcpyHtoD(in, c.input.data(), c.input.size())) &&
      step("cuMemcpyHtoD", d.memcpyHtoD(out, output.data(), output.size()))) {
    alignas(64) uint8_t map[128] = {};
    void *arguments[] = {&in, &out, map};
    if ((!c.map || step("cuTensorMapEncodeTiled", encode(d, *c.map, in, map))) &&
        step("cuLaunchKernel", d.launchKernel(function, c.blocks, 1, 1, c.threads, 1, 1, c.dynamic_shared,
                                              nullptr, arguments, nullptr)) &&
        step("cuStreamSynchronize", d.streamSynchronize(nullptr)))
      step("cuMemcpyDtoH", d.memcpyDtoH(output.data(), out, output.size()));
  }
  if (in)
    d.memFree(in);
  if (out)
    d.memFree(out);
  if (module)
    d.moduleUnload(module);
  return output;
}

} // namespace

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
  auto driver = cuda::openDriver();
  int count = 0;
  if (!driver || (*driver)->deviceGetCount(&count) != cuda::kSuccess || count == 0) {
    std::printf("skipped: %s\n",
                driver ? "the CUDA driver reports no GPU" : driver.status().message().c_str());
    return 77;
  }
  const cuda::Driver &d = **driver;
  cuda::CUdevice device = 0;
  cuda::CUcontext context = nullptr;
  char name[128] = "";
  int major = 0, minor = 0;
  if (d.deviceGet(&device, 0) != cuda::kSuccess || d.primaryCtxRetain(&context, device) != cuda::kSuccess ||
      d.ctxPushCurrent(context) != cuda::kSuccess) {
    std::printf("the GPU cannot be opened\n");
    return 1;
  }
  d.deviceGetName(name, sizeof name, device);
  d.deviceGetAttribute(&major, cuda::kComputeCapabilityMajor, device);
  d.deviceGetAttribute(&minor, cuda::kComputeCapabilityMinor, device);

  Recorded recorded = write ? Recorded{} : readRecorded(argv[1]);
  if (!recorded.error.empty()) {
    std::printf("%s: %s\n", argv[1], recorded.error.c_str());
    return 1;
  }
  int ran = 0, skipped = 0, failed = 0, unrecorded = 0, unlike_definition = 0, unlike_record = 0;
  for (const Case &c : allCases()) {
    if (major * 10 + minor < c.least_chip) {
      ++skipped;
      continue;
    }
    std::string error;
    const std::vector<uint8_t> output = runOnGpu(d, c, error);
    ++ran;
    if (!error.empty()) {
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
  const std::string comment = std::string(name) + ", compute capability " + std::to_string(major) + "." +
                              std::to_string(minor) + ", driver for CUDA " + cuda::versionText(d.version);
  std::printf(
      "%s: %d cases ran, %d need a newer GPU, %d failed, %d differ from the definition, %d from the record, "
      "%d are in no record\n",
      comment.c_str(), ran, skipped, failed, unlike_definition, unlike_record, unrecorded);
  d.primaryCtxRelease(device);
  if (write && !writeRecorded(argv[1], recorded, comment)) {
    std::printf("%s cannot be written\n", argv[1]);
    return 1;
  }
  return failed || unlike_definition || unlike_record ? 1 : 0;
}
