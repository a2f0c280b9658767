// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/cuda_tensor_map.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <vector>

using namespace flashplus;

namespace {

struct Call {
  int type = 0, rank = 0;
  void *data = nullptr, *out = nullptr;
  std::array<uint64_t, 4> extent{};
  std::array<uint64_t, 3> stride{};
  std::array<uint32_t, 4> box{};
};
std::vector<Call> calls;
cuda::CUresult answer = cuda::kSuccess;

cuda::CUresult encode(void *out, int type, uint32_t rank, void *data, const uint64_t *extent, const uint64_t *stride,
                      const uint32_t *box, const uint32_t *, int, int, int, int) {
  Call c{type, int(rank), data, out, {}, {}, {}};
  std::copy_n(extent, 4, c.extent.begin());
  std::copy_n(stride, 3, c.stride.begin());
  std::copy_n(box, 4, c.box.begin());
  calls.push_back(c);
  return answer;
}

} // namespace

TEST_CASE("tensor maps: one a box, in the order of the launch schema") {
  cuda::Driver driver;
  driver.tensorMapEncodeTiled = encode;
  calls.clear();
  answer = cuda::kSuccess;
  char memory[3];
  const TensorLayout q{&memory[0], {128, 300, 8, 2}, {2048, 256, 614400}, DType::BF16};
  const TensorLayout k{&memory[1], {128, 500, 1, 1}, {256, 77, 0}, DType::F16}; // dimensions of one: any stride
  const TensorLayout v{&memory[2], {64, 0, 1, 0}, {128, 0, 0}, DType::BF16};    // empty: never read through
  const TensorLayout tensors[] = {q, k, v};
  const TensorMap maps[] = {{TensorMap::Tensor::V, 80, 64}, {TensorMap::Tensor::Q, 128, 64}, {TensorMap::Tensor::K, 80, 32}};
  alignas(64) std::byte out[3 * kTensorMapBytes];
  REQUIRE(encodeTensorMaps(driver, maps, tensors, out).isOk());
  REQUIRE(calls.size() == 3);
  CHECK(calls[0].data == &memory[2]);
  CHECK(calls[0].extent == std::array<uint64_t, 4>{64, 1, 1, 1});
  CHECK(calls[1].data == &memory[0]);
  CHECK(calls[1].out == out + kTensorMapBytes);
  CHECK(calls[1].extent == std::array<uint64_t, 4>{128, 300, 8, 2});
  CHECK(calls[1].stride == std::array<uint64_t, 3>{2048, 256, 614400});
  CHECK(calls[1].box == std::array<uint32_t, 4>{64, 128, 1, 1});
  CHECK(calls[2].stride == std::array<uint64_t, 3>{256, 16, 16});
  CHECK(calls[1].type != calls[2].type);

  answer = 1;
  const Status refused = encodeTensorMaps(driver, maps, tensors, out);
  CHECK(refused.code() == StatusCode::DeviceError);
  CHECK(refused.message().find("cuTensorMapEncodeTiled") != std::string::npos);
  CHECK(encodeTensorMaps(driver, maps, {}, out).code() == StatusCode::Internal);
}
