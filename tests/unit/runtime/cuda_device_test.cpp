// SPDX-License-Identifier: BSD-3-Clause
// The CUDA device against a driver table of our own: what it asks of the driver, and what it makes of its
// answers.
#include "runtime/devices/cuda/cuda_device.h"
#include "runtime/kernels/kernel_table.h"

#include <algorithm>
#include <cstring>
#include <doctest/doctest.h>
#include <map>

using namespace flashplus;
using namespace flashplus::cuda;

namespace {

/// What the fake driver was asked and what it is to answer.
struct Fake {
  std::vector<std::string> calls;
  std::map<std::string, CUresult> answers; ///< By symbol; others succeed.
  int major = 9, minor = 0, capture_state = 0, capture_mode = 0, devices = 1, l2 = 50 << 20;
  int depth = 0;           ///< Contexts pushed and not popped.
  void *callers = nullptr; ///< The context that the caller has made current.
  unsigned grid = 0, block = 0, shared = 0;
  int64_t first_param = 0;
  CUstream stream = nullptr; ///< Of an overlapping launch.
  std::string image;
} fake;

int kContext, kOtherContext, kModule, kFunction, kLink;

CUresult said(const char *symbol) {
  fake.calls.push_back(symbol);
  const auto it = fake.answers.find(symbol);
  return it == fake.answers.end() ? kSuccess : it->second;
}

/// Calls that need our context are wrong without it.
CUresult inContext(const char *symbol) {
  CHECK((fake.depth >= 1 || fake.callers == &kContext));
  return said(symbol);
}

Driver fakeDriver(int version = 13000) {
  fake = {};
  Driver d;
  d.version = version;
  d.init = [](unsigned) { return said("cuInit"); };
  d.driverGetVersion = [](int *v) { return *v = 13000, said("cuDriverGetVersion"); };
  d.deviceGetCount = [](int *n) { return *n = fake.devices, said("cuDeviceGetCount"); };
  d.deviceGet = [](CUdevice *device, int ordinal) { return *device = ordinal, said("cuDeviceGet"); };
  d.deviceGetName = [](char *text, int size, CUdevice) {
    return strncpy(text, "Fake GPU", size_t(size)), said("cuDeviceGetName");
  };
  d.deviceGetAttribute = [](int *value, int which, CUdevice) {
    *value = which == kComputeCapabilityMajor      ? fake.major
             : which == kComputeCapabilityMinor    ? fake.minor
             : which == kMultiprocessors           ? 132
             : which == kL2CacheSize               ? fake.l2
             : which == kSharedMemoryPerBlockOptin ? 232448
                                                   : 233472;
    return CUresult(kSuccess);
  };
  d.deviceTotalMem = [](size_t *bytes, CUdevice) {
    return *bytes = size_t(80) << 30, said("cuDeviceTotalMem");
  };
  d.primaryCtxRetain = [](CUcontext *c, CUdevice) {
    return *c = &kContext, said("cuDevicePrimaryCtxRetain");
  };
  d.primaryCtxRelease = [](CUdevice) { return said("cuDevicePrimaryCtxRelease"); };
  d.ctxGetCurrent = [](CUcontext *c) {
    return *c = fake.depth ? &kContext : fake.callers, said("cuCtxGetCurrent");
  };
  d.ctxPushCurrent = [](CUcontext c) {
    const CUresult r = said("cuCtxPushCurrent");
    CHECK(c == &kContext);
    fake.depth += r == kSuccess;
    return r;
  };
  d.ctxPopCurrent = [](CUcontext *) { return --fake.depth, said("cuCtxPopCurrent"); };
  d.moduleLoadData = [](CUmodule *m, const void *image) {
    fake.image = static_cast<const char *>(image);
    *m = &kModule; // also when it fails, as a driver may
    return inContext("cuModuleLoadData");
  };
  d.moduleGetFunction = [](CUfunction *f, CUmodule, const char *) {
    return *f = &kFunction, inContext("cuModuleGetFunction");
  };
  d.moduleUnload = [](CUmodule) { return inContext("cuModuleUnload"); };
  d.funcSetAttribute = [](CUfunction, int attribute, int value) {
    CHECK(attribute == kFuncMaxDynamicSharedMemory);
    fake.shared = unsigned(value);
    return inContext("cuFuncSetAttribute");
  };
  d.launchKernel = [](CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                      unsigned bz, unsigned shared, CUstream, void **params, void **) {
    CHECK(f == &kFunction);
    CHECK(gy * gz * by * bz == 1);
    fake.grid = gx, fake.block = bx, fake.shared = shared;
    std::memcpy(&fake.first_param, params[0], sizeof fake.first_param);
    return inContext("cuLaunchKernel");
  };
  d.memAlloc = [](CUdeviceptr *p, size_t) { return *p = 4096, inContext("cuMemAlloc"); };
  d.memFree = [](CUdeviceptr) { return inContext("cuMemFree"); };
  d.memAllocAsync = [](CUdeviceptr *p, size_t, CUstream) { return *p = 8192, inContext("cuMemAllocAsync"); };
  d.memFreeAsync = [](CUdeviceptr, CUstream) { return inContext("cuMemFreeAsync"); };
  d.memcpyHtoD = [](CUdeviceptr, const void *, size_t) { return inContext("cuMemcpyHtoD"); };
  d.memcpyDtoH = [](void *, CUdeviceptr, size_t) { return inContext("cuMemcpyDtoH"); };
  d.streamSynchronize = [](CUstream) { return inContext("cuStreamSynchronize"); };
  d.streamIsCapturing = [](CUstream, int *state) {
    return *state = fake.capture_state, inContext("cuStreamIsCapturing");
  };
  d.linkCreate = [](unsigned n, int *options, void **values, CUlinkState *link) {
    for (unsigned i = 0; i < n; ++i)
      if (options[i] == kJitErrorLogBuffer)
        strcpy(static_cast<char *>(values[i]), "ptxas: line 7 is wrong");
    return *link = &kLink, inContext("cuLinkCreate");
  };
  d.linkAddData = [](CUlinkState, int type, void *data, size_t size, const char *, unsigned, int *, void **) {
    CHECK(type == kInputPtx);
    CHECK(static_cast<char *>(data)[size - 1] == 0);
    return inContext("cuLinkAddData");
  };
  d.linkComplete = [](CUlinkState, void **cubin, size_t *size) {
    static char code[] = "CUBIN";
    return *cubin = code, *size = 5, inContext("cuLinkComplete");
  };
  d.linkDestroy = [](CUlinkState) { return inContext("cuLinkDestroy"); };
  d.getErrorName = [](CUresult r, const char **name) {
    return *name = r == 719 ? "CUDA_ERROR_LAUNCH_FAILED" : "CUDA_ERROR_X", CUresult(kSuccess);
  };
  d.getErrorString = [](CUresult, const char **text) { return *text = "the text", CUresult(kSuccess); };
  return d;
}

/// With the functions that launches which overlap take.
Driver overlappingDriver(int version = 13000) {
  Driver d = fakeDriver(version);
  d.launchKernelEx = [](const LaunchConfig *config, CUfunction f, void **params, void **) {
    CHECK(f == &kFunction);
    CHECK(config->grid[1] * config->grid[2] * config->block[1] * config->block[2] == 1);
    REQUIRE(config->attribute_count == 1);
    CHECK(config->attributes->id == kProgrammaticStreamSerialization);
    CHECK(config->attributes->value.number == 1);
    fake.grid = config->grid[0], fake.block = config->block[0], fake.shared = config->shared_memory;
    fake.stream = config->stream;
    std::memcpy(&fake.first_param, params[0], sizeof fake.first_param);
    return inContext("cuLaunchKernelEx");
  };
  d.moduleGetGlobal = [](CUdeviceptr *p, size_t *size, CUmodule, const char *name) {
    CHECK(std::string(name) == "flashplus_overlaps");
    return *p = 4096, *size = 4, inContext("cuModuleGetGlobal");
  };
  return d;
}

Artifact cubin() {
  Artifact a;
  a.kind = CodeKind::Cubin;
  a.code = {'c', 'o', 'd', 'e'};
  a.launch = {
      .entry = "kernel", .threads = 128, .shared_memory = 70000, .params_size = sizeof(ForwardParams)};
  return a;
}

bool has(const Status &status, const std::string &text) {
  return status.message().find(text) != std::string::npos;
}
bool called(const std::string &symbol) { return std::ranges::count(fake.calls, symbol) != 0; }

std::unique_ptr<Device> open(const Driver &driver) {
  auto device = createCudaDevice(driver, 0);
  REQUIRE_MESSAGE(device.isOk(), device.status().message());
  return std::move(*device);
}

} // namespace

