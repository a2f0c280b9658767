// SPDX-License-Identifier: BSD-3-Clause
// libflashplus.so as its users have it: through the public headers only, with the real compiler, on the CPU.
#define DOCTEST_CONFIG_IMPLEMENT
#include <flashplus/flashplus.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <doctest/doctest.h>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

using namespace flashplus;

extern "C" const char *version_from_c(void);
extern "C" int refused_from_c(void);
bool refusedWithoutExceptions();

namespace {

struct Folder {
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "flashplus-api-XXXXXX").string();
    path = mkdtemp(name.data());
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string path;
};

Context context(const std::string &cache = "", const std::string &compiler = "") {
  ContextOptions options;
  options.cache_dir = cache;
  if (!compiler.empty())
    options.compiler_path = compiler;
  options.num_threads = 2;
  return Context::create(options).value();
}

std::vector<float> randoms(size_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float &v : values)
    v = normal(engine);
  return values;
}

/// Causal attention of (batch, s, heads, d), row by row, in T throughout.
template <class T>
std::vector<T> naive(const std::vector<float> &q, const std::vector<float> &k, const std::vector<float> &v,
                     int batch, int s, int heads, int d) {
  std::vector<T> o(q.size());
  auto at = [&](int b, int i, int h) { return size_t((b * s + i) * heads + h) * size_t(d); };
  for (int b = 0; b < batch; ++b)
    for (int h = 0; h < heads; ++h)
      for (int i = 0; i < s; ++i) {
        std::vector<T> p(size_t(i) + 1);
        T most = -INFINITY, sum = 0;
        for (int j = 0; j <= i; ++j) {
          T dot = 0;
          for (int e = 0; e < d; ++e)
            dot += T(q[at(b, i, h) + e]) * T(k[at(b, j, h) + e]);
          most = std::max(most, p[j] = dot / std::sqrt(T(d)));
        }
        for (T &x : p)
          sum += x = std::exp(x - most);
        for (int e = 0; e < d; ++e) {
          T total = 0;
          for (int j = 0; j <= i; ++j)
            total += p[j] * T(v[at(b, j, h) + e]);
          o[at(b, i, h) + e] = total / sum;
        }
      }
  return o;
}

template <class A> double largestError(const A &values, const std::vector<double> &exact) {
  double error = 0;
  for (size_t i = 0; i < exact.size(); ++i)
    error = std::max(error, std::abs(double(values[i]) - exact[i]));
  return error;
}

struct Causal {
  static constexpr int batch = 2, s = 70, heads = 3, d = 48;
  std::vector<float> q = randoms(size_t(batch * s * heads * d), 1), k = randoms(q.size(), 2),
                     v = randoms(q.size(), 3), o = std::vector<float>(q.size(), NAN),
                     lse = std::vector<float>(size_t(batch * heads * s), NAN);
  ForwardArgs args;
  Causal() {
    args.q = tensor(q);
    args.k = tensor(k);
    args.v = tensor(v);
    args.o = tensor(o);
    args.lse = Tensor(lse.data(), DType::F32, {batch, heads, s});
    args.causal = true;
  }
  static Tensor tensor(const std::vector<float> &values) {
    return {values.data(), DType::F32, {batch, s, heads, d}};
  }
};

} // namespace

TEST_CASE("the headers compile as C11 and as C++17 without exceptions") {
  CHECK(std::string(version_from_c()) == flashplus_version());
  CHECK(refused_from_c() == 1);
  CHECK(refusedWithoutExceptions());
}

