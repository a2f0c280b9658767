// SPDX-License-Identifier: BSD-3-Clause
#include <chrono>
#include <doctest/doctest.h>

#include "tests/tools/temporary.h"
#include "tools/io/safetensors.h"

using namespace flashplus;
using namespace flashplus::io;

namespace {

std::string fileBytes(const std::string &json, size_t data_bytes) {
  std::string bytes;
  for (int i = 0; i < 8; ++i)
    bytes += static_cast<char>(json.size() >> (8 * i) & 255);
  return bytes + json + std::string(data_bytes, '\1');
}

Result<SafetensorsHeader> parse(const std::string &bytes) {
  return parseSafetensors(std::as_bytes(std::span(bytes)), "x.safetensors");
}

void checkRefused(const std::string &bytes, const std::string &text) {
  auto header = parse(bytes);
  REQUIRE_MESSAGE(!header, "accepted, expected: " << text);
  CHECK(header.status().code() == StatusCode::InvalidArgument);
  CHECK_MESSAGE(header.status().message().find(text) != std::string::npos, header.status().message());
  CHECK(header.status().message().starts_with("x.safetensors: "));
}

std::string entry(const std::string &dtype, const std::string &shape, const std::string &offsets) {
  return R"({"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

} // namespace

TEST_CASE("safetensors: what is written is read back") {
  test::TemporaryFolder folder;
  TensorMap tensors;
  int fill = 1;
  for (auto [name, type] : {std::pair("q", ElementType::F16),
                            {"k", ElementType::BF16},
                            {"v", ElementType::F32},
                            {"cu", ElementType::I32},
                            {"d", ElementType::F64},
                            {"l", ElementType::I64}}) {
    Tensor tensor = *makeTensor(type, {2, 3});
    std::fill(tensor.data.begin(), tensor.data.end(), static_cast<std::byte>(fill++));
    tensors.emplace(name, tensor);
  }
  tensors.emplace("empty", *makeTensor(ElementType::F32, {0, 4}));
  tensors.emplace("scalar", *makeTensor(ElementType::F32, {}));
  std::string path = folder.path("t.safetensors");
  REQUIRE(writeSafetensors(path, tensors, {{"made by", "a test"}}).isOk());
  std::vector<std::string> names;
  for (const auto &[name, tensor] : tensors)
    names.push_back(name);
  auto back = readSafetensors(path, names);
  REQUIRE_MESSAGE(back, back.status().message());
  for (const auto &[name, tensor] : tensors) {
    CHECK((*back)[name].type == tensor.type);
    CHECK((*back)[name].shape == tensor.shape);
    CHECK((*back)[name].data == tensor.data);
  }
  auto header = parse(test::readText(path));
  REQUIRE(header);
  CHECK(header->metadata.at("made by") == "a test");
  CHECK(folder.entries() == std::vector<std::string>{"t.safetensors"});
}

TEST_CASE("safetensors: a tensor that is not there is named, with those that are") {
  test::TemporaryFolder folder;
  std::string path = folder.path("t.safetensors");
  REQUIRE(writeSafetensors(path, {{"key", *makeTensor(ElementType::F32, {1})}}).isOk());
  std::string names[] = {"q"};
  auto read = readSafetensors(path, names);
  REQUIRE(!read);
  CHECK(read.status().message().find("no tensor 'q'; it has: key") != std::string::npos);
}

TEST_CASE("safetensors: other tensors may have types that we lack, ours may not") {
  std::string bytes = fileBytes(R"({"q":)" + entry("\"U8\"", "[3]", "[0,3]") + "}", 3);
  CHECK(parse(bytes));
  test::TemporaryFolder folder;
  test::writeText(folder.path("u.safetensors"), bytes);
  std::string names[] = {"q"};
  auto read = readSafetensors(folder.path("u.safetensors"), names);
  REQUIRE(!read);
  CHECK(read.status().message().find("'q'.dtype: U8 is not supported") != std::string::npos);
}

TEST_CASE("safetensors: lying headers") {
  auto one = [](const std::string &value, size_t data = 8) {
    return fileBytes(R"({"q":)" + value + "}", data);
  };
  REQUIRE(parse(one(entry("\"F32\"", "[2]", "[0,8]"))));
  REQUIRE(parse(fileBytes("{}   ", 0)));
  checkRefused("", "at least 8");
  checkRefused("1234567", "has 7 bytes");
  checkRefused(std::string(8, '\xff'), "over the limit");
  checkRefused(std::string("\x00\xe1\xf5\x05\0\0\0\0", 8), "runs past the end"); // exactly the limit
  checkRefused(std::string("\x01\xe1\xf5\x05\0\0\0\0", 8), "over the limit");
  checkRefused(fileBytes("{}", 0).substr(0, 9), "runs past the end");
  checkRefused(fileBytes(" {}", 0), "begin with '{'");
  checkRefused(fileBytes("{", 0), "not a JSON object");
  checkRefused(fileBytes("{}x", 0), "not a JSON object");
  checkRefused(fileBytes("{\"\xff\":1}", 0), "not a JSON object");
  checkRefused(fileBytes(R"({"a":{"b":{"c":{"d":{"e":1}}}}})", 0), "nested deeper");
  checkRefused(fileBytes(R"({"a":)" + std::string(100000, '['), 0), "nested deeper");
  checkRefused(fileBytes("{}", 4), "tensors end at byte 0 of 4");
  std::string q = entry("\"F32\"", "[2]", "[0,8]");
  checkRefused(fileBytes(R"({"q":)" + q + R"(,"q":)" + q + "}", 8), "key 'q' occurs twice");
  checkRefused(one(R"({"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]})"),
               "key 'dtype' occurs twice");
  checkRefused(one("3"), "'q': must be an object");
  checkRefused(one(entry("\"F99\"", "[2]", "[0,8]")), "'q'.dtype: 'F99'");
  checkRefused(one(entry("4", "[2]", "[0,8]")), "'q'.dtype");
  checkRefused(one(entry("\"F16\"", "[2]", "[0,8]")), "'q'.shape: (2,) of F16 needs 4");
  checkRefused(one(entry("\"F32\"", "[-2]", "[0,8]")), "'q'.shape");
  checkRefused(one(entry("\"F32\"", "[2.0]", "[0,8]")), "'q'.shape");
  checkRefused(one(entry("\"F32\"", "2", "[0,8]")), "'q'.shape");
  checkRefused(one(entry("\"F32\"", "[18446744073709551616]", "[0,8]")), "'q'.shape");
  checkRefused(one(entry("\"F32\"", "[4611686018427387904,4]", "[0,0]"), 0), "over 2^63");
  checkRefused(one(entry("\"F32\"", "[1,1,1,1,1,1,1,1,2]", "[0,8]")), "9 dimensions");
  checkRefused(one(entry("\"F32\"", "[2]", "[0,9]")), "'q'.data_offsets: [0, 9]");
  checkRefused(one(entry("\"F32\"", "[2]", "[8,0]")), "'q'.data_offsets");
  checkRefused(one(entry("\"F32\"", "[2]", "[0]")), "'q'.data_offsets");
  checkRefused(one(entry("\"F32\"", "[2]", "[-8,0]")), "'q'.data_offsets");
  checkRefused(one(entry("\"F32\"", "[2]", "[0,18446744073709551615]")), "'q'.data_offsets");
  checkRefused(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1})"), "unknown field 'x'");
  checkRefused(one(R"({"dtype":"F32","shape":[2]})"), "data_offsets: must be there");
  checkRefused(fileBytes(R"({"__metadata__":{"a":1}})", 0), "'a' must be a string");
}

