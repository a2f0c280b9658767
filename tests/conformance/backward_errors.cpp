// SPDX-License-Identifier: BSD-3-Clause
// Refusals of a backward: a status, a sentence that names the argument, and gradients as they were.
#include "tests/conformance/backward_check.h"

#include <doctest/doctest.h>

using namespace flashplus;
using namespace flashplus::conformance;

namespace {

using A = flashplus_backward_args;

const BackwardCase kGood = {
    .forward = {.batch = 2, .sq = 9, .sk = 9, .hq = 4, .hk = 2, .d = 16}, .dlse = true, .delta = true};

void unharmed(const BackwardInstance &instance) {
  BackwardOutputs outputs = instance.readGradients();
  for (std::vector<std::byte> *bytes : {&outputs.dq, &outputs.dk, &outputs.dv, &outputs.delta})
    CHECK(std::all_of(bytes->begin(), bytes->end(), [](std::byte b) { return b == kPoison; }));
  CHECK(instance.gradientInputsUnchanged());
}

/// Applies `change` to good arguments and expects `status` and each of `words` in the message, of
/// flashplus_backward and of flashplus_backward_plan_create (not of the latter where null data is the point).
void refused(const BackwardCase &c, const std::function<void(A &)> &change, flashplus_status status,
             const std::vector<std::string> &words, bool planning_too = true) {
  BackwardInstance instance(c);
  instance.resetGradients();
  A args = instance.gradientArgs();
  change(args);
  const Session &s = Session::get();
  flashplus_plan *plan = nullptr;
  for (bool planning : {false, true}) {
    if (planning && !planning_too)
      continue;
    const flashplus_status got = planning ? flashplus_backward_plan_create(s.context(), &args, &plan)
                                          : flashplus_backward(s.context(), &args, nullptr);
    const std::string message = flashplus_last_error();
    CHECK_MESSAGE(got == status, "wanted " << std::string(flashplus_status_name(status)) << ": " << message);
    for (const std::string &word : words)
      CHECK_MESSAGE(message.find(word) != std::string::npos, "'" << word << "' in: " << message);
    CHECK(plan == nullptr);
  }
  unharmed(instance);
}

/// A plan of kGood must not run these.
void notRun(flashplus_plan &plan, const BackwardCase &c, void *workspace, size_t bytes,
            const std::string &word) {
  BackwardInstance instance(c);
  instance.resetGradients();
  CHECK(flashplus_backward_plan_run(&plan, &instance.gradientArgs(), workspace, bytes, nullptr) ==
        FLASHPLUS_INVALID_ARGUMENT);
  const std::string message = flashplus_last_error();
  CHECK_MESSAGE(message.find(word) != std::string::npos, "'" << word << "' in: " << message);
  unharmed(instance);
}

} // namespace

TEST_SUITE_BEGIN("backward_errors");

TEST_CASE("backward errors: fp32 is a matter of the CPU") {
  BackwardCase c = kGood;
  c.forward.dtype = DType::F32;
  if (Session::get().onCpu())
    checkBackward(std::vector<BackwardCase>{c});
  else
    refused(c, [](A &) {}, FLASHPLUS_UNSUPPORTED, {"float32", "float16", "bfloat16"});
}

