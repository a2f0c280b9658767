// SPDX-License-Identifier: BSD-3-Clause
#include "tests/emulator/recorded.h"

#include <fstream>
#include <sstream>

namespace flashplus::emu::test {

Recorded readRecorded(const std::string &path) {
  Recorded out;
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (line.empty() || line[0] == '#')
      continue;
    std::istringstream words(line);
    std::string name, hex;
    Recorded::Result r;
    words >> name >> std::hex >> r.input_hash >> r.output_hash;
    const bool whole = bool(words);
    words >> hex;
    if (!whole || hex.size() % 2 || hex.find_first_not_of("0123456789abcdef") != std::string::npos) {
      out.error = "the line of '" + name + "' is damaged";
      return out;
    }
    for (size_t i = 0; i < hex.size(); i += 2)
      r.output.push_back(uint8_t(std::stoi(hex.substr(i, 2), nullptr, 16)));
    out.results.emplace(name, std::move(r));
  }
  return out;
}

bool writeRecorded(const std::string &path, const Recorded &recorded, const std::string &comment) {
  std::ofstream file(path);
  file << "# " << comment << "\n" << std::hex;
  constexpr char kDigits[] = "0123456789abcdef";
  for (const auto &[name, r] : recorded.results) {
    file << name << " " << r.input_hash << " " << r.output_hash << (r.output.empty() ? "" : " ");
    for (uint8_t b : r.output)
      file << kDigits[b >> 4] << kDigits[b & 15];
    file << "\n";
  }
  file.close();
  return bool(file);
}

namespace {

uint64_t add(uint64_t hash, const void *p, size_t n) {
  for (size_t i = 0; i < n; ++i)
    hash = (hash ^ static_cast<const uint8_t *>(p)[i]) * 0x100000001b3ull;
  return hash;
}
constexpr uint64_t kStart = 0xcbf29ce484222325ull;

} // namespace

uint64_t hashOf(const Case &c) {
  const uint32_t shape[4] = {c.blocks, c.threads, c.dynamic_shared, uint32_t(c.output_bytes)};
  uint64_t hash = add(add(kStart, c.ptx.data(), c.ptx.size()), c.input.data(), c.input.size());
  hash = add(hash, shape, sizeof shape);
  return c.map ? add(hash, &*c.map, sizeof *c.map) : hash;
}

uint64_t hashOf(std::span<const uint8_t> bytes) { return add(kStart, bytes.data(), bytes.size()); }

std::string compare(const Case &c, std::span<const uint8_t> output, const Recorded::Result &recorded) {
  if (c.tolerance.kind != Tolerance::Kind::Exact)
    return compare(c, output, std::span<const uint8_t>(recorded.output));
  return hashOf(output) == recorded.output_hash ? "" : "is not what was recorded, bit for bit";
}

} // namespace flashplus::emu::test
