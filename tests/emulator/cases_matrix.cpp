// SPDX-License-Identifier: BSD-3-Clause
// ldmatrix, stmatrix, movmatrix, mma.sync: every layout with values that tell where they came from.
#include "tests/emulator/cases.h"

#include <bit>
#include <cmath>
#include <cstring>

namespace flashplus::emu::test {
namespace {

float widen(uint16_t v, bool bf) {
  if (bf)
    return std::bit_cast<float>(uint32_t(v) << 16);
  const int exponent = v >> 10 & 31, fraction = v & 1023;
  const double m = exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24);
  return float(v & 0x8000 ? -m : m);
}
/// Small integers and other values that 8 significant bits hold.
uint16_t narrow(float x, bool bf) {
  if (bf)
    return uint16_t(std::bit_cast<uint32_t>(x) >> 16);
  if (x == 0)
    return 0;
  int e;
  const double f = std::frexp(std::fabs(double(x)), &e); // [0.5, 1)
  return uint16_t((x < 0 ? 0x8000 : 0) | (e + 14) << 10 | (int(f * 2048) & 1023));
}

/// mma: input is A (16 x K), B (K x 8), C (16 x 8, fp32), all row major; output D. Loads follow the tables of
/// the PTX ISA.
void addMma(std::vector<Case> &cases, bool bf, int k, bool integers, uint64_t seed) {
  const std::string type = bf ? "bf16" : "f16";
  Case c;
  c.name = "mma.m16n8k" + std::to_string(k) + "." + type + (integers ? ".exact" : ".random");
  std::string body =
      "shr.u32 %r30, %gid, 2; and.b32 %r31, %gid, 3; shl.b32 %r31, %r31, 1;\n"; // group, 2 * (lane % 4)
  auto half = [&](const std::string &to, const std::string &matrix_offset, const std::string &row,
                  const std::string &column, int pitch) {
    body += "mad.lo.u32 %r32, " + row + ", " + std::to_string(pitch) + ", " + column +
            "; mul.wide.u32 %rd1, %r32, 2; add.s64 %rd1, %rd1, %in; ld.global.b16 " + to + ", [%rd1+" +
            matrix_offset + "];\n";
  };
  const int a_registers = k / 4, b_registers = k / 8;
  for (int r = 0; r < a_registers; ++r) {
    body += "add.u32 %r33, %r30, " + std::to_string(r % 2 * 8) + "; add.u32 %r34, %r31, " +
            std::to_string(r / 2 * 8) + "; add.u32 %r35, %r34, 1;\n";
    half("%rs1", "0", "%r33", "%r34", k);
    half("%rs2", "0", "%r33", "%r35", k);
    body += "mov.b32 %r" + std::to_string(r) + ", {%rs1, %rs2};\n";
  }
  const int b_offset = 16 * k * 2, c_offset = b_offset + k * 8 * 2;
  for (int r = 0; r < b_registers; ++r) {
    body += "add.u32 %r34, %r31, " + std::to_string(r * 8) + "; add.u32 %r35, %r34, 1;\n";
    half("%rs1", std::to_string(b_offset), "%r34", "%r30", 8);
    half("%rs2", std::to_string(b_offset), "%r35", "%r30", 8);
    body += "mov.b32 %r" + std::to_string(4 + r) + ", {%rs1, %rs2};\n";
  }
  for (int r = 0; r < 4; ++r)
    body += "add.u32 %r33, %r30, " + std::to_string(r / 2 * 8) +
            "; mad.lo.u32 %r32, %r33, 8, %r31; add.u32 %r32, %r32, " + std::to_string(r % 2) +
            "; mul.wide.u32 %rd" + std::to_string(10 + r) + ", %r32, 4; add.s64 %rd1, %rd" +
            std::to_string(10 + r) + ", %in; ld.global.b32 %r" + std::to_string(8 + r) + ", [%rd1+" +
            std::to_string(c_offset) + "];\n";
  auto list = [](int first, int n) {
    std::string s = "{";
    for (int i = 0; i < n; ++i)
      s += (i ? ", %r" : "%r") + std::to_string(first + i);
    return s + "}";
  };
  body += "mma.sync.aligned.m16n8k" + std::to_string(k) + ".row.col.f32." + type + "." + type + ".f32 " +
          list(12, 4) + ", " + list(0, a_registers) + ", " + list(4, b_registers) + ", " + list(8, 4) + ";\n";
  for (int r = 0; r < 4; ++r)
    body += "add.s64 %rd1, %rd" + std::to_string(10 + r) + ", %out; st.global.b32 [%rd1], %r" +
            std::to_string(12 + r) + ";\n";
  c.ptx = module(body);
  Random random(seed);
  auto value = [&] {
    return integers ? float(int(random.below(17)) - 8) : float(int(random.below(255)) - 127) / 64.0f;
  };
  auto push = [&](const void *p, size_t n) {
    c.input.insert(c.input.end(), static_cast<const uint8_t *>(p), static_cast<const uint8_t *>(p) + n);
  };
  for (int i = 0; i < 16 * k + k * 8; ++i) {
    const uint16_t v = narrow(value(), bf);
    push(&v, 2);
  }
  for (int i = 0; i < 128; ++i) {
    const float v = integers ? value() : value() * 1.2345f;
    push(&v, 4);
  }
  c.output_bytes = 512;
  // Integer sums are exact in any order; others may differ by the order and width of the hardware's sum.
  if (!integers)
    c.tolerance = {Tolerance::Kind::Absolute, (k + 1) * 4.0 * 0x1p-22};
  c.expect = [=](std::span<const uint8_t> in, std::span<uint8_t> out) {
    auto h = [&](int i) {
      uint16_t v;
      std::memcpy(&v, in.data() + i * 2, 2);
      return double(widen(v, bf));
    };
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 8; ++j) {
        float acc;
        std::memcpy(&acc, in.data() + c_offset + (i * 8 + j) * 4, 4);
        double sum = acc;
        for (int l = 0; l < k; ++l)
          sum += h(i * k + l) * h(16 * k + l * 8 + j);
        const float d = float(sum);
        std::memcpy(out.data() + (i * 8 + j) * 4, &d, 4);
      }
  };
  cases.push_back(std::move(c));
}

