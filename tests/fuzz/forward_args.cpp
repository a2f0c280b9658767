// SPDX-License-Identifier: BSD-3-Clause
// Arguments of a forward with any sizes, strides, dtypes and devices: refused with a sentence, or a problem
// that plans (or is refused there) on a CPU and a GPU without an overflow on the way.
#include "runtime/arguments/forward_args.h"
#include "templates/forward/planner.h"
#include "tests/fuzz/call_input.h"
#include "tests/fuzz/seeds.h"

#include <cstdlib>

using namespace flashplus;
using namespace flashplus::fuzz;

std::vector<std::string> seeds() {
  std::string dense(64, '\1');
  std::string ragged = dense;
  ragged[0] = 3;
  std::string append = dense;
  append[0] = char(0x80), append[1] = char(0x84);
  std::string cache = dense;
  cache[0] = 2; // a low byte with bit 0 clear has no cache
  return {dense, ragged, append, cache, dense + "s * 2 - abs(q - k)"};
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
  flashplus_forward_args args = FLASHPLUS_FORWARD_ARGS_INIT;
  Tensor q, k, v, o, lse, cu_q, cu_k, used_q, used_k, slopes, table, indptr, leftpad, rng, sinks;
  const unsigned cache = flags & 1 ? 1 + in.take<uint8_t>() % 7 : 0; // forms of a table, and left padding
  const bool packed_keys = ragged && !cache;
  args.q =
      ragged ? q.read(in, 3, {sq, hq, d}, type, device) : q.read(in, 4, {batch, sq, hq, d}, type, device);
  args.k = packed_keys ? k.read(in, 3, {sk, hk, d}, type, device)
                       : k.read(in, 4, {batch, sk, hk, d}, type, device);
  args.v = packed_keys ? v.read(in, 3, {sk, hk, dv}, type, device)
                       : v.read(in, 4, {batch, sk, hk, dv}, type, device);
  args.o =
      ragged ? o.read(in, 3, {sq, hq, dv}, type, device) : o.read(in, 4, {batch, sq, hq, dv}, type, device);
  if (flags & 16)
    args.lse =
        ragged ? lse.read(in, 2, {hq, sq}, f32, device) : lse.read(in, 3, {batch, hq, sq}, f32, device);
  const int64_t ends = batch < INT64_MAX ? batch + 1 : batch;
  if (ragged || flags & 32) {
    args.cu_seqlens_q = cu_q.read(in, 1, {ends}, i32, device);
    if (!cache || flags & 32)
      args.cu_seqlens_k = cu_k.read(in, 1, {ends}, i32, device);
    args.max_seqlen_q = in.length();
    args.max_seqlen_k = in.length();
  }
  if (flags & 64)
    args.seqused_q = used_q.read(in, 1, {batch}, i32, device);
  if (flags & 128)
    args.seqused_k = used_k.read(in, 1, {batch}, i32, device);
  if (cache & 1)
    args.block_table = table.read(in, 2, {batch, in.length()}, i32, device);
  else if (cache & 2) {
    args.page_indptr = indptr.read(in, 1, {ends}, i32, device);
    args.page_indices = table.read(in, 1, {in.length()}, i32, device);
  } else if (cache)
    args.cache_batch_idx = table.read(in, 1, {batch}, i32, device);
  if (cache & 4)
    args.leftpad_k = leftpad.read(in, 1, {batch}, i32, device);
  if (flags & 256)
    args.alibi_slopes =
        flags & 512 ? slopes.read(in, 1, {hq}, f32, device) : slopes.read(in, 2, {batch, hq}, f32, device);
  args.causal = bool(flags & 1024);
  if (flags & 2048) {
    args.window_left = in.take<int32_t>();
    args.window_right = in.take<int32_t>();
    args.softcap = in.take<float>();
    args.lse_empty = in.take<float>();
  }
  Tensor k_new, v_new, cu_new, slots, cos, sin, positions;
  if (flags & 32768) {
    const auto more = in.take<uint8_t>();
    const int64_t fresh = in.length(), half = in.length(), rows = in.length();
    const int rank = more & 1 ? 3 : 4;
    args.k_new = rank == 3 ? k_new.read(in, 3, {fresh, hk, d}, type, device)
                           : k_new.read(in, 4, {batch, fresh, hk, d}, type, device);
    args.v_new = rank == 3 ? v_new.read(in, 3, {fresh, hk, dv}, type, device)
                           : v_new.read(in, 4, {batch, fresh, hk, dv}, type, device);
    if (more & 1) {
      args.cu_seqlens_k_new = cu_new.read(in, 1, {ends}, i32, device);
      args.max_seqlen_k_new = in.take<int32_t>();
    }
    if (more & 2) {
      args.rotary_cos = cos.read(in, 2, {rows, half}, type, device);
      args.rotary_sin = sin.read(in, 2, {rows, half}, type, device);
      args.rotary_interleaved = bool(more & 4);
    }
    if (more & 8)
      args.rotary_seqlens = positions.read(in, 1, {batch}, i32, device);
    if (more & 16)
      args.slot_mapping = slots.read(in, 1, {fresh}, {kDLInt, 64, 1}, device);
  }
  args.num_splits = flags & 4096 ? in.take<int32_t>() : 0;
  args.batch_invariant = bool(flags & 8192);
  if (flags & 32768) {
    args.dropout_p = in.take<float>();
    const auto more = in.take<uint8_t>();
    if (more & 1)
      args.rng_state = rng.read(in, 1, {2}, {kDLInt, 64, 1}, device);
    if (more & 2) {
      args.sinks = sinks.read(in, 1, {hq}, f32, device);
      args.lse_without_sinks = bool(more & 4);
    }
  }
  const std::string score = in.rest();
  args.score = flags & 16384 ? score.c_str() : nullptr;

  ScoreTable scores;
  ForwardProblem problem;
  if (Status status = checkForwardArgs(&args, DataPointers::Optional, scores, problem); !status) {
    if (status.message().empty())
      std::abort();
    return 0;
  }
  const KernelSpec spec = problem.spec.spec();
  if (!spec.validate())
    std::abort();
  if (KernelSpec::parse(spec.text())->text() != spec.text())
    std::abort();
  PlanOptions options;
  options.num_splits = problem.num_splits;
  options.batch_invariant = problem.batch_invariant;
  for (const Target &target : {Target{Isa::X86_64_v3, 0}, Target{Isa::Sm80, 90}, Target{Isa::Sm80, 86}}) {
    DeviceProfile profile = offlineProfile(target);
    profile.multiprocessors = 132;
    auto plan = planForward(spec, problem.bounds, profile, options);
    if (plan ? plan->workspace_bytes < 0 || plan->steps.empty() : plan.status().message().empty())
      std::abort();
  }
  return 0;
}
