// SPDX-License-Identifier: BSD-3-Clause
// Arguments of a forward with tensors that a test can bend.
#pragma once

#include "flashplus/flashplus.h"

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <vector>

namespace flashplus::test {

/// A compact CPU tensor with storage of its own.
struct HostTensor {
  explicit HostTensor(std::vector<int64_t> dims = {1}, DLDataType type = {kDLFloat, 32, 1})
      : shape(std::move(dims)) {
    int64_t elements = 1;
    for (int64_t d : shape)
      elements *= d;
    bytes.reset(new (std::align_val_t(64)) uint8_t[size_t(elements) * 4 + 64]());
    tensor.data = bytes.get();
    tensor.device = {kDLCPU, 0};
    tensor.ndim = int32_t(shape.size());
    tensor.dtype = type;
    tensor.shape = shape.data();
    strides.resize(shape.size());
    int64_t stride = 1;
    for (size_t i = shape.size(); i-- > 0; stride *= shape[i])
      strides[i] = stride;
  }
  HostTensor(HostTensor &&) = default;
  HostTensor &operator=(HostTensor &&) = default;

  static HostTensor int32(std::initializer_list<int32_t> values) {
    HostTensor t({int64_t(values.size())}, {kDLInt, 32, 1});
    std::copy(values.begin(), values.end(), t.as<int32_t>());
    return t;
  }
  template <class T> T *as() { return static_cast<T *>(tensor.data); }
  /// From here on the tensor has strides that a test may change.
  std::vector<int64_t> &useStrides() {
    tensor.strides = strides.data();
    return strides;
  }
  DLTensor *get() { return &tensor; }

  struct Free {
    void operator()(uint8_t *p) const { ::operator delete[](p, std::align_val_t(64)); }
  };
  std::vector<int64_t> shape, strides;
  std::unique_ptr<uint8_t[], Free> bytes;
  DLTensor tensor{};
};

/// batch 2, seqlen_q 5, seqlen_k 7, heads 4 and 2, head_dim 16, head_dim_v 24, fp32; or packed with
/// cu_seqlens.
struct Problem {
  explicit Problem(bool ragged = false)
      : q(ragged ? std::vector<int64_t>{10, 4, 16} : std::vector<int64_t>{2, 5, 4, 16}),
        k(ragged ? std::vector<int64_t>{14, 2, 16} : std::vector<int64_t>{2, 7, 2, 16}),
        v(ragged ? std::vector<int64_t>{14, 2, 24} : std::vector<int64_t>{2, 7, 2, 24}),
        o(ragged ? std::vector<int64_t>{10, 4, 24} : std::vector<int64_t>{2, 5, 4, 24}),
        lse(ragged ? std::vector<int64_t>{4, 10} : std::vector<int64_t>{2, 4, 5}),
        cu_q(HostTensor::int32({0, 4, 10})), cu_k(HostTensor::int32({0, 7, 14})) {
    args.q = q.get();
    args.k = k.get();
    args.v = v.get();
    args.o = o.get();
    args.lse = lse.get();
    if (ragged) {
      args.cu_seqlens_q = cu_q.get();
      args.cu_seqlens_k = cu_k.get();
      args.max_seqlen_q = 6;
      args.max_seqlen_k = 7;
    }
  }

  /// With other sizes, no lse, dense.
  Problem(int64_t batch, int64_t sq, int64_t sk, int64_t hq, int64_t hk, int64_t d)
      : q({batch, sq, hq, d}), k({batch, sk, hk, d}), v({batch, sk, hk, d}), o({batch, sq, hq, d}) {
    args.q = q.get();
    args.k = k.get();
    args.v = v.get();
    args.o = o.get();
  }

  Problem(const Problem &) = delete;

  HostTensor q, k, v, o, lse, cu_q, cu_k;
  flashplus_forward_args args = FLASHPLUS_FORWARD_ARGS_INIT;
};

} // namespace flashplus::test
