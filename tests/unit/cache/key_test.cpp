// SPDX-License-Identifier: BSD-3-Clause
#include "tests/unit/cache/support.h"

#include <doctest/doctest.h>

#include <set>

using namespace flashplus;
using namespace flashplus::test;

TEST_CASE("the key of a kernel is what it always was") {
  KernelKey key = sampleKey();
  CHECK(key.text() == "flashplus-key 3\n"
                      "spec: forward dtype=bf16 dqk=128 dv=128 left=0 right=1 split=0 align=16 score={s}\n"
                      "schedule: sm80.flash tile_m=64 tile_n=64 warps=4\n"
                      "target: sm_80@sm_90\n"
                      "params: q:ptr@0 k:ptr@8 size=16\n"
                      "build: 0123456789abcdef0123456789abcdef\n");
  CHECK(key.hex() == "f73870ead496dc7642d0d267f7468d6f");
  key.driver = "595.10";
  CHECK(key.text().ends_with("abcdef\ndriver: 595.10\n"));
  CHECK(key.hex() == "52cda102094b9de167c25d3ad65c130d");
}

TEST_CASE("every field changes the key, and no two fields stand for one another") {
  std::set<std::string> texts, hashes;
  int count = 0;
  const auto add = [&](const KernelKey &key) {
    texts.insert(key.text());
    hashes.insert(key.hex());
    ++count;
  };
  add(sampleKey());
  add(KernelKey{});
#define MUTATE(NAME)                                                                                         \
  for (std::string value :                                                                                   \
       {"x", "x ", "x\n", "x\\n", "\\", "\n", "x: y", "x\ndriver: y", "flashplus-key 3\n"}) {                \
    KernelKey key = sampleKey();                                                                             \
    key.NAME = value;                                                                                        \
    add(key);                                                                                                \
    KernelKey alone;                                                                                         \
    alone.NAME = value;                                                                                      \
    add(alone);                                                                                              \
  }
  FLASHPLUS_KEY_FIELDS(MUTATE)
#undef MUTATE
  KernelKey emptied = sampleKey();
  emptied.build.clear();
  add(emptied);
  CHECK(static_cast<int>(texts.size()) == count);
  CHECK(static_cast<int>(hashes.size()) == count);
}

TEST_CASE("a key is parsed back from its text, and from nothing else") {
  KernelKey odd = sampleKey();
  odd.driver = "a\\n\nb: c\n";
  for (const KernelKey &key : {sampleKey(), odd, KernelKey{}}) {
    Result<KernelKey> back = KernelKey::parse(key.text());
    REQUIRE(back.isOk());
    CHECK(*back == key);
  }
  const std::string good = sampleKey().text();
  for (const std::string &bad :
       {std::string(), good.substr(1), good + "\n", good + "spec: x\n", good.substr(0, good.size() - 1),
        std::string("flashplus-key 2\n"), std::string("flashplus-key 3\nspec: \n"),
        std::string("flashplus-key 3\nspec: a\\b\n"), std::string("flashplus-key 3\nspec: a\\\n"),
        std::string("flashplus-key 3\ntarget: a\nspec: b\n"), std::string("flashplus-key 3\nother: b\n")})
    CHECK_FALSE(KernelKey::parse(bad));
}
