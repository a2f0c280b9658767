// SPDX-License-Identifier: BSD-3-Clause
// flashplus doctor: whether everything that attention needs is there and works, and what to do where it is
// not.
#include "tools/flashplus/check.h"
#include "tools/flashplus/command.h"
#include "tools/flashplus/device_flag.h"
#include "tools/flashplus/disk_cache.h"
#include "tools/flashplus/interrupt.h"
#include "tools/flashplus/problem_flags.h"
#include "tools/flashplus/table.h"
#include "tools/flashplus/workbench.h"

#include <algorithm>
#include <chrono>
#include <unistd.h>

namespace flashplus::tool {

namespace {

/// What a device reaches at least, if nothing is wrong with it: far below what the slowest does, so that only
/// a machine that is throttled, crowded or misconfigured is below.
constexpr double kLeastCpuFlops = 1e9;  ///< A thread.
constexpr double kLeastGpuFlops = 2e11; ///< A multiprocessor.

struct Finding {
  enum class State { Good, Note, Bad };
  std::string name;
  State state = State::Good;
  std::string detail;
  std::string advice; ///< Of what is not good.
};
using State = Finding::State;

const char *stateText(State state) {
  return state == State::Good ? "ok" : state == State::Note ? "note" : "BAD";
}

class Doctor {
public:
  Doctor(const CommonFlags &flags, flashplus_context *context, Json described)
      : flags_(flags), context_(context), described_(std::move(described)) {}

  const std::vector<Finding> &examine() {
    settings();
    compiler();
    cache();
    devices();
    return findings_;
  }

private:
  void add(std::string name, State state, std::string detail, std::string advice = "") {
    findings_.push_back({std::move(name), state, std::move(detail), std::move(advice)});
  }
  Json part(const char *name) const { return described_.value(name, Json::object()); }
  static std::string text(const Json &object, const char *name) {
    const auto at = object.find(name);
    return at != object.end() && at->is_string() ? at->get<std::string>() : "";
  }
  bool has(std::string_view target) const {
    for (const Json &device : described_.value("devices", Json::array()))
      if (text(device, "target").starts_with(target))
        return true;
    return false;
  }

  /// What the library found wrong with variables and folders when the context was made.
  void settings() {
    add("library", State::Good, text(described_, "version") + ", build " + text(part("compiler"), "build"));
    for (const Json &warning : described_.value("warnings", Json::array()))
      if (warning.is_string())
        add("setting", State::Bad, warning.get<std::string>(),
            "change or unset it; README has what each variable may be");
  }

  void compiler() {
    const Json compiler = part("compiler");
    const bool works = text(compiler, "state") == "ok";
    add("compiler", works ? State::Good : State::Bad,
        works ? text(compiler, "version") + ", " + text(compiler, "path") : text(compiler, "state"),
        "install libflashplus-compiler.so of this build beside libflashplus.so, or name it in "
        "$FLASHPLUS_COMPILER; without it only kernels that are in a cache run");
    if (!works)
      return;
    for (const char *name : {"ptxas", "nvjitlink"}) {
      const std::string found = text(compiler, name);
      const bool there = found.starts_with("version ");
      // The others' kernels the driver assembles well enough.
      const bool wanted = std::string_view(name) == "ptxas" && has("sm_90a");
      add(name,
          there    ? State::Good
          : wanted ? State::Bad
                   : State::Note,
          found,
          wanted
              ? "sm_90a wants ptxas, without which the driver assembles its kernels at every start: install "
                "a CUDA toolkit of 12.9 or newer, or name ptxas in $FLASHPLUS_PTXAS"
              : "without it the NVIDIA driver assembles kernels, or nvJitLink and ptxas stand in for each "
                "other; a machine that only warms caches for GPUs needs one of them");
    }
  }

