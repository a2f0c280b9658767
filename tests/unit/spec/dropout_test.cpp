// SPDX-License-Identifier: BSD-3-Clause
// The numbers come from Random123's kat_vectors and from tests/data/make_dropout_vectors.py.
#include "spec/dropout.h"

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>

using namespace flashplus;

namespace {

constexpr PhiloxCounter kPi = {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344};
constexpr PhiloxKey kPiKey = {0xa4093822, 0x299f31d0};
constexpr uint32_t kOnes = 0xffffffff;

Dropout make(double p) {
  auto dropout = Dropout::make(p);
  REQUIRE_MESSAGE(dropout.isOk(), p << ": " << dropout.status().message());
  return *dropout;
}

std::string error(double p) {
  auto dropout = Dropout::make(p);
  REQUIRE_FALSE(dropout.isOk());
  CHECK(dropout.status().code() == StatusCode::InvalidArgument);
  return dropout.status().message();
}

} // namespace

TEST_CASE("philox: known answers of Random123, 7 and 10 rounds") {
  CHECK(philox4x32({0, 0, 0, 0}, {0, 0}) == PhiloxCounter{0x5f6fb709, 0x0d893f64, 0x4f121f81, 0x4f730a48});
  CHECK(philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}) ==
        PhiloxCounter{0x5207ddc2, 0x45165e59, 0x4d8ee751, 0x8c52f662});
  CHECK(philox4x32(kPi, kPiKey) == PhiloxCounter{0x4dfccaba, 0x190a87f0, 0xc47362ba, 0xb6b5242a});
  CHECK(philox4x32({0, 0, 0, 0}, {0, 0}, 10) ==
        PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}, 10) ==
        PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32(kPi, kPiKey, 10) == PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("dropout: known masks") {
  struct Known {
    double p;
    uint64_t seed, offset;
    uint32_t head;
    int64_t i, j;
    uint32_t rows[8];
  };
  const Known known[] = {
      {0.1,
       0x123456789abcdef0,
       0x0fedcba987654321,
       5,
       12,
       40,
       {0xffbff7bf, 0xdffffdff, 0x3fb7ffff, 0x7fefffef, 0xeffbff7f, 0xffbffffd, 0xffeeffff, 0xffffffff}},
      {0.5,
       7,
       4,
       0,
       0,
       0,
       {0x8db61980, 0xaaf706c3, 0x18f11226, 0xb84ca01b, 0xfbe516c9, 0x4bdb929c, 0xcd1af485, 0x309b4716}},
      {0.17,
       1,
       0,
       70000,
       1000,
       2000,
       {0xfdd59f6e, 0xb7f7efef, 0xf75bffff, 0xbfff3ff3, 0x7fb9edff, 0xff7fff6e, 0xdff7f75f, 0xfeefff76}}};
  for (const Known &k : known) {
    CAPTURE(k.p);
    const Dropout dropout = make(k.p);
    for (int i = 0; i < 8; ++i)
      for (int j = 0; j < 32; ++j)
        CHECK(dropoutKeeps(dropout, k.seed, k.offset, k.head, k.i + i, k.j + j) == bool(k.rows[i] >> j & 1));
  }
}

TEST_CASE("dropout: every position has a byte of its own") {
  // A block of 32 x 32 positions is 4 x 16 calls of Philox, of which each byte is used once.
  std::vector<std::tuple<PhiloxCounter, int, int>> places;
  for (int i = 0; i < 32; ++i)
    for (int j = 0; j < 32; ++j) {
      const DropoutPosition at = dropoutPosition(9, 3, i, j);
      CHECK(at.counter[2] == 3);
      CHECK(at.counter[3] == 9);
      places.emplace_back(at.counter, at.word, at.byte);
    }
  std::sort(places.begin(), places.end());
  CHECK(std::adjacent_find(places.begin(), places.end()) == places.end());
  CHECK(dropoutPosition(0, 0, (int64_t(1) << 30) - 1, (int64_t(1) << 30) - 1).counter ==
        PhiloxCounter{(1u << 30) - 1, (1u << 26) - 1, 0, 0});
}

