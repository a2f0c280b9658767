// SPDX-License-Identifier: BSD-3-Clause
// The launch path allocates nothing: counted by an operator new of this program's own.
#include "flashplus/flashplus.h"
#include "tests/unit/runtime/libraries.h"
#include "tests/unit/runtime/problem.h"

#include <cstdlib>
#include <doctest/doctest.h>
#include <new>
#include <string>

using namespace flashplus::test;

namespace {
thread_local int64_t allocations = 0;

void *counted(size_t size) {
  ++allocations;
  void *memory = std::malloc(size ? size : 1);
  if (!memory)
    throw std::bad_alloc();
  return memory;
}
} // namespace

void *operator new(size_t size) { return counted(size); }
void *operator new[](size_t size) { return counted(size); }
void operator delete(void *memory) noexcept { std::free(memory); }
void operator delete[](void *memory) noexcept { std::free(memory); }
void operator delete(void *memory, size_t) noexcept { std::free(memory); }
void operator delete[](void *memory, size_t) noexcept { std::free(memory); }

TEST_CASE("plan_run and a forward whose plan is known allocate nothing") {
  flashplus_context_options o = {};
  o.struct_size = sizeof o;
  o.cache_dir = "";
  o.compiler_path = kFakeCompiler;
  for (int threads : {1, 2}) {
    o.num_threads = threads;
    flashplus_context *context = nullptr;
    REQUIRE(flashplus_context_create(&o, &context) == FLASHPLUS_OK);

    HostTensor slopes({2, 4}), bias({4});
    const flashplus_score_tensor tensor{"a_bias_with_quite_a_long_name", bias.get()};
    const flashplus_score_scalar scalar{"a_scalar_with_quite_a_long_name", 2};
    for (bool ragged : {false, true})
      for (int variant = 0; variant < 3; ++variant) {
        Problem p(ragged);
        if (variant == 1) {
          p.args.softcap = 30;
          p.args.alibi_slopes = slopes.get();
          p.args.causal = 1;
        } else if (variant == 2) {
          p.args.score = "s * a_scalar_with_quite_a_long_name + a_bias_with_quite_a_long_name[h]";
          p.args.score_tensors = &tensor;
          p.args.score_scalars = &scalar;
          p.args.num_score_tensors = p.args.num_score_scalars = 1;
        }
        flashplus_plan *plan = nullptr;
        REQUIRE_MESSAGE(flashplus_plan_create(context, &p.args, &plan) == FLASHPLUS_OK,
                        flashplus_last_error());
        // from here on the plan is known
        REQUIRE(flashplus_forward(context, &p.args, nullptr) == FLASHPLUS_OK);
        // threads have started
        REQUIRE(flashplus_plan_run(plan, &p.args, nullptr, 0, nullptr) == FLASHPLUS_OK);
        const int64_t before = allocations;
        const flashplus_status forward = flashplus_forward(context, &p.args, nullptr);
        const int64_t between = allocations;
        const flashplus_status run = flashplus_plan_run(plan, &p.args, nullptr, 0, nullptr);
        const int64_t after = allocations;
        CHECK(forward == FLASHPLUS_OK);
        CHECK(run == FLASHPLUS_OK);
        CHECK(between - before == 0);
        CHECK(after - between == 0);
        flashplus_plan_destroy(plan);
      }
    flashplus_context_destroy(context);
  }
}

TEST_CASE("nor do those with new keys for pages, packed or not") {
  flashplus_context_options o = {};
  o.struct_size = sizeof o;
  o.cache_dir = "";
  o.compiler_path = kFakeCompiler;
  o.num_threads = 1;
  flashplus_context *context = nullptr;
  REQUIRE(flashplus_context_create(&o, &context) == FLASHPLUS_OK);
  HostTensor k({4, 4, 2, 16}), v({4, 4, 2, 24}), blocks = HostTensor::int32({3, 1, 0, 2}),
                                                 used = HostTensor::int32({2, 1}),
                                                 ends = HostTensor::int32({0, 4, 5});
  blocks.shape = {2, 2};
  blocks.tensor.ndim = 2;
  blocks.tensor.shape = blocks.shape.data();
  HostTensor cos({8, 8}), sin({8, 8});
  for (bool ragged : {false, true}) {
    Problem p(ragged);
    HostTensor k_new(ragged ? std::vector<int64_t>{5, 2, 16} : std::vector<int64_t>{2, 3, 2, 16});
    HostTensor v_new(ragged ? std::vector<int64_t>{5, 2, 24} : std::vector<int64_t>{2, 3, 2, 24});
    p.args.k = k.get();
    p.args.v = v.get();
    p.args.causal = 1;
    p.args.block_table = blocks.get();
    p.args.cu_seqlens_k = nullptr;
    p.args.seqused_k = used.get();
    p.args.k_new = k_new.get();
    p.args.v_new = v_new.get();
    p.args.cu_seqlens_k_new = ragged ? ends.get() : nullptr;
    p.args.rotary_cos = cos.get();
    p.args.rotary_sin = sin.get();
    flashplus_plan *plan = nullptr;
    REQUIRE_MESSAGE(flashplus_plan_create(context, &p.args, &plan) == FLASHPLUS_OK, flashplus_last_error());
    const size_t bytes = flashplus_plan_workspace(plan);
    std::vector<char> room(bytes + 256);
    void *workspace = room.data() + (256 - reinterpret_cast<uintptr_t>(room.data()) % 256) % 256;
    REQUIRE_MESSAGE(flashplus_plan_run(plan, &p.args, workspace, bytes, nullptr) == FLASHPLUS_OK,
                    flashplus_last_error());
    const int64_t before = allocations;
    const flashplus_status run = flashplus_plan_run(plan, &p.args, workspace, bytes, nullptr);
    const int64_t after = allocations;
    CHECK(run == FLASHPLUS_OK);
    CHECK(after - before == 0);
    flashplus_plan_destroy(plan);
  }
  flashplus_context_destroy(context);
}

TEST_CASE("the counter counts") {
  const int64_t before = allocations;
  delete new int(1);
  CHECK(allocations - before <= 1); // a compiler may leave the pair out
  std::string text(1000, 'x');
  CHECK(text.size() == 1000);
  CHECK(allocations > before);
}
