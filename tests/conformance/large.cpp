// SPDX-License-Identifier: BSD-3-Clause
// Tensors that reach past 2^31 elements. Strides are huge and rows few: on the host the memory is mapped and
// hardly touched; on a device it must be real, so that --large is needed.
#include "tests/conformance/check.h"

#include "reference/compare_backward.h"
#include "reference/numeric.h"

#include <doctest/doctest.h>

#include <array>
#include <sys/mman.h>

using namespace flashplus;
using namespace flashplus::conformance;

namespace {

constexpr int64_t kPast = (int64_t(1) << 31) + 8; ///< Elements; a multiple of 8 past 2^31.

struct Shape {
  int64_t batch, rows, heads, dim;
};

/// A sparse (batch, rows, heads, dim) tensor with a twin on the device.
class Sparse {
public:
  Sparse(Shape shape, reference::Strides strides, char tensor)
      : shape_(shape), strides_(strides),
        bytes_(size_t((shape.batch - 1) * strides.b + (shape.rows - 1) * strides.s +
                      (shape.heads - 1) * strides.h + shape.dim) *
               2) {
    host_ =
        ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    REQUIRE(host_ != MAP_FAILED);
    if (!Session::get().onCpu())
      device_ = DeviceBuffer(bytes_);
    forRows([&](int64_t b, int64_t i, int64_t h, int64_t at) {
      for (int64_t c = 0; c < shape_.dim; ++c)
        reference::storeElement(
            host_, DType::BF16, at + c,
            tensor == 'o' ? kNaN : float((b * 5 + i * 13 + h * 7 + c * (tensor - 'a')) % 19 - 9) / 6);
      copy(at, /*to_device=*/true);
    });
    const DLDevice device = Session::get().device();
    dl_shape_ = {shape.batch, shape.rows, shape.heads, shape.dim};
    dl_strides_ = {strides.b, strides.s, strides.h, 1};
    tensor_ = {device_.data() ? device_.data() : host_,
               device,
               4,
               {kDLBfloat, 16, 1},
               dl_shape_.data(),
               dl_strides_.data(),
               0};
  }
  ~Sparse() { ::munmap(host_, bytes_); }
  Sparse(const Sparse &) = delete;

  DLTensor *tensor() { return &tensor_; }
  /// The same with the batch of one left out.
  DLTensor *packed() {
    tensor_.ndim = 3;
    tensor_.shape = dl_shape_.data() + 1;
    tensor_.strides = dl_strides_.data() + 1;
    return &tensor_;
  }
  const void *host() const { return host_; }
  reference::Strides strides() const { return strides_; }
  int64_t elements() const { return int64_t(bytes_ / 2); }

  /// Compact, from the device.
  std::vector<double> read() {
    std::vector<double> values;
    forRows([&](int64_t, int64_t, int64_t, int64_t at) {
      copy(at, /*to_device=*/false);
      for (int64_t c = 0; c < shape_.dim; ++c)
        values.push_back(double(reference::loadElement(host_, DType::BF16, at + c)));
    });
    return values;
  }

private:
  template <class Body> void forRows(Body body) {
    for (int64_t b = 0; b < shape_.batch; ++b)
      for (int64_t i = 0; i < shape_.rows; ++i)
        for (int64_t h = 0; h < shape_.heads; ++h)
          body(b, i, h, b * strides_.b + i * strides_.s + h * strides_.h);
  }
  void copy(int64_t at, bool to_device) {
    if (!device_.data())
      return; // the host's memory is the device's
    const Session &s = Session::get();
    char *host = static_cast<char *>(host_) + at * 2, *device = static_cast<char *>(device_.data()) + at * 2;
    const size_t bytes = size_t(shape_.dim) * 2;
    require(to_device ? flashplus_copy_to_device(s.context(), s.device(), device, host, bytes)
                      : flashplus_copy_to_host(s.context(), s.device(), host, device, bytes),
            "copy of a row");
  }

