// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/gradients.h"

#include "tools/flashplus/command.h"

#include <algorithm>

namespace flashplus::tool {

flashplus_backward_args backwardArgs(const flashplus_forward_args &forward) {
  flashplus_backward_args args = FLASHPLUS_BACKWARD_ARGS_INIT;
  args.q = forward.q;
  args.k = forward.k;
  args.v = forward.v;
  args.o = forward.o;
  args.lse = forward.lse;
  args.cu_seqlens_q = forward.cu_seqlens_q;
  args.cu_seqlens_k = forward.cu_seqlens_k;
  args.seqused_q = forward.seqused_q;
  args.seqused_k = forward.seqused_k;
  args.max_seqlen_q = forward.max_seqlen_q;
  args.max_seqlen_k = forward.max_seqlen_k;
  args.softmax_scale = forward.softmax_scale;
  args.causal = forward.causal;
  args.window_left = forward.window_left;
  args.window_right = forward.window_right;
  args.has_window = forward.has_window;
  args.softcap = forward.softcap;
  args.alibi_slopes = forward.alibi_slopes;
  args.score = forward.score;
  args.score_tensors = forward.score_tensors;
  args.score_scalars = forward.score_scalars;
  args.num_score_tensors = forward.num_score_tensors;
  args.num_score_scalars = forward.num_score_scalars;
  args.dropout_p = forward.dropout_p;
  args.rng_state = forward.rng_state;
  args.dropout_seed = forward.dropout_seed;
  args.dropout_offset = forward.dropout_offset;
  return args;
}

Status DeviceGradients::upload(flashplus_context *context, DLDevice device, const Problem &problem,
                               const DeviceProblem &forward) {
  args_ = backwardArgs(forward.args());
  auto put = [&](const io::Tensor &host, std::optional<DeviceTensor> &to) -> Status {
    Result<DeviceTensor> made = DeviceTensor::upload(context, device, host);
    if (!made)
      return made.status();
    to.emplace(std::move(*made));
    return Status::ok();
  };
  FLASHPLUS_RETURN_IF_ERROR(put(*problem.dout, dout_));
  for (auto [like, to] : {std::pair(&problem.q, &dq_), {&problem.k, &dk_}, {&problem.v, &dv_}}) {
    Result<io::Tensor> host = io::makeTensor(like->type, like->shape);
    if (!host)
      return host.status();
    std::fill(host->data.begin(), host->data.end(), std::byte{0xff});
    FLASHPLUS_RETURN_IF_ERROR(put(*host, *to));
  }
  args_.any_order = problem.any_order;
  args_.dout = dout_->dl();
  args_.dq = dq_->dl();
  args_.dk = dk_->dl();
  args_.dv = dv_->dl();
  return Status::ok();
}

} // namespace flashplus::tool