TEST_CASE("forward and plan through the wrapper are as exact as fp32 can be") {
  Causal p;
  const auto exact = naive<double>(p.q, p.k, p.v, p.batch, p.s, p.heads, p.d);
  const double allowed = 2 * largestError(naive<float>(p.q, p.k, p.v, p.batch, p.s, p.heads, p.d), exact);
  REQUIRE(allowed > 0);
  const Context c = context();
  c.forward(p.args).value();
  CHECK(largestError(p.o, exact) <= allowed);

  p.o.assign(p.o.size(), NAN);
  const Plan plan = c.plan(p.args).value();
  const DeviceMemory workspace = plan.allocateWorkspace().value();
  CHECK(workspace.size() == plan.workspaceBytes());
  CHECK(std::string(plan.describe()).find("\"steps\"") != std::string::npos);
  plan.run(p.args, workspace).value();
  CHECK(largestError(p.o, exact) <= allowed);
  CHECK(c.counters().compiles == 1);

  // A split over the keys needs a workspace and gives the same.
  p.o.assign(p.o.size(), NAN);
  p.args.num_splits = 3;
  const Plan split = c.plan(p.args).value();
  CHECK(split.workspaceBytes() > 0);
  split.run(p.args, split.allocateWorkspace().value()).value();
  CHECK(largestError(p.o, exact) <= allowed);
  CHECK(!split.run(p.args, nullptr, 0));

  // Counters are zero, also in memory that was somebody's before.
  const std::vector<unsigned char> ones(split.workspaceBytes(), 0xff);
  for (int attempt = 0; attempt < 4; ++attempt) {
    c.allocate(cpu(), ones.size()).value().upload(ones.data()).value();
    const DeviceMemory fresh = split.allocateWorkspace().value();
    const auto *bytes = static_cast<const unsigned char *>(fresh.data());
    CHECK(std::count(bytes, bytes + FLASHPLUS_WORKSPACE_ZEROED, 0) == FLASHPLUS_WORKSPACE_ZEROED);
  }
}

TEST_CASE("new keys are written into the cache, and seen by the same call") {
  Causal p;
  const auto exact = naive<double>(p.q, p.k, p.v, p.batch, p.s, p.heads, p.d);
  const double allowed = 2 * largestError(naive<float>(p.q, p.k, p.v, p.batch, p.s, p.heads, p.d), exact);
  const Context c = context();
  const int fresh = 3, positions = p.s, half = p.d / 2;
  const int64_t row = int64_t(p.heads) * p.d;
  std::vector<float> k = p.k, v = p.v, k_new, v_new;
  for (auto [cache, part] : {std::pair{&k, &k_new}, {&v, &v_new}})
    for (int b = 0; b < p.batch; ++b) {
      const auto first = cache->begin() + ((b + 1) * p.s - fresh) * row;
      part->insert(part->end(), first, first + fresh * row);
      std::fill_n(first, fresh * row, NAN);
    }
  const std::vector<int32_t> used(size_t(p.batch), p.s - fresh);
  const std::vector<float> ones(size_t(positions * half), 1), zeros(ones.size(), 0); // turn by no angle
  p.args.k = Tensor(k.data(), DType::F32, {p.batch, p.s, p.heads, p.d});
  p.args.v = Tensor(v.data(), DType::F32, {p.batch, p.s, p.heads, p.d});
  p.args.k_new = Tensor(k_new.data(), DType::F32, {p.batch, fresh, p.heads, p.d});
  p.args.v_new = Tensor(v_new.data(), DType::F32, {p.batch, fresh, p.heads, p.d});
  p.args.seqused_k = Tensor(used.data(), DType::I32, {p.batch});
  p.args.rotary_cos = Tensor(ones.data(), DType::F32, {positions, half});
  p.args.rotary_sin = Tensor(zeros.data(), DType::F32, {positions, half});
  p.args.rotary_seqlens = p.args.seqused_k;
  p.args.rotary_interleaved = true;
  c.forward(p.args).value();
  CHECK(largestError(p.o, exact) <= allowed);
  CHECK(k == p.k);
  CHECK(v == p.v);
  const auto refused = [&](const char *sentence) {
    const auto bad = c.forward(p.args);
    REQUIRE(!bad);
    CHECK_MESSAGE(bad.error().message.find(sentence) == 0, bad.error().message);
  };
  const std::vector<int64_t> slots(size_t(p.batch * fresh), -1);
  p.args.slot_mapping = Tensor(slots.data(), DType::I64, {p.batch * fresh});
  refused("slot_mapping is given without block_table");
  p.args.slot_mapping = {};
  p.args.cu_seqlens_k_new = p.args.seqused_k;
  p.args.max_seqlen_k_new = 1;
  refused("k_new has shape (2, 3");
}

