// SPDX-License-Identifier: BSD-3-Clause
// wgmma in every operand layout, mbarriers, elect: sm_90a.
#include "tests/emulator/cases.h"

#include <bit>
#include <cstring>

namespace flashplus::emu::test {
namespace {

std::string text(int64_t n) { return std::to_string(n); }

/// Byte address -> byte address, as CUTLASS writes the modes: Swizzle<3,4,3>, <2,4,3>, <1,4,3> or none.
uint32_t swizzle(uint32_t at, int bytes) {
  const uint32_t bits = bytes == 128 ? 7 : bytes == 64 ? 3 : bytes == 32 ? 1 : 0;
  return at ^ ((at >> 7 & bits) << 4);
}

/// One 16-deep operand of `rows` rows (of M or N) in shared memory.
struct Operand {
  int rows = 64, swizzle_bytes = 128;
  bool across = false; ///< Contiguous along M or N instead of K.
  int first_k =
      0; ///< K-contiguous and swizzled: the 16 columns start here inside the row of the swizzle's width.

  int columns() const { return swizzle_bytes / 2; } ///< Elements of a row of an atom.
  uint32_t leading() const {
    return across ? uint32_t(2 * 8 * swizzle_bytes) : swizzle_bytes ? 16 : uint32_t(rows * 16);
  }
  uint32_t stride() const {
    return across ? uint32_t(8 * swizzle_bytes) : swizzle_bytes ? uint32_t(8 * swizzle_bytes) : 128;
  }
  uint32_t bytes() const {
    if (across)
      return uint32_t((rows + columns() - 1) / columns()) * leading();
    return uint32_t(rows) * uint32_t(swizzle_bytes ? swizzle_bytes : 32);
  }
  uint32_t at(int row, int k) const {
    uint32_t a;
    if (across)
      a = uint32_t(row / columns()) * leading() + uint32_t(k / 8) * stride() +
          uint32_t(k % 8 * swizzle_bytes + row % columns() * 2);
    else if (swizzle_bytes)
      a = uint32_t(row / 8) * stride() + uint32_t(row % 8 * swizzle_bytes + (first_k + k) * 2);
    else
      a = uint32_t(row / 8) * stride() + uint32_t(k / 8) * leading() + uint32_t(row % 8 * 16 + k % 8 * 2);
    return swizzle(a, swizzle_bytes);
  }
  uint64_t descriptor() const { // all but the address
    const uint64_t mode = swizzle_bytes == 128 ? 1 : swizzle_bytes == 64 ? 2 : swizzle_bytes == 32 ? 3 : 0;
    return mode << 62 | uint64_t(stride() >> 4) << 32 | uint64_t(leading() >> 4) << 16;
  }
};

struct Wgmma {
  std::string name;
  int n = 64;
  bool bf = true, register_a = false, accumulate = true, negate_a = false, negate_b = false;
  Operand a, b;
};

void addWgmmaCase(std::vector<Case> &cases, Wgmma w) {
  w.b.rows = w.n;
  const int registers = w.n / 2;
  const uint32_t a_bytes = w.register_a ? 0 : (w.a.bytes() + 1023) / 1024 * 1024,
                 image = (a_bytes + w.b.bytes() + 511) / 512 * 512;
  const uint32_t fragments_at = image, c_at = fragments_at + 128 * 16;
  std::string regs = "{", body;
  for (int i = 0; i < registers; ++i)
    regs += (i ? ", %d" : "%d") + text(i);
  regs += "}";
  body = ".reg .b32 %d<" + text(registers) + ">;\nmov.u32 %r1, dynamic;\n";
  body +=
      "mul.wide.u32 %rd1, %gid, 4; add.s64 %rd2, %rd1, %in; shl.b32 %r2, %gid, 2; add.u32 %r2, %r2, %r1;\n";
  for (uint32_t at = 0; at < image; at += 512)
    body += "ld.global.b32 %r3, [%rd2+" + text(at) + "]; st.shared.b32 [%r2+" + text(at) + "], %r3;\n";
  body += "fence.proxy.async.shared::cta; bar.sync 0;\n";
  if (w.register_a)
    body += "mul.wide.u32 %rd3, %gid, 16; add.s64 %rd3, %rd3, %in; ld.global.v4.b32 {%r10, %r11, %r12, "
            "%r13}, [%rd3+" +
            text(fragments_at) + "];\n";
  body += "mul.wide.u32 %rd4, %gid, " + text(registers * 4) +
          "; add.s64 %rd5, %rd4, %in; add.s64 %rd6, %rd4, %out;\n";
  for (int i = 0; i < registers; ++i)
    body += "ld.global.b32 %d" + text(i) + ", [%rd5+" + text(int64_t(c_at) + i * 4) + "];\n";
  auto descriptor = [&](const std::string &to, uint32_t offset, const Operand &o) {
    body += "add.u32 %r4, %r1, " + text(int64_t(offset) + o.first_k * 2) +
            "; shr.u32 %r4, %r4, 4; cvt.u64.u32 " + to + ", %r4; or.b64 " + to + ", " + to + ", " +
            text(int64_t(o.descriptor())) + ";\n";
  };
  descriptor("%rd10", 0, w.a);
  descriptor("%rd11", a_bytes, w.b);
  body += "setp.ne.u32 %p1, %n, " + std::string(w.accumulate ? "0" : "128") +
          ";\nwgmma.fence.sync.aligned;\n"
          "wgmma.mma_async.sync.aligned.m64n" +
          text(w.n) + "k16.f32." + (w.bf ? "bf16.bf16 " : "f16.f16 ") + regs + ", " +
          (w.register_a ? "{%r10, %r11, %r12, %r13}" : "%rd10") + ", %rd11, %p1, " +
          (w.negate_a ? "-1" : "1") + ", " + (w.negate_b ? "-1" : "1") +
          (w.register_a ? ""
           : w.a.across ? ", 1"
                        : ", 0") +
          (w.b.across ? ", 1" : ", 0") +
          ";\n"
          "wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n";
  for (int i = 0; i < registers; ++i)
    body += "st.global.b32 [%rd6+" + text(i * 4) + "], %d" + text(i) + ";\n";
  Case c;
  c.name = "wgmma." + w.name;
  c.ptx = module(body, ".extern .shared .align 1024 .b8 dynamic[];");
  c.ptx.replace(c.ptx.find(".version 8.0\n.target sm_80"), 26, ".version 8.0\n.target sm_90a");
  c.threads = 128;
  c.dynamic_shared = image;
  c.least_chip = 90;
  Random random(41 + uint64_t(w.n));
  auto small = [&] { return float(int(random.below(9)) - 4); };
  auto encode = [&](float x) -> uint16_t { // small integers
    if (w.bf)
      return uint16_t(std::bit_cast<uint32_t>(x) >> 16);
    if (x == 0)
      return 0;
    const uint32_t bits = std::bit_cast<uint32_t>(x);
    return uint16_t((bits >> 16 & 0x8000) | ((bits >> 23 & 255) - 112) << 10 | (bits >> 13 & 1023));
  };
  std::vector<float> a(64 * 16), b(size_t(w.n) * 16), acc(size_t(64 * w.n));
  for (auto *v : {&a, &b, &acc})
    for (float &x : *v)
      x = small();
  c.input.assign(c_at + size_t(64 * w.n) * 4, 0);
  auto put = [&](uint32_t at, uint16_t v) { std::memcpy(c.input.data() + at, &v, 2); };
  for (int row = 0; row < 64; ++row)
    for (int k = 0; k < 16; ++k) {
      const uint16_t v = encode(a[size_t(row * 16 + k)]);
      if (!w.register_a) {
        put(w.a.at(row, k), v);
        continue;
      }
      // PTX ISA, fragment of A in registers: as mma.m16n8k16, a warp for each 16 rows.
      const int warp = row / 16, lane = row % 8 * 4 + k % 8 / 2, reg = row % 16 / 8 + 2 * (k / 8);
      put(fragments_at + uint32_t((warp * 32 + lane) * 16 + reg * 4 + k % 2 * 2), v);
    }
  for (int column = 0; column < w.n; ++column)
    for (int k = 0; k < 16; ++k)
      put(a_bytes + w.b.at(column, k), encode(b[size_t(column * 16 + k)]));
  auto place = [registers](int row, int column) { // of an element of D, in floats
    const int lane = row % 8 * 4 + column % 8 / 2, reg = column / 8 * 4 + row % 16 / 8 * 2 + column % 2;
    return size_t((row / 16 * 32 + lane) * registers + reg);
  };
  for (int row = 0; row < 64; ++row)
    for (int column = 0; column < w.n; ++column)
      std::memcpy(c.input.data() + c_at + place(row, column) * 4, &acc[size_t(row * w.n + column)], 4);
  c.output_bytes = size_t(64 * w.n) * 4;
  c.expect = [=](std::span<const uint8_t>, std::span<uint8_t> out) {
    for (int row = 0; row < 64; ++row)
      for (int column = 0; column < w.n; ++column) {
        float sum = 0;
        for (int k = 0; k < 16; ++k)
          sum += a[size_t(row * 16 + k)] * b[size_t(column * 16 + k)];
        sum *= (w.negate_a ? -1.0f : 1.0f) * (w.negate_b ? -1.0f : 1.0f);
        if (w.accumulate)
          sum += acc[size_t(row * w.n + column)];
        sum += 0.0f; // no negative zero
        std::memcpy(out.data() + place(row, column) * 4, &sum, 4);
      }
  };
  c.tolerance = {Tolerance::Kind::Absolute, 0}; // exact, but for the sign of zero
  cases.push_back(std::move(c));
}

/// Small integers (and for tf32 halves) in a type of 1 or 4 bytes, both operands with columns K and a
/// 128-byte swizzle.
void addOtherTypes(std::vector<Case> &cases, const std::string &a_type, const std::string &b_type,
                   bool register_a) {
  constexpr int n = 64, registers = n / 2;
  const int bytes = a_type == "tf32" ? 4 : 1, depth = 32 / bytes;
  const uint32_t b_at = 8192, fragments_at = 16384;
  std::string regs, body;
  for (int i = 0; i < registers; ++i)
    regs += (i ? ", %d" : "{%d") + text(i);
  body = ".reg .b32 %d<" + text(registers) +
         ">;\nmov.u32 %r1, dynamic; mul.wide.u32 %rd1, %gid, 4; add.s64 %rd2, %rd1, %in; shl.b32 %r2, %gid, "
         "2; add.u32 "
         "%r2, %r2, %r1;\n";
  for (uint32_t at = 0; at < fragments_at; at += 512)
    body += "ld.global.b32 %r3, [%rd2+" + text(at) + "]; st.shared.b32 [%r2+" + text(at) + "], %r3;\n";
  body += "fence.proxy.async.shared::cta; bar.sync 0;\nmul.wide.u32 %rd3, %gid, 16; add.s64 %rd3, %rd3, %in; "
          "ld.global.v4.b32 {%r10, %r11, %r12, %r13}, [%rd3+" +
          text(fragments_at) + "];\nmul.wide.u32 %rd4, %gid, " + text(registers * 4) +
          "; add.s64 %rd6, %rd4, %out;\nshr.u32 %r4, %r1, 4; cvt.u64.u32 %rd10, %r4; or.b64 %rd10, %rd10, "
          "0x4000004000010000; add.s64 %rd11, %rd10, 512;\nwgmma.fence.sync.aligned;\n"
          "wgmma.mma_async.sync.aligned.m64n64k" +
          text(depth) + ".f32." + a_type + "." + b_type + " " + regs + "}, " +
          (register_a ? "{%r10, %r11, %r12, %r13}" : "%rd10") +
          ", %rd11, 0, 1, -1;\nwgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n";
  for (int i = 0; i < registers; ++i)
    body += "st.global.b32 [%rd6+" + text(i * 4) + "], %d" + text(i) + ";\n";
  Case c;
  c.name = "wgmma." + std::string(register_a ? "rs." : "ss.") + a_type + "." + b_type;
  c.ptx = module(body, ".extern .shared .align 1024 .b8 dynamic[];");
  c.ptx.replace(c.ptx.find(".target sm_80"), 13, ".target sm_90a");
  c.threads = 128;
  c.dynamic_shared = fragments_at;
  c.least_chip = 90;
  c.input.assign(fragments_at + 128 * 16, 0);
  Random random(47);
  auto encode = [](const std::string &type, float x) -> uint32_t {
    const uint32_t bits = std::bit_cast<uint32_t>(x), sign = bits >> 31;
    if (type == "tf32")
      return bits | 0x1abc; // the lower 13 bits do not count
    if (x == 0)
      return sign << 7;
    const uint32_t exponent = bits >> 23 & 255;
    return type == "e4m3" ? sign << 7 | (exponent - 127 + 7) << 3 | (bits >> 20 & 7)
                          : sign << 7 | (exponent - 127 + 15) << 2 | (bits >> 21 & 3);
  };
  auto put = [&](uint32_t at, uint32_t v) { std::memcpy(c.input.data() + at, &v, size_t(bytes)); };
  std::vector<float> a, b;
  for (int row = 0; row < 64; ++row)
    for (int k = 0; k < depth; ++k) {
      a.push_back(float(int(random.below(9)) - 4));
      b.push_back(float(int(random.below(9)) - 4));
      const auto place = swizzle(uint32_t(row * 128 + k * bytes), 128);
      put(place, encode(a_type, a.back()));
      put(b_at + place, encode(b_type, b.back()));
      // A in registers: four bytes a register, wherever the 32 bytes of a row lie with 16-bit elements.
      const int at = k * bytes, lane = row % 8 * 4 + at % 16 / 4, reg = row % 16 / 8 + 2 * (at / 16);
      put(fragments_at + uint32_t((row / 16 * 32 + lane) * 16 + reg * 4 + at % 4), encode(a_type, a.back()));
    }
  c.output_bytes = 64 * n * 4;
  c.expect = [=](std::span<const uint8_t>, std::span<uint8_t> out) {
    for (int row = 0; row < 64; ++row)
      for (int column = 0; column < n; ++column) {
        float sum = 0;
        for (int k = 0; k < depth; ++k)
          sum -= a[size_t(row * depth + k)] * b[size_t(column * depth + k)];
        sum += 0.0f; // no negative zero
        const int lane = row % 8 * 4 + column % 8 / 2, reg = column / 8 * 4 + row % 16 / 8 * 2 + column % 2;
        std::memcpy(out.data() + ((row / 16 * 32 + lane) * registers + reg) * 4, &sum, 4);
      }
  };
  c.tolerance = {Tolerance::Kind::Absolute, 0}; // exact, but for the sign of zero
  cases.push_back(std::move(c));
}

/// A kernel for sm_90 whose threads store %r0.
void addScalar(std::vector<Case> &cases, std::string name, const std::string &body, uint32_t threads,
               std::function<uint32_t(uint32_t)> f) {
  Case c;
  c.name = std::move(name);
  c.ptx = module(body + "\ncvt.u64.u32 %rd0, %gid; shl.b64 %rd0, %rd0, 2; add.s64 %rd0, %rd0, %out; "
                        "st.global.b32 [%rd0], %r0;",
                 ".shared .align 128 .b8 buffer[1024];");
  c.ptx.replace(c.ptx.find(".target sm_80"), 13, ".target sm_90");
  c.threads = threads;
  c.least_chip = 90;
  c.input.resize(16);
  c.output_bytes = threads * 4;
  c.expect = [=](std::span<const uint8_t>, std::span<uint8_t> out) {
    for (uint32_t t = 0; t < threads; ++t) {
      const uint32_t v = f(t);
      std::memcpy(out.data() + t * 4, &v, 4);
    }
  };
  cases.push_back(std::move(c));
}

} // namespace

void addHopperCases(std::vector<Case> &cases) {
  const Operand none{.swizzle_bytes = 0};
  for (int span : {128, 64, 32}) {
    const Operand k{.swizzle_bytes = span}, mn{.swizzle_bytes = span, .across = true};
    addWgmmaCase(cases, {.name = "ss.swizzle" + text(span), .a = k, .b = k});
    addWgmmaCase(cases, {.name = "ss.a_across" + text(span), .a = mn, .b = k});
    addWgmmaCase(cases, {.name = "ss.b_across" + text(span), .n = 128, .a = k, .b = mn});
    if (span > 32) // the second 16 columns of the row
      addWgmmaCase(cases, {.name = "ss.step" + text(span),
                           .a = {.swizzle_bytes = span, .first_k = 16},
                           .b = {.swizzle_bytes = span, .first_k = span / 2 - 16}});
  }
  addWgmmaCase(cases, {.name = "ss.no_swizzle", .a = none, .b = none});
  for (int n : {8, 24, 256})
    addWgmmaCase(cases, {.name = "rs.n" + text(n), .n = n, .bf = false, .register_a = true});
  addWgmmaCase(cases, {.name = "rs.b_across", .n = 192, .register_a = true, .b = {.across = true}});
  addWgmmaCase(cases, {.name = "ss.f16", .bf = false});
  addWgmmaCase(cases, {.name = "ss.from_zero", .accumulate = false});
  addWgmmaCase(cases, {.name = "ss.negate_a", .negate_a = true});
  addWgmmaCase(cases, {.name = "rs.negate_b", .register_a = true, .negate_b = true});

  for (bool register_a : {false, true}) {
    addOtherTypes(cases, "tf32", "tf32", register_a);
    for (const char *a : {"e4m3", "e5m2"})
      for (const char *b : {"e4m3", "e5m2"})
        addOtherTypes(cases, a, b, register_a);
  }

  addScalar(cases, "elect.sync", "elect.sync %r1|%p1, -1; selp.b32 %r0, 100, 0, %p1; add.u32 %r0, %r0, %r1;",
            32, [](uint32_t t) { return t == 0 ? 100u : 0u; });
  // Warp 0 hands a value over in each of four phases; warp 1 gives the slot back.
  addScalar(
      cases, "mbarrier.ring",
      "mov.u32 %r1, buffer; mov.u32 %r0, 0; setp.eq.u32 %p1, %gid, 0; @%p1 mbarrier.init.shared::cta.b64 "
      "[%r1], 32; @%p1 mbarrier.init.shared::cta.b64 [%r1+8], 1; bar.sync 0;"
      "and.b32 %r2, %gid, 31; shl.b32 %r3, %r2, 2; add.u32 %r3, %r3, %r1; mov.u32 %r4, 0; setp.ge.u32 %p2, "
      "%gid, 32; @%p2 bra CONSUMER;"
      "PRODUCER: and.b32 %r5, %r4, 1; xor.b32 %r5, %r5, 1; W1: mbarrier.try_wait.parity.shared::cta.b64 %p3, "
      "[%r1+8], %r5; @!%p3 bra W1;"
      "mad.lo.u32 %r6, %r2, 3, %r4; st.shared.b32 [%r3+64], %r6; mbarrier.arrive.shared::cta.b64 %rd1, "
      "[%r1]; add.u32 %r4, %r4, 1; setp.lt.u32 %p4, %r4, 4; @%p4 bra PRODUCER; bra DONE;"
      "CONSUMER: and.b32 %r5, %r4, 1; W2: mbarrier.try_wait.parity.shared::cta.b64 %p3, [%r1], %r5; @!%p3 "
      "bra W2;"
      "xor.b32 %r7, %r2, 5; shl.b32 %r7, %r7, 2; add.u32 %r7, %r7, %r1; ld.shared.b32 %r6, [%r7+64]; "
      "mad.lo.u32 %r0, %r0, 10, %r6; bar.warp.sync -1;"
      "setp.eq.u32 %p5, %r2, 0; @%p5 mbarrier.arrive.shared::cta.b64 _, [%r1+8]; add.u32 %r4, %r4, 1; "
      "setp.lt.u32 %p4, %r4, 4; @%p4 bra CONSUMER; DONE:",
      64, [](uint32_t t) {
        uint32_t sum = 0;
        for (uint32_t i = 0; i < 4 && t >= 32; ++i)
          sum = sum * 10 + ((t - 32) ^ 5) * 3 + i;
        return sum;
      });
}

} // namespace flashplus::emu::test