TEST_CASE("a GPU is described by what the driver says") {
  const Driver driver = fakeDriver();
  {
    auto device = open(driver);
    CHECK(device->name() == "cuda:0");
    CHECK(device->detail() == "Fake GPU, compute capability 9.0, 80 GiB, driver for CUDA 13.0");
    CHECK(device->profile().target.text() == "sm_90a@sm_90a");
    CHECK(device->assemblerId() == ""); // setmaxnreg is lost in what cuLink makes
    CHECK(device->profile().multiprocessors == 132);
    CHECK(device->profile().shared_memory_per_block == 227 * 1024);
  }
  {
    auto device = createCudaDevice(driver, 0, {.isa = Isa::Sm80, .shared_memory_per_block = 99 * 1024});
    REQUIRE(device.isOk());
    CHECK((*device)->profile().target.text() == "sm_80@sm_90");
    CHECK((*device)->profile().shared_memory_per_block == 99 * 1024);
    CHECK((*device)->assemblerId() == "cuda-driver 13000");
  }
  {
    const Driver old = fakeDriver(12040); // does not take the PTX of sm_90a kernels
    CHECK(open(old)->profile().target.text() == "sm_80@sm_90");
  }
  CHECK(called("cuDevicePrimaryCtxRelease"));
}

TEST_CASE("neighbouring work counts on the largest power of two of the L2") {
  struct Row {
    int l2;
    int64_t shared_cache;
  };
  constexpr int kMiB = 1 << 20;
  const int64_t usual = DeviceProfile().shared_cache;
  CHECK(usual == 32 * kMiB);
  // A100, H100, H200
  for (const Row &row :
       {Row{40 * kMiB, usual}, Row{50 * kMiB, usual}, Row{60 * kMiB, usual}, Row{32 * kMiB, usual},
        Row{32 * kMiB - 1, 16 * kMiB}, Row{6 * kMiB, 4 * kMiB}, Row{72 * kMiB, 64 * kMiB},
        Row{126 * kMiB, 64 * kMiB}, Row{0, usual}, Row{-1, usual}}) {
    const Driver driver = fakeDriver();
    fake.l2 = row.l2;
    INFO(row.l2);
    CHECK(open(driver)->profile().shared_cache == row.shared_cache);
  }
}

