// SPDX-License-Identifier: BSD-3-Clause
#include "tests/emulator/cases.h"

#include <bit>
#include <cmath>
#include <cstring>

namespace flashplus::emu::test {

std::vector<Case> allCases() {
  std::vector<Case> cases;
  addIntegerCases(cases);
  addFloatCases(cases);
  addConvertCases(cases);
  addWarpCases(cases);
  addMatrixCases(cases);
  addMemoryCases(cases);
  addHopperCases(cases);
  addTensorCopyCases(cases);
  addBulkCopyCases(cases);
  addClusterCases(cases);
  return cases;
}

uint64_t Random::next() { // splitmix64
  uint64_t z = state_ += 0x9e3779b97f4a7c15ull;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ z >> 27) * 0x94d049bb133111ebull;
  return z ^ z >> 31;
}

std::string module(const std::string &body, const std::string &declarations) {
  return ".version 8.0\n.target sm_80\n.address_size 64\n" + declarations +
         "\n.visible .entry test(.param .u64 input, .param .u64 output)\n{\n"
         "\t.reg .pred %p<32>;\n\t.reg .b16 %rs<64>;\n\t.reg .b32 %r<64>;\n\t.reg .b64 %rd<64>;\n"
         "\t.reg .b32 %gid, %cta, %n;\n\t.reg .b64 %in, %out;\n"
         "\tld.param.u64 %in, [input];\n\tld.param.u64 %out, [output];\n"
         "\tmov.u32 %gid, %tid.x;\n\tmov.u32 %cta, %ctaid.x;\n\tmov.u32 %n, %ntid.x;\n"
         "\tmad.lo.s32 %gid, %cta, %n, %gid;\n" +
         body + "\n\tret;\n}\n";
}

Case elementwise(const Elementwise &e) {
  const size_t count = e.arguments.front().size();
  auto reg = [](int bits, size_t i) {
    return (bits == 64 ? "%rd" : bits == 16 ? "%rs" : "%r") + std::to_string(40 + i);
  };
  std::string body = "\tcvt.u64.u32 %rd0, %gid;\n";
  uint64_t offset = 0;
  for (size_t a = 0; a < e.arguments.size(); ++a) {
    const int bytes = e.argument_bits[a] / 8;
    body += "\tmad.lo.s64 %rd1, %rd0, " + std::to_string(bytes) + ", %in;\n\tld.global.b" +
            std::to_string(e.argument_bits[a]) + " " + reg(e.argument_bits[a], a + 1) + ", [%rd1+" +
            std::to_string(offset) + "];\n";
    offset += count * size_t(bytes);
  }
  std::string text = e.instruction;
  for (size_t a = 0; a <= e.arguments.size(); ++a) {
    const std::string from = "$" + std::to_string(a);
    for (size_t at; (at = text.find(from)) != std::string::npos;)
      text.replace(at, 2, a == 0 ? reg(e.result_bits, 0) : reg(e.argument_bits[a - 1], a));
  }
  body += "\t" + text + "\n\tmad.lo.s64 %rd1, %rd0, " + std::to_string(e.result_bits / 8) +
          ", %out;\n\tst.global.b" + std::to_string(e.result_bits) + " [%rd1], " + reg(e.result_bits, 0) +
          ";\n";

  Case c;
  c.name = e.name;
  c.ptx = module(body);
  c.threads = 32;
  c.blocks = uint32_t((count + 31) / 32);
  const size_t padded = size_t(c.blocks) * 32; // the last block's idle threads read and write too
  const size_t result_bytes = size_t(e.result_bits / 8);
  for (size_t a = 0; a < e.arguments.size(); ++a)
    for (size_t i = 0; i < count; ++i) {
      const auto *bytes = reinterpret_cast<const uint8_t *>(&e.arguments[a][i]);
      c.input.insert(c.input.end(), bytes, bytes + e.argument_bits[a] / 8);
    }
  if (padded != count) // threads past the end must be told to do nothing
    c.ptx.insert(c.ptx.find("\tcvt.u64.u32 %rd0"),
                 "\tsetp.ge.u32 %p31, %gid, " + std::to_string(count) + ";\n\t@%p31 ret;\n");
  c.output_bytes = count * result_bytes;
  c.tolerance = e.tolerance;
  c.expect = [e, count, result_bytes](std::span<const uint8_t>, std::span<uint8_t> out) {
    std::vector<uint64_t> values(e.arguments.size());
    for (size_t i = 0; i < count; ++i) {
      for (size_t a = 0; a < values.size(); ++a)
        values[a] = e.arguments[a][i];
      const uint64_t r = e.expect(values);
      std::memcpy(out.data() + i * result_bytes, &r, result_bytes);
    }
  };
  return c;
}

std::vector<std::vector<uint64_t>> crossed(const std::vector<std::vector<uint64_t>> &lists) {
  std::vector<std::vector<uint64_t>> out(lists.size());
  std::vector<size_t> at(lists.size());
  for (bool more = true; more;) {
    for (size_t i = 0; i < lists.size(); ++i)
      out[i].push_back(lists[i][at[i]]);
    more = false;
    for (size_t i = 0; i < lists.size(); ++i) {
      if (++at[i] < lists[i].size()) {
        more = true;
        break;
      }
      at[i] = 0;
    }
  }
  return out;
}

std::string compare(const Case &c, std::span<const uint8_t> got, std::span<const uint8_t> want) {
  if (got.size() != want.size())
    return "sizes differ";
  if (c.tolerance.kind == Tolerance::Kind::Exact) {
    for (size_t i = 0; i < got.size(); ++i)
      if (got[i] != want[i]) {
        const size_t at = i / 8 * 8;
        uint64_t a = 0, b = 0;
        std::memcpy(&a, got.data() + at, std::min<size_t>(8, got.size() - at));
        std::memcpy(&b, want.data() + at, std::min<size_t>(8, got.size() - at));
        char text[96];
        std::snprintf(text, sizeof text, "bytes from %zu: %016llx, expected %016llx", at,
                      (unsigned long long)a, (unsigned long long)b);
        return text;
      }
    return {};
  }
  for (size_t i = 0; i + 4 <= got.size(); i += 4) {
    float a, b;
    std::memcpy(&a, got.data() + i, 4);
    std::memcpy(&b, want.data() + i, 4);
    if ((std::isnan(a) && std::isnan(b)) || a == b)
      continue;
    const double error = std::fabs(double(a) - double(b));
    const double allowed = c.tolerance.kind == Tolerance::Kind::Relative
                               ? c.tolerance.value * std::fabs(double(b))
                               : c.tolerance.value;
    if (!(error <= allowed)) {
      char text[96];
      std::snprintf(text, sizeof text, "value %zu: %.9g, expected %.9g", i / 4, double(a), double(b));
      return text;
    }
  }
  return {};
}

} // namespace flashplus::emu::test
