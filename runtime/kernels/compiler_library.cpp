// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/kernels/compiler_library.h"

#include "build_id.h"
#include "templates/forward/planner.h"

#include <algorithm>
#include <dlfcn.h>
#include <unistd.h>

namespace flashplus {
namespace {

/// The folder of the library that this code is in.
std::string besideUs() {
  Dl_info info;
  if (!dladdr(reinterpret_cast<const void *>(&besideUs), &info) || !info.dli_fname)
    return "libflashplus-compiler.so";
  const std::string self = info.dli_fname;
  const size_t slash = self.rfind('/');
  return slash == std::string::npos ? "libflashplus-compiler.so"
                                    : self.substr(0, slash) + "/libflashplus-compiler.so";
}

} // namespace

CompilerLibrary::CompilerLibrary(std::string path, std::string nvjitlink, std::string ptxas,
                                 std::string search)
    : path_(path.empty() ? besideUs() : std::move(path)), nvjitlink_(std::move(nvjitlink)),
      ptxas_(std::move(ptxas)), search_(std::move(search)) {}

bool CompilerLibrary::mayAssemble(const Target &target) const {
  // sm_90a is for ptxas alone (docs/rationale/assemblers.md). Whether nvJitLink is there only the loader
  // knows.
  if (!isaInfo(target.isa).has(kSetMaxRegisters) && nvjitlink_ != "off")
    return true;
  if (!ptxas_.empty())
    return ptxas_ != "off";
  if (access("/usr/local/cuda/bin/ptxas", X_OK) == 0)
    return true;
  for (size_t at = 0; at <= search_.size();) {
    const size_t end = std::min(search_.find(':', at), search_.size());
    if (end > at && access((search_.substr(at, end - at) + "/ptxas").c_str(), X_OK) == 0)
      return true;
    at = end + 1;
  }
  return false;
}

flashplus_assemblers CompilerLibrary::assemblers() const {
  return {nvjitlink_.empty() ? nullptr : nvjitlink_.c_str(), ptxas_.empty() ? nullptr : ptxas_.c_str()};
}

Result<const flashplus_compiler_table *> CompilerLibrary::table() {
  if (ForkWaits::isCutInTwo())
    return Status(StatusCode::NotResident,
                  "the compiler cannot be used in this process: it was forked while another thread had "
                  "been compiling for more than " +
                      std::to_string(ForkWaits::kMostSeconds) +
                      " s; fork before that, start processes anew (spawn), or warm the cache");
  std::lock_guard lock(mutex_);
  if (const flashplus_compiler_table *open = table_.load(std::memory_order_relaxed))
    return open;
  void *library = dlopen(path_.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char *why = dlerror();
    return Status(StatusCode::CompileFailed,
                  std::string("the compiler library cannot be opened: ") + (why ? why : path_));
  }
  auto entry = reinterpret_cast<flashplus_compiler_fn>(dlsym(library, FLASHPLUS_COMPILER_ENTRY));
  const flashplus_compiler_table *table = entry ? entry() : nullptr;
  std::string problem;
  if (!table)
    problem = "it has no entry " FLASHPLUS_COMPILER_ENTRY;
  else if (table->abi != FLASHPLUS_COMPILER_ABI)
    problem = "its interface is version " + std::to_string(table->abi) + ", not " +
              std::to_string(FLASHPLUS_COMPILER_ABI);
  else if (std::string(table->build_id) != FLASHPLUS_BUILD_ID)
    problem =
        std::string("it is build ") + table->build_id + " and this runtime needs build " FLASHPLUS_BUILD_ID;
  if (!problem.empty()) {
    dlclose(library);
    return Status(StatusCode::CompileFailed, "the compiler library " + path_ + " cannot be used: " + problem);
  }
  table_.store(table, std::memory_order_release);
  return table;
}

namespace {

/// Releases a result of the table.
struct ScopedResult {
  const flashplus_compiler_table *table;
  flashplus_compile_result value{};
  ~ScopedResult() { table->release(&value); }

  Status status() const {
    const auto code = StatusCode(value.status);
    if (code == StatusCode::Ok)
      return Status::ok();
    return {code, value.data ? std::string(reinterpret_cast<const char *>(value.data), value.size)
                             : "the compiler ran out of memory"};
  }
};

} // namespace

Result<Compiled> CompilerLibrary::compile(const std::string &spec, const std::string &schedule,
                                          const std::string &target) {
  const ForkWaits whole;
  auto found = table();
  if (!found)
    return found.status();
  const flashplus_compile_request request{spec.c_str(), schedule.c_str(), target.c_str(),
                                          assemblers()};
  ScopedResult result{*found};
  (*found)->compile(&request, &result.value);
  FLASHPLUS_RETURN_IF_ERROR(result.status());
  auto artifact = parseArtifact({result.value.data, result.value.size});
  if (!artifact)
    return artifact.status();
  return Compiled{std::move(*artifact), result.value.times};
}

Result<Compiled> CompilerLibrary::compilePtx(const std::string &spec, const std::string &schedule,
                                             const std::string &target) {
  auto parsed_spec = KernelSpec::parse(spec);
  auto parsed_schedule = Schedule::parse(schedule);
  auto parsed_target = Target::parse(target);
  for (const Status *s : {&parsed_spec.status(), &parsed_schedule.status(), &parsed_target.status()})
    FLASHPLUS_RETURN_IF_ERROR(*s);
  auto launch = launchSchema(*parsed_spec, *parsed_schedule, *parsed_target);
  if (!launch)
    return launch.status();
  auto text = print(spec, schedule, target, "ptx");
  if (!text)
    return text.status();
  Artifact artifact;
  artifact.kind = CodeKind::Ptx;
  artifact.code.assign(text->begin(), text->end());
  artifact.launch = std::move(*launch);
  artifact.provenance = std::string(table_.load()->describe) + ", left as PTX";
  return Compiled{std::move(artifact), {}};
}

Result<std::string> CompilerLibrary::print(const std::string &spec, const std::string &schedule,
                                           const std::string &target, const std::string &stage) {
  const ForkWaits whole;
  auto found = table();
  if (!found)
    return found.status();
  const flashplus_compile_request request{spec.c_str(), schedule.c_str(), target.c_str(),
                                          assemblers()};
  ScopedResult result{*found};
  (*found)->print(&request, stage.c_str(), &result.value);
  FLASHPLUS_RETURN_IF_ERROR(result.status());
  return std::string(reinterpret_cast<const char *>(result.value.data), result.value.size);
}

} // namespace flashplus
