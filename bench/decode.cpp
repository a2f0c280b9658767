// SPDX-License-Identifier: BSD-3-Clause
// One query row on the CPU: bytes of K and V a second beside the fastest plain read of the same memory, for
// any product of thread counts, shares of the keys and schedules; interleaved rounds, medians.
//
//   bench_decode --threads 1,2 --splits 0,16 --schedule default --schedule "cpu.stream heads=4"
#include "flashplus/flashplus.h"
#include "runtime/devices/cpu/thread_pool.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

using namespace flashplus;

namespace {

struct Options {
  std::vector<int> threads{1}, splits{0};
  std::vector<std::string> schedules;
  int64_t heads_q = 32, heads_k = 8, keys = 8192, dim = 128;
  int rounds = 9, buffers = 12; ///< Pairs of K and V, together larger than a cache.
};

[[noreturn]] void fail(const std::string &text) {
  std::fprintf(stderr, "bench_decode: %s\n", text.c_str());
  std::exit(2);
}

void must(flashplus_status status) {
  if (status != FLASHPLUS_OK)
    fail(flashplus_last_error());
}

/// The flags; exits with a message that names the flag and what is allowed.
Options parse(int argc, char **argv) {
  Options o;
  std::string heads = "32/8";
  CLI::App app("One query row on the CPU beside plain reads of K and V");
  app.add_option("--threads", o.threads, "Thread counts")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--splits", o.splits, "Shares of the keys; 0 = chosen")
      ->delimiter(',')
      ->check(CLI::Range(0, 128));
  app.add_option("--schedule", o.schedules, "'default' or a schedule's text; repeatable")
      ->allow_extra_args(false);
  app.add_option("--heads", heads, "Query heads / key heads")->check([](const std::string &text) {
    int q = 0, k = 0, end = 0;
    const bool good = std::sscanf(text.c_str(), "%d/%d%n", &q, &k, &end) == 2 && size_t(end) == text.size() &&
                      k > 0 && q > 0;
    return good && q % k == 0 ? "" : "it must be Q/K, with Q a multiple of K";
  });
  app.add_option("--keys", o.keys, "Keys")->check(CLI::Range(1, 1 << 24));
  app.add_option("--dim", o.dim, "Head dim")->check(CLI::Range(1, 256));
  app.add_option("--rounds", o.rounds, "Rounds")->check(CLI::Range(1, 10000));
  app.add_option("--buffers", o.buffers, "Pairs of K and V that take turns")->check(CLI::Range(1, 1000));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError &e) {
    std::exit(app.exit(e));
  }
  int q = 0, k = 0;
  std::sscanf(heads.c_str(), "%d/%d", &q, &k);
  o.heads_q = q;
  o.heads_k = k;
  if (o.keys * o.heads_k * o.dim * 2 % 512)
    fail("K has " + std::to_string(o.keys * o.heads_k * o.dim * 2) +
         " bytes; the plain read needs a multiple of 512");
  for (std::string &schedule : o.schedules)
    if (schedule == "default")
      schedule.clear();
  if (o.schedules.empty())
    o.schedules.push_back("");
  return o;
}

/// A bf16 tensor (1, rows, heads, dim), page-aligned.
struct Tensor {
  Tensor(int64_t rows, int64_t heads, int64_t dim)
      : shape{1, rows, heads, dim}, bytes(size_t(rows * heads * dim) * 2) {
    data.reset(static_cast<uint16_t *>(std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096)));
    std::minstd_rand random(unsigned(bytes + rows));
    std::normal_distribution<float> normal;
    float some[1024];
    for (float &x : some)
      x = normal(random);
    for (size_t i = 0; i < bytes / 2; ++i) {
      uint32_t bits;
      std::memcpy(&bits, &some[random() % 1024], 4);
      data.get()[i] = uint16_t(bits >> 16);
    }
    tensor = {data.get(), {kDLCPU, 0}, 4, {kDLBfloat, 16, 1}, shape, nullptr, 0};
  }

  struct Free {
    void operator()(uint16_t *p) const { std::free(p); }
  };
  int64_t shape[4];
  size_t bytes;
  std::unique_ptr<uint16_t, Free> data;
  DLTensor tensor;
};

/// Sums of `bytes` at `a` and at `b`, in turns of `turn` bytes. All are multiples of 512.
__attribute__((target_clones("avx512f", "avx2", "default"))) uint64_t
sum(const uint64_t *a, const uint64_t *b, size_t bytes, size_t turn) {
  uint64_t part[64] = {};
  for (size_t at = 0; at < bytes / 8; at += turn / 8)
    for (const uint64_t *side : {a, b})
      for (size_t i = at; i < std::min(at + turn / 8, bytes / 8); i += 64)
        for (size_t j = 0; j < 64; ++j)
          part[j] += side[i + j];
  uint64_t all = 0;
  for (uint64_t p : part)
    all += p;
  return all;
}