TEST_CASE("backward errors: tensors") {
  DLTensor t;
  int64_t numbers[4];
  auto with = [&](auto A::*field, std::function<void(DLTensor &)> change) {
    return [&t, field, change](A &a) {
      t = *(a.*field);
      change(t);
      a.*field = &t;
    };
  };
  auto number = [&](int64_t *DLTensor::*list, int at, int64_t value) {
    return [&numbers, list, at, value](DLTensor &d) {
      std::copy_n(d.*list, d.ndim, numbers);
      numbers[at] = value;
      d.*list = numbers;
    };
  };
  const flashplus_status kInvalid = FLASHPLUS_INVALID_ARGUMENT;
  refused(kGood, [](A &a) { a.dout = nullptr; }, kInvalid, {"dout is null"});
  refused(kGood, [](A &a) { a.lse = nullptr; }, kInvalid, {"lse is null"});
  refused(kGood, [](A &a) { a.dq = nullptr; }, kInvalid, {"dq is null"});
  refused(kGood, [](A &a) { a.dk = nullptr; }, kInvalid, {"dk is null"});
  refused(kGood, [](A &a) { a.dv = nullptr; }, kInvalid, {"dv is null"});
  refused(kGood,
          with(&A::dout,
               [](DLTensor &d) {
                 d.dtype = {kDLFloat, 16, 1};
               }),
          kInvalid, {"dout has dtype float16", "bfloat16"});
  refused(kGood,
          with(&A::dk,
               [](DLTensor &d) {
                 d.dtype = {kDLFloat, 32, 1};
               }),
          kInvalid, {"dk has dtype float32"});
  refused(kGood, with(&A::dq, number(&DLTensor::shape, 1, 8)), kInvalid,
          {"dq has shape (2, 8, 4, 16)", "(2, 9, 4, 16)"});
  refused(kGood, with(&A::dk, number(&DLTensor::shape, 2, 4)), kInvalid,
          {"dk has shape (2, 9, 4, 16)", "heads_k"});
  refused(kGood, with(&A::dv, number(&DLTensor::shape, 3, 8)), kInvalid, {"dv has shape (2, 9, 2, 8)"});
  refused(kGood, with(&A::dout, number(&DLTensor::shape, 3, 8)), kInvalid, {"dout has shape (2, 9, 4, 8)"});
  refused(kGood, with(&A::dout, number(&DLTensor::strides, 3, 2)), kInvalid, {"dout has stride 2"});
  refused(kGood, with(&A::dq, number(&DLTensor::strides, 0, 0)), kInvalid, {"dq has stride 0", "at least 1"});
  refused(kGood, with(&A::dk, [](DLTensor &d) { d.ndim = 3; }), kInvalid, {"dk has shape", "4 dimensions"});
  refused(kGood, with(&A::lse, number(&DLTensor::shape, 2, 8)), kInvalid,
          {"lse has shape (2, 4, 8)", "(2, 4, 9)"});
  refused(kGood, with(&A::dlse, number(&DLTensor::shape, 1, 2)), kInvalid, {"dlse has shape (2, 2, 9)"});
  refused(kGood, with(&A::delta, number(&DLTensor::shape, 0, 1)), kInvalid, {"delta has shape (1, 4, 9)"});
  refused(kGood,
          with(&A::lse,
               [](DLTensor &d) {
                 d.dtype = {kDLFloat, 16, 1};
               }),
          kInvalid, {"lse has dtype float16", "float32"});
  refused(kGood, with(&A::delta, number(&DLTensor::strides, 1, 0)), kInvalid, {"delta has stride 0"});
  refused(kGood, with(&A::dv, [](DLTensor &d) { d.device.device_type = kDLMetal; }), kInvalid,
          {"dv is on device"});
  refused(kGood, with(&A::dq, [](DLTensor &d) { d.byte_offset += 1; }), kInvalid, {"dq has data", "2 bytes"});
  refused(kGood, with(&A::dout, [](DLTensor &d) { d.data = nullptr; }), kInvalid, {"dout"},
          /*planning_too=*/false);
}

TEST_CASE("backward errors: a gradient in the memory of another tensor") {
  const flashplus_status kInvalid = FLASHPLUS_INVALID_ARGUMENT;
  auto onto = [](auto A::*field, auto A::*other) {
    return
        [field, other](A &a) { a.*field = const_cast<DLTensor *>(static_cast<const DLTensor *>(a.*other)); };
  };
  refused(kGood, onto(&A::dq, &A::q), kInvalid, {"dq has the memory of q"});
  refused(kGood, onto(&A::dq, &A::dout), kInvalid, {"dq has the memory of dout"});
  refused(kGood, onto(&A::dk, &A::k), kInvalid, {"dk has the memory of k"});
  refused(kGood, onto(&A::dv, &A::v), kInvalid, {"dv has the memory of v"});
  refused(kGood, onto(&A::dv, &A::dk), kInvalid, {"dk has the memory of dv"});
}