TEST_CASE("a GPU or driver that cannot run our code is no device, and the reason is given") {
  struct Row {
    int major, minor, version;
    const char *why;
  };
  for (const Row &row :
       {Row{7, 5, 13000, "compute capability 8.0"}, Row{31, 0, 13000, "compute capability 8.0"},
        Row{8, 0, 11080, "driver for CUDA 12.0 or newer (PTX 8.0)"}}) {
    const Driver driver = fakeDriver(row.version);
    fake.major = row.major, fake.minor = row.minor;
    auto device = createCudaDevice(driver, 0);
    REQUIRE(!device);
    CHECK(device.status().code() == StatusCode::NoDevice);
    CHECK_MESSAGE(has(device.status(), row.why), device.status().message());
    CHECK(!called("cuDevicePrimaryCtxRetain"));
    CHECK(!called("cuDevicePrimaryCtxRelease"));
  }
  const Driver driver = fakeDriver();
  fake.answers["cuDevicePrimaryCtxRetain"] = 2;
  CHECK(createCudaDevice(driver, 0).status().code() == StatusCode::OutOfMemory);
  CHECK(!called("cuDevicePrimaryCtxRelease"));
  fake.answers["cuDeviceGet"] = 101;
  CHECK(createCudaDevice(driver, 0).status().code() == StatusCode::NoDevice);
}