struct Entry {
  std::string name;
  int threads;
  bool read;
  std::function<void()> run; ///< All buffers once.
  std::vector<double> seconds = {};
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

} // namespace

int main(int argc, char **argv) {
  const Options o = parse(argc, argv);
  std::vector<std::unique_ptr<Tensor>> k, v;
  for (int i = 0; i < o.buffers; ++i) {
    k.push_back(std::make_unique<Tensor>(o.keys, o.heads_k, o.dim));
    v.push_back(std::make_unique<Tensor>(o.keys, o.heads_k, o.dim));
  }
  Tensor q(1, o.heads_q, o.dim), out(1, o.heads_q, o.dim);

  std::vector<Entry> entries;
  std::vector<std::unique_ptr<ThreadPool>> pools;
  static volatile uint64_t sink;
  for (int threads : o.threads) {
    ThreadPool *pool = pools.emplace_back(std::make_unique<ThreadPool>(threads)).get();
    for (size_t turn : {size_t(2048), size_t(1) << 40})
      entries.push_back({turn == 2048 ? "read, K and V in turns" : "read, K then V", threads, true,
                         [&, pool, threads, turn] {
                           for (int i = 0; i < o.buffers; ++i)
                             pool->run(threads, [&](int, int64_t item) {
                               const size_t share = k[i]->bytes / 512 / size_t(threads) * 512,
                                            at = size_t(item) * share / 8;
                               sink = sum(reinterpret_cast<const uint64_t *>(k[i]->data.get()) + at,
                                          reinterpret_cast<const uint64_t *>(v[i]->data.get()) + at, share,
                                          turn);
                             });
                         }});
    flashplus_context_options options{};
    options.struct_size = sizeof options;
    options.num_threads = threads;
    flashplus_context *context = nullptr;
    must(flashplus_context_create(&options, &context));
    for (const std::string &schedule : o.schedules)
      for (int splits : o.splits) {
        flashplus_forward_args args = FLASHPLUS_FORWARD_ARGS_INIT;
        args.q = &q.tensor;
        args.k = &k[0]->tensor;
        args.v = &v[0]->tensor;
        args.o = &out.tensor;
        args.num_splits = splits;
        args.schedule = schedule.empty() ? nullptr : schedule.c_str();
        flashplus_plan *plan = nullptr;
        must(flashplus_plan_create(context, &args, &plan));
        const std::string text = flashplus_plan_describe(plan);
        auto after = [&](const std::string &word) {
          const std::string name = "\"" + word + "\":";
          const size_t at = text.find(name);
          return at == text.npos
                     ? std::string("?")
                     : text.substr(at + name.size(), text.find_first_of(",}", at) - at - name.size());
        };
        const size_t bytes = flashplus_plan_workspace(plan);
        std::shared_ptr<void> workspace(bytes ? std::aligned_alloc(256, (bytes + 255) / 256 * 256) : nullptr,
                                        std::free);
        if (bytes)
          std::memset(workspace.get(), 0, bytes);
        const std::string name = (schedule.empty() ? "default" : schedule) + ", key_heads " +
                                 after("key_heads") + ", splits " + after("num_splits");
        entries.push_back({name, threads, false, [&, args, plan, workspace, bytes]() mutable {
                             for (int i = 0; i < o.buffers; ++i) {
                               args.k = &k[i]->tensor;
                               args.v = &v[i]->tensor;
                               must(flashplus_plan_run(plan, &args, workspace.get(), bytes, nullptr));
                             }
                           }});
      }
  }

  for (Entry &e : entries)
    e.run();
  for (int round = 0; round < o.rounds; ++round)
    for (Entry &e : entries) {
      e.run(); // its own threads are awake, and the ones of the entry before asleep
      const auto start = std::chrono::steady_clock::now();
      e.run();
      e.seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
  const double bytes = double(o.buffers) * 2 * double(k[0]->bytes);
  std::printf("heads %ld/%ld, head dim %ld, %ld keys, bf16; GB/s of K and V, share of the fastest plain "
              "read; medians of %d\n",
              long(o.heads_q), long(o.heads_k), long(o.dim), long(o.keys), o.rounds);
  for (const Entry &e : entries) {
    double fastest = 0;
    for (const Entry &read : entries)
      if (read.read && read.threads == e.threads)
        fastest = std::max(fastest, bytes / median(read.seconds) / 1e9);
    const double rate = bytes / median(e.seconds) / 1e9;
    std::printf("%2d threads  %6.1f  %.2f  %s\n", e.threads, rate, rate / fastest, e.name.c_str());
  }
}
