// SPDX-License-Identifier: BSD-3-Clause
// One attention problem as the command line gives it: tensors in host memory, then on a device as DLTensors.
#pragma once

#include "tools/io/tensor.h"

#include <flashplus/flashplus.h>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace flashplus::tool {

/// Everything that one forward takes, and its backward, in host memory.
struct Problem {
  io::Tensor q, k, v;
  std::optional<io::Tensor> cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k, alibi_slopes;
  std::optional<io::Tensor> sinks; ///< (heads), of any float type.
  std::optional<io::Tensor> dout; ///< As the output: the gradient that reaches it; there for a backward.
  int64_t max_seqlen_q = 0, max_seqlen_k = 0;
  bool causal = false;
  int window_left = -1, window_right = -1;
  std::optional<float> scale;
  float lse_empty = INFINITY;
  float softcap = 0;
  std::string score; ///< "" for none.
  std::vector<std::pair<std::string, io::Tensor>> score_tensors;
  std::vector<std::pair<std::string, float>> score_scalars;
  float dropout_p = 0;
  uint64_t dropout_seed = 0; ///< Its offset is 0.
  int num_splits = 0;
  bool batch_invariant = false;
  bool any_order = false; ///< Of the sums of dq in a backward.
  int64_t page_size = 0;     ///< Not 0: k and v go to the device as pages of so many slots,
  bool random_pages = false; ///< in any order.
  std::string source; ///< For people: where q, k and v come from.

  bool ragged() const { return cu_seqlens_q.has_value(); }
  int64_t headsQ() const { return q.shape[q.shape.size() - 2]; }
  std::vector<int64_t> outputShape() const;
  std::vector<int64_t> lseShape() const;
};

/// Flags that choose q, k and v.
struct InputFlags {
  std::string in, q, k, v, random, dtype;
  uint64_t seed = 0;
  /// A decode step instead: the last `rows` of sequences with so many keys, or with any number up to it.
  std::string decode;
  int64_t rows = 1;
  bool ragged = false;
};
/// Loads or makes q, k and v; of a decode step also what else it is (causal, seqused_k). Failures are
/// InvalidArgument (unreadable input is bad input) or OutOfMemory.
Status loadInputs(const InputFlags &flags, Problem &problem);
/// Reads one .npy file given by `flag` and converts it to `type`.
Result<io::Tensor> loadNpy(const std::string &flag, const std::string &path, io::ElementType type);

/// What the rest of the tool relies on: ranks, and lengths that lie inside the tensors (the library can't
/// look at them in device memory). InvalidArgument names the flag. Everything else is the library's to check.
Status checkProblem(const Problem &problem);

/// (query row, key) pairs that the mask lets through, summed over the batch (not over heads), and the lengths
/// (query, key) of each sequence.
std::vector<std::pair<int64_t, int64_t>> sequenceLengths(const Problem &problem);
double visiblePairs(const Problem &problem);
/// Of one sequence; each window side -1 = unbounded.
double visiblePairs(int64_t seqlen_q, int64_t seqlen_k, int64_t window_left, int64_t window_right);

/// Normally distributed, the same numbers from the same seed on every machine.
Result<io::Tensor> randomTensor(std::vector<int64_t> shape, io::ElementType type, uint64_t seed);

/// A tensor in the memory of a device. Move-only; must not outlive the context.
class DeviceTensor {
public:
  static Result<DeviceTensor> upload(flashplus_context *context, DLDevice device, const io::Tensor &host);
  DeviceTensor(DeviceTensor &&other) noexcept;
  DeviceTensor &operator=(DeviceTensor &&other) = delete;
  ~DeviceTensor();
  DLTensor *dl() { return &tensor_; }
  Result<io::Tensor> download() const;

private:
  DeviceTensor() = default;
  flashplus_context *context_ = nullptr;
  io::ElementType type_ = io::ElementType::F32;
  std::vector<int64_t> shape_;
  DLTensor tensor_ = {};
};

/// A problem and its outputs on a device, and the argument struct that points at them. Not movable: `args`
/// points into it.
class DeviceProblem {
public:
  DeviceProblem() = default;
  DeviceProblem(const DeviceProblem &) = delete;
  Status upload(flashplus_context *context, DLDevice device, const Problem &problem);
  const flashplus_forward_args &args() const { return args_; }
  Result<io::Tensor> output() const { return output_->download(); }
  Result<io::Tensor> lse() const { return lse_->download(); }

private:
  std::vector<DeviceTensor> tensors_;
  std::optional<DeviceTensor> output_, lse_;
  std::vector<flashplus_score_tensor> score_tensors_;
  std::vector<flashplus_score_scalar> score_scalars_;
  float scale_ = 0;
  flashplus_forward_args args_ = FLASHPLUS_FORWARD_ARGS_INIT;
};

} // namespace flashplus::tool