TEST_CASE("values on a device are checked before a launch, where the environment says so") {
  const DLDevice device{kDLExtDev, 0}; // the emulator
  setenv("FLASHPLUS_DEBUG_VALUES", "1", 1);
  const Context c = context();
  unsetenv("FLASHPLUS_DEBUG_VALUES");
  if (!c.allocate(device, 1)) {
    MESSAGE("skipped: there is no emulator");
    return;
  }
  std::vector<DeviceMemory> memory;
  auto put = [&](const void *from, size_t bytes) {
    memory.push_back(c.allocate(device, bytes).value());
    memory.back().upload(from).value();
    return memory.back().data();
  };
  const int64_t batch = 2, heads = 2, dim = 16, pages = 6, size = 4;
  const std::vector<uint16_t> zeros(size_t(pages * size * heads * dim), 0);
  auto rows = [&](std::initializer_list<int64_t> shape) {
    return Tensor(put(zeros.data(), zeros.size() * 2), DType::BF16, shape, device);
  };
  ForwardArgs args;
  args.q = rows({batch, 1, heads, dim});
  args.o = rows({batch, 1, heads, dim});
  args.k = rows({pages, size, heads, dim});
  args.v = rows({pages, size, heads, dim});
  args.k_new = rows({batch, 1, heads, dim});
  args.v_new = rows({batch, 1, heads, dim});
  args.causal = true;
  std::vector<int32_t> table = {0, 1, 2, 3, 4, 5}, used = {9, 5};
  auto call = [&] {
    args.block_table = Tensor(put(table.data(), 24), DType::I32, {batch, 3}, device);
    args.seqused_k = Tensor(put(used.data(), 8), DType::I32, {batch}, device);
    return c.forward(args);
  };
  const auto refused = [&](const char *sentence) {
    const auto bad = call();
    REQUIRE(!bad);
    CHECK(bad.error().code == FLASHPLUS_INVALID_ARGUMENT);
    CHECK_MESSAGE(bad.error().message.find(sentence) == 0, bad.error().message);
  };
  table[1] = 6; // an entry that is read
  refused("block_table[0, 1] is 6; it is entry 1 of sequence 0, which reads it, so it must be 0 to 5");
  table[1] = 1, table[4] = -1; // one that a new row goes to
  refused("block_table[1, 1] is -1; it is entry 1 of sequence 1");
  table[4] = 7;
  refused("block_table[1, 1] is 7; new keys of sequence 1 go there, so it must be 0 to 5");
  table[4] = 4, used[0] = 12; // no room
  refused("k_new adds 1 keys to sequence 0, of which seqused_k says 12; its cache has room for 12");
  used[0] = 9;
  std::vector<int64_t> slots = {9, 24};
  args.slot_mapping = Tensor(put(slots.data(), 16), DType::I64, {batch}, device);
  refused("slot_mapping[1] is 24; it must be less than 24");
  args.slot_mapping = {};
  CHECK(c.counters().compiles == 0); // nothing was launched, or even made
  table[5] = 99;                     // no key lies there, so that nobody reads it
  call().value();
  std::vector<uint16_t> o(size_t(batch * heads * dim), 1);
  c.synchronize(device).value();
  REQUIRE(flashplus_copy_to_host(c.handle(), device, o.data(), args.o.dl()->data, o.size() * 2) ==
          FLASHPLUS_OK);
  CHECK(std::count(o.begin(), o.end(), 0) == std::ptrdiff_t(o.size()));
  // A plan's runs are checked, too.
  const Plan plan = c.plan(args).value();
  const DeviceMemory workspace = plan.allocateWorkspace().value();
  plan.run(args, workspace).value();
  used[1] = 13;
  args.seqused_k = Tensor(put(used.data(), 8), DType::I32, {batch}, device);
  CHECK(plan.run(args, workspace).error().message.find("k_new adds 1 keys to sequence 1") == 0);
  // So are a backward's lengths, whatever gradients it is asked for.
  const std::vector<float> floats(64, 0.5f);
  auto fp32 = [&](std::initializer_list<int64_t> shape) {
    return Tensor(put(floats.data(), floats.size() * 4), DType::F32, shape, device);
  };
  Tensor in[5], out[3], lse = fp32({batch, heads, 8}), slopes = fp32({heads}), lengths;
  for (Tensor &t : in)
    t = rows({batch, 8, heads, dim});
  for (Tensor &t : out)
    t = rows({batch, 8, heads, dim});
  Tensor dslopes = fp32({heads}), dcap = fp32({1}), dgain = fp32({1});
  const flashplus_score_scalar gain{"gain", 2};
  const flashplus_score_gradient wanted{"gain", const_cast<DLTensor *>(dgain.dl())};
  flashplus_backward_args backward = FLASHPLUS_BACKWARD_ARGS_INIT;
  backward.q = in[0].dl(), backward.k = in[1].dl(), backward.v = in[2].dl(), backward.o = in[3].dl();
  backward.dout = in[4].dl(), backward.lse = lse.dl();
  backward.dq = const_cast<DLTensor *>(out[0].dl());
  backward.dk = const_cast<DLTensor *>(out[1].dl());
  backward.dv = const_cast<DLTensor *>(out[2].dl());
  backward.score = "gain * s", backward.score_scalars = &gain, backward.num_score_scalars = 1;
  backward.score_gradients = &wanted, backward.num_score_gradients = 1;
  backward.alibi_slopes = slopes.dl(), backward.dalibi_slopes = const_cast<DLTensor *>(dslopes.dl());
  backward.softcap = 5, backward.dsoftcap = const_cast<DLTensor *>(dcap.dl());
  used = {8, -1};
  lengths = Tensor(put(used.data(), 8), DType::I32, {batch}, device);
  backward.seqused_k = lengths.dl();
  CHECK(flashplus_backward(c.handle(), &backward, nullptr) == FLASHPLUS_INVALID_ARGUMENT);
  CHECK(std::string(flashplus_last_error()).find("seqused_k[1] is -1") == 0);
  used[1] = 3;
  lengths = Tensor(put(used.data(), 8), DType::I32, {batch}, device);
  backward.seqused_k = lengths.dl();
  CHECK_MESSAGE(flashplus_backward(c.handle(), &backward, nullptr) == FLASHPLUS_OK, flashplus_last_error());
  // Without the switch nobody looks.
  setenv("FLASHPLUS_DEBUG_VALUES", "yes", 1);
  CHECK(Context::create({}).error().message.find("FLASHPLUS_DEBUG_VALUES is 'yes'; it must be 0 or 1") !=
        std::string::npos);
  unsetenv("FLASHPLUS_DEBUG_VALUES");
}

