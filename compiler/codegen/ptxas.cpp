// SPDX-License-Identifier: BSD-3-Clause
#include "compiler/codegen/ptxas.h"

#include "compiler/codegen/process.h"

#include <map>
#include <mutex>

namespace flashplus {
namespace {

constexpr int64_t kVersionSeconds = 20; // to print a line

/// "13.0" out of "Cuda compilation tools, release 13.0, V13.0.88". Empty, and `why`, if that is not what the
/// program prints.
Result<std::string> versionOf(const std::string &path, std::string &why) {
  const auto run = runProgramTwice(path, {"--version"}, {}, kVersionSeconds);
  if (!run)
    return run.status();
  if (run->timed_out)
    return Status(StatusCode::TimedOut, "'" + path + " --version' " + run->ending());
  if (!run->isGood()) {
    why = run->ending();
    return std::string();
  }
  const size_t at = run->output.find("release "), comma = run->output.find(',', at);
  if (at == std::string::npos || comma == std::string::npos) {
    why = "does not print the version of ptxas when it is run with --version";
    return std::string();
  }
  return run->output.substr(at + 8, comma - at - 8);
}

} // namespace

Result<const Ptxas *> Ptxas::find(const char *path) {
  static std::mutex mutex;
  static std::map<std::string, Ptxas> found;
  const std::string named = path ? path : "";
  if (named == "off")
    return Status(StatusCode::Unsupported, "no ptxas: $FLASHPLUS_PTXAS is off");
  std::lock_guard lock(mutex);
  if (const auto known = found.find(named); known != found.end())
    return &known->second;
  std::string tried;
  for (const char *searched : {"ptxas", "/usr/local/cuda/bin/ptxas"}) {
    const std::string candidate = named.empty() ? searched : named;
    std::string why;
    auto version = versionOf(candidate, why);
    if (!version)
      return version.status();
    if (version->empty()) {
      if (!named.empty())
        return invalidArgument("$FLASHPLUS_PTXAS is '" + named + "', which " + why +
                               "; it must be a ptxas that works, or off");
      tried += (tried.empty() ? "'" : ", '") + candidate + "' " + why;
      continue;
    }
    Ptxas program;
    program.path_ = candidate;
    program.version_ = *version;
    return &found.emplace(named, std::move(program)).first->second;
  }
  return Status(StatusCode::Unsupported, "no ptxas: tried " + tried);
}

Result<Cubin> Ptxas::assemble(std::string_view ptx, const std::string &chip, int64_t seconds) const {
  auto source = MemoryFile::make("kernel.ptx"), object = MemoryFile::make("kernel.cubin");
  if (!source || !object)
    return source ? object.status() : source.status();
  FLASHPLUS_RETURN_IF_ERROR(source->write(ptx));
  const auto run =
      runProgramTwice(path_, {"-arch=" + chip, "-O3", "-v", source->path(), "-o", object->path()},
                      {&*source, &*object}, seconds);
  if (!run)
    return run.status();
  const std::string name = "ptxas " + version_;
  if (run->timed_out)
    return Status(StatusCode::TimedOut, name + " ('" + path_ + "') " + run->ending());
  if (run->start_error || run->isMute())
    return Status(StatusCode::IoError,
                  name + " ('" + path_ + "') " + run->ending() + (run->isMute() ? ", twice" : ""));
  if (!run->isGood())
    return Status(refusalCode(run->output), name + " " + run->ending() + ": " + run->output);
  Cubin cubin;
  cubin.log = run->output;
  const std::string bytes = object->read();
  if (!bytes.starts_with("\x7f" "ELF"))
    return Status(StatusCode::IoError, name + " ('" + path_ + "') wrote no code");
  cubin.code.assign(bytes.begin(), bytes.end());
  cubin.resources = parseResources(cubin.log);
  return cubin;
}

} // namespace flashplus