TEST_CASE("the number of GPUs") {
  const Driver driver = fakeDriver();
  fake.devices = 3;
  CHECK(*cudaDeviceCount(driver) == 3);
  fake.devices = 0;
  CHECK(has(cudaDeviceCount(driver).status(), "no GPU"));
  fake.answers["cuDeviceGetCount"] = 999;
  CHECK(cudaDeviceCount(driver).status().code() == StatusCode::NoDevice);
}

TEST_CASE("chips run the code of their own generation") {
  CHECK(chipFor(80) == 80);
  CHECK(chipFor(86) == 86);
  CHECK(chipFor(88) == 87);
  CHECK(chipFor(90) == 90);
  CHECK(chipFor(121) == 121);
  CHECK(chipFor(75) == 0);
  CHECK(chipFor(310) == 0);
}

TEST_CASE("code that says that it waits itself may overlap the kernel before it, where the driver can") {
  Artifact says = cubin(), says_not = cubin();
  const std::string_view name = "flashplus_overlaps";
  says.code.insert(says.code.end(), name.begin(), name.end());
  const auto launchesWith = [](const Driver &driver, const Artifact &artifact) {
    auto device = open(driver);
    auto kernel = device->load(artifact);
    REQUIRE(kernel.isOk());
    ForwardParams params;
    params.q = reinterpret_cast<void *>(0x1234);
    int stream;
    CHECK(device->launch(**kernel, &params, {.items = 77}, {}, &stream).isOk());
    CHECK(fake.grid == 77);
    CHECK(fake.block == 128);
    CHECK(fake.shared == 70000);
    CHECK(fake.first_param == 0x1234);
    CHECK((!called("cuLaunchKernelEx") || fake.stream == &stream));
    fake.answers["cuLaunchKernelEx"] = fake.answers["cuLaunchKernel"] = 719;
    CHECK(has(device->launch(**kernel, &params, {.items = 77}, {}, nullptr), "CUDA_ERROR_LAUNCH_FAILED"));
    return called("cuLaunchKernelEx") ? "overlap" : "order";
  };
  CHECK(launchesWith(overlappingDriver(), says) == std::string("overlap"));
  const Driver another_name = overlappingDriver();
  fake.answers["cuModuleGetGlobal"] = 500; // it has no such variable
  CHECK(launchesWith(another_name, says) == std::string("order"));
  CHECK(launchesWith(overlappingDriver(), says_not) == std::string("order"));
  CHECK(!called("cuModuleGetGlobal")); // a failed call would be reported by tools that watch the driver
  CHECK(launchesWith(overlappingDriver(12020), says) == std::string("order"));
  Driver old = overlappingDriver();
  old.launchKernelEx = nullptr;
  CHECK(launchesWith(old, says) == std::string("order"));
}

TEST_CASE("a kernel is loaded, launched with its schema, and unloaded in our context") {
  const Driver driver = fakeDriver();
  {
    auto device = open(driver);
    auto kernel = device->load(cubin());
    REQUIRE_MESSAGE(kernel.isOk(), kernel.status().message());
    CHECK(fake.image == "code"); // ends in NUL
    CHECK(fake.shared == 70000);
    ForwardParams params;
    params.q = reinterpret_cast<void *>(0x1234);
    int stream;
    CHECK(device->launch(**kernel, &params, {.items = 77}, {}, &stream).isOk());
    CHECK(fake.grid == 77);
    CHECK(fake.block == 128);
    CHECK(fake.shared == 70000);
    CHECK(fake.first_param == 0x1234);
    fake.grid = 0;
    // an empty grid is not the driver's business
    CHECK(device->launch(**kernel, &params, {.items = 0}, {}, &stream).isOk());
    CHECK(fake.grid == 0);
    kernel->reset();
    CHECK(called("cuModuleUnload"));
  }
  CHECK(fake.depth == 0);
}

