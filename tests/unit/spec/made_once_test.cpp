// SPDX-License-Identifier: BSD-3-Clause
#include "spec/made_once.h"

#include <doctest/doctest.h>

#include <string>
#include <thread>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

using namespace flashplus;

TEST_CASE("made once: all get the same, and it is made of what is given") {
  static constinit MadeOnce<const std::string> text;
  std::vector<std::thread> threads;
  std::vector<const std::string *> got(8);
  for (size_t i = 0; i < got.size(); ++i)
    threads.emplace_back([&, i] { got[i] = &text.of("kernels"); });
  for (std::thread &thread : threads)
    thread.join();
  for (const std::string *one : got)
    CHECK(one == got[0]);
  CHECK(*got[0] == "kernels");
  CHECK(&text.of("others") == got[0]);
}

#if !defined(__SANITIZE_THREAD__) // which does not follow threads into the child of a fork
TEST_CASE("made once: the child of a fork that comes while it is made makes its own") {
  static constinit MadeOnce<int> number;
  int began[2], go[2];
  REQUIRE(::pipe(began) == 0);
  REQUIRE(::pipe(go) == 0);
  std::thread maker([&] {
    number.from([&] {
      char byte = 0;
      (void)!::write(began[1], &byte, 1);
      (void)!::read(go[0], &byte, 1);
      return std::make_unique<int>(1);
    });
  });
  char byte = 0;
  REQUIRE(::read(began[0], &byte, 1) == 1);
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(20);
    ::_exit(number.of(2));
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 2));
  REQUIRE(::write(go[1], &byte, 1) == 1);
  maker.join();
  CHECK(number.of(3) == 1);
  for (const int end : {began[0], began[1], go[0], go[1]})
    ::close(end);
}
#endif
