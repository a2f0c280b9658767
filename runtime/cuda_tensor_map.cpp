// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/cuda_tensor_map.h"

#include <algorithm>

namespace flashplus {
namespace {

// Numbers of the driver's enumerations, part of its stable ABI (cuda.h, CUtensorMap*).
constexpr int kTypeFloat16 = 6, kTypeBFloat16 = 9;
constexpr int kInterleaveNone = 0, kSwizzle128 = 3, kPromote128 = 2, kFillZeros = 0;

} // namespace

Status encodeTensorMaps(const cuda::Driver &driver, std::span<const TensorMap> maps,
                        std::span<const TensorLayout> tensors, std::byte *out) {
  for (const TensorMap &map : maps) {
    const size_t index = size_t(map.tensor);
    if (index >= tensors.size())
      return {StatusCode::Internal, "the kernel wants a tensor map of operand " + std::to_string(index)};
    const TensorLayout &t = tensors[index];
    uint64_t extent[4], stride[3];
    for (int d = 0; d < 4; ++d)
      extent[d] = uint64_t(std::max<int64_t>(t.extent[d], 1)); // an empty tensor's map is never read through
    for (int d = 0; d < 3; ++d)
      stride[d] = t.extent[d + 1] > 1 ? uint64_t(t.stride[d]) : 16; // a dimension of one may have any stride
    const uint32_t box[4] = {uint32_t(map.box_columns), uint32_t(map.box_rows), 1, 1};
    const uint32_t element_stride[4] = {1, 1, 1, 1};
    const cuda::CUresult r = driver.tensorMapEncodeTiled(
        out, t.dtype == DType::F16 ? kTypeFloat16 : kTypeBFloat16, 4, t.data, extent, stride, box, element_stride,
        kInterleaveNone, kSwizzle128, kPromote128, kFillZeros);
    if (r != cuda::kSuccess)
      return driver.failure("cuTensorMapEncodeTiled", r);
    out += kTensorMapBytes;
  }
  return Status::ok();
}

} // namespace flashplus
