// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/sass.h"

#include <cerrno>
#include <csignal>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <vector>

extern char **environ;

namespace flashplus::tool {

namespace {

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0)
      ::close(fd);
  }
};

std::string systemText() { return std::generic_category().message(errno); }

/// Nothing if there is no such program.
Result<std::string> runOn(const std::string &program, int cubin, bool &there) {
  Descriptor out{::memfd_create("flashplus-sass", MFD_CLOEXEC)},
      err{::memfd_create("flashplus-sass", MFD_CLOEXEC)};
  if (out.fd < 0 || err.fd < 0)
    return Status(StatusCode::IoError, "memory for what " + program + " prints: " + systemText());
  // The child has the cubin as a descriptor, so that no file of it is left whatever happens.
  const std::string path = "/proc/self/fd/" + std::to_string(cubin),
                    name = program.substr(program.rfind('/') + 1);
  std::vector<std::string> words = {program};
  if (name.starts_with("cuobjdump"))
    words.emplace_back("-sass");
  words.push_back(path);
  std::vector<char *> argv;
  for (std::string &word : words)
    argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, out.fd, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err.fd, STDERR_FILENO);
  pid_t child = 0;
  const int failed = ::posix_spawnp(&child, program.c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  there = failed == 0;
  if (!there)
    return Status(StatusCode::Unsupported, program + ": " + std::generic_category().message(failed));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR)
    ;
  const auto read = [](int fd) {
    std::string text;
    char piece[1 << 16];
    ::lseek(fd, 0, SEEK_SET);
    for (ssize_t n; (n = ::read(fd, piece, sizeof piece)) > 0;)
      text.append(piece, static_cast<size_t>(n));
    return text;
  };
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    return Status(StatusCode::CompileFailed, program + " failed: " + read(err.fd));
  return read(out.fd);
}

} // namespace

Result<std::string> disassemble(std::span<const std::byte> cubin, const std::string &disassembler) {
  Descriptor file{::memfd_create("flashplus-cubin", 0)}; // inherited
  if (file.fd < 0)
    return Status(StatusCode::IoError, "memory for the cubin: " + systemText());
  for (auto left = cubin; !left.empty();) {
    const ssize_t n = ::write(file.fd, left.data(), left.size());
    if (n < 0)
      return Status(StatusCode::IoError, "memory for the cubin: " + systemText());
    left = left.subspan(static_cast<size_t>(n));
  }
  std::vector<std::string> programs = {"nvdisasm", "cuobjdump", "/usr/local/cuda/bin/nvdisasm",
                                       "/usr/local/cuda/bin/cuobjdump"};
  if (!disassembler.empty())
    programs = {disassembler};
  for (const std::string &program : programs) {
    bool there = false;
    Result<std::string> text = runOn(program, file.fd, there);
    if (there && text && text->find_first_not_of(" \n") == std::string::npos)
      return Status(StatusCode::CompileFailed, program + " printed nothing; it is no disassembler");
    if (there)
      return text;
    if (!disassembler.empty())
      return invalidArgument("--disassembler '" + disassembler +
                             "': cannot be run: " + text.status().message());
  }
  return Status(
      StatusCode::Unsupported,
      "--stage sass: neither nvdisasm nor cuobjdump is on the search path; the CUDA toolkit has both, and so "
      "has the wheel triton. --disassembler FILE names one; --stage ptx needs none");
}

} // namespace flashplus::tool