/// ldmatrix from a buffer of rows of 8 halves that hold their index; the rows' addresses are scrambled.
void addLoadMatrix(std::vector<Case> &cases, int n, bool trans, bool store) {
  const std::string suffix = "x" + std::to_string(n) + (trans ? ".trans" : "");
  Case c;
  c.name = (store ? "stmatrix." : "ldmatrix.") + suffix;
  // Row of lane l: (5 l + 3) % 32, a permutation; each row is 16 bytes at a pitch of 16.
  std::string body = "mad.lo.u32 %r20, %gid, 5, 3; and.b32 %r20, %r20, 31; shl.b32 %r20, %r20, 4; mov.u32 "
                     "%r21, buffer; add.u32 %r20, %r20, %r21;"
                     "shl.b32 %r22, %gid, 4; add.u32 %r23, %r22, %r21;";
  std::string regs = "{";
  for (int i = 0; i < n; ++i)
    regs += (i ? ", %r" : "%r") + std::to_string(i);
  regs += "}";
  const std::string kind = ".sync.aligned.m8n8." + suffix + ".shared.b16 ";
  if (!store) {
    // word w of row tid: 2 * (8 tid + 2 w) ... as two halves
    for (int w = 0; w < 4; ++w)
      body +=
          "mad.lo.u32 %r10, %gid, 8, " + std::to_string(2 * w) +
          "; add.u32 %r11, %r10, 1; shl.b32 %r11, %r11, 16; or.b32 %r10, %r10, %r11; st.shared.b32 [%r23+" +
          std::to_string(4 * w) + "], %r10;";
    body += "bar.warp.sync -1; ldmatrix" + kind + regs + ", [%r20];";
    for (int i = 0; i < n; ++i)
      body += "mad.lo.u32 %r12, %gid, " + std::to_string(n) + ", " + std::to_string(i) +
              "; mul.wide.u32 %rd1, %r12, 4; add.s64 %rd1, %rd1, %out; st.global.b32 [%rd1], %r" +
              std::to_string(i) + ";";
    c.output_bytes = size_t(n) * 128;
  } else {
    c.least_chip = 90;
    for (int w = 0; w < 4; ++w)
      body += "st.shared.b32 [%r23+" + std::to_string(4 * w) + "], -1;";
    for (int i = 0; i < n; ++i)
      body += "mad.lo.u32 %r10, %gid, " + std::to_string(2 * n) + ", " + std::to_string(2 * i) +
              "; add.u32 %r11, %r10, 1; shl.b32 %r11, %r11, 16; or.b32 %r" + std::to_string(i) +
              ", %r10, %r11;";
    body += "bar.warp.sync -1; stmatrix" + kind + "[%r20], " + regs + "; bar.warp.sync -1;";
    for (int w = 0; w < 4; ++w)
      body += "ld.shared.b32 %r10, [%r23+" + std::to_string(4 * w) +
              "]; mul.wide.u32 %rd1, %gid, 16; add.s64 %rd1, %rd1, %out; st.global.b32 [%rd1+" +
              std::to_string(4 * w) + "], %r10;";
    c.output_bytes = 512;
  }
  c.ptx = module(body, ".shared .align 128 .b8 buffer[512];");
  if (store)
    c.ptx.replace(c.ptx.find(".target sm_80"), 13, ".target sm_90");
  c.input.resize(16);
  c.expect = [=](std::span<const uint8_t>, std::span<uint8_t> out) {
    auto row = [](int lane) { return (5 * lane + 3) % 32; };
    if (!store) {
      for (int lane = 0; lane < 32; ++lane)
        for (int i = 0; i < n; ++i)
          for (int h = 0; h < 2; ++h) {
            // Element (lane / 4, 2 (lane % 4) + h) of matrix i, or of its transpose.
            const int r = trans ? 2 * (lane % 4) + h : lane / 4, col = trans ? lane / 4 : 2 * (lane % 4) + h;
            const auto v = uint16_t(8 * row(8 * i + r) + col);
            std::memcpy(out.data() + (lane * n + i) * 4 + h * 2, &v, 2);
          }
      return;
    }
    std::memset(out.data(), 0xff, 512);
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < n; ++i)
        for (int h = 0; h < 2; ++h) {
          const int r = trans ? 2 * (lane % 4) + h : lane / 4, col = trans ? lane / 4 : 2 * (lane % 4) + h;
          const auto v = uint16_t(lane * 2 * n + 2 * i + h);
          std::memcpy(out.data() + row(8 * i + r) * 16 + col * 2, &v, 2);
        }
  };
  cases.push_back(std::move(c));
}

