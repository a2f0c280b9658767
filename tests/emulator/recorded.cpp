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
    words >> name >> std::hex >> r.input_hash >> hex;
    if (!words || hex.size() % 2) {
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
    file << name << " " << r.input_hash << " ";
    for (uint8_t b : r.output)
      file << kDigits[b >> 4] << kDigits[b & 15];
    file << "\n";
  }
  file.close();
  return bool(file);
}

uint64_t hashOf(const Case &c) {
  uint64_t hash = 0xcbf29ce484222325ull;
  auto add = [&](const void *p, size_t n) {
    for (size_t i = 0; i < n; ++i)
      hash = (hash ^ static_cast<const uint8_t *>(p)[i]) * 0x100000001b3ull;
  };
  add(c.ptx.data(), c.ptx.size());
  add(c.input.data(), c.input.size());
  const uint32_t shape[4] = {c.blocks, c.threads, c.dynamic_shared, uint32_t(c.output_bytes)};
  add(shape, sizeof shape);
  return hash;
}

} // namespace flashplus::emu::test