TEST_CASE("backward errors: numbers and scores") {
  const flashplus_status kInvalid = FLASHPLUS_INVALID_ARGUMENT;
  static const float infinite = kInf;
  refused(kGood, [](A &a) { a.window_left = -2; }, kInvalid, {"window_left is -2", "-1"});
  refused(kGood, [](A &a) { a.causal = 2; }, kInvalid, {"causal is 2"});
  refused(kGood, [](A &a) { a.softmax_scale = &infinite; }, kInvalid, {"softmax_scale", "finite"});
  refused(kGood, [](A &a) { a.softcap = -1; }, kInvalid, {"softcap is -1"});
  refused(kGood, [](A &a) { a.struct_size = 8; }, kInvalid, {"struct_size is 8"});
  refused(kGood, [](A &a) { a.reserved = 1; }, kInvalid, {"reserved is 1"});
  refused(kGood, [](A &a) { a.score = "s + * 2"; }, kInvalid, {"column 5"});
  refused(kGood, [](A &a) { a.score = "s * w"; }, kInvalid, {"scalar 'w'"});
}

TEST_CASE("backward errors: a schedule that is none of its steps'") {
  for (const char *schedule :
       {"no.such tile_m=1", "cpu.flash", "sm80.flash", "cpu.backward_delta", "gpu.backward_delta"})
    refused(kGood, [&](A &a) { a.schedule = schedule; }, FLASHPLUS_UNSUPPORTED,
            {schedule, "is not an algorithm", "there is"});
  const char *own = Session::get().onCpu() ? "cpu.backward tile_m=7" : "sm80.backward_q tile_m=7";
  refused(kGood, [&](A &a) { a.schedule = own; }, FLASHPLUS_UNSUPPORTED, {"tile_m is 7"});
}

TEST_CASE("backward errors: a plan refuses what it was not made for") {
  BackwardInstance good(kGood);
  const PlanPtr plan = makeBackwardPlan(good);
  REQUIRE(plan);
  const size_t bytes = flashplus_plan_workspace(plan.get());
  const DeviceBuffer workspace(bytes + 256);
  auto larger = [&](int64_t Case::*field, int64_t value) {
    BackwardCase other = kGood;
    other.forward.*field = value;
    return other;
  };
  void *memory = workspace.data();
  notRun(*plan, kGood, nullptr, 0, "workspace has 0 bytes");
  notRun(*plan, kGood, memory, bytes - 1, "the plan needs");
  notRun(*plan, kGood, static_cast<char *>(memory) + 8, bytes, "256-byte aligned");
  notRun(*plan, larger(&Case::batch, 3), memory, bytes, "batch of 3");
  notRun(*plan, larger(&Case::sq, 10), memory, bytes, "seqlen_q of 10");
  notRun(*plan, larger(&Case::sk, 10), memory, bytes, "seqlen_k of 10");
  notRun(*plan, larger(&Case::hq, 6), memory, bytes, "heads_q of 6");
  notRun(*plan, larger(&Case::d, 32), memory, bytes, "dqk=32");
  BackwardCase causal = kGood;
  causal.forward.causal = true;
  notRun(*plan, causal, memory, bytes, "right=1");
}

TEST_CASE("backward errors: plans of one kind do not run arguments of the other") {
  BackwardInstance good(kGood);
  const PlanPtr forward = makePlan(Instance(kGood.forward)), backward = makeBackwardPlan(good);
  REQUIRE(backward);
  const DeviceBuffer workspace = freshWorkspace(*backward);
  notRun(*forward, kGood, workspace.data(), workspace.size(), "the plan was made for 'forward");
  Instance instance(kGood.forward);
  instance.resetOutputs();
  CHECK(flashplus_plan_run(backward.get(), &instance.args(), workspace.data(), workspace.size(), nullptr) ==
        FLASHPLUS_INVALID_ARGUMENT);
  const std::string message = flashplus_last_error();
  CHECK_MESSAGE(message.find("the plan was made for 'backward") != std::string::npos, message);
  std::string where;
  CHECK_MESSAGE(instance.untouched(instance.readO(), instance.readLse(), where), where);
}

TEST_SUITE_END();
