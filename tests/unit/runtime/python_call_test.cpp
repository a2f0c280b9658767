// SPDX-License-Identifier: BSD-3-Clause
// flashplus_forward_python and its kin with an exchange API of the test's own: its objects are HostTensors.
// That PyTorch's fits, and that the results are right, is the business of tests/python.
#include "flashplus/flashplus.h"
#include "tests/unit/runtime/libraries.h"
#include "tests/unit/runtime/problem.h"

#include <algorithm>
#include <cstring>
#include <doctest/doctest.h>
#include <string>
#include <vector>

using namespace flashplus::test;

namespace {

/// struct DLPackExchangeAPI of DLPack 1.3, spelt out once more.
struct Api {
  uint32_t major = 1, minor = 3;
  void *previous = nullptr, *managed[3] = {};
  int (*borrow)(void *, DLTensor *) = nullptr;
  int (*current_stream)(DLDeviceType, int32_t, void **) = nullptr;
};

std::vector<std::string> said;
int kThreadState;

int borrow(void *object, DLTensor *out) {
  *out = *static_cast<HostTensor *>(object)->get();
  said.push_back("borrow");
  return 0;
}
int refuse(void *, DLTensor *) { return -1; }
int stream(DLDeviceType, int32_t, void **out) { return *out = nullptr, said.push_back("stream"), 0; }
int noStream(DLDeviceType, int32_t, void **) { return -1; }
void *save() { return said.push_back("save"), &kThreadState; }
void restore(void *state) {
  CHECK(state == &kThreadState);
  said.push_back("restore");
}

struct Fixture {
  Fixture() {
    flashplus_context_options o = {};
    o.struct_size = sizeof o;
    o.cache_dir = "";
    o.compiler_path = kFakeCompiler;
    o.num_threads = 1;
    REQUIRE_MESSAGE(flashplus_context_create(&o, &context) == FLASHPLUS_OK, flashplus_last_error());
    p.args.q = p.args.k = p.args.v = nullptr; // ignored
    p.args.o = p.args.lse = nullptr;
    call = {sizeof call, context, &p.args, &api, save, restore};
    said.clear();
  }
  ~Fixture() { flashplus_context_destroy(context); }

  flashplus_status run() { return flashplus_forward_python(&call, &p.q, &p.k, &p.v, &p.o); }
  void fails(flashplus_status status, const char *text) {
    CHECK(run() == status);
    CHECK_MESSAGE(std::string(flashplus_last_error()).find(text) != std::string::npos,
                  flashplus_last_error());
  }

  Problem p;
  Api api{.borrow = borrow, .current_stream = stream};
  flashplus_context *context = nullptr;
  flashplus_python_call call;
};

using Said = std::vector<std::string>;

} // namespace

TEST_CASE_FIXTURE(Fixture, "a forward of Python tensors reads them with the lock and runs without it") {
  const flashplus_forward_args before = p.args;
  for (int i = 0; i < 2; ++i) {
    said.clear();
    CHECK_MESSAGE(run() == FLASHPLUS_OK, flashplus_last_error());
    CHECK(said == Said{"borrow", "borrow", "borrow", "borrow", "save", "restore"});
  }
  CHECK(std::memcmp(&before, &p.args, sizeof before) == 0);
}

TEST_CASE_FIXTURE(Fixture, "sizes are copied while the lock is held: another thread may resize a tensor") {
  static HostTensor *resized;
  resized = &p.k;
  call.save_thread = []() -> void * {
    for (int64_t &n : resized->shape)
      n = -1;
    return &kThreadState;
  };
  CHECK_MESSAGE(run() == FLASHPLUS_OK, flashplus_last_error());
}

TEST_CASE_FIXTURE(Fixture, "the stream is asked of the framework for GPU tensors only") {
  p.q.tensor.device = {kDLCUDA, 3};
  CHECK(run() != FLASHPLUS_OK); // k is elsewhere
  CHECK(said == Said{"borrow", "borrow", "borrow", "borrow", "stream", "save", "restore"});
  api.current_stream = noStream;
  said.clear();
  fails(FLASHPLUS_DEVICE_ERROR, "no stream of cuda:3");
  CHECK(said == Said{"borrow", "borrow", "borrow", "borrow"}); // the lock was never given up
}

