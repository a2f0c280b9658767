// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/devices/cuda/cuda_device.h"

#include "runtime/devices/cuda/cuda_tensor_map.h"
#include "spec/overlap.h"

#include <algorithm>
#include <bit>
#include <string_view>

namespace flashplus {

using namespace cuda;

int chipFor(int cc) {
  int best = 0;
  for (int chip : isaInfo(Isa::Sm80).chips)
    if (chip / 10 == cc / 10 && chip <= cc)
      best = std::max(best, chip);
  return best;
}

namespace {

/// The richest instructions of the table that the GPU and its driver have.
Isa isaFor(int cc, int driver_version, const CudaLimits &limits) {
  const bool hopper = cc == 90 && driver_version >= isaInfo(Isa::Sm90a).least_driver;
  return hopper && limits.isa.value_or(Isa::Sm90a) == Isa::Sm90a ? Isa::Sm90a : Isa::Sm80;
}

} // namespace

Result<int> cudaDeviceCount(const Driver &driver) {
  int count = 0;
  if (const CUresult r = driver.deviceGetCount(&count); r != kSuccess)
    return Status(StatusCode::NoDevice, driver.failure("cuDeviceGetCount", r).message());
  if (count == 0)
    return Status(StatusCode::NoDevice, "the CUDA driver reports no GPU");
  return count;
}

namespace {

struct CudaKernel final : LoadedKernel {
  const Driver *driver = nullptr;
  CUcontext context = nullptr;
  CUmodule module = nullptr;
  CUfunction function = nullptr;
  unsigned threads = 0, shared_memory = 0, blocks_per_sm = 0;
  bool overlaps = false; ///< The kernel before it, for which it waits itself (spec/overlap.h).
  std::vector<TensorMap> tensor_maps;

  ~CudaKernel() override {
    CUcontext ignored;
    if (module && driver->ctxPushCurrent(context) == kSuccess) {
      driver->moduleUnload(module);
      driver->ctxPopCurrent(&ignored);
    }
  }
};

class CudaDevice final : public Device {
public:
  explicit CudaDevice(const Driver &driver) : driver_(driver) {}
  ~CudaDevice() override {
    if (context_)
      driver_.primaryCtxRelease(device_);
  }

  Status open(int ordinal, const CudaLimits &limits) {
    ordinal_ = ordinal;
    if (const CUresult r = driver_.deviceGet(&device_, ordinal); r != kSuccess)
      return {StatusCode::NoDevice, driver_.failure("cuDeviceGet", r).message()};
    char text[128] = "";
    driver_.deviceGetName(text, sizeof text, device_);
    size_t memory = 0;
    driver_.deviceTotalMem(&memory, device_);
    const int cc = attribute(kComputeCapabilityMajor) * 10 + attribute(kComputeCapabilityMinor);
    model_ = text;
    detail_ = model_ + ", compute capability " + std::to_string(cc / 10) + "." + std::to_string(cc % 10) +
              ", " + std::to_string(memory >> 30) + " GiB, driver for CUDA " + versionText(driver_.version);
    const int chip = chipFor(cc);
    const IsaInfo &isa = isaInfo(isaFor(cc, driver_.version, limits));
    if (!chip)
      return {StatusCode::NoDevice,
              detail_ + ": the GPU target needs compute capability 8.0 or a known newer one"};
    if (driver_.version < isa.least_driver)
      return {StatusCode::NoDevice, detail_ + ": the GPU target needs a driver for CUDA " +
                                        versionText(isa.least_driver) + " or newer (PTX " +
                                        std::to_string(isa.ptx_version / 10) + "." +
                                        std::to_string(isa.ptx_version % 10) + ")"};
    profile_.target = {isa.isa, chip};
    profile_.multiprocessors = attribute(kMultiprocessors);
    profile_.shared_memory_per_block = attribute(kSharedMemoryPerBlockOptin);
    profile_.shared_memory_per_sm = attribute(kSharedMemoryPerSm);
    // Part of it serves other work; a power of two keeps one plan for the 40 MB of an A100 and the 50 of an
    // H100.
    if (const int l2 = attribute(kL2CacheSize); l2 > 0)
      profile_.shared_cache = std::bit_floor(unsigned(l2));
    // The plan must not exceed what warm-up assumed for the chip, or a warmed spec could compile.
    profile_.shared_memory_per_block =
        std::min(profile_.shared_memory_per_block, profile_.target.sharedMemoryPerBlock());
    if (limits.shared_memory_per_block)
      profile_.shared_memory_per_block =
          std::min(profile_.shared_memory_per_block, limits.shared_memory_per_block);
    if (const CUresult r = driver_.primaryCtxRetain(&context_, device_); r != kSuccess) {
      context_ = nullptr;
      return driver_.failure("cuDevicePrimaryCtxRetain", r);
    }
    return Status::ok();
  }

