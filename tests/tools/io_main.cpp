// SPDX-License-Identifier: BSD-3-Clause
// Conversions and whole files; holds main().
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "tests/tools/temporary.h"
#include "tools/io/convert.h"
#include "tools/io/file.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <sys/stat.h>

using namespace flashplus;
using namespace flashplus::io;

TEST_CASE("every half survives the way to float and back") {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    float value = halfToFloat(static_cast<uint16_t>(bits));
    bool nan = (bits & 0x7c00) == 0x7c00 && (bits & 0x3ff);
    if (nan) {
      CHECK(std::isnan(value));
      CHECK(std::isnan(halfToFloat(floatToHalf(value))));
    } else if (floatToHalf(value) != bits) {
      FAIL("half 0x", std::to_string(bits), " came back as ", floatToHalf(value));
    }
  }
}

TEST_CASE("halves round to nearest even") {
  CHECK(floatToHalf(1.0f + 0x1p-11f) == 0x3c00);     // a tie goes to the even neighbour below
  CHECK(floatToHalf(1.0f + 3 * 0x1p-11f) == 0x3c02); // and here above
  CHECK(floatToHalf(1.0f + 0x1p-11f + 0x1p-20f) == 0x3c01);
  CHECK(floatToHalf(65504.0f) == 0x7bff);
  CHECK(floatToHalf(65519.9f) == 0x7bff);
  CHECK(floatToHalf(65520.0f) == 0x7c00);
  CHECK(floatToHalf(-INFINITY) == 0xfc00);
  CHECK(floatToHalf(0x1p-24f) == 1);
  CHECK(floatToHalf(0x1p-25f) == 0); // tie with zero
  CHECK(floatToHalf(3 * 0x1p-25f) == 2);
  CHECK(floatToHalf(-0.0f) == 0x8000);
  CHECK(halfToFloat(0x3555) == doctest::Approx(1.0 / 3).epsilon(1e-3));
}

TEST_CASE("bfloat16 rounds to nearest even and keeps NaN") {
  CHECK(floatToBfloat16(1.0f) == 0x3f80);
  CHECK(floatToBfloat16(1.0f + 0x1p-8f) == 0x3f80);
  CHECK(floatToBfloat16(1.0f + 3 * 0x1p-8f) == 0x3f82);
  CHECK(floatToBfloat16(std::numeric_limits<float>::max()) == 0x7f80);
  CHECK(std::isnan(bfloat16ToFloat(floatToBfloat16(std::bit_cast<float>(0x7f800001u)))));
}

TEST_CASE("integers convert only when they fit") {
  Tensor wide = *makeTensor(ElementType::I64, {2});
  int64_t values[] = {7, int64_t{1} << 31};
  std::memcpy(wide.data.data(), values, sizeof values);
  auto narrow = convert(wide, ElementType::I32);
  REQUIRE(!narrow);
  CHECK(narrow.status().message().find("element 1 = 2147483648") != std::string::npos);
  CHECK(!convert(wide, ElementType::F32));
  values[1] = -3;
  std::memcpy(wide.data.data(), values, sizeof values);
  auto good = convert(wide, ElementType::I32);
  REQUIRE(good);
  CHECK(elementAt(*good, 1) == -3);
}

TEST_CASE("sizes that overflow are refused, also behind a zero dimension") {
  CHECK(!tensorBytes({int64_t{1} << 62, 4}, 1));
  CHECK(!tensorBytes({0, int64_t{1} << 62, 4}, 1));
  CHECK(!tensorBytes({-1}, 1));
  CHECK(tensorBytes({0, 5}, 4) == 0);
  CHECK(tensorBytes({}, 4) == 4);
#if !__has_feature(address_sanitizer) // which ends the process instead of throwing bad_alloc
  CHECK(makeTensor(ElementType::F32, {int64_t{1} << 58}).status().code() == StatusCode::OutOfMemory);
#endif
}

TEST_CASE("a failed write leaves what was there, and no temporary") {
  test::TemporaryFolder folder;
  std::string path = folder.path("out.bin");
  test::writeText(path, "before");
  Status status = writeFileAtomically(path, [](const WritePiece &write) {
    char some[] = "half of it";
    FLASHPLUS_RETURN_IF_ERROR(write(std::as_bytes(std::span(some))));
    return invalidArgument("stop");
  });
  CHECK(status.message() == "stop");
  CHECK(test::readText(path) == "before");
  CHECK(folder.entries() == std::vector<std::string>{"out.bin"});
  CHECK(writeFileAtomically(path, [](const WritePiece &write) {
          char all[] = {'n', 'e', 'w'};
          return write(std::as_bytes(std::span(all)));
        }).isOk());
  CHECK(test::readText(path) == "new");
  CHECK(folder.entries() == std::vector<std::string>{"out.bin"});
}

TEST_CASE("folders, pipes and missing folders give an IoError that names the path") {
  test::TemporaryFolder folder;
  auto nothing = [](const WritePiece &) { return Status::ok(); };
  CHECK(writeFileAtomically(folder.path(), nothing).code() == StatusCode::IoError);
  Status status = writeFileAtomically(folder.path("no/such"), nothing);
  CHECK(status.code() == StatusCode::IoError);
  CHECK(status.message().find("no/such") != std::string::npos);
  CHECK(InputFile::open(folder.path()).status().code() == StatusCode::IoError);
  std::string pipe = folder.path("pipe");
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  CHECK(InputFile::open(pipe).status().message().find("not a regular file") != std::string::npos);
  CHECK(InputFile::open(folder.path("absent")).status().message().find("absent") != std::string::npos);
}
