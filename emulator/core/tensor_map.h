// SPDX-License-Identifier: BSD-3-Clause
// What the emulator finds in the 128 bytes of a tensor map. The driver's encoding is not public, so the
// emulator's host side writes this one; it says the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace flashplus::emu {

struct TensorMapContents {
  static constexpr uint32_t kMagic = 0x504d5446;
  uint32_t magic = kMagic;
  uint8_t rank = 0; ///< 1 to 5
  uint8_t element_bytes = 2;
  uint8_t swizzle_bytes = 0; ///< 0, 32, 64 or 128
  uint8_t reserved = 0;
  uint64_t address = 0;
  uint64_t extent[5] = {}; ///< Elements, innermost first.
  uint64_t stride[4] = {}; ///< Bytes, of dimensions 1 and up.
  uint32_t box[5] = {};    ///< Elements.
  uint32_t padding = 0;
};
static_assert(sizeof(TensorMapContents) <= 128);

/// Where a byte of a swizzled tile lies: bits 4 and up are exchanged by bits 7 and up, as far as the mode's
/// span goes.
constexpr uint32_t swizzled(uint32_t address, uint32_t swizzle_bytes) {
  return swizzle_bytes < 32 ? address : address ^ ((address >> 7 & (swizzle_bytes / 16 - 1)) << 4);
}

} // namespace flashplus::emu
