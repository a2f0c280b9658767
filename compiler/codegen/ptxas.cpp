// SPDX-License-Identifier: BSD-3-Clause
#include "compiler/codegen/ptxas.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <spawn.h>
#include <sstream>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

namespace flashplus {
namespace {

namespace fs = std::filesystem;

/// A private folder that goes away with the object.
class TemporaryFolder {
public:
  static Result<TemporaryFolder> make() {
    std::error_code error;
    std::string name = (fs::temp_directory_path(error) / "flashplus-XXXXXX").string();
    if (error || !mkdtemp(name.data()))
      return Status(StatusCode::IoError, "no temporary folder for ptxas: " + std::string(std::strerror(errno)));
    return TemporaryFolder(std::move(name));
  }
  TemporaryFolder(TemporaryFolder &&other) noexcept : path_(std::move(other.path_)) { other.path_.clear(); }
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!path_.empty())
      fs::remove_all(path_, ignored);
  }
  std::string file(const char *name) const { return path_ + "/" + name; }

private:
  explicit TemporaryFolder(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

std::string readText(const std::string &path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return std::move(text).str();
}

/// Runs a program (searched in $PATH when it has no slash) with both outputs in `log`; its exit status, or -1 when it did not start.
int runProgram(const std::string &path, std::vector<std::string> arguments, const std::string &log) {
  std::vector<char *> argv{const_cast<char *>(path.c_str())};
  for (std::string &a : arguments)
    argv.push_back(a.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  pid_t child = 0;
  const int error = posix_spawnp(&child, path.c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error)
    return -1;
  int status = 0;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR)
      return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/// "13.0" out of "Cuda compilation tools, release 13.0, V13.0.88"; empty if that is not what the program prints.
std::string versionOf(const std::string &path) {
  auto folder = TemporaryFolder::make();
  if (!folder || runProgram(path, {"--version"}, folder->file("log")) != 0)
    return {};
  const std::string text = readText(folder->file("log"));
  const size_t at = text.find("release ");
  return at == std::string::npos ? "" : text.substr(at + 8, text.find(',', at) - at - 8);
}

} // namespace

const Ptxas *Ptxas::find(const char *path, std::string *why) {
  static std::mutex mutex;
  static Ptxas instance;
  std::lock_guard lock(mutex);
  if (!instance.path_.empty())
    return &instance;
  for (const char *candidate : {path, "ptxas", "/usr/local/cuda/bin/ptxas"}) {
    if (!candidate || !*candidate)
      continue;
    const std::string version = versionOf(candidate);
    if (version.empty())
      continue;
    instance.path_ = candidate;
    instance.version_ = version;
    return &instance;
  }
  if (why)
    *why = "no ptxas: tried " + std::string(path ? path : "") + (path ? ", " : "") + "$PATH, /usr/local/cuda/bin";
  return nullptr;
}

Result<Cubin> Ptxas::assemble(std::string_view ptx, const std::string &chip) const {
  auto folder = TemporaryFolder::make();
  if (!folder)
    return folder.status();
  const std::string source = folder->file("kernel.ptx"), object = folder->file("kernel.cubin"),
                    log = folder->file("log");
  std::ofstream out(source, std::ios::binary);
  out.write(ptx.data(), std::streamsize(ptx.size()));
  out.close();
  if (!out)
    return Status(StatusCode::IoError, "cannot write " + source);
  const int code = runProgram(path_, {"-arch=" + chip, "-O3", "-v", source, "-o", object}, log);
  Cubin cubin;
  cubin.log = readText(log);
  if (code)
    return Status(StatusCode::CompileFailed,
                  "ptxas " + version_ + (code < 0 ? " could not be started" : " failed with code " + std::to_string(code)) +
                      ": " + cubin.log);
  const std::string bytes = readText(object);
  if (bytes.empty())
    return Status(StatusCode::CompileFailed, "ptxas " + version_ + " wrote no code");
  cubin.code.assign(bytes.begin(), bytes.end());
  cubin.resources = parseResources(cubin.log);
  return cubin;
}

} // namespace flashplus