  DLDevice id() const override { return {kDLCUDA, ordinal_}; }
  std::string name() const override { return "cuda:" + std::to_string(ordinal_); }
  std::string detail() const override { return detail_; }
  std::string model() const override { return model_; }
  const DeviceProfile &profile() const override { return profile_; }
  std::string assemblerId() const override {
    // What cuLink* makes is relocatable code, for which setmaxnreg is ignored (docs/rationale/assemblers.md).
    // PTX that is loaded as it is becomes a whole program; the driver keeps that in a cache of its own.
    return isaInfo(profile_.target.isa).has(kSetMaxRegisters)
               ? ""
               : "cuda-driver " + std::to_string(driver_.version);
  }

  Result<std::unique_ptr<LoadedKernel>> load(const Artifact &artifact) override {
    if (artifact.kind == CodeKind::X86Object)
      return Status(StatusCode::CompileFailed, "the artifact holds no GPU code");
    const Current current(*this);
    if (!current.status)
      return current.status;
    auto kernel = std::make_unique<CudaKernel>();
    kernel->driver = &driver_;
    kernel->context = context_;
    kernel->threads = unsigned(artifact.launch.threads);
    kernel->shared_memory = unsigned(artifact.launch.shared_memory);
    kernel->blocks_per_sm = unsigned(artifact.launch.blocks_per_sm);
    kernel->tensor_maps = artifact.launch.tensor_maps;
    // PTX is text and must end in NUL; the copy serves both kinds.
    std::vector<uint8_t> image(artifact.code);
    image.push_back(0);
    if (const CUresult r = driver_.moduleLoadData(&kernel->module, image.data()); r != kSuccess) {
      kernel->module = nullptr; // whatever the failed call left there
      return refusal("cuModuleLoadData", r);
    }
    if (const CUresult r =
            driver_.moduleGetFunction(&kernel->function, kernel->module, artifact.launch.entry.c_str());
        r != kSuccess)
      return Status(StatusCode::CompileFailed,
                    driver_.failure("cuModuleGetFunction", r).message() + " for " + artifact.launch.entry);
    if (const CUresult r = driver_.funcSetAttribute(kernel->function, kFuncMaxDynamicSharedMemory,
                                                    int(artifact.launch.shared_memory));
        r != kSuccess)
      return driver_.failure("cuFuncSetAttribute", r);
    // Before 12.3 such launches could not be captured into a graph. Code that has not the name is not asked
    // for it: tools that watch the driver report every call that fails.
    const std::string_view code(reinterpret_cast<const char *>(image.data()), image.size());
    if (driver_.launchKernelEx && driver_.moduleGetGlobal && driver_.version >= 12030 &&
        code.find(kOverlapSymbol) != code.npos) {
      CUdeviceptr variable;
      size_t size;
      kernel->overlaps =
          driver_.moduleGetGlobal(&variable, &size, kernel->module, kOverlapSymbol) == kSuccess;
    }
    return std::unique_ptr<LoadedKernel>(std::move(kernel));
  }

  Status launch(LoadedKernel &kernel, const void *params, const Geometry &geometry,
                std::span<const TensorLayout> tensors, void *stream) override {
    auto &k = static_cast<CudaKernel &>(kernel);
    const int64_t work_items = geometry.items;
    if (work_items <= 0)
      return Status::ok();
    const Current current(*this);
    if (!current.status)
      return current.status;
    alignas(64) std::byte maps[kMaxTensorMaps * kTensorMapBytes];
    if (!k.tensor_maps.empty()) {
      thread_local TensorMapCache known;
      FLASHPLUS_RETURN_IF_ERROR(known.encode(driver_, ordinal_, k.tensor_maps, tensors, maps));
    }
    void *arguments[] = {const_cast<void *>(params), maps};
    const int64_t blocks = k.blocks_per_sm
                               ? std::min(work_items, int64_t(k.blocks_per_sm) * profile_.multiprocessors)
                               : work_items;
    if (k.overlaps) {
      LaunchAttribute overlap{.id = kProgrammaticStreamSerialization, .value = {.number = 1}};
      const LaunchConfig config{.grid = {unsigned(blocks), 1, 1},
                                .block = {k.threads, 1, 1},
                                .shared_memory = k.shared_memory,
                                .stream = stream,
                                .attributes = &overlap,
                                .attribute_count = 1};
      const CUresult r = driver_.launchKernelEx(&config, k.function, arguments, nullptr);
      return r == kSuccess ? Status::ok() : driver_.failure("cuLaunchKernelEx", r);
    }
    const CUresult r = driver_.launchKernel(k.function, unsigned(blocks), 1, 1, k.threads, 1, 1,
                                            k.shared_memory, stream, arguments, nullptr);
    return r == kSuccess ? Status::ok() : driver_.failure("cuLaunchKernel", r);
  }

