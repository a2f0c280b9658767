// SPDX-License-Identifier: BSD-3-Clause
// The rules for structs that flashplus.h states: all zero is the plain case, flags are 0 or 1, and a program
// that was built with the header of 0.1 runs as it did (frozen_0_1.c).
#include <flashplus/flashplus.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <doctest/doctest.h>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

extern "C" const char *check_frozen_0_1(const char *unusable);

namespace {

/// A path below a file.
struct Unusable {
  Unusable() {
    std::string name = (std::filesystem::temp_directory_path() / "flashplus-zeroed-XXXXXX").string();
    folder = mkdtemp(name.data());
    std::ofstream(folder + "/file") << "no folder";
    path = folder + "/file/cache";
  }
  ~Unusable() { std::filesystem::remove_all(folder); }
  std::string folder, path;
};

struct Handle {
  explicit Handle(const char *cache_dir = "") {
    flashplus_context_options options = {};
    options.struct_size = sizeof options;
    options.cache_dir = cache_dir;
    options.num_threads = 2;
    REQUIRE_MESSAGE(flashplus_context_create(&options, &context) == FLASHPLUS_OK, flashplus_last_error());
  }
  ~Handle() { flashplus_context_destroy(context); }
  Handle(const Handle &) = delete;
  flashplus_context *context = nullptr;
};

/// Scores are all 0 and row j of v holds j: an output row is the mean of the keys that it sees.
struct Rows {
  static constexpr int kQueries = 6, kKeys = 4, kDim = 8;
  std::vector<float> q = std::vector<float>(kQueries * kDim), k = std::vector<float>(kKeys * kDim), v = k,
                     o = q, lse = std::vector<float>(kQueries);
  int64_t q_shape[4] = {1, kQueries, 1, kDim}, k_shape[4] = {1, kKeys, 1, kDim},
          lse_shape[3] = {1, 1, kQueries};
  DLTensor tq = tensor(q, q_shape), tk = tensor(k, k_shape), tv = tensor(v, k_shape), to = tensor(o, q_shape),
           tl = tensor(lse, lse_shape, 3);
  flashplus_forward_args args = {};

  Rows() {
    for (int i = 0; i < kKeys * kDim; ++i)
      v[size_t(i)] = float(i / kDim);
    args.struct_size = sizeof args;
    args.q = &tq, args.k = &tk, args.v = &tv, args.o = &to, args.lse = &tl;
  }
  Rows(const Rows &) = delete;
  static DLTensor tensor(std::vector<float> &data, int64_t *shape, int rank = 4) {
    DLTensor t = {};
    t.data = data.data(), t.device = {kDLCPU, 0}, t.ndim = rank, t.dtype = {kDLFloat, 32, 1}, t.shape = shape;
    return t;
  }

  void sees(flashplus_context *context, int left, int right, float empty = INFINITY) {
    REQUIRE_MESSAGE(flashplus_forward(context, &args, nullptr) == FLASHPLUS_OK, flashplus_last_error());
    for (int i = 0; i < kQueries; ++i) {
      float sum = 0, count = 0;
      for (int j = 0; j < kKeys; ++j)
        if (const int at = j - (i + kKeys - kQueries); -left <= at && at <= right)
          sum += float(j), count += 1;
      CHECK(o[size_t(i) * kDim] == doctest::Approx(count > 0 ? sum / count : 0));
      if (count == 0)
        CHECK(lse[size_t(i)] == empty);
    }
  }
  void refused(flashplus_context *context, const std::string &message) {
    CHECK(flashplus_forward(context, &args, nullptr) == FLASHPLUS_INVALID_ARGUMENT);
    CHECK(std::string(flashplus_last_error()) == message);
  }
};

std::string describe(flashplus_context *context) {
  const char *text = "";
  REQUIRE(flashplus_describe(context, &text) == FLASHPLUS_OK);
  return text;
}

int64_t warnings(flashplus_context *context) {
  flashplus_counters c = {};
  c.struct_size = sizeof c;
  REQUIRE(flashplus_get_counters(context, &c) == FLASHPLUS_OK);
  return c.warnings;
}

} // namespace

TEST_CASE("a binary of 0.1 runs unchanged") {
  const Unusable unusable;
  CHECK(std::string(check_frozen_0_1(unusable.path.c_str())) == "");
}

TEST_CASE("arguments that are all zero are full attention") {
  Handle h;
  Rows r;
  r.sees(h.context, 99, 99);
  r.args.causal = 1;
  r.sees(h.context, 99, 0);
  r.args.lse_empty = -INFINITY;
  r.sees(h.context, 99, 0, -INFINITY);
  r.args.causal = 0;
  r.args.has_window = 1; // and both sides 0
  r.sees(h.context, 0, 0, -INFINITY);
  r.args.window_left = -1;
  r.args.window_right = 1;
  r.sees(h.context, 99, 1, -INFINITY);
  r.args.window_left = 1;
  r.args.window_right = -1;
  r.sees(h.context, 1, 99, -INFINITY);
}

TEST_CASE("the INIT macro says the same as zeros, and a side of it can be set") {
  Handle h;
  Rows r;
  const flashplus_forward_args zero = r.args;
  r.args = FLASHPLUS_FORWARD_ARGS_INIT;
  r.args.q = zero.q, r.args.k = zero.k, r.args.v = zero.v, r.args.o = zero.o, r.args.lse = zero.lse;
  r.sees(h.context, 99, 99);
  r.args.window_right = 0;
  r.sees(h.context, 99, 0);
}