TEST_CASE("dropout: probabilities") {
  for (double p : {0.1, 0.5, 0.17, 0.001, 0.25, 0.9, 0.99609375, 1.0 / 4096}) {
    CAPTURE(p);
    const Dropout dropout = make(p);
    CHECK(dropout.drops());
    CHECK(dropout.scale == float(1 / (1 - p)));
    CHECK(std::fabs(dropout.keepProbability() - (1 - p)) <= 1.0 / 8192);
    // No row of a granule and no key is kept more often than another by more than one level of one place.
    int rows[4] = {}, keys[4] = {};
    for (int w = 0; w < 4; ++w)
      for (int c = 0; c < 4; ++c) {
        const int level = int(dropout.thresholds[size_t(w)] >> 8 * c & 0xff);
        rows[w] += level;
        keys[c] += level;
      }
    CHECK(*std::max_element(rows, rows + 4) - *std::min_element(rows, rows + 4) <= 1);
    CHECK(*std::max_element(keys, keys + 4) - *std::min_element(keys, keys + 4) <= 1);
  }
  for (double p : {0.0, -0.0, 1e-30, 1e-4}) {
    CHECK_FALSE(make(p).drops());
    CHECK(make(p).scale == 1);
    CHECK(make(p).keepProbability() == 1);
    for (int j = 0; j < 512; ++j)
      CHECK(dropoutKeeps(make(p), 1, 2, 3, j / 16, j));
  }
  CHECK(error(1) == "dropout probability is 1; it must be at least 0 and below 1");
  CHECK(error(-0.5) == "dropout probability is -0.5; it must be at least 0 and below 1");
  CHECK(error(1e300).find("is 1e+300; it must be") != std::string::npos);
  CHECK(error(std::numeric_limits<double>::quiet_NaN()).find("is nan; it must be") != std::string::npos);
  CHECK(error(0.999) ==
        "dropout probability is 0.999; above 255/256 = 0.99609375 a mask of 8 bits cannot keep that few");
}

TEST_CASE("dropout: the mean is that of the probability, and neighbours are independent") {
  constexpr int kRows = 512, kKeys = 512;
  for (double p : {0.1, 0.5, 0.17}) {
    CAPTURE(p);
    const Dropout dropout = make(p);
    auto mask = [&](uint64_t seed, uint64_t offset, uint32_t head) {
      std::vector<uint8_t> kept;
      for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kKeys; ++j)
          kept.push_back(dropoutKeeps(dropout, seed, offset, head, i, j));
      return kept;
    };
    const std::vector<uint8_t> first = mask(11, 0, 0);
    const double n = kRows * kKeys, deviation = std::sqrt(p * (1 - p) / n);
    double mean = 0;
    for (uint8_t kept : first)
      mean += kept / n;
    CHECK(std::fabs(mean - (1 - p)) < 1.0 / 8192 + 4 * deviation);

    // Pearson's chi-square of the table of (kept, other kept), one degree of freedom: above 15.1 once in ten
    // thousand.
    auto independent = [&](const char *what, const std::vector<uint8_t> &second, int down, int right) {
      double table[2][2] = {}, count = 0;
      for (int i = 0; i + down < kRows; ++i)
        for (int j = 0; j + right < kKeys; ++j, ++count)
          ++table[first[size_t(i * kKeys + j)]][second[size_t((i + down) * kKeys + j + right)]];
      double chi = 0;
      for (int a = 0; a < 2; ++a)
        for (int b = 0; b < 2; ++b) {
          const double expected = (table[a][0] + table[a][1]) * (table[0][b] + table[1][b]) / count;
          chi += (table[a][b] - expected) * (table[a][b] - expected) / expected;
        }
      CHECK_MESSAGE(chi < 15.1, what << ": " << chi);
    };
    for (int step : {1, 2, 8, 16, 32}) {
      independent("along the row", first, 0, step);
      independent("along the key", first, step, 0);
      independent("diagonal", first, step, step);
    }
    independent("next head", mask(11, 0, 1), 0, 0);
    independent("next offset", mask(11, kDropoutOffsetStep, 0), 0, 0);
    independent("offset's high half", mask(11, uint64_t(1) << 32, 0), 0, 0);
    independent("next seed", mask(12, 0, 0), 0, 0);
    independent("seed's high half", mask(11 + (uint64_t(1) << 32), 0, 0), 0, 0);
  }
}
