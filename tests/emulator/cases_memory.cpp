// SPDX-License-Identifier: BSD-3-Clause
// Loads, stores, atomics and asynchronous copies.
#include "tests/emulator/cases.h"

#include <algorithm>
#include <cstring>

namespace flashplus::emu::test {
namespace {

constexpr const char *kShared = ".shared .align 128 .b8 buffer[4096];";

Case make(std::string name, const std::string &body, size_t input, size_t output,
          const char *declarations = "") {
  Case c;
  c.name = std::move(name);
  c.ptx = module(body, declarations);
  Random random(31);
  for (size_t i = 0; i < input; ++i)
    c.input.push_back(uint8_t(random.next()));
  c.output_bytes = output;
  return c;
}

void copyOf(Case &c) {
  c.expect = [](std::span<const uint8_t> in, std::span<uint8_t> out) {
    std::memcpy(out.data(), in.data(), out.size());
  };
}

} // namespace

void addMemoryCases(std::vector<Case> &cases) {
  // Vectors and widths, global and through shared memory: out = in.
  for (auto [vector, bits] :
       {std::pair{1, 16}, {1, 32}, {1, 64}, {2, 16}, {2, 32}, {2, 64}, {4, 16}, {4, 32}}) {
    const std::string type = ".b" + std::to_string(bits), v = vector > 1 ? ".v" + std::to_string(vector) : "";
    const int bytes = vector * bits / 8;
    std::string regs = vector > 1 ? "{" : "";
    for (int i = 0; i < vector; ++i)
      regs += (i ? ", " : "") +
              std::string(bits == 64   ? "%rd"
                          : bits == 16 ? "%rs"
                                       : "%r") +
              std::to_string(20 + i);
    regs += vector > 1 ? "}" : "";
    const std::string at = "mul.wide.u32 %rd1, %gid, " + std::to_string(bytes) +
                           "; add.s64 %rd2, %rd1, %in; add.s64 %rd3, %rd1, %out;";
    cases.push_back(make("global" + v + type,
                         at + "ld.global" + v + type + " " + regs + ", [%rd2]; st.global" + v + type +
                             " [%rd3], " + regs + ";",
                         size_t(bytes) * 32, size_t(bytes) * 32));
    copyOf(cases.back());
    cases.push_back(make("shared" + v + type,
                         at + "mov.u64 %rd4, buffer; add.s64 %rd4, %rd4, %rd1; ld.global" + v + type + " " +
                             regs + ", [%rd2]; st.shared" + v + type + " [%rd4+64], " + regs + "; ld.shared" +
                             v + type + " " + regs + ", [%rd4+64]; st.global" + v + type + " [%rd3], " +
                             regs + ";",
                         size_t(bytes) * 32, size_t(bytes) * 32, kShared));
    copyOf(cases.back());
  }
  // Narrow loads extend by their type.
  cases.push_back(make("ld.extend",
                       "cvt.u64.u32 %rd1, %gid; add.s64 %rd2, %rd1, %in; mul.wide.u32 %rd3, %gid, 8; add.s64 "
                       "%rd3, %rd3, %out; ld.global.s8 %r1, [%rd2]; ld.global.u8 %r2, [%rd2]; st.global.b32 "
                       "[%rd3], %r1; st.global.b32 [%rd3+4], %r2;",
                       32, 256));
  cases.back().expect = [](std::span<const uint8_t> in, std::span<uint8_t> out) {
    for (int t = 0; t < 32; ++t) {
      const int32_t s = int8_t(in[size_t(t)]);
      const uint32_t u = in[size_t(t)];
      std::memcpy(out.data() + t * 8, &s, 4);
      std::memcpy(out.data() + t * 8 + 4, &u, 4);
    }
  };
  // Generic addresses reach shared memory.
  cases.push_back(
      make("generic",
           "mul.wide.u32 %rd1, %gid, 4; add.s64 %rd2, %rd1, %in; add.s64 %rd3, %rd1, %out; mov.u64 %rd4, "
           "buffer; cvta.shared.u64 %rd4, %rd4; add.s64 %rd4, %rd4, %rd1; ld.b32 %r1, [%rd2]; st.b32 [%rd4], "
           "%r1; cvta.to.shared.u64 %rd5, %rd4; ld.shared.b32 %r2, [%rd5]; st.b32 [%rd3], %r2;",
           128, 128, kShared));
  copyOf(cases.back());
  cases.push_back(
      make("local",
           "mul.wide.u32 %rd1, %gid, 4; add.s64 %rd2, %rd1, %in; add.s64 %rd3, %rd1, %out; ld.global.b32 "
           "%r1, [%rd2]; { .local .align 8 .b8 frame[16]; mov.u64 %rd4, frame; st.local.b32 [%rd4+8], %r1; "
           "ld.local.b32 %r2, [frame+8]; } st.global.b32 [%rd3], %r2;",
           128, 128));
  copyOf(cases.back());
  cases.push_back(make("const",
                       "and.b32 %r1, %gid, 3; mul.wide.u32 %rd1, %r1, 4; mov.u64 %rd2, table; add.s64 %rd2, "
                       "%rd2, %rd1; ld.const.b32 %r2, [%rd2]; mul.wide.u32 %rd1, %gid, 4; add.s64 %rd3, "
                       "%rd1, %out; st.global.b32 [%rd3], %r2;",
                       16, 128, ".const .align 4 .u32 table[4] = {10, 20, 0x30, 40};"));
  cases.back().expect = [](std::span<const uint8_t>, std::span<uint8_t> out) {
    const uint32_t table[4] = {10, 20, 0x30, 40};
    for (int t = 0; t < 32; ++t)
      std::memcpy(out.data() + t * 4, &table[t % 4], 4);
  };
  // Atomics: all lanes on one word of shared memory.
  struct AtomicCase {
    const char *op;
    uint32_t start;
    uint32_t (*apply)(uint32_t, uint32_t);
  };
  for (const AtomicCase &a :
       {AtomicCase{"add.u32", 5, [](uint32_t x, uint32_t v) { return x + v; }},
        {"min.s32", 100, [](uint32_t x, uint32_t v) { return uint32_t(std::min(int32_t(x), int32_t(v))); }},
        {"max.u32", 3, [](uint32_t x, uint32_t v) { return std::max(x, v); }},
        {"and.b32", 0xffffffff, [](uint32_t x, uint32_t v) { return x & v; }},
        {"or.b32", 0, [](uint32_t x, uint32_t v) { return x | v; }},
        {"xor.b32", 1, [](uint32_t x, uint32_t v) { return x ^ v; }}}) {
    cases.push_back(make(std::string("atom.") + a.op,
                         "mov.u32 %r9, buffer; setp.eq.u32 %p1, %gid, 0; @%p1 st.shared.b32 [%r9], " +
                             std::to_string(a.start) +
                             "; bar.warp.sync -1; mad.lo.u32 %r1, %gid, 3, 7; atom.shared." + a.op +
                             " %r2, [%r9], %r1; bar.warp.sync -1; ld.shared.b32 %r3, [%r9]; mul.wide.u32 "
                             "%rd1, %gid, 4; add.s64 %rd1, %rd1, %out; st.global.b32 [%rd1], %r3;",
                         16, 128, kShared));
    cases.back().expect = [a](std::span<const uint8_t>, std::span<uint8_t> out) {
      uint32_t x = a.start;
      for (uint32_t t = 0; t < 32; ++t)
        x = a.apply(x, t * 3 + 7);
      for (int t = 0; t < 32; ++t)
        std::memcpy(out.data() + t * 4, &x, 4);
    };
  }
  cases.push_back(
      make("atom.cas_exch_inc",
           "mul.wide.u32 %rd1, %gid, 4; add.s64 %rd1, %rd1, %out; st.global.b32 [%rd1], %gid; "
           "atom.global.cas.b32 %r1, [%rd1], %gid, 77; atom.global.inc.u32 %r2, [%rd1], 77; "
           "atom.global.exch.b32 %r3, [%rd1], %r1; add.u32 %r4, %r2, %r3; red.global.add.u32 [%rd1], %r4;",
           16, 128));
  cases.back().expect = [](std::span<const uint8_t>, std::span<uint8_t> out) {
    for (uint32_t t = 0; t < 32; ++t) { // cas: t -> 77; inc with bound 77: 77 -> 0, returns 77; exch: 0 -> t
      const uint32_t v = t + 77 + 0;
      std::memcpy(out.data() + t * 4, &v, 4);
    }
  };
  cases.push_back(
      make("red.add.f32_u64",
           "mul.wide.u32 %rd1, %gid, 16; add.s64 %rd1, %rd1, %out; mov.b64 %rd5, 0xffffffff; st.global.b32 "
           "[%rd1], 0f3F800000; st.global.b32 [%rd1+4], 0; st.global.b64 [%rd1+8], %rd5; red.global.add.f32 "
           "[%rd1], 0f3FC00000; mov.b64 %rd6, 3; red.global.add.u64 [%rd1+8], %rd6;",
           16, 512));
  cases.back().expect = [](std::span<const uint8_t>, std::span<uint8_t> out) {
    for (int t = 0; t < 32; ++t) {
      const float f = 2.5f;
      const uint32_t zero = 0;
      const uint64_t sum = 0xffffffffull + 3;
      std::memcpy(out.data() + t * 16, &f, 4);
      std::memcpy(out.data() + t * 16 + 4, &zero, 4);
      std::memcpy(out.data() + t * 16 + 8, &sum, 8);
    }
  };
  // cp.async of each size, and with a shorter source (the rest is zero).
  for (auto [kind, bytes] : {std::pair{"ca", 4}, {"ca", 8}, {"ca", 16}, {"cg", 16}}) {
    const std::string size = std::to_string(bytes);
    cases.push_back(make(std::string("cp.async.") + kind + "." + size,
                         "mul.wide.u32 %rd1, %gid, " + size +
                             "; add.s64 %rd2, %rd1, %in; add.s64 %rd3, %rd1, %out; mov.u64 %rd4, buffer; "
                             "add.s64 %rd4, %rd4, %rd1; cp.async." +
                             kind + ".shared.global [%rd4], [%rd2], " + size +
                             "; cp.async.commit_group; cp.async.wait_group 0; ld.shared.b32 %r1, [%rd4]; "
                             "ld.shared.b32 %r2, [%rd4+" +
                             std::to_string(bytes - 4) +
                             "]; st.global.b32 [%rd3], %r1; st.global.b32 [%rd3+" +
                             std::to_string(bytes - 4) + "], %r2;",
                         size_t(bytes) * 32, size_t(bytes) * 32, kShared));
    const int n = bytes;
    cases.back().expect = [n](std::span<const uint8_t> in, std::span<uint8_t> out) {
      std::memset(out.data(), 0xcd, out.size()); // what the kernel does not write
      for (int t = 0; t < 32; ++t) {
        std::memcpy(out.data() + t * n, in.data() + t * n, 4);
        std::memcpy(out.data() + t * n + n - 4, in.data() + t * n + n - 4, 4);
      }
    };
  }
  cases.push_back(
      make("cp.async.short",
           "mul.wide.u32 %rd1, %gid, 16; add.s64 %rd2, %rd1, %in; add.s64 %rd3, %rd1, %out; mov.u64 %rd4, "
           "buffer; add.s64 %rd4, %rd4, %rd1; and.b32 %r5, %gid, 15; cp.async.cg.shared.global [%rd4], "
           "[%rd2], 16, %r5; cp.async.wait_all; ld.shared.v4.b32 {%r1, %r2, %r3, %r4}, [%rd4]; "
           "st.global.v4.b32 [%rd3], {%r1, %r2, %r3, %r4};",
           512, 512, kShared));
  cases.back().expect = [](std::span<const uint8_t> in, std::span<uint8_t> out) {
    std::memset(out.data(), 0, out.size());
    for (int t = 0; t < 32; ++t)
      std::memcpy(out.data() + t * 16, in.data() + t * 16, size_t(t % 16));
  };
  // Two groups, waited for one after the other.
  cases.push_back(
      make("cp.async.groups",
           "mul.wide.u32 %rd1, %gid, 4; add.s64 %rd2, %rd1, %in; add.s64 %rd3, %rd1, %out; mov.u64 %rd4, "
           "buffer; add.s64 %rd4, %rd4, %rd1; cp.async.ca.shared.global [%rd4], [%rd2], 4; "
           "cp.async.commit_group; cp.async.ca.shared.global [%rd4+128], [%rd2+128], 4; "
           "cp.async.commit_group; cp.async.wait_group 1; ld.shared.b32 %r1, [%rd4]; st.global.b32 [%rd3], "
           "%r1; cp.async.wait_group 0; ld.shared.b32 %r1, [%rd4+128]; st.global.b32 [%rd3+128], %r1;",
           256, 256, kShared));
  copyOf(cases.back());
  // Dynamic shared memory starts behind the static.
  cases.push_back(make("dynamic_shared",
                       "mul.wide.u32 %rd1, %gid, 4; add.s64 %rd2, %rd1, %in; add.s64 %rd3, %rd1, %out; "
                       "mov.u64 %rd4, dynamic; add.s64 %rd4, %rd4, %rd1; ld.global.b32 %r1, [%rd2]; "
                       "st.shared.b32 [%rd4], %r1; mov.u64 %rd5, buffer; add.s64 %rd5, %rd5, %rd1; "
                       "st.shared.b32 [%rd5], %gid; ld.shared.b32 %r2, [%rd4]; st.global.b32 [%rd3], %r2;",
                       128, 128,
                       ".extern .shared .align 128 .b8 dynamic[];\n.shared .align 128 .b8 buffer[4096];"));
  cases.back().dynamic_shared = 256;
  copyOf(cases.back());
}

} // namespace flashplus::emu::test