TEST_CASE("window sides without has_window are not dropped in silence") {
  Handle h;
  Rows r;
  r.args.window_left = r.args.window_right = -1;
  r.sees(h.context, 99, 99);
  r.args.window_right = 0;
  r.refused(
      h.context,
      "window_left is -1 and window_right 0 while has_window is 0; set has_window to 1, or leave both at 0");
  r.args.window_left = 128;
  r.refused(
      h.context,
      "window_left is 128 and window_right 0 while has_window is 0; set has_window to 1, or leave both at 0");
}

TEST_CASE("flags are 0 or 1") {
  Handle h;
  Rows r;
  r.args.causal = 2;
  r.refused(h.context, "causal is 2; it must be 0 or 1");
  r.args.causal = 0;
  r.args.batch_invariant = -1;
  r.refused(h.context, "batch_invariant is -1; it must be 0 or 1");
  r.args.batch_invariant = 0;
  r.args.has_window = 3;
  r.refused(h.context, "has_window is 3; it must be 0 or 1");
  r.args.has_window = 0;
  r.args.reserved = 1;
  r.refused(h.context, "args.reserved is 1; it must be 0");

  flashplus_context *context = nullptr;
  flashplus_context_options options = {};
  options.struct_size = sizeof options;
  options.offline = 2;
  CHECK(flashplus_context_create(&options, &context) == FLASHPLUS_INVALID_ARGUMENT);
  CHECK(std::string(flashplus_last_error()) == "options.offline is 2; it must be 0 or 1");
  options.offline = 0;
  options.cache_optional = -1;
  CHECK(flashplus_context_create(&options, &context) == FLASHPLUS_INVALID_ARGUMENT);
  CHECK(std::string(flashplus_last_error()) == "options.cache_optional is -1; it must be 0 or 1");
}

TEST_CASE("max_seqlen 0 with cu_seqlens is not known, not none") {
  Handle h;
  Rows r;
  int32_t ends_q[2] = {0, Rows::kQueries}, ends_k[2] = {0, Rows::kKeys};
  int64_t two = 2;
  DLTensor cu_q = {}, cu_k = {};
  cu_q.data = ends_q, cu_q.device = {kDLCPU, 0}, cu_q.ndim = 1, cu_q.dtype = {kDLInt, 32, 1},
  cu_q.shape = &two;
  cu_k = cu_q;
  cu_k.data = ends_k;
  for (DLTensor *t : {&r.tq, &r.tk, &r.tv, &r.to})
    t->ndim = 3, t->shape += 1;
  r.tl.ndim = 2, r.tl.shape += 1;
  r.args.cu_seqlens_q = &cu_q, r.args.cu_seqlens_k = &cu_k;
  r.args.causal = 1;
  r.sees(h.context, 99, 0);
}

TEST_CASE("a caller whose header is newer is refused only for what it sets") {
  Handle h;
  struct {
    Rows rows;
    char newer[64] = {};
  } r;
  // `args` is the last member of Rows, so that `newer` lies behind it.
  static_assert(offsetof(Rows, args) + sizeof(flashplus_forward_args) == sizeof(Rows));
  r.rows.args.struct_size = sizeof r.rows.args + 16;
  r.rows.sees(h.context, 99, 99);
  r.newer[9] = 1;
  CHECK(flashplus_forward(h.context, &r.rows.args, nullptr) == FLASHPLUS_UNSUPPORTED);
  CHECK(std::string(flashplus_last_error()).find("args has a field at byte ") == 0);

  struct {
    flashplus_counters counters;
    int64_t newer[2];
  } c;
  std::memset(&c, 0x5a, sizeof c);
  c.counters.struct_size = sizeof c.counters + 8;
  REQUIRE(flashplus_get_counters(h.context, &c.counters) == FLASHPLUS_OK);
  CHECK(c.newer[0] == 0);
  CHECK(c.newer[1] == 0x5a5a5a5a5a5a5a5a);
}

TEST_CASE("a misspelt variable of the environment is a warning of each context that is made") {
  ::setenv("FLASHPLUS_CACHE_DRI", "/somewhere", 1);
  const Handle misspelt, once_more;
  ::unsetenv("FLASHPLUS_CACHE_DRI");
  for (const Handle *handle : {&misspelt, &once_more}) {
    CHECK(warnings(handle->context) == 1);
    CHECK(describe(handle->context).find("\"warnings\":[\"$FLASHPLUS_CACHE_DRI is set, and nothing reads") !=
          std::string::npos);
  }
  CHECK(warnings(Handle().context) == 0);
}

TEST_CASE("a cache that cannot be used is not hidden by a null log") {
  const Unusable unusable;
  flashplus_context *context = nullptr;
  flashplus_context_options options = {};
  options.struct_size = sizeof options;
  options.cache_dir = unusable.path.c_str();
  CHECK(flashplus_context_create(&options, &context) == FLASHPLUS_IO_ERROR);
  CHECK(context == nullptr);
  const std::string message = flashplus_last_error();
  CHECK(message.find("options.cache_dir is '" + unusable.path + "', which cannot be used: ") == 0);
  CHECK(message.find("cache_optional") != std::string::npos);

  options.cache_optional = 1;
  REQUIRE(flashplus_context_create(&options, &context) == FLASHPLUS_OK);
  CHECK(warnings(context) == 1);
  CHECK(describe(context).find("\"warnings\":[\"") != std::string::npos);
  flashplus_context_destroy(context);

  // Named by nobody: a warning, which counters and description have whether there is a log or not.
  ::setenv("FLASHPLUS_CACHE_DIR", unusable.path.c_str(), 1);
  REQUIRE(flashplus_context_create(nullptr, &context) == FLASHPLUS_OK);
  ::unsetenv("FLASHPLUS_CACHE_DIR");
  CHECK(warnings(context) == 1);
  flashplus_context_destroy(context);

  const Handle good;
  CHECK(warnings(good.context) == 0);
  CHECK(describe(good.context).find("\"warnings\":[]") != std::string::npos);
}