  const Shape shape_;
  const reference::Strides strides_;
  const size_t bytes_;
  void *host_ = nullptr;
  DeviceBuffer device_;
  std::array<int64_t, 4> dl_shape_, dl_strides_;
  DLTensor tensor_;
};

/// One dimension takes q, k, v and o past 2^31 elements.
void checkPast(Shape q_shape, Shape k_shape, reference::Strides q_strides, reference::Strides k_strides,
               int splits, bool ragged = false) {
  Sparse q(q_shape, q_strides, 'q'), k(k_shape, k_strides, 'k'), v(k_shape, k_strides, 'v'),
      o(q_shape, q_strides, 'o');
  CHECK(q.elements() > int64_t(1) << 31);
  CHECK(k.elements() > int64_t(1) << 31);
  const std::vector<int32_t> cu_q = {0, int32_t(q_shape.rows / 3), int32_t(q_shape.rows)},
                             cu_k = {0, int32_t(k_shape.rows / 3), int32_t(k_shape.rows)};
  const auto *raw_q = reinterpret_cast<const std::byte *>(cu_q.data()),
             *raw_k = reinterpret_cast<const std::byte *>(cu_k.data());
  const DeviceBuffer device_q(std::vector<std::byte>(raw_q, raw_q + 12)),
      device_k(std::vector<std::byte>(raw_k, raw_k + 12));
  int64_t three = 3, one = 1;
  DLTensor cu_q_tensor = {device_q.data(), Session::get().device(), 1, {kDLInt, 32, 1}, &three, &one, 0},
           cu_k_tensor = {device_k.data(), Session::get().device(), 1, {kDLInt, 32, 1}, &three, &one, 0};

  flashplus_forward_args args = FLASHPLUS_FORWARD_ARGS_INIT;
  args.q = ragged ? q.packed() : q.tensor();
  args.k = ragged ? k.packed() : k.tensor();
  args.v = ragged ? v.packed() : v.tensor();
  args.o = ragged ? o.packed() : o.tensor();
  args.causal = 1;
  args.num_splits = splits;
  reference::Problem p;
  if (ragged) {
    args.cu_seqlens_q = &cu_q_tensor;
    args.cu_seqlens_k = &cu_k_tensor;
    args.max_seqlen_q = q_shape.rows;
    args.max_seqlen_k = k_shape.rows;
    p.cu_seqlens_q = cu_q.data();
    p.cu_seqlens_k = cu_k.data();
  }
  const Session &s = Session::get();
  require(flashplus_forward(s.context(), &args, nullptr), "flashplus_forward");
  require(flashplus_synchronize(s.context(), s.device(), nullptr), "flashplus_synchronize");

  p.dtype = DType::BF16;
  p.batch = ragged ? 2 : q_shape.batch;
  p.seqlen_q = p.total_q = q_shape.rows;
  p.seqlen_k = k_shape.rows;
  p.heads_q = q_shape.heads;
  p.heads_k = k_shape.heads;
  p.head_dim_qk = p.head_dim_v = q_shape.dim;
  p.q = q.host();
  p.k = k.host();
  p.v = v.host();
  p.q_strides = q.strides();
  p.k_strides = p.v_strides = k.strides();
  p.window_right = 0;
  p.softmax_scale = 1.0f / std::sqrt(float(q_shape.dim));
  const reference::Comparison result = reference::compare(p, {o.read(), {}});
  Session::get().record(DType::BF16, result, "past 2^31 elements");
  CHECK(result.error <= result.bound);
}

/// The same of a backward: every tensor of rows is past 2^31 elements.
void checkBackwardPast(Shape q_shape, Shape k_shape, reference::Strides q_strides,
                       reference::Strides k_strides) {
  Sparse q(q_shape, q_strides, 'q'), k(k_shape, k_strides, 'k'), v(k_shape, k_strides, 'v'),
      o(q_shape, q_strides, 'p'), dout(q_shape, q_strides, 'g'), dq(q_shape, q_strides, 'o'),
      dk(k_shape, k_strides, 'o'), dv(k_shape, k_strides, 'o');
  reference::BackwardProblem p;
  reference::Problem &f = p.forward;
  f.dtype = DType::BF16;
  f.batch = q_shape.batch;
  f.seqlen_q = q_shape.rows;
  f.seqlen_k = k_shape.rows;
  f.heads_q = q_shape.heads;
  f.heads_k = k_shape.heads;
  f.head_dim_qk = f.head_dim_v = q_shape.dim;
  f.q = q.host();
  f.k = k.host();
  f.v = v.host();
  f.q_strides = q.strides();
  f.k_strides = f.v_strides = k.strides();
  f.window_right = 0;
  f.softmax_scale = 1.0f / std::sqrt(float(q_shape.dim));
  const std::vector<double> lse = reference::attentionFp64(f).lse, o_values = o.read();
  std::vector<double> rounded(lse.size());
  std::vector<std::byte> bytes(lse.size() * 4);
  for (int64_t b = 0; b < q_shape.batch; ++b)
    for (int64_t i = 0; i < q_shape.rows; ++i)
      for (int64_t h = 0; h < q_shape.heads; ++h) {
        const size_t from = size_t((b * q_shape.rows + i) * q_shape.heads + h);
        rounded[from] = double(float(lse[from]));
        reference::storeElement(bytes.data(), DType::F32, (b * q_shape.heads + h) * q_shape.rows + i,
                                float(lse[from]));
      }
  const DeviceBuffer device_lse(bytes);
  int64_t lse_shape[] = {q_shape.batch, q_shape.heads, q_shape.rows};
  DLTensor lse_tensor = {
      device_lse.data(), Session::get().device(), 3, {kDLFloat, 32, 1}, lse_shape, nullptr, 0};

  flashplus_backward_args args = FLASHPLUS_BACKWARD_ARGS_INIT;
  args.q = q.tensor();
  args.k = k.tensor();
  args.v = v.tensor();
  args.o = o.tensor();
  args.lse = &lse_tensor;
  args.dout = dout.tensor();
  args.dq = dq.tensor();
  args.dk = dk.tensor();
  args.dv = dv.tensor();
  args.causal = 1;
  const Session &s = Session::get();
  require(flashplus_backward(s.context(), &args, nullptr), "flashplus_backward");
  require(flashplus_synchronize(s.context(), s.device(), nullptr), "flashplus_synchronize");
  p.dout = dout.host();
  p.dout_strides = dout.strides();
  p.o = o_values.data();
  p.lse = rounded.data();
  reference::Gradients actual;
  actual.dq = dq.read();
  actual.dk = dk.read();
  actual.dv = dv.read();
  const reference::BackwardComparison result = reference::compareBackward(p, actual);
  Session::get().record(DType::BF16, result, "past 2^31 elements");
  CHECK_MESSAGE(result.good(), result.complaint());
}

bool unavailable() {
  const bool skip = !Session::get().onCpu() && !Session::get().options().large;
  if (skip)
    MESSAGE("needs 18 GB of device memory, 36 GB for a backward: run with --large");
  return skip;
}

} // namespace

