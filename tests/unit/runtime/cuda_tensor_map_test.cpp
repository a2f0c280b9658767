// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/devices/cuda/cuda_tensor_map.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstring>
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

cuda::CUresult encode(void *out, int type, uint32_t rank, void *data, const uint64_t *extent,
                      const uint64_t *stride, const uint32_t *box, const uint32_t *, int, int, int, int) {
  Call c{type, int(rank), data, out, {}, {}, {}};
  std::copy_n(extent, 4, c.extent.begin());
  std::copy_n(stride, 3, c.stride.begin());
  std::copy_n(box, 4, c.box.begin());
  calls.push_back(c);
  std::memcpy(out, &data, sizeof data); // what a map is to this test: an address and a width
  std::memcpy(static_cast<char *>(out) + 8, extent, 8);
  return answer;
}

int replaced = 0;
cuda::CUresult replace(void *map, void *data) {
  ++replaced;
  std::memcpy(map, &data, sizeof data);
  return answer;
}

struct Seen {
  void *data;
  uint64_t columns;
};
Seen seen(const std::byte *map) {
  Seen s;
  std::memcpy(&s, map, sizeof s);
  return s;
}

cuda::Driver fakeDriver() {
  cuda::Driver driver;
  driver.tensorMapEncodeTiled = encode;
  driver.tensorMapReplaceAddress = replace;
  calls.clear();
  replaced = 0;
  answer = cuda::kSuccess;
  return driver;
}

} // namespace

TEST_CASE("tensor maps: one a box, in the order of the launch schema") {
  const cuda::Driver driver = fakeDriver();
  TensorMapCache cache;
  char memory[3];
  const TensorLayout q{&memory[0], {128, 300, 8, 2}, {2048, 256, 614400}, DType::BF16};
  // dimensions of one: any stride
  const TensorLayout k{&memory[1], {128, 500, 1, 1}, {256, 77, 0}, DType::F16};
  // empty: never read through, so any strides
  const TensorLayout v{&memory[2], {64, 0, 3, 2}, {2, 6, 38}, DType::BF16};
  const TensorLayout tensors[] = {q, k, v};
  const TensorMap maps[] = {{Operand::V, 80, 64}, {Operand::Q, 128, 64}, {Operand::K, 80, 32}};
  alignas(64) std::byte out[3 * kTensorMapBytes];
  REQUIRE(cache.encode(driver, 0, maps, tensors, out).isOk());
  REQUIRE(calls.size() == 3);
  CHECK(calls[0].data == &memory[2]);
  CHECK(calls[0].extent == std::array<uint64_t, 4>{64, 1, 3, 2});
  CHECK(calls[0].stride == std::array<uint64_t, 3>{16, 16, 16});
  CHECK(calls[1].data == &memory[0]);
  CHECK(seen(out + kTensorMapBytes).data == &memory[0]);
  CHECK(reinterpret_cast<uintptr_t>(calls[1].out) % 64 == 0);
  CHECK(calls[1].extent == std::array<uint64_t, 4>{128, 300, 8, 2});
  CHECK(calls[1].stride == std::array<uint64_t, 3>{2048, 256, 614400});
  CHECK(calls[1].box == std::array<uint32_t, 4>{64, 128, 1, 1});
  CHECK(calls[2].stride == std::array<uint64_t, 3>{256, 16, 16});
  CHECK(calls[1].type != calls[2].type);

  answer = 1;
  const Status refused = TensorMapCache().encode(driver, 0, maps, tensors, out);
  CHECK(refused.code() == StatusCode::DeviceError);
  CHECK(refused.message().find("cuTensorMapEncodeTiled") != std::string::npos);
  CHECK(TensorMapCache().encode(driver, 0, maps, {}, out).code() == StatusCode::Internal);
}