TEST_CASE("a failed launch says so in the driver's words, and the context comes back") {
  const Driver driver = fakeDriver();
  auto device = open(driver);
  auto kernel = device->load(cubin());
  REQUIRE(kernel.isOk());
  ForwardParams params;
  fake.answers["cuLaunchKernel"] = 719;
  Status status = device->launch(**kernel, &params, {.items = 1}, {}, nullptr);
  CHECK(status.code() == StatusCode::DeviceError);
  CHECK(status.message() == "cuLaunchKernel failed: CUDA_ERROR_LAUNCH_FAILED (the text)");
  CHECK(fake.depth == 0);
  fake.answers = {{"cuCtxPushCurrent", 201}};
  status = device->launch(**kernel, &params, {.items = 1}, {}, nullptr);
  CHECK(has(status, "cuCtxPushCurrent failed"));
  CHECK(fake.depth == 0);
}

TEST_CASE("a launch where our context is current already asks the driver for nothing else") {
  const Driver driver = fakeDriver();
  auto device = open(driver);
  auto kernel = device->load(cubin());
  REQUIRE(kernel.isOk());
  ForwardParams params;
  using Calls = std::vector<std::string>;
  fake.callers = &kContext;
  fake.calls.clear();
  CHECK(device->launch(**kernel, &params, {.items = 1}, {}, nullptr).isOk());
  CHECK(fake.calls == Calls{"cuCtxGetCurrent", "cuLaunchKernel"});
  for (void *callers : {static_cast<void *>(&kOtherContext), static_cast<void *>(nullptr)}) {
    fake.callers = callers;
    fake.calls.clear();
    CHECK(device->launch(**kernel, &params, {.items = 1}, {}, nullptr).isOk());
    CHECK(fake.calls == Calls{"cuCtxGetCurrent", "cuCtxPushCurrent", "cuLaunchKernel", "cuCtxPopCurrent"});
    CHECK(fake.depth == 0);
  }
  fake.callers = &kContext; // a driver that does not answer the question: pushed
  fake.answers["cuCtxGetCurrent"] = 3;
  fake.calls.clear();
  CHECK(device->launch(**kernel, &params, {.items = 1}, {}, nullptr).isOk());
  CHECK(called("cuCtxPushCurrent"));
  CHECK(fake.depth == 0);
}

TEST_CASE("a driver that refuses code gives CompileFailed with both versions") {
  for (CUresult code :
       {kInvalidImage, kNoBinaryForGpu, kInvalidPtx, kUnsupportedPtxVersion, kInvalidSource}) {
    const Driver driver = fakeDriver(12040);
    auto device = open(driver);
    fake.answers["cuModuleLoadData"] = code;
    auto kernel = device->load(cubin());
    REQUIRE(!kernel);
    CHECK(kernel.status().code() == StatusCode::CompileFailed);
    CHECK(has(kernel.status(), "the driver is for CUDA 12.4, the code is PTX 8.0 for sm_80@sm_90"));
    CHECK(!called("cuModuleUnload")); // there is no module to unload
    CHECK(fake.depth == 0);
  }
  const Driver driver = fakeDriver();
  auto device = open(driver);
  fake.answers["cuModuleLoadData"] = kOutOfMemory;
  CHECK(device->load(cubin()).status().code() == StatusCode::OutOfMemory);
  fake.answers = {{"cuModuleGetFunction", 500}};
  auto nameless = device->load(cubin());
  CHECK(nameless.status().code() == StatusCode::CompileFailed);
  CHECK(has(nameless.status(), "for kernel"));
  CHECK(called("cuModuleUnload"));
  fake.answers = {{"cuFuncSetAttribute", 1}};
  CHECK(device->load(cubin()).status().code() == StatusCode::DeviceError);
  Artifact x86 = cubin();
  x86.kind = CodeKind::X86Object;
  CHECK(device->load(x86).status().code() == StatusCode::CompileFailed);
  CHECK(fake.depth == 0);
}

