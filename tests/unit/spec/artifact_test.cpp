// SPDX-License-Identifier: BSD-3-Clause
#include "tests/unit/spec/sample_artifact.h"

#include <doctest/doctest.h>

using namespace flashplus;
using namespace flashplus::test;

TEST_CASE("an artifact survives the round trip, every field of it") {
  Artifact artifact = sampleArtifact();
  artifact.launch.scratch = int64_t(1) << 40;
  artifact.launch.blocks_per_sm = 2;
  artifact.assembler = {Assembler::Kind::Driver, 12, 9};
  artifact.launch.tensor_maps = {{Operand::Q, 192, 64}, {Operand::V, 128, 32}};
  for (CodeKind kind : {CodeKind::X86Object, CodeKind::Cubin}) {
    artifact.kind = kind;
    Result<Artifact> back = parseArtifact(serializeArtifact(artifact));
    REQUIRE_MESSAGE(back.isOk(), back.status().message());
    CHECK(*back == artifact);
  }
  CHECK(*parseArtifact(serializeArtifact(Artifact{})) == Artifact{});
}

TEST_CASE("the serialised form of an artifact never changes under its version number") {
  Artifact artifact;
  artifact.kind = CodeKind::Ptx;
  artifact.code = {'a', 'b'};
  artifact.launch = {.entry = "f",
                     .threads = 128,
                     .shared_memory = 2,
                     .scratch = 3,
                     .params_size = 4,
                     .blocks_per_sm = 7,
                     .tensor_maps = {{Operand::V, 8, 9}}};
  artifact.resources = {.registers = 5, .spill_bytes = 6, .stack_bytes = -1};
  artifact.assembler = {Assembler::Kind::Ptxas, 13, 1};
  artifact.provenance = "pp";
  const std::vector<uint8_t> expected = {
      'F', 'P', 'A', 'R', 3,   0, 0, 0, 1,   0,   0,   0,   128, 0, 0, 0,                            //
      2,   0,   0,   0,   0,   0, 0, 0, 3,   0,   0,   0,   0,   0, 0, 0, 4, 0, 0, 0,   0,  0, 0, 0, //
      7,   0,   0,   0,   1,   0, 0, 0, 2,   0,   0,   0,   8,   0, 0, 0, 9, 0, 0, 0,                //
      5,   0,   0,   0,   6,   0, 0, 0, 255, 255, 255, 255,                                          //
      2,   0,   0,   0,   13,  0, 0, 0, 1,   0,   0,   0,                                             //
      1,   0,   0,   0,   'f', 2, 0, 0, 0,   'p', 'p', 2,   0,   0, 0, 0, 0, 0, 0, 'a', 'b'};
  CHECK(serializeArtifact(artifact) == expected);
}

TEST_CASE("a serialised artifact that is cut or extended is refused") {
  std::vector<uint8_t> bytes = serializeArtifact(sampleArtifact());
  for (size_t size = 0; size < bytes.size(); ++size)
    CHECK_FALSE(parseArtifact(std::span(bytes).first(size)));
  bytes.push_back(0);
  CHECK_FALSE(parseArtifact(bytes));
}

TEST_CASE("an artifact whose fields are out of range is refused, and the message names the field") {
  const auto messageWith = [](auto change) {
    Artifact artifact = sampleArtifact();
    change(artifact);
    return parseArtifact(serializeArtifact(artifact)).status().message();
  };
  CHECK(messageWith([](Artifact &a) { a.launch.threads = -1; }).find("threads") != std::string::npos);
  CHECK(messageWith([](Artifact &a) { a.launch.shared_memory = -1; }).find("shared_memory") !=
        std::string::npos);
  CHECK(messageWith([](Artifact &a) { a.launch.scratch = -1; }).find("scratch") != std::string::npos);
  CHECK(messageWith([](Artifact &a) { a.launch.blocks_per_sm = -1; }).find("blocks_per_sm") !=
        std::string::npos);
  CHECK(messageWith([](Artifact &a) { a.launch.tensor_maps.resize(9); }).find("9 tensor maps") !=
        std::string::npos);
  CHECK(messageWith([](Artifact &a) { a.launch.tensor_maps = {{Operand::K, 257, 64}}; }).find("257 x 64") !=
        std::string::npos);
  CHECK(messageWith([](Artifact &a) { a.launch.params_size = -1; }).find("params_size") != std::string::npos);
  CHECK(messageWith([](Artifact &a) { a.launch.entry = std::string("a\0b", 3); }).find("entry") !=
        std::string::npos);
  CHECK(messageWith([](Artifact &a) { a.launch.entry = std::string(100000, 'x'); }).find("entry") !=
        std::string::npos);
  CHECK(messageWith([](Artifact &a) { a.kind = CodeKind::Ptx; }).find("PTX") != std::string::npos);
  CHECK(messageWith([](Artifact &a) { a.assembler.kind = Assembler::Kind(4); }).find("assembler is 4") !=
        std::string::npos);
  CHECK(messageWith([](Artifact &a) { a.assembler.minor = -1; }).find("version 0.-1") != std::string::npos);
  CHECK(assemblerOf(Assembler::Kind::Ptxas, "13.10") == Assembler{Assembler::Kind::Ptxas, 13, 10});
  CHECK(assemblerOf(Assembler::Kind::Ptxas, "nonsense") == Assembler{Assembler::Kind::Ptxas, 0, 0});
  std::vector<uint8_t> bytes = serializeArtifact(sampleArtifact());
  bytes[8] = 3;
  CHECK(parseArtifact(bytes).status().message().find("kind is 3") != std::string::npos);
  bytes = serializeArtifact(sampleArtifact());
  bytes[4] = 2;
  CHECK(parseArtifact(bytes).status().message().find("version is 2") != std::string::npos);
}

TEST_CASE("a provenance without end is cut, not refused") {
  Artifact artifact = sampleArtifact();
  artifact.provenance = std::string(100000, 'x');
  Result<Artifact> back = parseArtifact(serializeArtifact(artifact));
  REQUIRE(back.isOk());
  CHECK(back->provenance.size() == 65536);
  CHECK(back->code == artifact.code);
}
