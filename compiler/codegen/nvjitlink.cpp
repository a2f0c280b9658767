// SPDX-License-Identifier: BSD-3-Clause
#include "compiler/codegen/nvjitlink.h"

#include <dlfcn.h>
#include <map>
#include <mutex>

namespace flashplus {

// The C API of nvJitLink 12 and 13, as documented by NVIDIA; the symbols carry the version as a suffix
// (nvJitLinkCreate -> __nvJitLinkCreate_13_0), beside the plain names.
struct NvJitLink::Functions {
  using Handle = void *;
  int (*create)(Handle *, uint32_t, const char **);
  int (*destroy)(Handle *);
  int (*addData)(Handle, int type, const void *, size_t, const char *name);
  int (*complete)(Handle);
  int (*cubinSize)(Handle, size_t *);
  int (*cubin)(Handle, void *);
  int (*errorLogSize)(Handle, size_t *);
  int (*errorLog)(Handle, char *);
  int (*infoLogSize)(Handle, size_t *);
  int (*infoLog)(Handle, char *);
  int (*version)(unsigned *major, unsigned *minor);
};

namespace {

constexpr int kInputPtx = 2; // NVJITLINK_INPUT_PTX

template <class Fn> bool find(void *library, const char *name, const std::string &suffix, Fn &out) {
  void *symbol = dlsym(library, name);
  if (!symbol)
    symbol = dlsym(library, ("__" + std::string(name) + suffix).c_str());
  out = reinterpret_cast<Fn>(symbol);
  return symbol != nullptr;
}

constexpr const char *kSearched[] = {"libnvJitLink.so.13", "libnvJitLink.so.12", "libnvJitLink.so",
                                     "/usr/local/cuda/lib64/libnvJitLink.so.13",
                                     "/usr/local/cuda/lib64/libnvJitLink.so.12"};

template <class Size, class Get> std::string readLog(void *handle, Size size, Get get) {
  size_t bytes = 0;
  if (size(handle, &bytes) != 0 || bytes <= 1)
    return {};
  std::string log(bytes, '\0');
  if (get(handle, log.data()) != 0)
    return {};
  log.resize(log.find('\0') == std::string::npos ? bytes : log.find('\0'));
  return log;
}

} // namespace

Result<const NvJitLink *> NvJitLink::open(const char *path) {
  static std::mutex mutex;
  static std::map<std::string, NvJitLink> found;
  const std::string named = path ? path : "";
  if (named == "off")
    return Status(StatusCode::Unsupported, "no nvJitLink: $FLASHPLUS_NVJITLINK is off");
  std::lock_guard lock(mutex);
  if (const auto known = found.find(named); known != found.end())
    return &known->second;
  std::string tried;
  for (const char *searched : kSearched) {
    const std::string name = named.empty() ? searched : named;
    void *library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    const char *error = library ? nullptr : dlerror();
    if (!library && !named.empty())
      return invalidArgument("$FLASHPLUS_NVJITLINK is '" + named +
                             "', which cannot be opened: " + (error ? error : "no reason was given") +
                             "; it must be an nvJitLink that works, or off");
    if (!library) {
      tried += (tried.empty() ? "" : ", ") + name;
      continue;
    }
    // The versioned names of the releases that exist; the plain ones come first in find().
    for (const char *suffix : {"_13_0", "_13_1", "_12_8", "_12_4", "_12_0"}) {
      Functions f;
      if (find(library, "nvJitLinkCreate", suffix, f.create) &&
          find(library, "nvJitLinkDestroy", suffix, f.destroy) &&
          find(library, "nvJitLinkAddData", suffix, f.addData) &&
          find(library, "nvJitLinkComplete", suffix, f.complete) &&
          find(library, "nvJitLinkGetLinkedCubinSize", suffix, f.cubinSize) &&
          find(library, "nvJitLinkGetLinkedCubin", suffix, f.cubin) &&
          find(library, "nvJitLinkGetErrorLogSize", suffix, f.errorLogSize) &&
          find(library, "nvJitLinkGetErrorLog", suffix, f.errorLog) &&
          find(library, "nvJitLinkGetInfoLogSize", suffix, f.infoLogSize) &&
          find(library, "nvJitLinkGetInfoLog", suffix, f.infoLog) &&
          find(library, "nvJitLinkVersion", suffix, f.version)) {
        NvJitLink opened;
        opened.functions_ = std::make_shared<const Functions>(f);
        return &found.emplace(named, std::move(opened)).first->second;
      }
    }
    dlclose(library);
    if (!named.empty())
      return invalidArgument("$FLASHPLUS_NVJITLINK is '" + named +
                             "', which is a library without nvJitLink's functions; "
                             "it must be an nvJitLink that works, or off");
    tried += (tried.empty() ? "" : ", ") + name + " (lacks symbols)";
  }
  return Status(StatusCode::Unsupported, "no nvJitLink: tried " + tried);
}

Result<Cubin> NvJitLink::assemble(std::string_view ptx, const std::string &chip) const {
  const Functions &f = *functions_;
  const std::string arch = "-arch=" + chip;
  const char *options[] = {arch.c_str(), "-O3", "-verbose"};
  void *handle = nullptr;
  if (f.create(&handle, std::size(options), options) != 0)
    return Status(StatusCode::CompileFailed, "nvJitLink " + version() + " does not take " + arch);
  const std::string terminated(ptx); // AddData wants the NUL counted
  int code = f.addData(handle, kInputPtx, terminated.c_str(), terminated.size() + 1, "kernel.ptx");
  if (code == 0)
    code = f.complete(handle);
  Cubin out;
  out.log = readLog(handle, f.infoLogSize, f.infoLog);
  size_t size = 0;
  if (code == 0)
    code = f.cubinSize(handle, &size);
  if (code == 0) {
    out.code.resize(size);
    code = f.cubin(handle, out.code.data());
  }
  const std::string error = code ? readLog(handle, f.errorLogSize, f.errorLog) : "";
  f.destroy(&handle);
  if (code) // without a word it says nothing about the code
    return Status(error.empty() ? StatusCode::IoError : refusalCode(error),
                  "nvJitLink " + version() + " failed with code " + std::to_string(code) + ": " + error);
  out.resources = parseResources(out.log);
  return out;
}

std::string NvJitLink::version() const {
  unsigned major = 0, minor = 0;
  functions_->version(&major, &minor);
  return std::to_string(major) + "." + std::to_string(minor);
}

} // namespace flashplus
