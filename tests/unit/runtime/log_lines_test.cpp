// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/log_lines.h"
#include "tests/tools/temporary.h"
#include "tests/unit/cache/children.h"
#include "tests/unit/runtime/libraries.h"
#include "tests/unit/runtime/problem.h"

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <regex>
#include <sstream>
#include <string>
#include <sys/resource.h>
#include <sys/stat.h>
#include <thread>
#include <vector>

using namespace flashplus;
using namespace flashplus::test;

namespace {

std::vector<std::string> linesOf(const std::string &path) {
  std::istringstream in(readText(path));
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);)
    lines.push_back(line);
  return lines;
}

} // namespace

TEST_CASE("log: what $FLASHPLUS_LOG may be") {
  TemporaryFolder folder;
  const std::string file = folder.path("log"), fifo = folder.path("fifo"), read = folder.path("read");
  for (const std::string &pipe : {fifo, read})
    REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  const int reader = ::open(read.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  REQUIRE(reader >= 0);
  using Level = LogLines::Level;
  for (auto [text, level] : {std::pair{std::string(), Level::Off},
                             {"off", Level::Off},
                             {"warn", Level::Warn},
                             {"info", Level::Info},
                             {"info:" + file, Level::Info},
                             {"warn:/dev/null", Level::Warn}}) {
    CAPTURE(text);
    auto lines = LogLines::open(text);
    REQUIRE_MESSAGE(lines.isOk(), lines.status().message());
    CHECK((*lines)->takes(Level::Warn) == (level != Level::Off));
    CHECK((*lines)->takes(Level::Info) == (level == Level::Info));
  }
  for (const std::string text : {"loud", "1", "info,", "info:", "off:/tmp/x", ":", "INFO"}) {
    const auto lines = LogLines::open(text);
    REQUIRE_FALSE(lines.isOk());
    CHECK(lines.status().message() ==
          "$FLASHPLUS_LOG is '" + text + "'; it must be off, warn or info, or warn:FILE or info:FILE");
  }
  for (const std::string &path : {folder.path("no/such"), folder.path(""), fifo, read}) {
    const auto lines = LogLines::open("warn:" + path);
    REQUIRE_FALSE(lines.isOk());
    CHECK(lines.status().message().find("and the file cannot be written: ") != std::string::npos);
  }
  ::close(reader);
}

TEST_CASE("log: a line is whole, whoever writes beside it, and a level leaves the lower ones out") {
  TemporaryFolder folder;
  const std::string file = folder.path("log");
  {
    auto warn = LogLines::open("warn:" + file), info = LogLines::open("info:" + file);
    REQUIRE((warn.isOk() && info.isOk()));
    struct stat status {};
    REQUIRE(::stat(file.c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0600);
    (*warn)->write(LogLines::Level::Info, "not this");
    (*warn)->write(LogLines::Level::Warn, "two\nlines");
    std::vector<std::thread> threads;
    for (const auto &lines : {warn->get(), info->get()})
      for (int t = 0; t < 2; ++t)
        threads.emplace_back([lines] {
          for (int i = 0; i < 100; ++i)
            lines->write(LogLines::Level::Warn, std::string(300, 'x'));
        });
    for (std::thread &t : threads)
      t.join();
  }
  const std::vector<std::string> lines = linesOf(file);
  REQUIRE(lines.size() == 401);
  const std::regex shape(
      R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z flashplus\[\d+\] warn: (two lines|x{300}))");
  for (const std::string &line : lines)
    CHECK_MESSAGE(std::regex_match(line, shape), line);
}

TEST_CASE("log: a file that may not grow and a reader that is gone end no process, and errno stays") {
  TemporaryFolder folder;
  const auto says = [](const std::string &setting, int line_bytes) {
    auto lines = LogLines::open(setting);
    if (!lines)
      return 1;
    errno = E2BIG;
    (*lines)->write(LogLines::Level::Warn, std::string(size_t(line_bytes), 'x'));
    return errno == E2BIG ? 0 : 2;
  };
  CHECK(waitAtMost(startChild([&] {
                     const rlimit few{10, 10};
                     std::signal(SIGXFSZ, SIG_DFL);
                     ::setrlimit(RLIMIT_FSIZE, &few);
                     return says("warn:" + folder.path("log"), 0) + says("warn:" + folder.path("log"), 100);
                   }),
                   std::chrono::seconds(20)) == 0);
  CHECK(waitAtMost(startChild([&] {
                     int ends[2];
                     std::signal(SIGPIPE, SIG_DFL);
                     if (::pipe(ends) != 0 || ::dup2(ends[1], STDERR_FILENO) < 0)
                       return 1;
                     ::close(ends[0]);
                     return says("warn", 100);
                   }),
                   std::chrono::seconds(20)) == 0);
}

TEST_CASE(
    "log: a context tells what it is, what it makes and reads, and its warnings; the listener still hears") {
  TemporaryFolder folder;
  const std::string file = folder.path("log"), cache = folder.path("cache");
  int events = 0, warnings = 0;
  for (int run = 0; run < 2; ++run) {
    setenv("FLASHPLUS_LOG", ("info:" + file).c_str(), 1);
    setenv("FLASHPLUS_CACHE_SIZE", "much", 1);
    flashplus_context_options o = {};
    o.struct_size = sizeof o;
    o.cache_dir = cache.c_str();
    o.compiler_path = kFakeCompiler;
    if (run) {
      o.listener_context = &events;
      o.listener = [](void *count, const flashplus_event *) { ++*static_cast<int *>(count); };
      o.log_context = &warnings;
      o.log = [](void *count, const char *) { ++*static_cast<int *>(count); };
    }
    flashplus_context *context = nullptr;
    const flashplus_status made = flashplus_context_create(&o, &context);
    unsetenv("FLASHPLUS_LOG");
    unsetenv("FLASHPLUS_CACHE_SIZE");
    REQUIRE_MESSAGE(made == FLASHPLUS_OK, flashplus_last_error());
    Problem p(1, 8, 8, 1, 1, 32);
    CHECK(flashplus_forward(context, &p.args, nullptr) == FLASHPLUS_OK);
    flashplus_context_destroy(context);
  }
  CHECK(events == 1);
  CHECK(warnings == 1);
  const std::vector<std::string> lines = linesOf(file);
  REQUIRE(lines.size() == 7);
  const char *wanted[] = {
      "warn: \\$FLASHPLUS_CACHE_SIZE is 'much'.*",
      "info: library .*, build .*, cache '.*', .*",
      "info: compiles 'forward .*' with '.*' for x86-64.*",
      "info: compiled 'forward .*' with '.*' for x86-64.* in .* ms \\(build 1.0 ms, passes .*",
      "warn: \\$FLASHPLUS_CACHE_SIZE .*",
      "info: library .*",
      "info: read 'forward .*' with '.*' for x86-64.* in .* ms, entry [0-9a-f]{32}"};
  for (size_t i = 0; i < lines.size(); ++i)
    CHECK_MESSAGE(
        std::regex_match(lines[i], std::regex(std::string("\\S+ flashplus\\[\\d+\\] ") + wanted[i])),
        lines[i]);
  setenv("FLASHPLUS_LOG", "loud", 1);
  flashplus_context *context = nullptr;
  CHECK(flashplus_context_create(nullptr, &context) == FLASHPLUS_INVALID_ARGUMENT);
  CHECK(std::string(flashplus_last_error()).find("$FLASHPLUS_LOG is 'loud'") == 0);
  unsetenv("FLASHPLUS_LOG");
}