TEST_CASE("what a server will meet is made before it starts; then nothing compiles") {
  Folder folder;
  // One call of each kind that it makes, of any size; no data is needed.
  const int64_t heads = 4, heads_k = 2, dim = 32, pages = 8, size = 4;
  auto callOf = [&](int64_t rows, std::vector<float> *data) {
    ForwardArgs args;
    float *at = data ? data->data() : nullptr;
    args.q = Tensor(at, DType::F32, {1, rows, heads, dim});
    args.o = Tensor(data ? at + 4096 : nullptr, DType::F32, {1, rows, heads, dim});
    args.k = Tensor(data ? at + 8192 : nullptr, DType::F32, {pages, size, heads_k, dim});
    args.v = Tensor(data ? at + 16384 : nullptr, DType::F32, {pages, size, heads_k, dim});
    args.k_new = Tensor(data ? at + 24576 : nullptr, DType::F32, {1, rows, heads_k, dim});
    args.v_new = Tensor(data ? at + 28672 : nullptr, DType::F32, {1, rows, heads_k, dim});
    static const int32_t table[] = {0, 1, 2, 3, 4, 5, 6, 7}, used[] = {3};
    args.block_table = Tensor(table, DType::I32, {1, pages});
    args.seqused_k = Tensor(used, DType::I32, {1});
    args.causal = true;
    return args;
  };
  const Context c = context(folder.path);
  const std::string described = c.describe().value();
  const size_t at = described.find("\"target\":");
  const size_t from = described.find('"', at + 9) + 1;
  const std::string target = described.substr(from, described.find('"', from) - from);
  struct Visit {
    const Context *c;
    std::string target;
    int kernels;
  } visit{&c, target, 0};
  const std::string spec = specOf(callOf(1, nullptr)).value();
  CHECK(spec.find("append=1") != std::string::npos);
  REQUIRE(flashplus_reachable_kernels(
              c.handle(), spec.c_str(), target.c_str(),
              [](void *to, const char *kernel, const char *schedule) {
                auto &v = *static_cast<Visit *>(to);
                (void)v.c->kernel(kernel, v.target, schedule).value();
                ++v.kernels;
              },
              &visit) == FLASHPLUS_OK);
  CHECK(visit.kernels > 2);
  c.markReady(FLASHPLUS_LATE_ERROR).value();
  std::vector<float> data(32768, 0.f);
  for (int64_t rows : {1, 7, 20})
    c.forward(callOf(rows, &data)).value();
  CHECK(c.counters().late_compiles == 0);
}