TEST_CASE("safetensors: time grows with the header, not with its square") {
  const auto header = [](int count, std::string_view separator) {
    std::string json = "{";
    for (int i = 0; i < count; ++i)
      json += (i ? std::string(separator) : "") + "\"layers." + std::to_string(i) + ".weight\":" +
              entry("\"F32\"", "[1]", "[" + std::to_string(4 * i) + "," + std::to_string(4 * i + 4) + "]");
    return fileBytes(json + "}", size_t(4 * count));
  };
  const auto start = std::chrono::steady_clock::now();
  auto parsed = parse(header(40'000, ","));
  REQUIRE(parsed);
  CHECK(parsed->entries.size() == 40'000);
  std::string metadata = R"({"__metadata__":{)";
  for (int i = 0; i < 100'000; ++i)
    metadata += (i ? ",\"" : "\"") + std::to_string(i) + "\":\"\"";
  CHECK(parse(fileBytes(metadata + "}}", 0)));
  // A shape of very many dimensions that are objects, which none may be.
  std::string shape = "[{}";
  for (int i = 0; i < 300'000; ++i)
    shape += ",{}";
  CHECK_FALSE(parse(fileBytes(R"({"q":)" + entry("\"F32\"", shape + "]", "[0,4]") + "}", 4)));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  CHECK(took.count() < 10); // 0.2 s; it was 43 s for the first alone
}

TEST_CASE("safetensors: ranges may not overlap or leave gaps") {
  auto two = [](const std::string &a, const std::string &b, size_t data) {
    return fileBytes(R"({"a":)" + entry("\"F32\"", "[2]", a) + R"(,"b":)" + entry("\"F32\"", "[2]", b) + "}",
                     data);
  };
  REQUIRE(parse(two("[8,16]", "[0,8]", 16)));
  checkRefused(two("[0,8]", "[0,8]", 8), "overlap");
  checkRefused(two("[0,8]", "[4,12]", 12), "overlap");
  checkRefused(two("[0,8]", "[12,20]", 20), "gap");
  checkRefused(two("[4,12]", "[12,20]", 20), "gap");
}
