// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/devices/cuda/cuda_tensor_map.h"

#include <algorithm>
#include <cstring>

namespace flashplus {
namespace {

// Numbers of the driver's enumerations, part of its stable ABI (cuda.h, CUtensorMap*).
constexpr int kTypeFloat16 = 6, kTypeBFloat16 = 9;
constexpr int kInterleaveNone = 0, kSwizzle128 = 3, kPromote128 = 2, kFillZeros = 0;

Status encodeOne(const cuda::Driver &driver, const TensorMap &map, const TensorLayout &t, std::byte *out) {
  uint64_t extent[4], stride[3];
  const bool empty = std::ranges::count(t.extent, 0) != 0;
  for (int d = 0; d < 4; ++d)
    extent[d] = uint64_t(std::max<int64_t>(t.extent[d], 1)); // an empty tensor's map is never read through
  for (int d = 0; d < 3; ++d)
    // A dimension of one, and all of what is empty, may have any stride; the driver wants multiples of 16.
    stride[d] = t.extent[d + 1] > 1 && !empty ? uint64_t(t.stride[d]) : 16;
  const uint32_t box[4] = {uint32_t(map.box_columns), uint32_t(boxRows(map.box_rows, t.run)), 1, 1};
  const uint32_t element_stride[4] = {1, 1, 1, 1};
  const cuda::CUresult r = driver.tensorMapEncodeTiled(
      out, t.dtype == DType::F16 ? kTypeFloat16 : kTypeBFloat16, 4, t.data, extent, stride, box,
      element_stride, kInterleaveNone, kSwizzle128, kPromote128, kFillZeros);
  return r == cuda::kSuccess ? Status::ok() : driver.failure("cuTensorMapEncodeTiled", r);
}

/// Of everything but the address, so that tensors of one shape meet in one place.
size_t placeOf(const TensorMap &map, const TensorLayout &t) {
  uint64_t h = uint64_t(map.operand) << 32 ^ uint64_t(map.box_rows);
  for (int64_t word : {t.extent[1], t.extent[2], t.extent[3], t.stride[0], t.stride[1], t.stride[2]})
    h = (h ^ uint64_t(word)) * 0x9e3779b97f4a7c15;
  return h >> 32;
}

bool sameButAddress(const TensorLayout &a, const TensorLayout &b) {
  TensorLayout moved = a;
  moved.data = b.data;
  return moved == b;
}

} // namespace

Status TensorMapCache::encode(const cuda::Driver &driver, int ordinal, std::span<const TensorMap> maps,
                              std::span<const TensorLayout> tensors, std::byte *out) {
  for (const TensorMap &map : maps) {
    const size_t index = size_t(map.operand);
    if (index >= tensors.size())
      return {StatusCode::Internal, "the kernel wants a tensor map of operand " + std::to_string(index)};
    const TensorLayout &t = tensors[index];
    Entry &e = entries_[placeOf(map, t) % kEntries];
    const bool same_shape =
        e.driver == &driver && e.ordinal == ordinal && e.map == map && sameButAddress(e.layout, t);
    if (!same_shape || e.layout.data != t.data) {
      e.driver = nullptr; // holds nothing should the driver refuse
      if (!same_shape)
        FLASHPLUS_RETURN_IF_ERROR(encodeOne(driver, map, t, e.encoded));
      else if (const cuda::CUresult r = driver.tensorMapReplaceAddress(e.encoded, t.data);
               r != cuda::kSuccess)
        return driver.failure("cuTensorMapReplaceAddress", r);
      e.driver = &driver;
      e.ordinal = ordinal;
      e.map = map;
      e.layout = t;
    }
    std::memcpy(out, e.encoded, kTensorMapBytes);
    out += kTensorMapBytes;
  }
  return Status::ok();
}

} // namespace flashplus
