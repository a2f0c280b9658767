// SPDX-License-Identifier: BSD-3-Clause
// Refusals: a status, a sentence that names the argument, and outputs as they were.
#include "tests/conformance/check.h"

#include <doctest/doctest.h>

using namespace flashplus;
using namespace flashplus::conformance;

namespace {

using Change = std::function<void(flashplus_forward_args &)>;

/// Applies `change` to good arguments and expects `status` and each of `words` in the message, of
/// flashplus_forward and of flashplus_plan_create.
void refused(const Case &c, const Change &change, flashplus_status status,
             const std::vector<std::string> &words) {
  Instance instance(c);
  instance.resetOutputs();
  flashplus_forward_args args = instance.args();
  change(args);
  const Session &s = Session::get();
  flashplus_plan *plan = nullptr;
  for (bool planning : {false, true}) {
    const flashplus_status got = planning ? flashplus_plan_create(s.context(), &args, &plan)
                                          : flashplus_forward(s.context(), &args, nullptr);
    const std::string message = flashplus_last_error();
    CHECK_MESSAGE(got == status, "wanted " << std::string(flashplus_status_name(status)) << ": " << message);
    for (const std::string &word : words)
      CHECK_MESSAGE(message.find(word) != std::string::npos, "'" << word << "' in: " << message);
    CHECK(plan == nullptr);
  }
  std::string where;
  CHECK_MESSAGE(instance.untouched(instance.readO(), instance.readLse(), where), where);
}

DLTensor changed(const DLTensor *tensor, const std::function<void(DLTensor &)> &change) {
  DLTensor copy = *tensor;
  change(copy);
  return copy;
}

const Case kGood = {.batch = 2, .sq = 5, .sk = 9, .hq = 4, .hk = 2, .d = 16};

} // namespace

TEST_SUITE_BEGIN("errors");

TEST_CASE("errors: fp32 is a matter of the CPU") {
  const Case c = {.dtype = DType::F32, .sq = 5, .sk = 9};
  if (Session::get().onCpu())
    check({c});
  else
    refused(c, [](auto &) {}, FLASHPLUS_UNSUPPORTED, {"float32", "float16", "bfloat16"});
}

TEST_CASE("errors: tensors") {
  DLTensor t;
  int64_t numbers[4];
  auto with = [&](const DLTensor *flashplus_forward_args::*field, std::function<void(DLTensor &)> change) {
    return [&t, field, change](flashplus_forward_args &a) {
      t = changed(a.*field, change);
      a.*field = &t;
    };
  };
  auto number = [&](int64_t *DLTensor::*list, int at, int64_t value) {
    return [&numbers, list, at, value](DLTensor &d) {
      std::copy_n(d.*list, 4, numbers);
      numbers[at] = value;
      d.*list = numbers;
    };
  };
  using A = flashplus_forward_args;
  refused(kGood, [](A &a) { a.q = nullptr; }, FLASHPLUS_INVALID_ARGUMENT, {"q is null"});
  refused(kGood, [](A &a) { a.o = nullptr; }, FLASHPLUS_INVALID_ARGUMENT, {"o is null"});
  refused(kGood, with(&A::q, [](DLTensor &d) { d.ndim = 3; }), FLASHPLUS_INVALID_ARGUMENT,
          {"q has shape", "4 dimensions"});
  refused(kGood,
          with(&A::k,
               [](DLTensor &d) {
                 d.dtype = {kDLFloat, 16, 1};
               }),
          FLASHPLUS_INVALID_ARGUMENT, {"k has dtype float16", "bfloat16"});
  refused(kGood, with(&A::v, number(&DLTensor::strides, 3, 2)), FLASHPLUS_INVALID_ARGUMENT,
          {"v has stride 2", "1"});
  refused(kGood, with(&A::k, number(&DLTensor::strides, 1, -32)), FLASHPLUS_INVALID_ARGUMENT,
          {"k has stride -32"});
  refused(kGood, with(&A::k, number(&DLTensor::shape, 2, 3)), FLASHPLUS_INVALID_ARGUMENT,
          {"q has 4 heads", "k has 3"});
  refused(kGood, with(&A::k, number(&DLTensor::shape, 3, 8)), FLASHPLUS_INVALID_ARGUMENT, {"k has shape"});
  refused(kGood, with(&A::v, number(&DLTensor::shape, 1, 8)), FLASHPLUS_INVALID_ARGUMENT, {"v has shape"});
  refused(kGood, with(&A::q, number(&DLTensor::shape, 3, 257)), FLASHPLUS_INVALID_ARGUMENT, {"257", "256"});
  refused(kGood, with(&A::q, number(&DLTensor::shape, 3, 0)), FLASHPLUS_INVALID_ARGUMENT,
          {"head_dim 0", "256"});
  refused(kGood, with(&A::q, number(&DLTensor::shape, 1, int64_t(1) << 40)), FLASHPLUS_INVALID_ARGUMENT,
          {"q"});
  refused(kGood, with(&A::q, [](DLTensor &d) { d.byte_offset += 1; }), FLASHPLUS_INVALID_ARGUMENT,
          {"q has data", "2 bytes"});
  refused(kGood, with(&A::v, [](DLTensor &d) { d.device.device_type = kDLMetal; }),
          FLASHPLUS_INVALID_ARGUMENT, {"v is on device"});
}