TEST_CASE("tensor maps: boxes of pages are as long as pages allow, and others are other maps") {
  const cuda::Driver driver = fakeDriver();
  TensorMapCache cache;
  char memory;
  const TensorMap maps[] = {{Operand::K, 80, 64}};
  alignas(64) std::byte out[kTensorMapBytes];
  calls.clear();
  for (int32_t run : {kWholeRun, 8, 64, 8}) {
    TensorLayout tensors[2];
    tensors[size_t(Operand::K)] = {&memory, {128, 64, 8, 20}, {2048, 256, 131072}, DType::BF16, run};
    REQUIRE(cache.encode(driver, 0, maps, tensors, out).isOk());
  }
  REQUIRE(calls.size() >= 3);
  CHECK(calls[0].box == std::array<uint32_t, 4>{64, 80, 1, 1});
  CHECK(calls[1].box == std::array<uint32_t, 4>{64, 8, 1, 1});
  CHECK(calls[2].box == std::array<uint32_t, 4>{64, 16, 1, 1});
}

TEST_CASE("tensor maps: the driver is asked only for what is new") {
  const cuda::Driver driver = fakeDriver();
  TensorMapCache cache;
  char memory[8];
  const TensorMap maps[] = {{Operand::Q, 128, 64}, {Operand::K, 80, 64}, {Operand::V, 80, 64}};
  alignas(64) std::byte out[3 * kTensorMapBytes];
  auto run = [&](const TensorLayout &layout, int q, int k, int v, int ordinal = 0) {
    TensorLayout tensors[] = {layout, layout, layout};
    const int at[] = {q, k, v};
    for (int i = 0; i < 3; ++i)
      tensors[i].data = &memory[at[i]];
    std::memset(out, 0, sizeof out);
    calls.clear();
    replaced = 0;
    const Status status = cache.encode(driver, ordinal, maps, tensors, out);
    for (int i = 0; i < 3 && status; ++i) {
      CHECK(seen(out + i * kTensorMapBytes).data == &memory[at[i]]);
      CHECK(seen(out + i * kTensorMapBytes).columns == uint64_t(layout.extent[0]));
    }
    return status;
  };
  const TensorLayout layout{nullptr, {128, 300, 8, 2}, {2048, 256, 614400}, DType::BF16};
  CHECK(run(layout, 0, 1, 2).isOk());
  CHECK(calls.size() == 3);
  CHECK(run(layout, 0, 1, 2).isOk());
  CHECK((calls.empty() && replaced == 0));
  CHECK(run(layout, 3, 1, 4).isOk());
  CHECK((calls.empty() && replaced == 2));
  CHECK(run(layout, 3, 3, 3).isOk()); // one tensor thrice: boxes differ
  CHECK((calls.empty() && replaced == 2));

  // Whatever else differs is another map.
  for (int field = 0; field < 8; ++field) {
    TensorLayout other = layout;
    if (field < 4)
      other.extent[field] *= 2;
    else if (field < 7)
      other.stride[field - 4] *= 2;
    else
      other.dtype = DType::F16;
    CHECK(run(layout, 3, 3, 3).isOk()); // may share its place with the last one
    CHECK(run(other, 3, 3, 3).isOk());
    CHECK(calls.size() == 3);
  }
  CHECK(run(layout, 3, 3, 3).isOk());
  CHECK(run(layout, 3, 3, 3, 1).isOk()); // another GPU
  CHECK(calls.size() == 3);
  const TensorMap wider[] = {{Operand::Q, 192, 64}};
  const TensorLayout tensors[] = {layout};
  CHECK(cache.encode(driver, 1, wider, tensors, out).isOk());
  CHECK(calls.back().box[1] == 192);

  // What the driver refused is not there afterwards.
  CHECK(run(layout, 0, 1, 2).isOk());
  answer = 1;
  const Status refused = run(layout, 5, 1, 2);
  CHECK(refused.message().find("cuTensorMapReplaceAddress") != std::string::npos);
  answer = cuda::kSuccess;
  CHECK(run(layout, 5, 1, 2).isOk());
  CHECK(calls.size() == 1);
}
