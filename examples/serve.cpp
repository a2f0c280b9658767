// SPDX-License-Identifier: BSD-3-Clause
// A small server with continuous batching, over the public headers: requests come and go at random times,
// their keys and values live in pages of a pool, and a step is one packed call for all of them, prompts in
// pieces and single tokens alike.
//
//   serve [--device cpu|cuda|emulator|auto] [--steps N] [--check] ...     --help lists all
//
// serving/requests.hpp is the host's part: pages, and who gets a turn. serving/server.hpp is the device's:
// memory, plans, and the step. On a GPU steps without prompts are replays of a graph that was captured once.
// serving/model.hpp gives tokens rows where a model would; serving/plain.hpp checks what comes out.
// docs/rationale/serving-plan.md says what may depend on the host and what not.
//
// Leaves with 1 if a result is wrong, or if a kernel was compiled or read after the start.
#include "serving/options.hpp"
#include "serving/plain.hpp"
#include "serving/server.hpp"

#include <chrono>
#include <cstdio>

namespace {

/// Outputs are rounded to bf16, and so may be the weights that values are added up by: 2^-9 each, of values
/// of up to 2, is 0.0078.
constexpr float kTolerance = 0.01f;

int fail(const std::string &why, int status = 1) {
  std::fprintf(stderr, "serve: %s\n", why.c_str());
  return status;
}

/// A kernel that a step had to wait for.
int64_t kernelsMet(const flashplus::Context &context) {
  const flashplus_counters counters = context.counters();
  return counters.compiles + counters.disk_hits + counters.compile_failures;
}

struct Totals {
  int64_t steps = 0, decodes = 0, tokens = 0, checked = 0;
  double seconds = 0;
  float difference = 0;
};

/// One turn; a sentence if it failed, else "".
std::string turn(serving::Scheduler &scheduler, serving::Server &server, const serving::Model &model,
                 serving::Plain *plain, Totals &totals) {
  const auto start = std::chrono::steady_clock::now();
  const std::vector<serving::Sequence> &sequences = scheduler.next();
  if (auto done = server.stage(sequences, model); !done)
    return done.error().message;
  if (auto done = server.run(); !done)
    return done.error().message;
  totals.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  ++totals.steps;
  totals.decodes += server.decodesOnly();
  totals.tokens += server.tokens();
  if (plain) {
    auto o = server.output();
    if (!o)
      return o.error().message;
    const uint16_t *row = *o;
    for (const serving::Sequence &s : sequences) {
      row += s.now * serving::kHeadsQ * serving::kHeadDim;
      if (!s.now)
        continue;
      const int32_t position = s.cached + s.now - 1;
      const float off = plain->difference(s.id, position, row - serving::kHeadsQ * serving::kHeadDim);
      ++totals.checked;
      if (!(off <= kTolerance))
        return "request " + std::to_string(s.id) + " is wrong at token " + std::to_string(position) + ": " +
               std::to_string(off) + " from a plain loop; at most " + std::to_string(kTolerance) +
               " is rounding";
      totals.difference = std::max(totals.difference, off);
      if (position + 1 == s.tokens())
        plain->forget(s.id);
    }
  }
  scheduler.finish();
  return "";
}

} // namespace

int main(int argc, char **argv) {
  serving::Options options;
  if (auto problem = options.read(argc, argv); !problem.empty())
    return fail(problem, 2);
  if (options.help) {
    std::fputs(serving::Options::text(), stdout);
    return 0;
  }
  flashplus::ContextOptions context_options;
  context_options.log = [](std::string_view warning) {
    std::fprintf(stderr, "%.*s\n", int(warning.size()), warning.data());
  };
  auto context = flashplus::Context::create(context_options);
  if (!context)
    return fail(context.error().message);
  std::optional<CudaStream> stream;
  if (options.device == "cuda" || options.device == "auto") {
    stream.emplace();
    if (!*stream && options.device == "cuda")
      return fail(stream->problem);
    if (!*stream)
      stream.reset();
  }
  const DLDevice device = stream                         ? flashplus::cuda(0)
                          : options.device == "emulator" ? DLDevice{kDLExtDev, 0}
                                                         : flashplus::cpu();
  const serving::Limits &limits = options.limits;
  const serving::Model model(limits.prompt + limits.output);
  auto server = serving::Server::create(*context, device, stream ? &*stream : nullptr, limits, model);
  if (!server)
    return fail(server.error().message);
  std::printf("%s: up to %d sequences and %d tokens a step; %d pages of %d tokens, %zu KiB\n",
              stream ? "cuda" : options.device == "emulator" ? "emulator" : "cpu", limits.batch,
              limits.tokens, limits.pagesOfPool(), limits.page_size, server->cacheBytes() / 1024);

  serving::Scheduler scheduler(limits, uint32_t(options.seed));
  std::optional<serving::Plain> plain;
  if (options.check)
    plain.emplace(model);
  const int64_t met = kernelsMet(*context);
  Totals totals;
  while (totals.steps < options.steps)
    if (auto problem = turn(scheduler, *server, model, plain ? &*plain : nullptr, totals); !problem.empty())
      return fail("step " + std::to_string(totals.steps) + ": " + problem);
  const int64_t late = kernelsMet(*context) - met;

  std::printf("%lld steps, %lld of them without prompts%s: %lld requests came, %lld are done\n",
              static_cast<long long>(totals.steps), static_cast<long long>(totals.decodes),
              stream ? " (replayed)" : "", static_cast<long long>(scheduler.arrived),
              static_cast<long long>(scheduler.finished));
  std::printf("%lld tokens of prompts, %lld of answers, %.0f tokens/s; %lld kernels compiled or read after "
              "the start\n",
              static_cast<long long>(scheduler.prefilled), static_cast<long long>(scheduler.spoken),
              double(totals.tokens) / totals.seconds, static_cast<long long>(late));
  if (options.check)
    std::printf("%lld outputs checked: all as a plain loop has them\n",
                static_cast<long long>(totals.checked));
  return late ? fail("the start did not warm everything") : 0;
}
