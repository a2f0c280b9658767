// SPDX-License-Identifier: BSD-3-Clause
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "tests/tools/cli.h"

#include <cstdlib>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace flashplus::test {

namespace {

std::string environment(const char *name) {
  const char *value = std::getenv(name);
  REQUIRE_MESSAGE(value, "the test needs $" << name << "; run it with ctest");
  return value;
}

} // namespace

CliResult runCli(const std::vector<std::string> &arguments, const std::string &cache_dir) {
  std::string program = environment("FLASHPLUS_CLI");
  TemporaryFolder folder;
  std::string out = folder.path("out"), err = folder.path("err");
  pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::setenv("FLASHPLUS_CACHE_DIR", cache_dir.c_str(), 1);
    int to_out = ::open(out.c_str(), O_WRONLY | O_CREAT, 0600),
        to_err = ::open(err.c_str(), O_WRONLY | O_CREAT, 0600);
    int from = ::open("/dev/null", O_RDONLY);
    ::dup2(from, 0);
    ::dup2(to_out, 1);
    ::dup2(to_err, 2);
    std::vector<char *> argv = {program.data()};
    for (const std::string &argument : arguments)
      argv.push_back(const_cast<char *>(argument.c_str()));
    argv.push_back(nullptr);
    ::execv(program.c_str(), argv.data());
    ::_exit(127);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), readText(out), readText(err)};
}

std::string dataFile(const std::string &name) { return environment("FLASHPLUS_TEST_DATA") + "/" + name; }

} // namespace flashplus::test
