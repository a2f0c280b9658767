// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/arguments/device_values.h"

#include "runtime/arguments/backward_args.h"
#include "runtime/arguments/forward_args.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <vector>

namespace flashplus {
namespace {

/// A call's arguments with every tensor said to be the host's. Those of `values` are, as copies; the others
/// keep their pointers, behind which no check looks.
template <class Args> class HostCall {
public:
  explicit HostCall(const Args &args) : args_{} {
    std::memcpy(static_cast<void *>(&args_), &args, std::min(args.struct_size, sizeof(Args)));
  }

  void relabel(auto &&...fields) {
    (
        [&](auto *&field) {
          if (field)
            field = &add(*field);
        }(args_.*fields),
        ...);
  }
  Status copy(Device &device, std::initializer_list<const DLTensor * Args::*> values) {
    for (auto field : values)
      if (args_.*field)
        FLASHPLUS_RETURN_IF_ERROR(copyOne(device, args_.*field));
    return Status::ok();
  }
  void relabelScore() {
    if (args_.num_score_tensors <= 0 || !args_.score_tensors)
      return; // which the check says
    score_.assign(args_.score_tensors, args_.score_tensors + args_.num_score_tensors);
    for (flashplus_score_tensor &t : score_)
      if (t.tensor)
        t.tensor = &add(*t.tensor);
    args_.score_tensors = score_.data();
  }
  void relabelScoreGradients()
    requires requires(Args a) { a.score_gradients; }
  {
    if (args_.num_score_gradients <= 0 || !args_.score_gradients)
      return; // which the check says
    gradients_.assign(args_.score_gradients, args_.score_gradients + args_.num_score_gradients);
    for (flashplus_score_gradient &g : gradients_)
      if (g.tensor)
        g.tensor = &add(*g.tensor);
    args_.score_gradients = gradients_.data();
  }
  const Args *args() const { return &args_; }

private:
  DLTensor &add(const DLTensor &from) {
    tensors_.push_back(from);
    tensors_.back().device = {kDLCPU, 0};
    return tensors_.back();
  }

  Status copyOne(Device &device, const DLTensor *&field) {
    const DLTensor &from = *field;
    DLTensor &to = add(from);
    int64_t elements = 1; // from the first to the last, gaps included
    for (int32_t i = 0, n = from.ndim; i < n; ++i) {
      int64_t stride = from.strides ? from.strides[i] : 1;
      for (int32_t j = i + 1; !from.strides && j < n; ++j)
        stride *= from.shape[j];
      elements = from.shape[i] == 0 || elements == 0 ? 0 : elements + (from.shape[i] - 1) * stride;
    }
    const size_t bytes = size_t(std::max<int64_t>(elements, 0)) * from.dtype.bits / 8;
    // int64 holds the strictest alignment of what is copied.
    copies_.emplace_back(bytes / sizeof(int64_t) + 1);
    if (bytes)
      FLASHPLUS_RETURN_IF_ERROR(device.copyToHost(
          copies_.back().data(), static_cast<const char *>(from.data) + from.byte_offset, bytes));
    to.data = copies_.back().data();
    to.byte_offset = 0;
    field = &to;
    return Status::ok();
  }

  Args args_;
  std::deque<DLTensor> tensors_; // stay where they are
  std::deque<std::vector<int64_t>> copies_;
  std::vector<flashplus_score_tensor> score_;
  std::vector<flashplus_score_gradient> gradients_;
};

} // namespace

Status checkDeviceValues(const flashplus_forward_args &args, Device &device, ScoreTable &scores,
                         void *stream) {
  using A = flashplus_forward_args;
  FLASHPLUS_RETURN_IF_ERROR(device.synchronize(stream));
  HostCall<A> host(args);
  FLASHPLUS_RETURN_IF_ERROR(
      host.copy(device, {&A::cu_seqlens_q, &A::cu_seqlens_k, &A::seqused_q, &A::seqused_k, &A::block_table,
                         &A::page_indptr, &A::page_indices, &A::cache_batch_idx, &A::leftpad_k,
                         &A::cu_seqlens_k_new, &A::slot_mapping, &A::rotary_seqlens}));
  host.relabel(&A::q, &A::k, &A::v, &A::o, &A::lse, &A::alibi_slopes, &A::k_new, &A::v_new, &A::rotary_cos,
               &A::rotary_sin, &A::rng_state, &A::sinks);
  host.relabelScore();
  ForwardProblem problem;
  return checkForwardArgs(host.args(), DataPointers::Required, scores, problem);
}

Status checkDeviceValues(const flashplus_backward_args &args, Device &device, ScoreTable &scores,
                         void *stream) {
  using A = flashplus_backward_args;
  FLASHPLUS_RETURN_IF_ERROR(device.synchronize(stream));
  HostCall<A> host(args);
  FLASHPLUS_RETURN_IF_ERROR(
      host.copy(device, {&A::cu_seqlens_q, &A::cu_seqlens_k, &A::seqused_q, &A::seqused_k}));
  host.relabel(&A::q, &A::k, &A::v, &A::o, &A::lse, &A::dout, &A::dq, &A::dk, &A::dv, &A::dlse, &A::delta,
               &A::alibi_slopes, &A::rng_state, &A::dalibi_slopes, &A::dsoftcap);
  host.relabelScore();
  host.relabelScoreGradients();
  BackwardProblem problem;
  return checkBackwardArgs(host.args(), DataPointers::Required, scores, problem);
}

} // namespace flashplus