  Result<Artifact> assemble(const Artifact &ptx) override {
    const Current current(*this);
    if (!current.status)
      return current.status;
    std::string log(8192, '\0');
    int options[] = {kJitErrorLogBuffer, kJitErrorLogBufferSize};
    void *values[] = {log.data(), reinterpret_cast<void *>(uintptr_t(log.size()))};
    CUlinkState link = nullptr;
    if (const CUresult r = driver_.linkCreate(2, options, values, &link); r != kSuccess)
      return driver_.failure("cuLinkCreate", r);
    std::vector<uint8_t> text(ptx.code);
    text.push_back(0);
    CUresult r =
        driver_.linkAddData(link, kInputPtx, text.data(), text.size(), "kernel.ptx", 0, nullptr, nullptr);
    void *cubin = nullptr;
    size_t size = 0;
    if (r == kSuccess)
      r = driver_.linkComplete(link, &cubin, &size);
    Artifact out = ptx;
    if (r == kSuccess) {
      const auto *bytes = static_cast<const uint8_t *>(cubin);
      out.code.assign(bytes, bytes + size); // owned by the link state
      out.kind = CodeKind::Cubin;
      out.assembler = assemblerOf(Assembler::Kind::Driver, versionText(driver_.version));
      out.provenance += ", CUDA driver " + versionText(driver_.version);
    }
    driver_.linkDestroy(link);
    if (r != kSuccess) {
      Status status = refusal("cuLink", r);
      return Status(status.code(), status.message() + ": " + log.c_str());
    }
    return out;
  }

  Result<bool> capturing(void *stream) override {
    const Current current(*this);
    if (!current.status)
      return current.status;
    int state = 0;
    if (const CUresult r = driver_.streamIsCapturing(stream, &state); r != kSuccess)
      return driver_.failure("cuStreamIsCapturing", r);
    return state != 0;
  }

  std::optional<StreamKey> streamKey(void *stream) override {
    if (!driver_.streamGetId || !driver_.streamGetCaptureInfo || !driver_.threadExchangeStreamCaptureMode ||
        !driver_.streamCreate || !driver_.streamDestroy)
      return std::nullopt;
    const Current current(*this);
    StreamKey key;
    int state = kCaptureNone;
    // A capture that was invalidated, or the default stream while another one is captured: the caller's own
    // way says what is wrong.
    if (!current.status ||
        driver_.streamGetCaptureInfo(stream, &state, &key.capture, nullptr, nullptr, nullptr) != kSuccess)
      return std::nullopt;
    if (state == kCaptureActive) { // a stream is not asked for its number then, which would end the capture
      key.stream = reinterpret_cast<uintptr_t>(stream);
      return key;
    }
    key.capture = 0;
    if (state != kCaptureNone || driver_.streamGetId(stream, &key.stream) != kSuccess)
      return std::nullopt;
    return key;
  }

  Result<void *> allocateZeroed(size_t bytes) override {
    const Current current(*this);
    if (!current.status)
      return current.status;
    // Where a capture is under way, of this or another thread, the driver refuses an allocation that is no
    // part of it unless this thread says that it knows.
    int mode = kCaptureModeRelaxed;
    if (const CUresult r = driver_.threadExchangeStreamCaptureMode(&mode); r != kSuccess)
      return driver_.failure("cuThreadExchangeStreamCaptureMode", r);
    CUdeviceptr memory = 0;
    CUstream stream = nullptr;
    const char *what = "cuMemAlloc of a workspace";
    CUresult r = driver_.memAlloc(&memory, bytes);
    const bool allocated = r == kSuccess;
    if (allocated)
      r = driver_.streamCreate(&stream, kStreamNonBlocking), what = "cuStreamCreate";
    if (r == kSuccess) {
      r = driver_.memsetD8Async(memory, 0, bytes, stream), what = "cuMemsetD8Async";
      if (r == kSuccess)
        r = driver_.streamSynchronize(stream), what = "cuStreamSynchronize";
      driver_.streamDestroy(stream);
    }
    if (r != kSuccess && allocated)
      driver_.memFree(memory);
    driver_.threadExchangeStreamCaptureMode(&mode);
    if (r != kSuccess)
      return driver_.failure(what, r);
    return reinterpret_cast<void *>(memory);
  }