TEST_CASE("keys in a cache: block table, compressed rows, rows of a cache") {
  Causal p;
  const auto exact = naive<double>(p.q, p.k, p.v, p.batch, p.s, p.heads, p.d);
  const double allowed = 2 * largestError(naive<float>(p.q, p.k, p.v, p.batch, p.s, p.heads, p.d), exact);
  const Context c = context();
  const auto good = [&] {
    p.o.assign(p.o.size(), NAN);
    c.forward(p.args).value();
    CHECK(largestError(p.o, exact) <= allowed);
  };
  const auto pool = [&](const std::vector<float> &rows, int size) {
    return Tensor(rows.data(), DType::F32, {p.batch * p.s / size, size, p.heads, p.d});
  };
  // The same memory, as pages of 7 tokens.
  std::vector<int32_t> table(size_t(p.batch * p.s / 7));
  std::iota(table.begin(), table.end(), 0);
  p.args.k = pool(p.k, 7);
  p.args.v = pool(p.v, 7);
  p.args.block_table = Tensor(table.data(), DType::I32, {p.batch, p.s / 7});
  good();
  table[3] = 20;
  const auto outside = c.forward(p.args);
  REQUIRE(!outside);
  CHECK(outside.error().message.find("block_table[0, 3] is 20; ") == 0);
  // As tokens.
  std::vector<int32_t> tokens(size_t(p.batch * p.s)), starts = {0, p.s, 2 * p.s};
  std::iota(tokens.begin(), tokens.end(), 0);
  p.args.k = pool(p.k, 1);
  p.args.v = pool(p.v, 1);
  p.args.block_table = {};
  p.args.page_indptr = Tensor(starts.data(), DType::I32, {3});
  p.args.page_indices = Tensor(tokens.data(), DType::I32, {p.batch * p.s});
  good();
  // As rows of a cache, with padding that is none.
  const int32_t rows[] = {0, 1}, padding[] = {0, 0};
  p.args.k = pool(p.k, p.s);
  p.args.v = pool(p.v, p.s);
  p.args.page_indptr = p.args.page_indices = {};
  p.args.cache_batch_idx = Tensor(rows, DType::I32, {2});
  p.args.leftpad_k = Tensor(padding, DType::I32, {2});
  good();
  CHECK(c.counters().compiles == 1); // one kernel for all of them
}