TEST_CASE_FIXTURE(Fixture, "what flashplus_forward refuses comes back as it says it, with the lock") {
  p.k.shape[3] = 17;
  fails(FLASHPLUS_INVALID_ARGUMENT, "k has shape");
  CHECK(said.back() == "restore");
  p.args.struct_size = 8;
  fails(FLASHPLUS_INVALID_ARGUMENT, "args.struct_size is 8");
  p.args.struct_size = 0;
  fails(FLASHPLUS_INVALID_ARGUMENT, "args.struct_size is 0");
  p.args.struct_size = 1 << 20;
  fails(FLASHPLUS_INVALID_ARGUMENT, "args.struct_size is 1048576");
  p.args.struct_size = sizeof p.args;
  p.q.tensor.ndim = 9; // more than there is room for
  fails(FLASHPLUS_INVALID_ARGUMENT, "q has rank 9");
}

TEST_CASE_FIXTURE(Fixture, "a call that is not complete") {
  CHECK(flashplus_forward_python(nullptr, &p.q, &p.k, &p.v, &p.o) == FLASHPLUS_INVALID_ARGUMENT);
  CHECK(flashplus_forward_python(&call, &p.q, nullptr, &p.v, &p.o) == FLASHPLUS_INVALID_ARGUMENT);
  CHECK(std::string(flashplus_last_error()).starts_with("k is no tensor"));
  api.borrow = refuse;
  fails(FLASHPLUS_INVALID_ARGUMENT, "q is no tensor that DLPack can describe");
  api.borrow = nullptr;
  fails(FLASHPLUS_UNSUPPORTED, "borrows no tensors");
  api.borrow = borrow;
  api.major = 2;
  fails(FLASHPLUS_UNSUPPORTED, "DLPack 2.3");
  const flashplus_python_call whole = call;
  for (int field = 0; field < 5; ++field) {
    call = whole;
    std::memset(reinterpret_cast<char *>(&call) + 8 + 8 * field, 0, 8);
    fails(FLASHPLUS_INVALID_ARGUMENT, "null field");
  }
  call = whole;
  call.struct_size = 8;
  fails(FLASHPLUS_INVALID_ARGUMENT, "call.struct_size is 8");
  CHECK(std::count(said.begin(), said.end(), "save") == 0);
}

namespace {

/// The tuple of the calls: what tuple_item is given is a vector of objects.
using Tuple = std::vector<void *>;
int kNone;
void *item(void *tuple, ptrdiff_t i) {
  auto &all = *static_cast<Tuple *>(tuple);
  return size_t(i) < all.size() ? all[size_t(i)] : nullptr;
}

struct TupleFixture : Fixture {
  TupleFixture() {
    call.fields = fields;
    call.num_fields = 5;
    call.tuple_item = item;
    call.none = &kNone;
    said.clear();
  }
  flashplus_status run() { return flashplus_forward_python_tuple(&call, &tuple, 0, 0); }
  void fails(flashplus_status status, const char *text) {
    CHECK(run() == status);
    CHECK_MESSAGE(std::string(flashplus_last_error()).find(text) != std::string::npos,
                  flashplus_last_error());
  }

  size_t fields[5] = {offsetof(flashplus_forward_args, q), offsetof(flashplus_forward_args, k),
                      offsetof(flashplus_forward_args, v), offsetof(flashplus_forward_args, o),
                      offsetof(flashplus_forward_args, lse)};
  Tuple tuple = {&p.q, &p.k, &p.v, &p.o, &kNone};
};

} // namespace

TEST_CASE_FIXTURE(TupleFixture, "a tuple of Python tensors: what is None is not given, the lock as above") {
  CHECK_MESSAGE(run() == FLASHPLUS_OK, flashplus_last_error());
  CHECK(said == Said{"borrow", "borrow", "borrow", "borrow", "save", "restore"});
  p.args.rotary_interleaved = 1; // means nothing without cosines
  CHECK_MESSAGE(run() == FLASHPLUS_OK, flashplus_last_error());
}