  void cache() {
    const Json cache = part("cache");
    const std::string dir = text(cache, "dir"), state = text(cache, "state");
    if (state != "ok")
      add("cache", State::Bad, state,
          "name a folder of your own in $FLASHPLUS_CACHE_DIR; until then each process compiles its kernels");
    else if (::access(dir.c_str(), W_OK | X_OK) != 0)
      add("cache", State::Note, dir + " can only be read",
          "kernels that are not in it are compiled by each process; let one that may write warm it");
    else
      add("cache", State::Good, dir);
    for (const Json &tier : cache.value("read_only", Json::array()))
      add("cache path", text(tier, "state") == "ok" ? State::Good : State::Bad,
          text(tier, "dir") + (text(tier, "state") == "ok" ? "" : ": " + text(tier, "state")),
          "it is in $FLASHPLUS_CACHE_PATH: mount or fill it, or take it out");
    if (state == "ok")
      if (auto store = openStore(context_)) {
        const auto bad = (*store)->verify();
        if (!bad.empty())
          add("cache entries", State::Bad,
              std::to_string(bad.size()) + " of " + std::to_string((*store)->usage().entries) +
                  " are not good, the first " + bad.front().path + ": " + bad.front().problem,
              "flashplus cache verify names all; they are compiled again when they are next wanted");
        else
          add("cache entries", State::Good, std::to_string((*store)->usage().entries) + ", all verified");
      }
  }

  void devices() {
    for (const Json &device : described_.value("devices", Json::array())) {
      const std::string name = text(device, "name");
      add(name, State::Good,
          text(device, "model") + ", " + text(device, "target") + ", " + text(device, "detail"));
      if (name != "emulator" && !interrupted()) // which is a program, and slow
        selfCheck(device, name);
    }
    for (const Json &missing : described_.value("missing", Json::array())) {
      const std::string name = text(missing, "name");
      const bool is_there = name == "cpu" || (name == "cuda" && ::access("/dev/nvidiactl", F_OK) == 0);
      add(name, is_there ? State::Bad : State::Note, text(missing, "reason"),
          name == "cpu" ? "CPU kernels need AVX2 and FMA"
          : is_there    ? "there is an NVIDIA device, but its driver cannot be used: in a container, is "
                          "libcuda.so.1 mounted (NVIDIA container toolkit)? nvidia-smi says more"
                        : "nothing is wrong unless it should be there");
    }
  }

  /// Compiles, runs, compares, times, and reads back what the cache got.
  void selfCheck(const Json &device, const std::string &name) {
    const bool is_gpu = name.starts_with("cuda");
    ProblemFlags flags;
    flags.input.random = "1,512,512,8,8,64";
    flags.input.dtype = is_gpu ? "bf16" : "fp32";
    flags.causal = true;
    auto problem = makeProblem(flags);
    auto id = chooseDevice(name, context_, is_gpu);
    if (!problem || !id)
      return add(name + " self-check", State::Bad, (problem ? id.status() : problem.status()).message());
    CommonFlags uncached = flags_;
    uncached.cache_dir_given = true;
    uncached.cache_dir = "";
    const auto tried = tryKernel(uncached, *id, *problem);
    if (!tried)
      return add(
          name + " self-check", State::Bad, tried.status().message(),
          "a kernel could not be compiled or run here: see what is said of the compiler and the driver");
    add(name + " self-check", tried->good ? State::Good : State::Bad,
        "compiled in " + millisecondsText(tried->compile_ms) + ", largest error " + numberText(tried->error) +
            ", allowed " + numberText(tried->bound),
        "results are wrong: please report it, with the output of flashplus doctor --json");
    const double units = is_gpu ? double(device.value("multiprocessors", 1))
                                : std::min(double(device.value("multiprocessors", 1)),
                                           double(std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN))));
    const double least = units * (is_gpu ? kLeastGpuFlops : kLeastCpuFlops);
    add(name + " speed", tried->flops >= least ? State::Good : State::Bad,
        rateText(tried->flops) + ", at least " + rateText(least) + " are expected",
        is_gpu ? "is the GPU shared, or its clock held down? nvidia-smi -q -d PERFORMANCE says why"
               : "is the machine busy, or are there more threads than the container may use "
                 "($FLASHPLUS_NUM_THREADS)?");
    if (text(part("cache"), "state") == "ok")
      readBack(name, *id, *problem);
  }