TEST_CASE("a score with tensors and scalars, on part of a batch") {
  Causal p;
  std::vector<float> bias(3);
  std::fill(p.q.begin(), p.q.end(), 0.f); // then every visible key counts alike, whatever is added per head
  p.args.score = "s * x + bias[h]";
  p.args.score_scalars = {{"x", 2.f}};
  p.args.score_tensors = {{"bias", Tensor(bias.data(), DType::F32, {3})}};
  for (Tensor *t : {&p.args.q, &p.args.k, &p.args.v, &p.args.o, &p.args.lse})
    *t = t->narrowed(0, 1);
  const Context c = context();
  c.forward(p.args).value();
  for (int h = 0; h < p.heads; ++h)
    for (int i = 0; i < p.s; ++i)
      CHECK(p.lse[size_t(h * p.s + i)] == doctest::Approx(std::log(i + 1.0)).epsilon(1e-6));
  CHECK(std::isnan(p.lse.back())); // the second batch entry was left alone
  CHECK(std::isnan(p.o.back()));
  p.args.score_tensors.clear();
  CHECK(c.forward(p.args).error().message.find("bias") != std::string::npos);
}

TEST_CASE("two results become one") {
  const Context c = context();
  constexpr float kNone = INFINITY;
  // A row that both sides saw, one of side a alone, and one that nobody saw; one head of two elements.
  std::vector<float> a = {1, 2, 3, 4, NAN, 5}, lse_a = {0, 1, kNone}, b = {3, 6, NAN, 7, 8, 9},
                     lse_b = {std::log(3.0f), -kNone, -kNone}, o(6, -1), lse(3, -1);
  auto rows = [](std::vector<float> &x) { return Tensor(x.data(), DType::F32, {1, 3, 1, 2}); };
  auto statistic = [](std::vector<float> &x) { return Tensor(x.data(), DType::F32, {1, 1, 3}); };
  MergeArgs args{rows(a), statistic(lse_a), rows(b), statistic(lse_b), rows(o), statistic(lse)};
  c.mergeStates(args).value();
  CHECK(o[0] == doctest::Approx(2.5)); // 1/4 and 3/4
  CHECK(o[1] == doctest::Approx(5));
  CHECK(lse[0] == doctest::Approx(std::log(4.0)));
  CHECK((o[2] == 3 && o[3] == 4 && lse[1] == 1));
  CHECK((o[4] == 0 && o[5] == 0 && lse[2] == kNone));
  args.lse = {};
  args.o = args.o_a; // in place, without an LSE
  c.mergeStates(args).value();
  CHECK(a == std::vector<float>{o[0], o[1], 3, 4, 0, 0});
  args.lse_b = {};
  const auto refused = c.mergeStates(args);
  REQUIRE(!refused);
  CHECK(std::string(refused.error().message).find("lse_b is null") != std::string::npos);
}

TEST_CASE("errors arrive as values, and as exceptions where asked") {
  Causal p;
  const Context c = context();
  p.args.q = Tensor(p.q.data(), DType::F32, {2, 70, 3, 48}, cpu(), {1, 2});
  auto failed = c.forward(p.args);
  REQUIRE(!failed);
  CHECK(failed.error().code == FLASHPLUS_INVALID_ARGUMENT);
  CHECK(failed.error().message.find("q has rank -1") != std::string::npos);
  CHECK_THROWS_AS(failed.value(), Exception);
  CHECK_THROWS_WITH(c.plan(p.args).value(), doctest::Contains("q has rank -1"));
  p.args.q = Tensor(p.q.data(), DType::F32, {2, 7, 2, 5, 3, 48});
  CHECK(c.forward(p.args).error().message.find("q has rank 6") != std::string::npos);
  ContextOptions bad;
  bad.num_threads = -4;
  CHECK(Context::create(bad).error().message.find("num_threads") != std::string::npos);
}

