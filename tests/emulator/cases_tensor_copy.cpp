// SPDX-License-Identifier: BSD-3-Clause
// cp.async.bulk.tensor loads: ranks, swizzles, edges of the tensor, element sizes.
#include "tests/emulator/cases.h"

#include <cstring>

namespace flashplus::emu::test {
namespace {

struct Box {
  std::string name;
  std::vector<uint64_t> extent;
  std::vector<uint32_t> box;
  std::vector<int> start;
  int swizzle = 0;
  uint8_t element_bytes = 2;
};

void addBox(std::vector<Case> &cases, const Box &b) {
  const size_t rank = b.extent.size();
  const uint64_t size = b.element_bytes;
  TensorMapContents map;
  map.rank = uint8_t(rank);
  map.element_bytes = b.element_bytes;
  map.swizzle_bytes = uint8_t(b.swizzle);
  map.address = 256;
  uint64_t stride = (b.extent[0] * size + 15) / 16 * 16 + 16; // rows are not packed
  uint64_t box_bytes = size;
  for (size_t d = 0; d < rank; ++d) {
    map.extent[d] = b.extent[d];
    map.box[d] = b.box[d];
    box_bytes *= b.box[d];
    if (d)
      map.stride[d - 1] = stride, stride *= b.extent[d];
  }
  std::string coordinates;
  for (size_t d = 0; d < rank; ++d)
    coordinates += (d ? ", " : "") + std::to_string(b.start[d]);
  // The mbarrier lies behind the tile.
  const uint64_t bar = (box_bytes + 7) / 8 * 8;
  std::string body =
      "mov.u32 %r1, tile; add.u32 %r2, %r1, " + std::to_string(bar) +
      "; mov.b64 %rd1, map; cvta.param.u64 %rd1, %rd1; mul.wide.u32 %rd2, %gid, 4; add.s64 %rd3, %rd2, "
      "%out;\n"
      "shl.b32 %r3, %gid, 2; add.u32 %r3, %r3, %r1; setp.eq.u32 %p1, %gid, 0;\n"
      "@%p1 mbarrier.init.shared::cta.b64 [%r2], 1;\n@%p1 fence.mbarrier_init.release.cluster;\nbar.sync 0;\n"
      "@!%p1 bra WAIT;\nprefetch.tensormap [%rd1];\nmbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], " +
      std::to_string(box_bytes) + ";\ncp.async.bulk.tensor." + std::to_string(rank) +
      "d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r1], [%rd1, {" + coordinates +
      "}], [%r2];\nWAIT: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r2], 0;\n@!%p2 bra WAIT;\n";
  for (uint64_t at = 0; at < box_bytes; at += 512)
    body += "add.u32 %r9, %gid, " + std::to_string(at / 4) + ";\nsetp.lt.u32 %p3, %r9, " +
            std::to_string(box_bytes / 4) + ";\n@%p3 ld.shared.b32 %r10, [%r3+" + std::to_string(at) +
            "];\n@%p3 st.global.b32 [%rd3+" + std::to_string(at) + "], %r10;\n";
  Case c;
  c.name = "tensor_copy." + b.name;
  c.ptx = module(body, ".extern .shared .align 1024 .b8 tile[];");
  c.ptx.replace(c.ptx.find(".target sm_80"), 13, ".target sm_90a");
  c.ptx.replace(c.ptx.find(".param .u64 output)"), 19, ".param .u64 output, .param .align 64 .b8 map[128])");
  c.threads = 128;
  c.dynamic_shared = uint32_t(bar) + 8;
  c.least_chip = 90;
  c.map = map;
  Random random(51);
  for (uint64_t i = 0; i < 256 + stride; ++i)
    c.input.push_back(uint8_t(random.next()));
  c.output_bytes = box_bytes;
  c.expect = [=](std::span<const uint8_t> in, std::span<uint8_t> out) {
    for (uint64_t i = 0; i < box_bytes / size; ++i) {
      uint64_t rest = i, from = 256;
      bool inside = true;
      for (size_t d = 0; d < rank; ++d) {
        const int64_t at = b.start[d] + int64_t(rest % b.box[d]);
        rest /= b.box[d];
        inside &= at >= 0 && at < int64_t(b.extent[d]);
        from += uint64_t(at) * (d ? map.stride[d - 1] : size);
      }
      uint64_t to =
          i * size; // 16-byte chunks are exchanged by the number of the 128-byte line that they lie in
      if (b.swizzle)
        to ^= (to / 128 % uint64_t(b.swizzle / 16)) * 16;
      if (inside)
        std::memcpy(out.data() + to, in.data() + from, size);
      else
        std::memset(out.data() + to, 0, size);
    }
  };
  cases.push_back(std::move(c));
}

} // namespace

// A box starts at a multiple of 16 bytes in the innermost dimension: at another place a GPU stops with an
// illegal instruction.
void addTensorCopyCases(std::vector<Case> &cases) {
  for (const Box &b : {
           Box{"1d", {200}, {64}, {8}},
           Box{"1d.end", {200}, {64}, {168}},
           Box{"1d.before", {200}, {64}, {-16}},
           Box{"1d.longer_than_the_tensor", {40}, {64}, {-8}},
           Box{"2d.no_swizzle", {96, 9}, {40, 4}, {16, 2}},
           Box{"2d.swizzle128", {64, 20}, {64, 8}, {0, 3}, 128},
           Box{"2d.swizzle64", {96, 9}, {32, 16}, {32, 0}, 64},
           Box{"2d.swizzle32", {96, 9}, {16, 16}, {80, 1}, 32},
           Box{"2d.rows_behind", {64, 20}, {64, 8}, {0, 16}, 128},
           Box{"2d.rows_before", {64, 20}, {64, 8}, {0, -4}, 128},
           Box{"2d.columns_behind", {100, 20}, {64, 8}, {64, 2}, 128},
           Box{"2d.columns_before", {100, 20}, {64, 8}, {-24, 2}, 128},
           Box{"2d.odd_chunk", {100, 20}, {64, 8}, {24, 2}, 128},
           Box{"2d.corner", {100, 20}, {64, 16}, {80, 13}, 128},
           Box{"2d.outside", {64, 20}, {64, 8}, {0, 100}, 128},
           Box{"2d.far_outside", {64, 20}, {64, 8}, {-1000000, 5}, 128},
           Box{"2d.most_rows", {64, 300}, {64, 256}, {0, 50}, 128},
           Box{"2d.bytes", {200, 12}, {128, 8}, {80, 5}, 128, 1},
           Box{"2d.floats", {50, 12}, {32, 8}, {20, 5}, 128, 4},
           Box{"3d", {64, 5, 3}, {64, 4, 2}, {0, 2, 2}, 128},
           Box{"4d", {64, 7, 2, 3}, {64, 8, 1, 1}, {0, 1, 1, 2}, 128},
           Box{"4d.before", {64, 7, 2, 3}, {64, 8, 2, 1}, {0, -3, -1, 2}, 128},
           Box{"5d", {32, 3, 2, 2, 2}, {32, 2, 2, 1, 2}, {0, 1, 1, 1, 0}, 64},
       })
    addBox(cases, b);
}

} // namespace flashplus::emu::test