TEST_CASE("errors: numbers and scores") {
  using A = flashplus_forward_args;
  static const float infinite = kInf;
  refused(kGood, [](A &a) { a.window_left = -2; }, FLASHPLUS_INVALID_ARGUMENT, {"window_left is -2", "-1"});
  refused(kGood, [](A &a) { a.num_splits = 129; }, FLASHPLUS_INVALID_ARGUMENT, {"num_splits is 129", "128"});
  refused(kGood, [](A &a) { a.softmax_scale = &infinite; }, FLASHPLUS_INVALID_ARGUMENT,
          {"softmax_scale", "finite"});
  refused(kGood, [](A &a) { a.softcap = -1; }, FLASHPLUS_INVALID_ARGUMENT, {"softcap is -1"});
  refused(kGood, [](A &a) { a.lse_empty = kNaN; }, FLASHPLUS_INVALID_ARGUMENT, {"lse_empty"});
  refused(kGood, [](A &a) { a.struct_size = 8; }, FLASHPLUS_INVALID_ARGUMENT, {"struct_size is 8"});
  refused(kGood, [](A &a) { a.score = "s + * 2"; }, FLASHPLUS_INVALID_ARGUMENT, {"column 5"});
  refused(kGood, [](A &a) { a.score = "s * w"; }, FLASHPLUS_INVALID_ARGUMENT, {"scalar 'w'"});
  refused(kGood, [](A &a) { a.score = "s + bias[h]"; }, FLASHPLUS_INVALID_ARGUMENT, {"tensor 'bias'"});
}

TEST_CASE("errors: lengths in host memory") {
  if (!Session::get().onCpu())
    return; // not read there (flashplus.h)
  Case c = {.ragged_q = {3, 4}, .ragged_k = {5, 6}};
  refused(c, [](auto &a) { static_cast<int32_t *>(a.cu_seqlens_q->data)[0] = 1; }, FLASHPLUS_INVALID_ARGUMENT,
          {"cu_seqlens_q[0] is 1"});
  refused(c, [](auto &a) { static_cast<int32_t *>(a.cu_seqlens_k->data)[2] = 4; }, FLASHPLUS_INVALID_ARGUMENT,
          {"cu_seqlens_k[2] is 4"});
  refused(c, [](auto &a) { static_cast<int32_t *>(a.cu_seqlens_k->data)[2] = 12; },
          FLASHPLUS_INVALID_ARGUMENT, {"max_seqlen_k is 6", "7"});
  c.max_k = 100;
  refused(c, [](auto &a) { static_cast<int32_t *>(a.cu_seqlens_k->data)[2] = 12; },
          FLASHPLUS_INVALID_ARGUMENT, {"ends at 12", "11"});
  c.used_k = {2, 3};
  refused(c, [](auto &a) { static_cast<int32_t *>(a.seqused_k->data)[1] = -1; }, FLASHPLUS_INVALID_ARGUMENT,
          {"seqused_k[1] is -1"});
}

TEST_CASE("errors: a plan refuses what it was not made for") {
  const Case c = {.batch = 2, .sq = 7, .sk = 300, .hq = 4, .hk = 2, .num_splits = 2};
  const PlanPtr plan = makePlan(Instance(c));
  const size_t bytes = flashplus_plan_workspace(plan.get());
  const DeviceBuffer workspace(bytes + 256);
  auto run = [&](const Case &other, void *memory, size_t size, const std::string &word) {
    Instance instance(other);
    instance.resetOutputs();
    CHECK(flashplus_plan_run(plan.get(), &instance.args(), memory, size, nullptr) ==
          FLASHPLUS_INVALID_ARGUMENT);
    const std::string message = flashplus_last_error();
    CHECK_MESSAGE(message.find(word) != std::string::npos, "'" << word << "' in: " << message);
    std::string where;
    CHECK_MESSAGE(instance.untouched(instance.readO(), instance.readLse(), where), where);
  };
  auto larger = [&](int64_t Case::*field, int64_t value) {
    Case other = c;
    other.*field = value;
    return other;
  };
  run(c, nullptr, 0, "workspace has 0 bytes");
  run(c, workspace.data(), bytes - 1, "the plan needs");
  run(c, static_cast<char *>(workspace.data()) + 8, bytes, "256-byte aligned");
  run(larger(&Case::batch, 3), workspace.data(), bytes, "batch of 3");
  run(larger(&Case::sq, 8), workspace.data(), bytes, "seqlen_q of 8");
  run(larger(&Case::sk, 301), workspace.data(), bytes, "seqlen_k of 301");
  run(larger(&Case::hq, 6), workspace.data(), bytes, "heads_q of 6");
  run(larger(&Case::d, 32), workspace.data(), bytes, "dqk=32");
}

TEST_SUITE_END();