TEST_CASE("objects go in any order, and threads share a plan") {
  Causal p;
  std::optional<Plan> plan;
  DeviceMemory memory;
  {
    const Context c = context();
    plan.emplace(c.plan(p.args).value());
    memory = c.allocate(cpu(), 16).value();
  }
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      Causal own;
      for (int repeat = 0; repeat < 5; ++repeat)
        good += bool(plan->run(own.args, nullptr, 0));
    });
  for (std::thread &t : threads)
    t.join();
  CHECK(good == 20);
  char text[16] = "fifteen letters", back[16] = "";
  memory.upload(text).value();
  memory.download(back).value();
  CHECK(std::string(back) == text);
}

TEST_CASE("one key compiled twice gives identical bytes") {
  const char *cpu_spec = "forward dtype=bf16 dqk=64 dv=64 right=1";
  for (const char *target : {"x86-64-v3", "x86-64-v4", "x86-64-v4+avx512bf16", "sm_80@sm_90"}) {
    const Kernel first = context().kernel(cpu_spec, target).value(),
                 second = context().kernel(cpu_spec, target).value();
    CHECK(std::string(first.info().source) == "compiled");
    CHECK(std::string(second.info().source) == "compiled");
    CHECK(std::string(first.info().key) == second.info().key);
    CHECK(first.code().size() > 1000);
    CHECK_MESSAGE(first.code() == second.code(), target);
  }
}

TEST_CASE("a listener hears of a compilation, stage by stage") {
  Causal p;
  ContextOptions options;
  options.cache_dir = "";
  double wall = 0, stages = 0;
  int started = 0;
  std::string spec;
  options.listener = [&](const flashplus_event &event) {
    started += event.kind == FLASHPLUS_EVENT_COMPILE_STARTED;
    if (event.kind == FLASHPLUS_EVENT_COMPILE_STARTED || event.kind == FLASHPLUS_EVENT_COMPILING)
      return;
    REQUIRE(event.kind == FLASHPLUS_EVENT_COMPILED);
    wall = event.ms;
    stages = event.build_ms + event.passes_ms + event.optimize_ms + event.emit_ms + event.assemble_ms;
    spec = event.spec;
  };
  const Context c = Context::create(options).value();
  c.forward(p.args).value();
  CHECK(started == 1);
  CHECK(spec == specOf(p.args).value());
  CHECK(stages > 0);
  CHECK(stages <= wall);
  CHECK(c.counters().compile_ms == doctest::Approx(wall).epsilon(0.01));
}