  struct Tried {
    double compile_ms = 0, error = 0, bound = 0, flops = 0;
    bool good = false;
  };
  static Result<Tried> tryKernel(const CommonFlags &flags, DLDevice device, const Problem &problem) {
    using Clock = std::chrono::steady_clock;
    const auto since = [](Clock::time_point start) {
      return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
    };
    Result<Context> context = makeContext(flags);
    if (!context)
      return context.status();
    DeviceProblem on_device;
    FLASHPLUS_RETURN_IF_ERROR(on_device.upload(context->get(), device, problem));
    const auto run = [&]() -> Status {
      const flashplus_forward_args args = on_device.args();
      FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_forward(context->get(), &args, nullptr)));
      return libraryStatus(flashplus_synchronize(context->get(), device, nullptr));
    };
    Tried tried;
    const auto compiling = Clock::now();
    FLASHPLUS_RETURN_IF_ERROR(run());
    tried.compile_ms = since(compiling);
    auto o = on_device.output(), lse = on_device.lse();
    if (!o || !lse)
      return (o ? lse : o).status();
    auto compared = checkOutputs(problem, *o, *lse, flags.threads);
    if (!compared)
      return compared.status();
    tried.good = compared->good();
    tried.error = compared->error;
    tried.bound = compared->bound;
    double best = 0; // the fastest of some: what disturbs only slows down
    for (int i = 0; i < 10; ++i) {
      const auto start = Clock::now();
      FLASHPLUS_RETURN_IF_ERROR(run());
      const double ms = since(start);
      best = i && best < ms ? best : ms;
    }
    tried.flops = 2 * visiblePairs(problem) * double(problem.headsQ()) *
                  double(problem.q.shape.back() + problem.v.shape.back()) / (best * 1e-3);
    return tried;
  }

  /// Whether a kernel that one context keeps another finds, without compiling.
  void readBack(const std::string &name, DLDevice device, const Problem &problem) {
    const auto plan = [&](flashplus_context *context) -> Status {
      DeviceProblem on_device;
      FLASHPLUS_RETURN_IF_ERROR(on_device.upload(context, device, problem));
      return createPlan(context, on_device.args()).status();
    };
    Status kept = plan(context_);
    Result<Context> second = makeContext(flags_, /*offline=*/true);
    if (kept && second)
      kept = plan(second->get());
    const bool may_write = ::access(text(part("cache"), "dir").c_str(), W_OK | X_OK) == 0;
    if (kept && second)
      add(name + " cache", State::Good, "a kernel is kept and read back");
    else
      add(name + " cache", may_write ? State::Bad : State::Note, (second ? kept : second.status()).message(),
          may_write ? "is the disk full, or a quota reached? df and the warnings above say more"
                    : "warm the cache as a user who may write to it: flashplus warmup");
  }

  const CommonFlags &flags_;
  flashplus_context *const context_;
  const Json described_;
  std::vector<Finding> findings_;
};

Result<int> runDoctor(const CommonFlags &flags) {
  Result<Context> context = makeContext(flags);
  if (!context)
    return context.status();
  Result<Json> described = describe(context->get());
  if (!described)
    return described.status();
  Doctor doctor(flags, context->get(), std::move(*described));
  const std::vector<Finding> &findings = doctor.examine();
  if (interrupted())
    return Status(StatusCode::NotResident, "interrupted; what was compiled is in the cache");
  const auto bad = std::ranges::count(findings, State::Bad, &Finding::state);
  if (flags.json) {
    Json rows = Json::array();
    for (const Finding &f : findings) {
      rows.push_back({{"name", f.name}, {"state", stateText(f.state)}, {"detail", f.detail}});
      if (f.state != State::Good)
        rows.back()["advice"] = f.advice;
    }
    printJson({{"good", bad == 0}, {"findings", std::move(rows)}});
    return bad ? kExitFailed : kExitGood;
  }
  Table table;
  for (const Finding &f : findings) {
    table.add({stateText(f.state), f.name, f.detail});
    if (f.state != State::Good && !f.advice.empty())
      table.add({"", "", "-> " + f.advice});
  }
  table.print();
  std::printf("\n%s\n",
              bad ? (std::to_string(bad) + (bad == 1 ? " thing is" : " things are") + " wrong").c_str()
                  : "everything works");
  return bad ? kExitFailed : kExitGood;
}

} // namespace

void addDoctor(CLI::App &app, Action *selected) {
  CLI::App *verb = app.add_subcommand("doctor", "Check that devices, compiler and caches work, with advice");
  verb->footer(
      "Compiles and runs a kernel on each device, compares it with the reference and times it. Leaves with\n"
      "1 where something is wrong; a note is nothing wrong.\n\n"
      "Example:\n  flashplus doctor --json");
  auto flags = std::make_shared<CommonFlags>();
  addCommonFlags(*verb, *flags);
  verb->callback([flags, selected] { *selected = [flags] { return runDoctor(*flags); }; });
}

} // namespace flashplus::tool
