// SPDX-License-Identifier: BSD-3-Clause
#include "tests/emulator/record/worker.h"
#include "runtime/devices/cuda/cuda_driver.h"
#include "tests/emulator/run.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

namespace flashplus::emu::test {
namespace {

// Milliseconds. A case takes a few; the driver's start up to some seconds.
constexpr int64_t kStartLimit = 60'000, kCaseLimit = 10'000;

/// The driver's form of a map, for memory at `input`.
cuda::CUresult encode(const cuda::Driver &d, const TensorMapContents &m, cuda::CUdeviceptr input, void *out) {
  // Numbers of the driver's enumerations, part of its stable ABI (cuda.h, CUtensorMap*).
  const int type = m.element_bytes / 2; // of 1, 2 or 4 bytes: uint8, uint16, uint32
  const int swizzle = m.swizzle_bytes == 128 ? 3 : m.swizzle_bytes == 64 ? 2 : m.swizzle_bytes == 32 ? 1 : 0;
  const uint32_t element_strides[5] = {1, 1, 1, 1, 1};
  return d.tensorMapEncodeTiled(out, type, m.rank, reinterpret_cast<void *>(input + m.address), m.extent,
                                m.stride, m.box, element_strides, /*interleave=*/0, swizzle, /*promotion=*/0,
                                /*fill=*/0);
}

/// What `c` leaves in its output on the current context.
GpuResult runOnGpu(const cuda::Driver &d, const Case &c) {
  GpuResult result;
  std::string &error = result.error;
  std::vector<uint8_t> &output = result.output;
  output.assign(c.output_bytes, kUntouched);
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
  return result;
}

bool write(int to, const void *data, size_t bytes) {
  for (const char *at = static_cast<const char *>(data); bytes;) {
    const ssize_t n = ::write(to, at, bytes);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return false;
    at += n, bytes -= size_t(n);
  }
  return true;
}

/// The worker's side: a Gpu, then for each case the error's size and text, and the output without one.
void serve(int to, const std::vector<Case> &cases, size_t first) {
  Gpu gpu;
  const auto refuse = [&](const std::string &why) {
    std::snprintf(gpu.name, sizeof gpu.name, "%s", why.c_str());
    gpu.count = 0;
    write(to, &gpu, sizeof gpu);
  };
  auto driver = cuda::openDriver();
  if (!driver)
    return refuse(driver.status().message());
  const cuda::Driver &d = **driver;
  cuda::CUdevice device = 0;
  cuda::CUcontext context = nullptr;
  if (d.deviceGetCount(&gpu.count) != cuda::kSuccess || gpu.count == 0)
    return refuse("the CUDA driver reports no GPU");
  if (d.deviceGet(&device, 0) != cuda::kSuccess || d.primaryCtxRetain(&context, device) != cuda::kSuccess ||
      d.ctxPushCurrent(context) != cuda::kSuccess)
    return refuse("the GPU cannot be opened");
  d.deviceGetName(gpu.name, sizeof gpu.name, device);
  d.deviceGetAttribute(&gpu.major, cuda::kComputeCapabilityMajor, device);
  d.deviceGetAttribute(&gpu.minor, cuda::kComputeCapabilityMinor, device);
  gpu.version = d.version;
  if (!write(to, &gpu, sizeof gpu))
    return;
  for (size_t i = first; i < cases.size(); ++i) {
    if (!supports(gpu, cases[i]))
      continue;
    const GpuResult result = runOnGpu(d, cases[i]);
    const auto size = uint32_t(result.error.size());
    if (!write(to, &size, sizeof size) || !write(to, result.error.data(), size) || size ||
        !write(to, result.output.data(), result.output.size()))
      return;
  }
  d.primaryCtxRelease(device);
}

int64_t now() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
}

} // namespace

bool supports(const Gpu &gpu, const Case &c) { return gpu.major * 10 + gpu.minor >= c.least_chip; }

Worker::Worker(const std::vector<Case> &cases, size_t first) : cases_(cases), at_(first) {
  int ends[2];
  if (pipe(ends) != 0) {
    std::snprintf(gpu_.name, sizeof gpu_.name, "no pipe: %s", std::strerror(errno));
    return;
  }
  std::fflush(nullptr);
  pid_ = fork();
  if (pid_ == 0) {
    close(ends[0]);
    serve(ends[1], cases, first);
    _exit(0); // what the parent has not flushed is the parent's
  }
  close(ends[1]);
  from_ = ends[0];
  if (pid_ < 0 || !read(&gpu_, sizeof gpu_, now() + kStartLimit)) {
    gpu_ = {};
    std::snprintf(gpu_.name, sizeof gpu_.name, "the process that opens the GPU does not answer");
  }
}

Worker::~Worker() {
  if (from_ >= 0)
    close(from_);
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
}

GpuResult Worker::next() {
  while (at_ < cases_.size() && !supports(gpu_, cases_[at_]))
    ++at_;
  if (at_ == cases_.size())
    return {"there are no more cases", {}};
  const Case &c = cases_[at_++];
  const int64_t deadline = now() + kCaseLimit;
  GpuResult result;
  uint32_t size = 0;
  result.output.resize(c.output_bytes);
  if (!read(&size, sizeof size, deadline))
    return {now() < deadline ? "the process on the GPU ended" : "the kernel does not end", {}};
  result.error.resize(size);
  if (!read(result.error.data(), size, deadline) ||
      (!size && !read(result.output.data(), c.output_bytes, deadline)))
    return {"the process on the GPU ended", {}};
  return result;
}

bool Worker::read(void *to, size_t bytes, int64_t deadline) const {
  for (char *at = static_cast<char *>(to); bytes;) {
    pollfd wait = {from_, POLLIN, 0};
    const int ready = poll(&wait, 1, int(std::max<int64_t>(deadline - now(), 0)));
    if (ready < 0 && errno == EINTR)
      continue;
    if (ready <= 0)
      return false;
    const ssize_t n = ::read(from_, at, bytes);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return false;
    at += n, bytes -= size_t(n);
  }
  return true;
}

} // namespace flashplus::emu::test