TEST_CASE_FIXTURE(TupleFixture, "a tuple that is not what the call says") {
  tuple[2] = &kNone;
  fails(FLASHPLUS_INVALID_ARGUMENT, "tensors has no q, k, v or o");
  tuple.resize(2);
  fails(FLASHPLUS_INVALID_ARGUMENT, "tensors has no item 2");
  fields[1] += 4;
  fails(FLASHPLUS_INVALID_ARGUMENT, "call.fields[1] is");
  for (int64_t count : {int64_t(0), int64_t(25), int64_t(1) << 40}) {
    call.num_fields = count;
    fails(FLASHPLUS_INVALID_ARGUMENT, "call.num_fields is");
  }
  call.none = nullptr;
  fails(FLASHPLUS_INVALID_ARGUMENT, "all are required");
  call.struct_size = offsetof(flashplus_python_call, fields); // the header of 0.1
  fails(FLASHPLUS_INVALID_ARGUMENT, "all are required");
  CHECK(std::count(said.begin(), said.end(), "save") == 0);
}

TEST_CASE_FIXTURE(TupleFixture, "what flash_attn refuses is left to the caller") {
  --p.q.shape[0]; // a cache of more rows than the batch
  --p.o.shape[0];
  fails(FLASHPLUS_UNSUPPORTED, "the batch of the cache");
  CHECK(std::count(said.begin(), said.end(), "save") == 0);
}

namespace {

/// Gradients of the fixture's problem.
struct BackwardFixture : TupleFixture {
  BackwardFixture() {
    call.args = nullptr; // not of this call
    call.backward_args = &backward;
    call.num_fields = 9;
    call.fields = all;
  }
  flashplus_status run() { return flashplus_backward_python_tuple(&call, &given, 0, 0); }
  void fails(flashplus_status status, const char *text) {
    CHECK(run() == status);
    CHECK_MESSAGE(std::string(flashplus_last_error()).find(text) != std::string::npos,
                  flashplus_last_error());
  }

  HostTensor dout{{2, 5, 4, 24}}, dq{{2, 5, 4, 16}}, dk{{2, 7, 2, 16}}, dv{{2, 7, 2, 24}};
  flashplus_backward_args backward = FLASHPLUS_BACKWARD_ARGS_INIT;
  size_t all[9] = {offsetof(flashplus_backward_args, q),   offsetof(flashplus_backward_args, k),
                   offsetof(flashplus_backward_args, v),   offsetof(flashplus_backward_args, o),
                   offsetof(flashplus_backward_args, lse), offsetof(flashplus_backward_args, dout),
                   offsetof(flashplus_backward_args, dq),  offsetof(flashplus_backward_args, dk),
                   offsetof(flashplus_backward_args, dv)};
  Tuple given = {&p.q, &p.k, &p.v, &p.o, &p.lse, &dout, &dq, &dk, &dv};
};

} // namespace

TEST_CASE_FIXTURE(BackwardFixture,
                  "a backward of Python tensors reads them with the lock and runs without it") {
  const flashplus_backward_args before = backward;
  for (int i = 0; i < 2; ++i) {
    said.clear();
    CHECK_MESSAGE(run() == FLASHPLUS_OK, flashplus_last_error());
    Said wanted(9, "borrow");
    wanted.insert(wanted.end(), {"save", "restore"});
    CHECK(said == wanted);
  }
  CHECK(std::memcmp(&before, &backward, sizeof before) == 0);
}

TEST_CASE_FIXTURE(BackwardFixture, "a backward from Python that is not complete, or not well") {
  given[8] = &p.v; // dv over v
  fails(FLASHPLUS_INVALID_ARGUMENT, "has the memory of");
  CHECK(said.back() == "restore");
  given[8] = &kNone;
  fails(FLASHPLUS_INVALID_ARGUMENT, "dv");
  given[8] = &dv;
  dout.shape[3] = 23;
  fails(FLASHPLUS_INVALID_ARGUMENT, "dout has shape");
  said.clear();
  dout.shape[3] = 24;
  p.q.shape[0] = 0;
  fails(FLASHPLUS_UNSUPPORTED, "a batch of nothing");
  p.q.shape[0] = 2;
  given[3] = &kNone;
  fails(FLASHPLUS_INVALID_ARGUMENT, "tensors has no q, k, v or o");
  all[1] += 4;
  fails(FLASHPLUS_INVALID_ARGUMENT, "it must be the offset of a tensor in flashplus_backward_args");
  call.num_fields = 19;
  fails(FLASHPLUS_INVALID_ARGUMENT, "call.num_fields is 19; it must be 1 to 18");
  call.struct_size = offsetof(flashplus_python_call, backward_args); // the header before it had one
  fails(FLASHPLUS_INVALID_ARGUMENT, "null field");
  CHECK(std::count(said.begin(), said.end(), "save") == 0);
}
