// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/kernels/compiler_library.h"

#include "compiler/helper/open.h"
#include "templates/forward/planner.h"

#include <algorithm>
#include <cstring>
#include <dlfcn.h>
#include <unistd.h>
#include <utility>

namespace flashplus {
namespace {

/// `name` in the folder of the library that this code is in.
std::string besideUs(const std::string &name) {
  Dl_info info;
  if (!dladdr(reinterpret_cast<const void *>(&besideUs), &info) || !info.dli_fname)
    return name;
  const std::string self = info.dli_fname;
  const size_t slash = self.rfind('/');
  return slash == std::string::npos ? name : self.substr(0, slash + 1) + name;
}

/// Where the helper is, for a compiler library at `library`.
std::string helperFor(const std::string &library) {
  if (const size_t slash = library.rfind('/'); slash != std::string::npos)
    if (const std::string beside = library.substr(0, slash + 1) + helper::kProgram;
        access(beside.c_str(), X_OK) == 0)
      return beside;
  return besideUs(helper::kProgram);
}

std::string megabytes(int64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

} // namespace

CompilerLibrary::CompilerLibrary(std::string path, std::string nvjitlink, std::string ptxas,
                                 std::string search, CompilerOptions options)
    : path_(path.empty() ? besideUs("libflashplus-compiler.so") : std::move(path)),
      nvjitlink_(std::move(nvjitlink)), ptxas_(std::move(ptxas)), search_(std::move(search)),
      log_(std::move(options.log)),
      pool_(options.helper.empty() ? helperFor(path_) : options.helper, path_, options.limits),
      here_(options.in_process) {}

std::optional<std::string> CompilerLibrary::toolchain(const Target &target) {
  if (!isGpu(target.isa))
    return isMissing() ? std::nullopt : std::optional<std::string>("");
  const auto found = describe();
  if (!found)
    return std::nullopt;
  return (found->has_nvjitlink ? "nvJitLink " + found->nvjitlink : "no nvJitLink") +
         (found->has_ptxas ? ", ptxas " + found->ptxas : ", no ptxas");
}

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

flashplus_assemblers CompilerLibrary::assemblers() const { return {nvjitlink_.c_str(), ptxas_.c_str()}; }

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
  std::string problem;
  const flashplus_compiler_table *table = openCompiler(path_, problem);
  missing_ = !table;
  if (!table)
    return Status(StatusCode::CompileFailed, problem);
  table_.store(table, std::memory_order_release);
  return table;
}

Result<CompilerLibrary::Answer> CompilerLibrary::askHere(helper::Kind kind, const std::string &spec,
                                                         const std::string &schedule,
                                                         const std::string &target,
                                                         const std::string &stage) {
  const ForkWaits whole;
  auto found = table();
  if (!found)
    return found.status();
  const flashplus_compiler_table &table = **found;
  const flashplus_compile_request request{spec.c_str(), schedule.c_str(), target.c_str(), assemblers(),
                                          pool_.limits().seconds};
  if (kind == helper::Kind::Describe) {
    Answer answer;
    char text[2][1024] = {};
    const int linker = table.nvjitlink(request.assemblers.nvjitlink, text[0], sizeof text[0]);
    const int program = table.ptxas(request.assemblers.ptxas, text[1], sizeof text[1]);
    for (std::string_view field : {std::string_view(table.describe), std::string_view(linker ? "1" : "0"),
                                   std::string_view(text[0]), std::string_view(program ? "1" : "0"),
                                   std::string_view(text[1])})
      helper::put(answer.bytes, field);
    return answer;
  }
  struct Released {
    const flashplus_compiler_table &table;
    flashplus_compile_result value{};
    ~Released() { table.release(&value); }
  } result{table};
  if (kind == helper::Kind::Compile)
    table.compile(&request, &result.value);
  else
    table.print(&request, stage.c_str(), &result.value);
  const flashplus_compile_result &r = result.value;
  std::string bytes =
      r.data ? std::string(reinterpret_cast<const char *>(r.data), r.size) : "the compiler ran out of memory";
  if (r.status != int(StatusCode::Ok))
    return Status(StatusCode(r.status), std::move(bytes));
  return Answer{std::move(bytes), r.times};
}

Result<CompilerLibrary::Answer> CompilerLibrary::ask(helper::Kind kind, const std::string &spec,
                                                     const std::string &schedule, const std::string &target,
                                                     const std::string &stage, const Waiting &waiting) {
  if (here_)
    return askHere(kind, spec, schedule, target, stage);
  const HelperLimits &limits = pool_.limits();
  const std::vector<std::string> fields{spec, schedule, target, nvjitlink_, ptxas_, stage};
  const std::string kernel = "compiling '" + spec + "' with '" + schedule + "' for " + target;
  for (bool again = true;;) {
    HelperProcess::Failure failure;
    std::unique_ptr<HelperProcess> process = pool_.take(failure);
    if (!process && failure.for_good) {
      if (!here_.exchange(true) && log_)
        log_(failure.status.message() + "; kernels are compiled in this process, which they can take down");
      return askHere(kind, spec, schedule, target, stage);
    }
    // a library that can't be used, as the helper found
    missing_ = !process && failure.status.code() == StatusCode::CompileFailed;
    if (!process)
      return failure.status;
    HelperAnswer answer = process->ask(kind, fields, waiting);
    pool_.giveBack(std::move(process));
    const std::string said = answer.last_lines.empty() ? "" : "; it printed last: " + answer.last_lines;
    switch (answer.kind) {
    case HelperAnswer::Kind::Result:
      if (answer.status == StatusCode::Ok)
        return Answer{std::move(answer.bytes), answer.times};
      if (answer.status == StatusCode::OutOfMemory && limits.bytes)
        answer.bytes += " (its limit is " + megabytes(limits.bytes) + ", $FLASHPLUS_COMPILE_MEMORY)";
      return Status(answer.status, std::move(answer.bytes) + said);
    case HelperAnswer::Kind::Idle:
      continue; // there are only so many that were kept, and a new one was not idle for long
    case HelperAnswer::Kind::Crashed: {
      const char *name = sigabbrev_np(answer.signal);
      return Status(StatusCode::CompilerCrashed, kernel + ": the compiler crashed with signal " +
                                                     std::to_string(answer.signal) +
                                                     (name ? std::string(" (SIG") + name + ")" : "") + said);
    }
    case HelperAnswer::Kind::TimedOut:
      return Status(StatusCode::TimedOut, kernel + ": not done after " + std::to_string(limits.seconds) +
                                              " s, the limit of $FLASHPLUS_COMPILE_SECONDS, and ended" +
                                              said);
    case HelperAnswer::Kind::Killed:
      if (!std::exchange(again, false))
        return Status(StatusCode::IoError,
                      kernel +
                          ": the compiler's process was killed, twice, or ended without a word; did the "
                          "machine run out of memory?" +
                          said);
      continue;
    }
  }
}

Result<Compiled> CompilerLibrary::compile(const std::string &spec, const std::string &schedule,
                                          const std::string &target, const Waiting &waiting) {
  auto answer = ask(helper::Kind::Compile, spec, schedule, target, "", waiting);
  if (!answer)
    return answer.status();
  auto artifact =
      parseArtifact({reinterpret_cast<const uint8_t *>(answer->bytes.data()), answer->bytes.size()});
  if (!artifact)
    return artifact.status();
  return Compiled{std::move(*artifact), answer->times};
}

Result<Compiled> CompilerLibrary::compilePtx(const std::string &spec, const std::string &schedule,
                                             const std::string &target, const Waiting &waiting) {
  auto parsed_spec = KernelSpec::parse(spec);
  auto parsed_schedule = Schedule::parse(schedule);
  auto parsed_target = Target::parse(target);
  for (const Status *s : {&parsed_spec.status(), &parsed_schedule.status(), &parsed_target.status()})
    FLASHPLUS_RETURN_IF_ERROR(*s);
  auto launch = launchSchema(*parsed_spec, *parsed_schedule, *parsed_target);
  if (!launch)
    return launch.status();
  auto text = print(spec, schedule, target, "ptx", waiting);
  if (!text)
    return text.status();
  Artifact artifact;
  artifact.kind = CodeKind::Ptx;
  artifact.code.assign(text->begin(), text->end());
  artifact.launch = std::move(*launch);
  artifact.provenance = "LLVM " FLASHPLUS_BUILD_LLVM_VERSION ", left as PTX";
  return Compiled{std::move(artifact), {}};
}

Result<std::string> CompilerLibrary::print(const std::string &spec, const std::string &schedule,
                                           const std::string &target, const std::string &stage,
                                           const Waiting &waiting) {
  auto answer = ask(helper::Kind::Print, spec, schedule, target, stage, waiting);
  if (!answer)
    return answer.status();
  return std::move(answer->bytes);
}

Result<CompilerDescription> CompilerLibrary::describe() {
  auto answer = ask(helper::Kind::Describe, "", "", "", "", {});
  if (!answer)
    return answer.status();
  std::vector<std::string> f;
  if (!helper::take(answer->bytes, f, helper::kDescriptionFields))
    return Status(StatusCode::Internal, "the compiler's description is not to be read");
  return CompilerDescription{f[0], f[1] == "1", f[3] == "1", f[2], f[4]};
}

} // namespace flashplus