TEST_CASE("the driver assembles PTX, and its log comes with a failure") {
  const Driver driver = fakeDriver();
  auto device = open(driver);
  Artifact ptx = cubin();
  ptx.kind = CodeKind::Ptx;
  ptx.provenance = "LLVM";
  auto assembled = device->assemble(ptx);
  REQUIRE_MESSAGE(assembled.isOk(), assembled.status().message());
  CHECK(assembled->kind == CodeKind::Cubin);
  CHECK(std::string(assembled->code.begin(), assembled->code.end()) == "CUBIN");
  CHECK(assembled->provenance == "LLVM, CUDA driver 13.0");
  CHECK(assembled->assembler == Assembler{Assembler::Kind::Driver, 13, 0});
  CHECK(called("cuLinkDestroy"));
  for (const char *call : {"cuLinkAddData", "cuLinkComplete"}) {
    fake.calls.clear();
    fake.answers = {{call, kInvalidPtx}};
    auto failed = device->assemble(ptx);
    REQUIRE(!failed);
    CHECK(failed.status().code() == StatusCode::CompileFailed);
    CHECK(has(failed.status(), "ptxas: line 7 is wrong"));
    CHECK(called("cuLinkDestroy"));
  }
  fake.answers = {{"cuLinkCreate", kOutOfMemory}};
  CHECK(device->assemble(ptx).status().code() == StatusCode::OutOfMemory);
  CHECK(fake.depth == 0);
}

TEST_CASE("PTX on a machine without an assembler is keyed on the driver that assembles it") {
  const Driver driver = fakeDriver();
  auto device = std::move(*createCudaDevice(driver, 0, {.isa = Isa::Sm80}));
  auto store = KernelStore::open("", nullptr);
  KernelSpec spec;
  spec.head_dim_qk = spec.head_dim_v = 64;
  const PlannedKernel kernel{spec, feasibleSchedules(spec, device->profile()).front()};
  KernelTable table(
      *store,
      [&](const std::string &, const std::string &, const std::string &, bool,
          const CompilerLibrary::Waiting &) -> Result<Compiled> {
        Artifact a = cubin();
        a.kind = CodeKind::Ptx;
        a.launch = *launchSchema(kernel.spec, kernel.schedule, device->profile().target);
        return Compiled{a};
      },
      false, [](const std::string &) {});
  auto resident = table.resident(kernel, *device, true);
  REQUIRE_MESSAGE(resident.isOk(), resident.status().message());
  CHECK((*resident)->code->key.driver == "cuda-driver 13000");
  CHECK(fake.image == "CUBIN");
}

TEST_CASE("capture state") {
  const Driver driver = fakeDriver();
  auto device = open(driver);
  CHECK(*device->capturing(nullptr) == false);
  fake.capture_state = 1;
  CHECK(*device->capturing(nullptr) == true);
  fake.capture_state = 2; // invalidated: nothing may be loaded either
  CHECK(*device->capturing(nullptr) == true);
  fake.answers["cuStreamIsCapturing"] = 906;
  CHECK(device->capturing(nullptr).status().code() == StatusCode::DeviceError);
  CHECK(fake.depth == 0);
}

/// With what an older driver lacks.
Driver newerDriver() {
  Driver d = fakeDriver();
  d.streamGetId = [](CUstream s, uint64_t *id) {
    CHECK(fake.capture_state == 0); // the driver invalidates the capture of a stream that is asked (13.0)
    return *id = uint64_t(reinterpret_cast<uintptr_t>(s)) + 100, inContext("cuStreamGetId");
  };
  d.streamGetCaptureInfo = [](CUstream, int *state, uint64_t *id, void **, const void **, size_t *) {
    return *state = fake.capture_state, *id = 33, inContext("cuStreamGetCaptureInfo");
  };
  d.threadExchangeStreamCaptureMode = [](int *mode) {
    std::swap(*mode, fake.capture_mode);
    return said("cuThreadExchangeStreamCaptureMode");
  };
  d.memsetD8Async = [](CUdeviceptr p, unsigned char value, size_t, CUstream s) {
    CHECK((p == 4096 && value == 0 && s == &fake));
    return inContext("cuMemsetD8Async");
  };
  d.streamCreate = [](CUstream *s, unsigned flags) {
    CHECK(flags == kStreamNonBlocking);
    return *s = &fake, inContext("cuStreamCreate");
  };
  d.streamDestroy = [](CUstream s) {
    CHECK(s == &fake);
    return inContext("cuStreamDestroy");
  };
  return d;
}