/// movmatrix: every element says where it was.
void addMoveMatrix(std::vector<Case> &cases) {
  Case c;
  c.name = "movmatrix.trans";
  c.ptx = module("shl.b32 %r10, %gid, 1; add.u32 %r11, %r10, 1; shl.b32 %r11, %r11, 16;"
                 "or.b32 %r10, %r10, %r11;"
                 "movmatrix.sync.aligned.m8n8.trans.b16 %r12, %r10;"
                 "mul.wide.u32 %rd1, %gid, 4; add.s64 %rd1, %rd1, %out; st.global.b32 [%rd1], %r12;");
  c.input.resize(16);
  c.output_bytes = 128;
  c.expect = [](std::span<const uint8_t>, std::span<uint8_t> out) {
    for (int row = 0; row < 8; ++row)
      for (int column = 0; column < 8; ++column) {
        const auto v = uint16_t(8 * column + row); // the element that was in (column, row)
        std::memcpy(out.data() + (row * 8 + column) * 2, &v, 2);
      }
  };
  cases.push_back(std::move(c));
}

} // namespace

void addMatrixCases(std::vector<Case> &cases) {
  for (bool bf : {false, true})
    for (int k : {8, 16}) {
      addMma(cases, bf, k, true, 21);
      addMma(cases, bf, k, false, 22);
    }
  for (bool store : {false, true})
    for (bool trans : {false, true})
      for (int n : {1, 2, 4})
        addLoadMatrix(cases, n, trans, store);
  addMoveMatrix(cases);
}

} // namespace flashplus::emu::test
