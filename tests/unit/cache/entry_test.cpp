// SPDX-License-Identifier: BSD-3-Clause
#include "cache/entry.h"

#include "tests/unit/cache/support.h"

#include <doctest/doctest.h>

#include <set>

using namespace flashplus;
using namespace flashplus::test;

namespace {

/// Puts the right checksum under changed bytes, as an author of nonsense would.
void sign(std::vector<uint8_t> &bytes) {
  bytes.resize(bytes.size() - 16);
  const auto checksum = hashBytes(bytes).bytes();
  bytes.insert(bytes.end(), checksum.begin(), checksum.end());
}

EntryError errorOf(std::span<const uint8_t> bytes) { return decodeEntry(bytes, sampleKey()).error; }

} // namespace

TEST_CASE("an entry survives the round trip and is the same bytes every time") {
  const std::vector<uint8_t> bytes = encodeEntry(sampleKey(), sampleArtifact());
  CHECK(bytes == encodeEntry(sampleKey(), sampleArtifact()));
  Entry entry = decodeEntry(bytes, sampleKey());
  REQUIRE(entry.isOk());
  CHECK(entry.artifact == sampleArtifact());
  CHECK(entry.key == sampleKey());
  // The format of version 1 up to the payload.
  const std::vector<uint8_t> start = {0x89, 'F', 'P', 'K', '\r', '\n', 0x1a, '\n', 1, 0, 0, 0};
  CHECK(std::equal(start.begin(), start.end(), bytes.begin()));
  CHECK(std::string(bytes.begin() + 24, bytes.begin() + 39) == "flashplus-key 3");
}

TEST_CASE("an entry with any one bit flipped is a miss") {
  const std::vector<uint8_t> good = encodeEntry(sampleKey(), sampleArtifact());
  std::set<EntryError> seen;
  for (size_t i = 0; i < good.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::vector<uint8_t> bad = good;
      bad[i] ^= static_cast<uint8_t>(1 << bit);
      const Entry entry = decodeEntry(bad, sampleKey());
      REQUIRE_FALSE(entry.isOk());
      REQUIRE_FALSE(entry.detail.empty());
      seen.insert(entry.error);
    }
  }
  CHECK(seen == std::set<EntryError>{EntryError::Truncated, EntryError::BadMagic, EntryError::OtherVersion,
                                     EntryError::BadChecksum, EntryError::Malformed});
}

TEST_CASE("an entry cut at any length is a miss") {
  const std::vector<uint8_t> good = encodeEntry(sampleKey(), sampleArtifact());
  for (size_t size = 0; size < good.size(); ++size)
    REQUIRE(errorOf(std::span(good).first(size)) == EntryError::Truncated);
}

TEST_CASE("each kind of wrong entry has its reason") {
  const std::vector<uint8_t> good = encodeEntry(sampleKey(), sampleArtifact());
  std::vector<uint8_t> bad = good;
  bad[0] = 'x';
  CHECK(errorOf(bad) == EntryError::BadMagic);
  bad = good;
  bad[8] = 2;
  CHECK(errorOf(bad) == EntryError::OtherVersion);
  bad = good;
  bad.back() ^= 1;
  CHECK(errorOf(bad) == EntryError::BadChecksum);
  bad = good;
  bad.push_back(0);
  CHECK(errorOf(bad) == EntryError::Malformed);
  CHECK(errorOf(encodeEntry(sampleKey(1), sampleArtifact())) == EntryError::OtherKey);

  bad = good;
  bad[24] = 'F'; // first letter of the key
  sign(bad);
  CHECK(errorOf(bad) == EntryError::Malformed);
  bad = good;
  bad[24 + sampleKey().text().size()] = 'x'; // first letter of the artifact
  sign(bad);
  CHECK(errorOf(bad) == EntryError::Malformed);
  bad = good;
  for (int i = 16; i < 24; ++i)
    bad[i] = 0xff; // a payload of 2^64 - 1 bytes
  sign(bad);
  CHECK(errorOf(bad) == EntryError::Truncated);
}

TEST_CASE("an entry of another target, schedule, layout, build or driver is a miss") {
  const std::vector<uint8_t> bytes = encodeEntry(sampleKey(), sampleArtifact());
#define CHECK_FIELD(NAME)                                                                                    \
  {                                                                                                          \
    KernelKey other = sampleKey();                                                                           \
    other.NAME += "x";                                                                                       \
    CHECK(decodeEntry(bytes, other).error == EntryError::OtherKey);                                          \
  }
  FLASHPLUS_KEY_FIELDS(CHECK_FIELD)
#undef CHECK_FIELD
}