  Result<void *> allocate(size_t bytes) override {
    const Current current(*this);
    if (!current.status)
      return current.status;
    CUdeviceptr memory = 0;
    if (const CUresult r = driver_.memAlloc(&memory, std::max<size_t>(bytes, 1)); r != kSuccess)
      return driver_.failure(("cuMemAlloc of " + std::to_string(bytes) + " bytes").c_str(), r);
    return reinterpret_cast<void *>(memory);
  }
  Status release(void *memory) override {
    return call("cuMemFree", [&] { return driver_.memFree(address(memory)); });
  }
  Result<void *> allocateAsync(size_t bytes, void *stream) override {
    const Current current(*this);
    if (!current.status)
      return current.status;
    CUdeviceptr memory = 0;
    if (const CUresult r = driver_.memAllocAsync(&memory, bytes, stream); r != kSuccess)
      return driver_.failure(("cuMemAllocAsync of " + std::to_string(bytes) + " bytes").c_str(), r);
    return reinterpret_cast<void *>(memory);
  }
  Status releaseAsync(void *memory, void *stream) override {
    return call("cuMemFreeAsync", [&] { return driver_.memFreeAsync(address(memory), stream); });
  }
  Status clearAsync(void *memory, size_t bytes, void *stream) override {
    return call("cuMemsetD8Async", [&] { return driver_.memsetD8Async(address(memory), 0, bytes, stream); });
  }
  Status copyToDevice(void *dst, const void *src, size_t bytes) override {
    return call("cuMemcpyHtoD",
                [&] { return bytes ? driver_.memcpyHtoD(address(dst), src, bytes) : kSuccess; });
  }
  Status copyToHost(void *dst, const void *src, size_t bytes) override {
    return call("cuMemcpyDtoH",
                [&] { return bytes ? driver_.memcpyDtoH(dst, address(src), bytes) : kSuccess; });
  }
  Status synchronize(void *stream) override {
    return call("cuStreamSynchronize", [&] { return driver_.streamSynchronize(stream); });
  }

private:
  /// Our context for the length of a scope; the caller's comes back whatever happens. Where it is the
  /// caller's already (the primary context, so after anything that PyTorch did on this GPU), one question to
  /// the driver is all.
  struct Current {
    explicit Current(const CudaDevice &device) : driver(device.driver_) {
      CUcontext now = nullptr;
      if (driver.ctxGetCurrent(&now) == kSuccess && now == device.context_)
        return;
      const CUresult r = driver.ctxPushCurrent(device.context_);
      pushed = r == kSuccess;
      if (!pushed)
        status = driver.failure("cuCtxPushCurrent", r);
    }
    ~Current() {
      CUcontext ignored;
      if (pushed)
        driver.ctxPopCurrent(&ignored);
    }
    const Driver &driver;
    Status status;
    bool pushed = false;
  };

  template <class Call> Status call(const char *name, Call body) const {
    const Current current(*this);
    if (!current.status)
      return current.status;
    const CUresult r = body();
    return r == kSuccess ? Status::ok() : driver_.failure(name, r);
  }

  static CUdeviceptr address(const void *memory) { return reinterpret_cast<uintptr_t>(memory); }

  int attribute(int which) const {
    int value = 0;
    driver_.deviceGetAttribute(&value, which, device_);
    return value;
  }

  /// A driver that does not take the code is CompileFailed, with its version beside the PTX's.
  Status refusal(const char *what, CUresult r) const {
    Status status = driver_.failure(what, r);
    if (r != kInvalidImage && r != kNoBinaryForGpu && r != kUnsupportedPtxVersion && r != kInvalidPtx &&
        r != kInvalidSource)
      return status;
    const int ptx = isaInfo(profile_.target.isa).ptx_version;
    return {StatusCode::CompileFailed, status.message() + "; the driver is for CUDA " +
                                           versionText(driver_.version) + ", the code is PTX " +
                                           std::to_string(ptx / 10) + "." + std::to_string(ptx % 10) +
                                           " for " + profile_.target.text()};
  }

  const Driver &driver_;
  int ordinal_ = 0;
  CUdevice device_ = 0;
  CUcontext context_ = nullptr;
  std::string model_, detail_;
  DeviceProfile profile_;
};

} // namespace

Result<std::unique_ptr<Device>> createCudaDevice(const Driver &driver, int ordinal,
                                                 const CudaLimits &limits) {
  auto device = std::make_unique<CudaDevice>(driver);
  FLASHPLUS_RETURN_IF_ERROR(device->open(ordinal, limits));
  return std::unique_ptr<Device>(std::move(device));
}

} // namespace flashplus
