// SPDX-License-Identifier: BSD-3-Clause
// The head of a pack of kernels, and its records, from arbitrary bytes: only canonical bytes are accepted,
// and rows stay inside the file.
#include "cache/pack_format.h"
#include "tests/fuzz/seeds.h"

#include <algorithm>
#include <cstdlib>

using namespace flashplus;

namespace {

void require(bool condition) {
  if (!condition)
    std::abort();
}

void checkPack(std::span<const uint8_t> bytes, uint64_t file_bytes) {
  const PackHeadSize size = packHeadSize(bytes, file_bytes);
  require((size.error == EntryError::None) == size.detail.empty());
  const ParsedPackHead parsed = parsePackHead(bytes, file_bytes);
  require(parsed.isOk() == parsed.detail.empty());
  if (!parsed.isOk())
    return;
  require(size.error == EntryError::None && size.bytes <= bytes.size());
  PackHead head = parsed.head;
  require(std::ranges::equal(encodePackHead(head), bytes.first(size.bytes)));
  for (const std::vector<PackRow> *rows : {&head.entries, &head.texts})
    for (const PackRow &row : *rows) {
      require(row.offset >= size.bytes && row.offset <= file_bytes && row.bytes <= file_bytes - row.offset);
      if (rows == &head.entries)
        require(head.find(row.hash) == &row);
    }
}

/// No fuzzer guesses a checksum: the input's head gets the right one, in a file as large as it says.
void checkRepaired(std::span<const uint8_t> bytes) {
  std::vector<uint8_t> file(bytes.begin(), bytes.end());
  if (file.size() < kPackPrefixBytes)
    return;
  uint64_t file_bytes = 0;
  for (size_t i = 0; i < 8; ++i)
    file_bytes |= uint64_t(file[28 + i]) << (8 * i);
  const PackHeadSize size = packHeadSize(file, file_bytes);
  if (size.error != EntryError::None || size.bytes > (1 << 13))
    return;
  file.resize(size.bytes);
  const size_t checked = size.bytes - 16;
  std::ranges::copy(hashBytes(std::span(file).first(checked)).bytes(),
                    file.begin() + std::ptrdiff_t(checked));
  checkPack(file, file_bytes);
}

void checkText(std::span<const uint8_t> bytes) {
  if (const auto text = parsePackText(bytes))
    require(std::ranges::equal(encodePackText(*text), bytes));
}

} // namespace

std::vector<std::string> seeds() {
  PackHead head = {.build = "0123456789abcdef",
                   .targets = {"sm_80@sm_90", "x86-64-v3"},
                   .entries = {{.hash = {1, 2}, .bytes = 40}, {.hash = {1, 3}, .bytes = 0}},
                   .texts = {{.hash = {5, 6}, .bytes = 12}}};
  std::string whole = seedOf(encodePackHead(head));
  const std::string alone = whole;
  whole += std::string(52, 'x');
  PackHead empty;
  return {whole, alone, seedOf(encodePackHead(empty)), seedOf(encodePackText({"a.json", "{}"}))};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const std::span<const uint8_t> bytes(data, size);
  checkPack(bytes, size);
  checkPack(bytes, size + 100);
  checkRepaired(bytes);
  checkText(bytes);
  return 0;
}
