// SPDX-License-Identifier: BSD-3-Clause
// A CUDA stream and graph for the examples, through libcuda.so.1 opened at run time, so that they build on
// any machine. A program of yours will include <cuda.h> instead.
#pragma once

#include <dlfcn.h>
#include <string>

/// Everything is null or false where there is no driver or GPU; `problem` says why.
class CudaStream {
public:
  CudaStream() {
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library) {
      problem = "there is no CUDA driver";
      return;
    }
    int device = 0;
    good = find(library, "cuInit", init_) && find(library, "cuDeviceGet", device_get_) &&
           find(library, "cuDevicePrimaryCtxRetain", retain_) &&
           find(library, "cuCtxSetCurrent", set_current_) &&
           find(library, "cuStreamCreate", stream_create_) &&
           find(library, "cuStreamBeginCapture_v2", begin_) && find(library, "cuStreamEndCapture", end_) &&
           find(library, "cuGraphInstantiateWithFlags", instantiate_) &&
           find(library, "cuGraphLaunch", launch_) && call("cuInit", init_(0)) &&
           call("cuDeviceGet", device_get_(&device, 0)) &&
           call("cuDevicePrimaryCtxRetain", retain_(&context_, device)) &&
           call("cuCtxSetCurrent", set_current_(context_)) &&
           call("cuStreamCreate", stream_create_(&stream_, 1 /* non-blocking */));
  }

  explicit operator bool() const { return good; }
  void *get() const { return stream_; }

  /// What is enqueued on the stream between the two becomes a graph.
  bool beginCapture() { return call("cuStreamBeginCapture", begin_(stream_, 1 /* thread local */)); }
  bool endCapture() {
    void *graph = nullptr;
    return call("cuStreamEndCapture", end_(stream_, &graph)) &&
           call("cuGraphInstantiate", instantiate_(&graph_, graph, 0));
  }
  bool replay() { return call("cuGraphLaunch", launch_(graph_, stream_)); }

  bool good = false;
  std::string problem;

private:
  template <class Function> bool find(void *library, const char *name, Function &function) {
    function = reinterpret_cast<Function>(dlsym(library, name));
    if (!function)
      problem = std::string("the CUDA driver lacks ") + name;
    return function;
  }
  bool call(const char *name, int result) {
    if (result)
      problem = std::string(name) + " failed with " + std::to_string(result);
    return result == 0;
  }

  void *context_ = nullptr, *stream_ = nullptr, *graph_ = nullptr;
  int (*init_)(unsigned) = nullptr;
  int (*device_get_)(int *, int) = nullptr;
  int (*retain_)(void **, int) = nullptr;
  int (*set_current_)(void *) = nullptr;
  int (*stream_create_)(void **, unsigned) = nullptr;
  int (*begin_)(void *, int) = nullptr;
  int (*end_)(void *, void **) = nullptr;
  int (*instantiate_)(void **, void *, unsigned long long) = nullptr;
  int (*launch_)(void *, void *) = nullptr;
};
