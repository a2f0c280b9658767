// SPDX-License-Identifier: BSD-3-Clause
// cp.async.bulk without a map, and stores and reductions from shared to global memory: sm_90a.
#include "tests/emulator/cases.h"

#include <bit>
#include <cstring>

namespace flashplus::emu::test {
namespace {

// %r1 tile (4096 bytes), %r2 an mbarrier behind it, %r3 this thread's word, %p1 the first thread.
const std::string kSetUp = "mov.u32 %r1, tile; add.u32 %r2, %r1, 4096; mov.b64 %rd1, map; cvta.param.u64 "
                           "%rd1, %rd1; mul.wide.u32 %rd2, "
                           "%gid, 4; add.s64 %rd3, %rd2, %out; add.s64 %rd4, %rd2, %in; shl.b32 %r3, %gid, "
                           "2; add.u32 %r3, %r3, %r1; "
                           "setp.eq.u32 %p1, %gid, 0;\n";
const std::string kDone = "@%p1 cp.async.bulk.commit_group;\n@%p1 cp.async.bulk.wait_group 0;\n";
/// Copies `bytes` of the input to the tile, and makes them visible to the asynchronous proxy.
std::string fill(uint32_t bytes) {
  std::string text;
  for (uint32_t at = 0; at < bytes; at += 512)
    text += "ld.global.b32 %r10, [%rd4+" + std::to_string(at) + "]; st.shared.b32 [%r3+" +
            std::to_string(at) + "], %r10;\n";
  return text + "fence.proxy.async.shared::cta; bar.sync 0;\n";
}

Case bulkCase(const std::string &name, const std::string &body, size_t input, size_t output) {
  Case c;
  c.name = name;
  c.ptx = module(kSetUp + body, ".extern .shared .align 1024 .b8 tile[];");
  c.ptx.replace(c.ptx.find(".target sm_80"), 13, ".target sm_90a");
  c.ptx.replace(c.ptx.find(".param .u64 output)"), 19, ".param .u64 output, .param .align 64 .b8 map[128])");
  c.threads = 128;
  c.dynamic_shared = 4096 + 8;
  c.least_chip = 90;
  Random random(71);
  for (size_t i = 0; i < input; ++i)
    c.input.push_back(uint8_t(random.next()));
  c.output_bytes = output;
  TensorMapContents map; // a launch wants one, though most of these do not read it
  map.rank = 1;
  map.extent[0] = map.box[0] = 64;
  c.map = map;
  return c;
}

/// The output is what a map of the case's input says, so the map's address is the distance from the one to
/// the other: stores go to the input's memory, and a copy of it is the output.
void addTensorStore(std::vector<Case> &cases, const std::string &name, std::vector<uint64_t> extent,
                    std::vector<uint32_t> box, std::vector<int> start, int swizzle) {
  const size_t rank = extent.size();
  TensorMapContents map;
  map.rank = uint8_t(rank);
  map.swizzle_bytes = uint8_t(swizzle);
  map.address = 4096;
  uint64_t stride = extent[0] * 2 + 16;
  uint32_t bytes = 2;
  std::string at;
  for (size_t d = 0; d < rank; ++d) {
    map.extent[d] = extent[d];
    map.box[d] = box[d];
    bytes *= box[d];
    if (d)
      map.stride[d - 1] = stride, stride *= extent[d];
    at += (d ? ", " : "") + std::to_string(start[d]);
  }
  const auto total = uint32_t((stride + 511) / 512 * 512);
  std::string body = fill(bytes) + "@%p1 cp.async.bulk.tensor." + std::to_string(rank) +
                     "d.global.shared::cta.tile.bulk_group [%rd1, {" + at + "}], [%r1];\n" + kDone +
                     "bar.sync 0;\n";
  for (uint32_t word = 0; word < total; word += 512)
    body += "ld.global.b32 %r10, [%rd4+" + std::to_string(4096 + word) + "]; st.global.b32 [%rd3+" +
            std::to_string(word) + "], %r10;\n";
  Case c = bulkCase("bulk_store." + name, body, 4096 + total, total);
  c.map = map;
  c.expect = [=](std::span<const uint8_t> in, std::span<uint8_t> out) {
    std::memcpy(out.data(), in.data() + 4096, total);
    for (uint32_t i = 0; i < bytes / 2; ++i) {
      uint64_t rest = i, to = 0;
      bool inside = true;
      for (size_t d = 0; d < rank; ++d) {
        const int64_t x = start[d] + int64_t(rest % box[d]);
        rest /= box[d];
        inside &= x >= 0 && x < int64_t(extent[d]);
        to += uint64_t(x) * (d ? map.stride[d - 1] : 2);
      }
      uint64_t from = i * 2;
      if (swizzle)
        from ^= (from / 128 % uint64_t(swizzle / 16)) * 16;
      if (inside)
        std::memcpy(out.data() + to, in.data() + from, 2);
    }
  };
  cases.push_back(std::move(c));
}

void addReduction(std::vector<Case> &cases, const std::string &form,
                  std::function<uint32_t(uint32_t, uint32_t)> f, bool small_floats = false) {
  // Onto the second half of the input, which is then the output.
  Case c = bulkCase("bulk_reduce." + form,
                    fill(512) +
                        "add.s64 %rd5, %in, 512;\n@%p1 cp.reduce.async.bulk.global.shared::cta.bulk_group." +
                        form + " [%rd5], [%r1], 512;\n" + kDone +
                        "bar.sync 0;\nld.global.b32 %r10, [%rd4+512]; "
                        "st.global.b32 [%rd3], %r10;\n",
                    1024, 512);
  if (small_floats) // sums are exact
    for (size_t i = 0; i < 256; ++i) {
      const float v = float(int(i * 37 % 41) - 20) / 4;
      std::memcpy(c.input.data() + i * 4, &v, 4);
    }
  c.expect = [f](std::span<const uint8_t> in, std::span<uint8_t> out) {
    for (size_t i = 0; i < 128; ++i) {
      uint32_t a, b;
      std::memcpy(&a, in.data() + 512 + i * 4, 4);
      std::memcpy(&b, in.data() + i * 4, 4);
      const uint32_t v = f(a, b);
      std::memcpy(out.data() + i * 4, &v, 4);
    }
  };
  cases.push_back(std::move(c));
}

} // namespace

void addBulkCopyCases(std::vector<Case> &cases) {
  for (uint32_t bytes : {16u, 512u, 4096u}) {
    std::string body =
        "@%p1 mbarrier.init.shared::cta.b64 [%r2], 1;\n@%p1 fence.mbarrier_init.release.cluster;\n"
        "bar.sync 0;\n@!%p1 bra W;\nmbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], " +
        std::to_string(bytes) +
        ";\nadd.s64 %rd5, %in, 48;\ncp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
        "[%r1], [%rd5], " +
        std::to_string(bytes) +
        ", [%r2];\nW: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r2], 0;\n@!%p2 bra W;\n"
        "setp.lt.u32 %p3, %gid, " +
        std::to_string(bytes / 4) + ";\n";
    for (uint32_t at = 0; at < bytes; at += 512)
      body += "@%p3 ld.shared.b32 %r10, [%r3+" + std::to_string(at) + "]; @%p3 st.global.b32 [%rd3+" +
              std::to_string(at) + "], %r10;\n";
    Case c = bulkCase("bulk_copy." + std::to_string(bytes), body, 4096 + 48, bytes);
    c.expect = [bytes](std::span<const uint8_t> in, std::span<uint8_t> out) {
      std::memcpy(out.data(), in.data() + 48, bytes);
    };
    cases.push_back(std::move(c));
  }
  {
    Case c = bulkCase("bulk_store.bytes",
                      fill(1024) + "@%p1 cp.async.bulk.global.shared::cta.bulk_group [%out], [%r1], 1008;\n" +
                          kDone,
                      1024, 1024);
    c.expect = [](std::span<const uint8_t> in, std::span<uint8_t> out) {
      std::memcpy(out.data(), in.data(), 1008); // the rest stays as it was
    };
    cases.push_back(std::move(c));
  }
  addTensorStore(cases, "1d", {200}, {64}, {8}, 0);
  addTensorStore(cases, "1d.end", {200}, {64}, {168}, 0);
  addTensorStore(cases, "2d.swizzle128", {64, 20}, {64, 8}, {0, 3}, 128);
  addTensorStore(cases, "2d.swizzle64", {96, 9}, {32, 8}, {32, 0}, 64);
  addTensorStore(cases, "2d.swizzle32", {96, 9}, {16, 16}, {80, 1}, 32);
  addTensorStore(cases, "2d.rows_behind", {64, 20}, {64, 8}, {0, 16}, 128);
  addTensorStore(cases, "4d", {64, 7, 2, 3}, {64, 4, 2, 1}, {0, 5, 0, 2}, 128);
  addReduction(cases, "add.u32", [](uint32_t a, uint32_t b) { return a + b; });
  addReduction(cases, "min.s32",
               [](uint32_t a, uint32_t b) { return uint32_t(std::min(int32_t(a), int32_t(b))); });
  addReduction(cases, "max.u32", [](uint32_t a, uint32_t b) { return std::max(a, b); });
  addReduction(cases, "xor.b32", [](uint32_t a, uint32_t b) { return a ^ b; });
  addReduction(
      cases, "add.f32",
      [](uint32_t a, uint32_t b) {
        return std::bit_cast<uint32_t>(std::bit_cast<float>(a) + std::bit_cast<float>(b));
      },
      /*small_floats=*/true);
}

} // namespace flashplus::emu::test
