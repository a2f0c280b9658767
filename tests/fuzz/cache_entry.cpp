// SPDX-License-Identifier: BSD-3-Clause
// Cache entries, artifacts and keys from arbitrary bytes. Besides not crashing, every parser must accept only
// canonical bytes: writing what was read gives the input back.
#include "cache/entry.h"
#include "spec/artifact.h"
#include "tests/fuzz/seeds.h"

#include <algorithm>
#include <cstdlib>

using namespace flashplus;

namespace {

void require(bool condition) {
  if (!condition)
    std::abort();
}

void checkEntry(std::span<const uint8_t> bytes) {
  const Entry entry = parseEntry(bytes);
  require(entry.isOk() == entry.detail.empty());
  if (!entry.isOk())
    return;
  require(std::ranges::equal(encodeEntry(entry.key, entry.artifact), bytes));
  require(decodeEntry(bytes, entry.key).isOk());
}

void checkArtifact(std::span<const uint8_t> bytes) {
  if (Result<Artifact> artifact = parseArtifact(bytes))
    require(std::ranges::equal(serializeArtifact(*artifact), bytes));
}

void checkKey(std::string_view text) {
  if (Result<KernelKey> key = KernelKey::parse(text))
    require(key->text() == text);
}

/// No fuzzer guesses a checksum, so build the frame of an entry around the input: first byte = length of the
/// key.
void checkFramed(std::span<const uint8_t> bytes) {
  if (bytes.empty())
    return;
  std::vector<uint8_t> entry = {0x89, 'F', 'P', 'K', '\r', '\n', 0x1a, '\n', 1, 0, 0, 0};
  const uint64_t key_size = std::min<uint64_t>(bytes[0], bytes.size() - 1);
  const uint64_t payload_size = bytes.size() - 1 - key_size;
  for (int i = 0; i < 4; ++i)
    entry.push_back(static_cast<uint8_t>(key_size >> (8 * i)));
  for (int i = 0; i < 8; ++i)
    entry.push_back(static_cast<uint8_t>(payload_size >> (8 * i)));
  entry.insert(entry.end(), bytes.begin() + 1, bytes.end());
  const auto checksum = hashBytes(entry).bytes();
  entry.insert(entry.end(), checksum.begin(), checksum.end());
  checkEntry(entry);
}

} // namespace

std::vector<std::string> seeds() {
  KernelKey key;
  key.spec = "forward dtype=bf16 dqk=64 dv=64 right=1";
  key.schedule = "sm80.flash tile_m=64 tile_n=64 warps=4";
  key.target = "sm_80@sm_90";
  key.params = "q:ptr@0 size=8";
  key.build = "0123456789abcdef0123456789abcdef";
  key.driver = "a\\b\nc";
  Artifact artifact;
  artifact.kind = CodeKind::Ptx;
  artifact.code = {'c', 'o', 'd', 'e'};
  artifact.launch = {.entry = "kernel", .threads = 128, .shared_memory = 49152, .params_size = 8};
  artifact.assembler = {Assembler::Kind::Ptxas, 13, 0};
  artifact.provenance = "by hand";
  const std::string text = key.text(), bytes = seedOf(serializeArtifact(artifact));
  return {seedOf(encodeEntry(key, artifact)), bytes, text, char(text.size()) + text + bytes};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const std::span<const uint8_t> bytes(data, size);
  checkEntry(bytes);
  checkArtifact(bytes);
  checkKey(std::string_view(reinterpret_cast<const char *>(data), size));
  checkFramed(bytes);
  return 0;
}
