// SPDX-License-Identifier: BSD-3-Clause
// Arguments of a backward with any sizes, strides, dtypes and devices: refused with a sentence, or a problem
// that plans (or is refused there) on a CPU and a GPU without an overflow on the way.
#include "runtime/arguments/backward_args.h"
#include "templates/backward/planner.h"
#include "tests/fuzz/call_input.h"
#include "tests/fuzz/seeds.h"

#include <cstdlib>

using namespace flashplus;
using namespace flashplus::fuzz;

std::vector<std::string> seeds() {
  std::string dense(96, '\1');
  dense[0] = 16; // dlse
  std::string ragged = dense;
  ragged[0] = 2;
  return {dense, ragged, dense + "s * 2 - abs(q - k)"};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Input in(data, size);
  const auto flags = in.take<uint16_t>();
  const bool ragged = flags & 2, cuda = flags & 4;
  const DLDevice device{cuda ? kDLCUDA : kDLCPU, 0};
  const DLDataType type = flags & 8 ? DLDataType{kDLFloat, 32, 1} : DLDataType{kDLBfloat, 16, 1};
  const DLDataType f32{kDLFloat, 32, 1}, i32{kDLInt, 32, 1};
  const int64_t batch = in.length(), sq = in.length(), sk = in.length(), hk = in.length(),
                group = in.length();
  const int64_t d = in.length(), dv = in.length();
  int64_t hq = 0;
  if (__builtin_mul_overflow(hk, group, &hq))
    hq = hk;
  flashplus_backward_args args = FLASHPLUS_BACKWARD_ARGS_INIT;
  Tensor q, k, v, o, lse, dout, dq, dk, dv_rows, dlse, delta, cu_q, cu_k, used_q, used_k, slopes, rng;
  auto rows = [&](Tensor &t, int64_t length, int64_t heads, int64_t dim) {
    return ragged ? t.read(in, 3, {length, heads, dim}, type, device)
                  : t.read(in, 4, {batch, length, heads, dim}, type, device);
  };
  auto statistic = [&](Tensor &t) {
    return ragged ? t.read(in, 2, {hq, sq}, f32, device) : t.read(in, 3, {batch, hq, sq}, f32, device);
  };
  args.q = rows(q, sq, hq, d);
  args.k = rows(k, sk, hk, d);
  args.v = rows(v, sk, hk, dv);
  args.o = rows(o, sq, hq, dv);
  args.dout = rows(dout, sq, hq, dv);
  args.dq = rows(dq, sq, hq, d);
  args.dk = rows(dk, sk, hk, d);
  args.dv = rows(dv_rows, sk, hk, dv);
  args.lse = statistic(lse);
  if (flags & 16)
    args.dlse = statistic(dlse);
  if (flags & 4096)
    args.delta = statistic(delta);
  const int64_t ends = batch < INT64_MAX ? batch + 1 : batch;
  if (ragged || flags & 32) {
    args.cu_seqlens_q = cu_q.read(in, 1, {ends}, i32, device);
    args.cu_seqlens_k = cu_k.read(in, 1, {ends}, i32, device);
    args.max_seqlen_q = in.length();
    args.max_seqlen_k = in.length();
  }
  if (flags & 64)
    args.seqused_q = used_q.read(in, 1, {batch}, i32, device);
  if (flags & 128)
    args.seqused_k = used_k.read(in, 1, {batch}, i32, device);
  if (flags & 256)
    args.alibi_slopes =
        flags & 512 ? slopes.read(in, 1, {hq}, f32, device) : slopes.read(in, 2, {batch, hq}, f32, device);
  args.causal = bool(flags & 1024);
  if (flags & 2048) {
    args.window_left = in.take<int32_t>();
    args.window_right = in.take<int32_t>();
    args.softcap = in.take<float>();
  }
  if (flags & 32768) {
    args.dropout_p = in.take<float>();
    if (in.take<uint8_t>() & 1)
      args.rng_state = rng.read(in, 1, {2}, {kDLInt, 64, 1}, device);
  }
  Tensor slopes_grad, softcap_grad, named_grad;
  flashplus_score_gradient named = {"t", nullptr};
  if (flags & 1) {
    args.dalibi_slopes = flags & 512 ? slopes_grad.read(in, 1, {hq}, f32, device)
                                     : slopes_grad.read(in, 2, {batch, hq}, f32, device);
    args.dsoftcap = flags & 2048 ? softcap_grad.read(in, 1, {1}, f32, device) : nullptr;
    named.tensor = named_grad.read(in, 1, {sk}, f32, device);
    args.score_gradients = &named;
    args.num_score_gradients = in.take<uint8_t>() % 2;
  }
  const std::string score = in.rest();
  args.score = flags & 16384 ? score.c_str() : nullptr;

  ScoreTable scores;
  BackwardProblem problem;
  if (Status status = checkBackwardArgs(&args, DataPointers::Optional, scores, problem); !status) {
    if (status.message().empty())
      std::abort();
    return 0;
  }
  const KernelSpec spec = problem.spec.spec();
  if (!spec.validate())
    std::abort();
  if (KernelSpec::parse(spec.text())->text() != spec.text())
    std::abort();
  for (const Target &target : {Target{Isa::X86_64_v3, 0}, Target{Isa::Sm80, 90}, Target{Isa::Sm80, 86}}) {
    auto plan = planBackward(spec, problem.bounds, offlineProfile(target), {});
    if (plan ? plan->workspace_bytes < 0 || plan->steps.empty() : plan.status().message().empty())
      std::abort();
  }
  return 0;
}