TEST_SUITE_BEGIN("large");

TEST_CASE("large: rows past 2^31 elements") {
  if (unavailable())
    return;
  const int64_t s = kPast / 8 + 8;
  for (int splits : {1, 2})
    checkPast({1, 9, 2, 32}, {1, 70, 1, 32}, {0, s, 32}, {0, s / 8, 32}, splits);
}

TEST_CASE("large: heads past 2^31 elements") {
  if (unavailable())
    return;
  checkPast({1, 9, 4, 32}, {1, 70, 2, 32}, {0, 32, kPast / 3 / 8 * 8 + 8}, {0, 32, kPast}, 1);
}

TEST_CASE("large: batch entries past 2^31 elements") {
  if (unavailable())
    return;
  checkPast({3, 9, 2, 32}, {3, 70, 1, 32}, {kPast / 2 / 8 * 8 + 8, 64, 32}, {kPast / 2 / 8 * 8 + 8, 32, 32},
            1);
}

TEST_CASE("large: packed sequences past 2^31 elements") {
  if (unavailable())
    return;
  const int64_t s = kPast / 8 + 8;
  checkPast({1, 9, 2, 32}, {1, 70, 1, 32}, {0, s, 32}, {0, s / 8, 32}, 1, /*ragged=*/true);
}

TEST_CASE("large: rows, heads and batch entries of a backward past 2^31 elements") {
  if (unavailable())
    return;
  const int64_t s = kPast / 8 + 8;
  checkBackwardPast({1, 9, 2, 32}, {1, 70, 1, 32}, {0, s, 32}, {0, s / 8, 32});
  checkBackwardPast({1, 9, 4, 32}, {1, 70, 2, 32}, {0, 32, kPast / 3 / 8 * 8 + 8}, {0, 32, kPast});
  checkBackwardPast({3, 9, 2, 32}, {3, 70, 1, 32}, {kPast / 2 / 8 * 8 + 8, 64, 32},
                    {kPast / 2 / 8 * 8 + 8, 32, 32});
}

TEST_SUITE_END();
