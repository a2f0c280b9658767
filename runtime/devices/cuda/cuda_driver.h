// SPDX-License-Identifier: BSD-3-Clause
// The CUDA driver API as a table of functions found in libcuda.so.1 at run time. The few types and numbers we
// need are declared here (they are the driver's stable ABI), so that no CUDA header or library is needed to
// build or to start.
#pragma once

#include "spec/status.h"

#include <cstddef>
#include <cstdint>
#include <string>

namespace flashplus::cuda {

using CUresult = int;
using CUdevice = int;
using CUcontext = void *;
using CUmodule = void *;
using CUfunction = void *;
using CUstream = void *;
using CUlinkState = void *;
using CUdeviceptr = uint64_t;

enum : CUresult {
  kSuccess = 0,
  kOutOfMemory = 2,
  kInvalidImage = 200,
  kNoBinaryForGpu = 209,
  kInvalidPtx = 218,
  kUnsupportedPtxVersion = 222,
  kInvalidSource = 300,
};
enum DeviceAttribute : int {
  kMultiprocessors = 16,
  kL2CacheSize = 38,
  kComputeCapabilityMajor = 75,
  kComputeCapabilityMinor = 76,
  kSharedMemoryPerSm = 81,
  kSharedMemoryPerBlockOptin = 97,
};
enum : int { kCaptureNone = 0, kCaptureActive = 1, kCaptureModeRelaxed = 2, kStreamNonBlocking = 1 };
enum : int { kFuncMaxDynamicSharedMemory = 8, kInputPtx = 1 };
/// CUlaunchAttribute and CUlaunchConfig.
enum : int { kProgrammaticStreamSerialization = 6 };
struct alignas(8) LaunchAttribute {
  int id = 0, padding = 0;
  union {
    int number;
    char bytes[64];
  } value = {};
};
struct LaunchConfig {
  unsigned grid[3] = {1, 1, 1}, block[3] = {1, 1, 1}, shared_memory = 0;
  CUstream stream = nullptr;
  LaunchAttribute *attributes = nullptr;
  unsigned attribute_count = 0;
};
static_assert(sizeof(LaunchAttribute) == 72 && sizeof(LaunchConfig) == 56);
enum JitOption : int {
  kJitInfoLogBuffer = 3,
  kJitInfoLogBufferSize = 4,
  kJitErrorLogBuffer = 5,
  kJitErrorLogBufferSize = 6,
  kJitLogVerbose = 12,
};

// X(member, symbol, parameters)
#define FLASHPLUS_CUDA_FUNCTIONS(X)                                                                          \
  X(init, cuInit, (unsigned))                                                                                \
  X(driverGetVersion, cuDriverGetVersion, (int *))                                                           \
  X(deviceGetCount, cuDeviceGetCount, (int *))                                                               \
  X(deviceGet, cuDeviceGet, (CUdevice *, int))                                                               \
  X(deviceGetName, cuDeviceGetName, (char *, int, CUdevice))                                                 \
  X(deviceGetAttribute, cuDeviceGetAttribute, (int *, int, CUdevice))                                        \
  X(deviceTotalMem, cuDeviceTotalMem_v2, (size_t *, CUdevice))                                               \
  X(primaryCtxRetain, cuDevicePrimaryCtxRetain, (CUcontext *, CUdevice))                                     \
  X(primaryCtxRelease, cuDevicePrimaryCtxRelease_v2, (CUdevice))                                             \
  X(ctxGetCurrent, cuCtxGetCurrent, (CUcontext *))                                                           \
  X(ctxPushCurrent, cuCtxPushCurrent_v2, (CUcontext))                                                        \
  X(ctxPopCurrent, cuCtxPopCurrent_v2, (CUcontext *))                                                        \
  X(moduleLoadData, cuModuleLoadData, (CUmodule *, const void *))                                            \
  X(moduleGetFunction, cuModuleGetFunction, (CUfunction *, CUmodule, const char *))                          \
  X(moduleUnload, cuModuleUnload, (CUmodule))                                                                \
  X(tensorMapEncodeTiled, cuTensorMapEncodeTiled,                                                            \
    (void *, int, uint32_t, void *, const uint64_t *, const uint64_t *, const uint32_t *, const uint32_t *,  \
     int, int, int, int))                                                                                    \
  X(tensorMapReplaceAddress, cuTensorMapReplaceAddress, (void *, void *))                                    \
  X(funcSetAttribute, cuFuncSetAttribute, (CUfunction, int, int))                                            \
  X(launchKernel, cuLaunchKernel,                                                                            \
    (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void **,    \
     void **))                                                                                               \
  X(memAlloc, cuMemAlloc_v2, (CUdeviceptr *, size_t))                                                        \
  X(memFree, cuMemFree_v2, (CUdeviceptr))                                                                    \
  X(memAllocAsync, cuMemAllocAsync, (CUdeviceptr *, size_t, CUstream))                                       \
  X(memFreeAsync, cuMemFreeAsync, (CUdeviceptr, CUstream))                                                   \
  X(memsetD8Async, cuMemsetD8Async, (CUdeviceptr, unsigned char, size_t, CUstream))                         \
  X(memcpyHtoD, cuMemcpyHtoD_v2, (CUdeviceptr, const void *, size_t))                                        \
  X(memcpyDtoH, cuMemcpyDtoH_v2, (void *, CUdeviceptr, size_t))                                              \
  X(streamSynchronize, cuStreamSynchronize, (CUstream))                                                      \
  X(streamIsCapturing, cuStreamIsCapturing, (CUstream, int *))                                               \
  X(linkCreate, cuLinkCreate_v2, (unsigned, int *, void **, CUlinkState *))                                  \
  X(linkAddData, cuLinkAddData_v2,                                                                           \
    (CUlinkState, int, void *, size_t, const char *, unsigned, int *, void **))                              \
  X(linkComplete, cuLinkComplete, (CUlinkState, void **, size_t *))                                          \
  X(linkDestroy, cuLinkDestroy, (CUlinkState))                                                               \
  X(getErrorName, cuGetErrorName, (CUresult, const char **))                                                 \
  X(getErrorString, cuGetErrorString, (CUresult, const char **))

/// Those that an older driver may lack; null there.
#define FLASHPLUS_CUDA_OPTIONAL_FUNCTIONS(X)                                                                 \
  X(launchKernelEx, cuLaunchKernelEx, (const LaunchConfig *, CUfunction, void **, void **))                  \
  X(moduleGetGlobal, cuModuleGetGlobal_v2, (CUdeviceptr *, size_t *, CUmodule, const char *))                \
  X(streamGetId, cuStreamGetId, (CUstream, uint64_t *))                                                      \
  X(streamGetCaptureInfo, cuStreamGetCaptureInfo_v2,                                                         \
    (CUstream, int *, uint64_t *, void **, const void **, size_t *))                                         \
  X(threadExchangeStreamCaptureMode, cuThreadExchangeStreamCaptureMode, (int *))                             \
  X(streamCreate, cuStreamCreate, (CUstream *, unsigned))                                                    \
  X(streamDestroy, cuStreamDestroy_v2, (CUstream))

/// Plain function pointers, so that a test can put its own in.
struct Driver {
#define FLASHPLUS_CUDA_MEMBER(MEMBER, SYMBOL, PARAMETERS) CUresult(*MEMBER) PARAMETERS = nullptr;
  FLASHPLUS_CUDA_FUNCTIONS(FLASHPLUS_CUDA_MEMBER)
  FLASHPLUS_CUDA_OPTIONAL_FUNCTIONS(FLASHPLUS_CUDA_MEMBER)
#undef FLASHPLUS_CUDA_MEMBER
  int version = 0; ///< As cuDriverGetVersion counts: 13000 is CUDA 13.0.

  /// "cuModuleLoadData failed: CUDA_ERROR_... (text)" with the code that fits.
  Status failure(const char *call, CUresult result) const;
};

/// Opens and initialises the driver once per process. NoDevice says why there is none.
Result<const Driver *> openDriver();

/// "13.0"
std::string versionText(int version);

} // namespace flashplus::cuda
