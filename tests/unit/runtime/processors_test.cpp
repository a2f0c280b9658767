// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/devices/cpu/processors.h"

#include <doctest/doctest.h>
#include <sched.h>

using namespace flashplus;

TEST_CASE("a container's quota, rounded up") {
  CHECK(processorsOfQuota("200000 100000\n") == 2);
  CHECK(processorsOfQuota("200001 100000") == 3);
  CHECK(processorsOfQuota("50000 100000\n") == 1);
  CHECK(processorsOfQuota("1 100000\n") == 1);
  CHECK(processorsOfQuota("9223372036854775807 1\n") == 65536);
  for (const char *text : {"max 100000\n", "", "\n", "200000", "200000 ", "200000 x", "200000 100000 1",
                           "-1 100000", "0 100000", "100000 0", "100000 -5", "99999999999999999999 1"})
    CHECK_MESSAGE(!processorsOfQuota(text), text);
}

TEST_CASE("the affinity mask is honoured") {
  cpu_set_t before, one;
  REQUIRE(sched_getaffinity(0, sizeof before, &before) == 0);
  CHECK(usableProcessors() >= 1);
  CHECK(usableProcessors() <= CPU_COUNT(&before));
  CPU_ZERO(&one);
  for (int i = 0; i < CPU_SETSIZE && !CPU_COUNT(&one); ++i)
    if (CPU_ISSET(i, &before))
      CPU_SET(i, &one);
  REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
  CHECK(usableProcessors() == 1);
  REQUIRE(sched_setaffinity(0, sizeof before, &before) == 0);
}