TEST_CASE("streams are told apart, and captures on them") {
  const Driver old = fakeDriver();
  CHECK_FALSE(open(old)->streamKey(nullptr));
  const Driver driver = newerDriver();
  auto device = open(driver);
  auto key = device->streamKey(nullptr);
  REQUIRE(key);
  CHECK(key->stream == 100);
  CHECK(key->capture == 0);
  fake.capture_state = 1;
  CHECK(device->streamKey(nullptr)->capture == 33);
  fake.capture_state = 2; // invalidated
  CHECK_FALSE(device->streamKey(nullptr));
  fake.capture_state = 0;
  fake.answers["cuStreamGetCaptureInfo"] = 904; // the default stream, while another one is captured
  CHECK_FALSE(device->streamKey(nullptr));
  CHECK(fake.depth == 0);
}

TEST_CASE("memory of zeros is made under a capture, and the thread's mode comes back") {
  const Driver driver = newerDriver();
  auto device = open(driver);
  fake.capture_mode = 5;
  fake.calls.clear();
  auto memory = device->allocateZeroed(1000);
  REQUIRE(memory.isOk());
  CHECK(*memory == reinterpret_cast<void *>(4096));
  CHECK(fake.capture_mode == 5);
  auto called = [](const char *symbol) { return std::ranges::count(fake.calls, std::string(symbol)); };
  CHECK(called("cuMemsetD8Async") == 1);
  CHECK(called("cuStreamSynchronize") == 1);
  CHECK(called("cuStreamDestroy") == 1);
  CHECK(called("cuMemFree") == 0);
  for (const char *symbol : {"cuMemAlloc", "cuStreamCreate", "cuMemsetD8Async", "cuStreamSynchronize"}) {
    CAPTURE(symbol);
    fake.calls.clear();
    fake.answers = {{symbol, kOutOfMemory}};
    CHECK(device->allocateZeroed(1000).status().code() == StatusCode::OutOfMemory);
    CHECK(fake.capture_mode == 5);
    CHECK(called("cuMemFree") == (std::string(symbol) != "cuMemAlloc"));
    CHECK(called("cuStreamDestroy") ==
          (std::string(symbol) == "cuMemsetD8Async" || std::string(symbol) == "cuStreamSynchronize"));
  }
  CHECK(fake.depth == 0);
}

TEST_CASE("memory, copies and streams report the driver's failures") {
  const Driver driver = fakeDriver();
  auto device = open(driver);
  char host[4];
  CHECK(*device->allocate(0) == reinterpret_cast<void *>(4096));
  CHECK(*device->allocateAsync(16, nullptr) == reinterpret_cast<void *>(8192));
  CHECK(device->release(host).isOk());
  CHECK(device->releaseAsync(host, nullptr).isOk());
  CHECK(device->copyToDevice(host, host, 4).isOk());
  CHECK(device->copyToHost(host, host, 4).isOk());
  CHECK(device->synchronize(nullptr).isOk());
  for (const char *call : {"cuMemAlloc", "cuMemAllocAsync", "cuMemFree", "cuMemFreeAsync", "cuMemcpyHtoD",
                           "cuMemcpyDtoH", "cuStreamSynchronize"})
    fake.answers[call] = 2;
  CHECK(device->allocate(123).status().message() ==
        "cuMemAlloc of 123 bytes failed: CUDA_ERROR_X (the text)");
  CHECK(device->allocate(123).status().code() == StatusCode::OutOfMemory);
  CHECK(device->allocateAsync(123, nullptr).status().code() == StatusCode::OutOfMemory);
  CHECK(!device->release(host));
  CHECK(!device->releaseAsync(host, nullptr));
  CHECK(!device->copyToDevice(host, host, 4));
  CHECK(!device->copyToHost(host, host, 4));
  CHECK(!device->synchronize(nullptr));
  CHECK(fake.depth == 0);
}