TEST_CASE("marked ready: a compilation warns or fails, as the caller or the environment says") {
  Causal p;
  std::vector<std::string> lines;
  ContextOptions options;
  options.cache_dir = "";
  options.log = [&](std::string_view line) { lines.emplace_back(line); };
  auto another = [&] { // a call with a kernel that nobody has met
    ForwardArgs args = p.args;
    args.softcap = 30;
    return args;
  };
  {
    const Context c = Context::create(options).value();
    const Plan plan = c.plan(p.args).value();
    c.markReady().value();
    plan.run(p.args, plan.allocateWorkspace().value()).value();
    c.forward(p.args).value();
    CHECK(lines.empty());
    CHECK(c.counters().late_compiles == 0);
    c.forward(another()).value();
    REQUIRE(lines.size() == 1);
    CHECK(lines[0].find(specOf(another()).value()) != std::string::npos);
    CHECK(c.counters().late_compiles == 1);
    CHECK(c.counters().warnings == 1);
    CHECK(c.dropIdleKernels().value() == 0); // all were used, or are a plan's
    c.markReady(FLASHPLUS_LATE_ALLOW).value();
    CHECK(c.dropIdleKernels().value() >= 1);
  }
  lines.clear();
  setenv("FLASHPLUS_LATE_COMPILE", "error", 1);
  {
    const Context c = Context::create(options).value();
    c.forward(p.args).value(); // not ready yet
    c.markReady().value();
    const auto refused = c.forward(another());
    REQUIRE(!refused);
    CHECK(refused.error().code == FLASHPLUS_NOT_RESIDENT);
    CHECK(refused.error().message.find(specOf(another()).value()) != std::string::npos);
    CHECK(c.counters().late_compiles == 1);
    CHECK(lines.empty());
    c.markReady(FLASHPLUS_LATE_ALLOW).value();
    c.forward(another()).value();
    CHECK(c.counters().late_compiles == 1);
    CHECK(c.markReady(flashplus_late_compile(7)).error().message.find("late is 7") != std::string::npos);
  }
  setenv("FLASHPLUS_LATE_COMPILE", "loud", 1);
  CHECK(Context::create(options).error().message.find("FLASHPLUS_LATE_COMPILE is 'loud'") !=
        std::string::npos);
  unsetenv("FLASHPLUS_LATE_COMPILE");
}

TEST_CASE("warnings reach the log") {
  Folder folder;
  std::vector<std::string> lines;
  ContextOptions options;
  options.cache_dir = folder.path + "/file";
  std::ofstream(*options.cache_dir) << "no folder";
  options.log = [&](std::string_view line) { lines.emplace_back(line); };
  const auto refused = Context::create(options);
  REQUIRE(!refused);
  CHECK(refused.error().code == FLASHPLUS_IO_ERROR);
  lines.clear();
  options.cache_optional = true;
  const Context c = Context::create(options).value();
  REQUIRE(lines.size() == 1);
  CHECK(lines[0].find("memory only") != std::string::npos);
}

TEST_CASE("warm child" * doctest::skip()) {
  Causal p;
  const Context c = context(std::getenv("FLASHPLUS_TEST_CACHE"));
  c.forward(p.args).value();
  std::ifstream file("/proc/self/maps");
  const std::string maps(std::istreambuf_iterator<char>(file), {});
  const bool mapped =
      maps.find("libflashplus-compiler") != std::string::npos || maps.find("LLVM") != std::string::npos;
  const bool warm = std::getenv("FLASHPLUS_TEST_WARM");
  CHECK(mapped == !warm);
  CHECK(c.counters().compiles == (warm ? 0 : 1));
}

TEST_CASE("a process with a warm cache never maps LLVM") {
  Folder folder;
  auto run = [&](bool warm) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      setenv("FLASHPLUS_TEST_CACHE", folder.path.c_str(), 1);
      warm ? setenv("FLASHPLUS_TEST_WARM", "1", 1) : unsetenv("FLASHPLUS_TEST_WARM");
      setenv("FLASHPLUS_COMPILE_IN_PROCESS", "1", 1); // so that there is something to find
      execl("/proc/self/exe", "test_api", "--test-case=warm child", "--no-skip",
            static_cast<char *>(nullptr));
      _exit(127);
    }
    int status = -1;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  };
  CHECK(run(false) == 0);
  CHECK(run(true) == 0);
}

int main(int argc, char **argv) {
  // Built without the compiler library, these tests run where one is pointed to and are skipped elsewhere.
  // Not in a child that must not open it.
  const auto description =
      std::getenv("FLASHPLUS_TEST_CACHE") ? std::string("child") : context().describe().value();
  if (description.find("\"state\":\"missing") != std::string::npos) {
    std::puts("skipped: there is no compiler library");
    return FLASHPLUS_HAS_COMPILER ? 1 : 77;
  }
  return doctest::Context(argc, argv).run();
}
