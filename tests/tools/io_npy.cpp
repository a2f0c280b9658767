// SPDX-License-Identifier: BSD-3-Clause
#include <doctest/doctest.h>

#include "tests/tools/temporary.h"
#include "tools/io/convert.h"
#include "tools/io/npy.h"

#include <cstring>

using namespace flashplus;
using namespace flashplus::io;

namespace {

std::string npyBytes(const std::string &dict, size_t data_bytes, char major = 1) {
  std::string bytes = "\x93NUMPY";
  bytes += {major, '\0', static_cast<char>(dict.size() & 255), static_cast<char>(dict.size() >> 8)};
  if (major > 1)
    bytes += {'\0', '\0'};
  return bytes + dict + std::string(data_bytes, '\0');
}

Result<NpyHeader> parse(const std::string &bytes) {
  return parseNpyHeader(std::as_bytes(std::span(bytes)), bytes.size(), "x.npy");
}

/// The parse fails with a message that names the file and holds `text`.
void checkRefused(const std::string &bytes, const std::string &text) {
  auto header = parse(bytes);
  REQUIRE_MESSAGE(!header, "accepted, expected: " << text);
  CHECK(header.status().code() == StatusCode::InvalidArgument);
  CHECK_MESSAGE(header.status().message().find(text) != std::string::npos, header.status().message());
  CHECK(header.status().message().starts_with("x.npy: "));
}

} // namespace

TEST_CASE("npy: what is written is read back") {
  test::TemporaryFolder folder;
  for (ElementType type :
       {ElementType::F16, ElementType::F32, ElementType::F64, ElementType::I32, ElementType::I64})
    for (std::vector<int64_t> shape : {std::vector<int64_t>{}, {5}, {2, 3}, {1, 2, 3, 4}, {0, 7}}) {
      Tensor tensor = *makeTensor(type, shape);
      for (size_t i = 0; i < tensor.data.size(); ++i)
        tensor.data[i] = static_cast<std::byte>(i * 7);
      std::string path = folder.path("t.npy");
      REQUIRE(writeNpy(path, tensor).isOk());
      CHECK((std::filesystem::file_size(path) - tensor.data.size()) % 64 == 0);
      auto back = readNpy(path);
      REQUIRE_MESSAGE(back, back.status().message());
      CHECK(back->type == type);
      CHECK(back->shape == shape);
      CHECK(back->data == tensor.data);
    }
}

TEST_CASE("npy: bf16 is read from two-byte void and written as fp32") {
  auto header = parse(npyBytes("{'descr': '<V2', 'fortran_order': False, 'shape': (3,), }", 6));
  REQUIRE(header);
  CHECK(header->type == ElementType::BF16);
  test::TemporaryFolder folder;
  Tensor tensor = *makeTensor(ElementType::BF16, {1});
  uint16_t one_and_a_half = 0x3fc0;
  std::memcpy(tensor.data.data(), &one_and_a_half, 2);
  REQUIRE(writeNpy(folder.path("b.npy"), tensor).isOk());
  auto back = readNpy(folder.path("b.npy"));
  REQUIRE(back);
  CHECK(back->type == ElementType::F32);
  CHECK(elementAt(*back, 0) == 1.5);
}

TEST_CASE("npy: versions 1 to 3, any order of keys, no trailing comma") {
  for (char major : {1, 2, 3}) {
    auto header = parse(npyBytes("{\"shape\":(2, 3),'fortran_order':False,'descr':'<f4'}", 24, major));
    REQUIRE_MESSAGE(header, header.status().message());
    CHECK(header->shape == std::vector<int64_t>{2, 3});
  }
}

TEST_CASE("npy: lying headers") {
  const std::string good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
  REQUIRE(parse(npyBytes(good, 8)));
  checkRefused("", "magic");
  checkRefused("\x93NUMPX", "magic");
  checkRefused("\x93NUMPY", "ends inside");
  checkRefused(npyBytes(good, 8, 4), "version 4");
  checkRefused(npyBytes(good, 7), "the file holds 7");
  checkRefused(npyBytes(good, 9), "needs 8 bytes");
  checkRefused(npyBytes(good, 0).substr(0, 30), "runs past the end");
  auto dict = [](const std::string &descr, const std::string &order, const std::string &shape) {
    return npyBytes("{'descr': " + descr + ", 'fortran_order': " + order + ", 'shape': " + shape + ", }", 8);
  };
  checkRefused(dict("'>f4'", "False", "(2,)"), "descr '>f4'");
  checkRefused(dict("'|O'", "False", "(2,)"), "descr '|O'");
  checkRefused(dict("[('a', '<f4')]", "False", "(2,)"), "descr");
  checkRefused(dict("'<f4'", "True", "(2,)"), "fortran_order is True");
  checkRefused(dict("'<f4'", "1", "(2,)"), "fortran_order must");
  checkRefused(dict("'<f4'", "False", "(-2,)"), "shape");
  checkRefused(dict("'<f4'", "False", "(2.0,)"), "expected");
  checkRefused(dict("'<f4'", "False", "(9223372036854775808,)"), "2^63");
  checkRefused(dict("'<f4'", "False", "(4611686018427387904, 4)"), "2^63");
  checkRefused(dict("'<f4'", "False", "(0, 4611686018427387904, 4)"), "2^63");
  checkRefused(dict("'<f4'", "False", "(1,1,1,1,1,1,1,1,2)"), "more than 8 dimensions");
  checkRefused(dict("'<f4", "False", "(2,)"), "descr '<f4, '"); // the string runs into the next quote
  checkRefused(npyBytes("{'descr': '<f4', 'fortran_order': False}", 8), "'shape' is missing");
  checkRefused(npyBytes("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", 8),
               "twice");
  checkRefused(npyBytes("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': 1}", 8),
               "unknown key 'x'");
  checkRefused(npyBytes(good + "junk", 8), "after the closing brace");
  checkRefused(npyBytes("__import__('os')", 8), "'{' expected");
}

TEST_CASE("npy: a header longer than the limit is refused before it is read") {
  std::string bytes = "\x93NUMPY";
  bytes += {2, 0, '\xff', '\xff', '\xff', '\x7f'};
  checkRefused(bytes, "over the limit");
}

TEST_CASE("npy: a shape larger than the file allocates nothing") {
  test::TemporaryFolder folder;
  test::writeText(
      folder.path("big.npy"),
      npyBytes("{'descr': '<f4', 'fortran_order': False, 'shape': (2000000000000000000,), }", 64));
  auto tensor = readNpy(folder.path("big.npy"));
  REQUIRE(!tensor);
  CHECK(tensor.status().code() == StatusCode::InvalidArgument);
}
