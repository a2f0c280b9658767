// SPDX-License-Identifier: BSD-3-Clause
// What the verbs of `flashplus` share: how a verb is registered, exit codes, the context they run in.
#pragma once

#include "spec/status.h"

#include <CLI/CLI.hpp>
#include <flashplus/flashplus.h>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace flashplus::tool {

using Json = nlohmann::ordered_json;

inline constexpr int kExitGood = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2; ///< Bad usage or input.

/// What a verb does once its flags are parsed: an exit code when it has reported its outcome itself, or the
/// Status that main() prints: InvalidArgument leaves with kExitUsage, everything else with kExitFailed.
using Action = std::function<Result<int>()>;

/// A verb parses into state that its action shares, and stores the action in *selected when it is chosen.
void addRun(CLI::App &app, Action *selected);
void addWarmup(CLI::App &app, Action *selected);
void addInspect(CLI::App &app, Action *selected);
void addCache(CLI::App &app, Action *selected);
void addDevices(CLI::App &app, Action *selected);
void addDoctor(CLI::App &app, Action *selected);
void addEmulate(CLI::App &app, Action *selected);
void addBench(CLI::App &app, Action *selected);
void addTune(CLI::App &app, Action *selected);
void addHelp(CLI::App &app, Action *selected);
void addCompletion(CLI::App &app, Action *selected);
/// A script for bash that completes all that `app` has.
std::string bashCompletion(const CLI::App &app);

/// Flags that most verbs have.
struct CommonFlags {
  bool json = false;
  std::string cache_dir;
  bool cache_dir_given = false;
  int threads = 0;
};
void addCommonFlags(CLI::App &verb, CommonFlags &flags);
void addCacheFlag(CLI::App &verb, CommonFlags &flags); ///< Without --json.

/// The flags of a verb that were typed.
struct GivenFlags {
  std::vector<std::string> names; ///< "--out", also of "-o".

  static GivenFlags of(const CLI::App &verb);
  /// The first that is none of these; "" if there is none.
  std::string but(const std::vector<std::string> &allowed) const;
};

/// The Status of a failed library call, with its message.
Status libraryStatus(flashplus_status status);

struct ContextDeleter {
  void operator()(flashplus_context *context) const { flashplus_context_destroy(context); }
};
using Context = std::unique_ptr<flashplus_context, ContextDeleter>;
/// Warnings of the library go to stderr.
Result<Context> makeContext(const CommonFlags &flags, bool offline = false);

/// flashplus_describe, parsed.
Result<Json> describe(flashplus_context *context);
/// The target that "cpu" stands for on this machine; InvalidArgument when the library describes no CPU.
Result<std::string> hostTarget(flashplus_context *context);

/// "16,4k,2M" -> integers (sizeOf()); InvalidArgument names `flag`, and the part and its column in `text`
/// that is none, or how many there are unless there are min to max of them.
Result<std::vector<int64_t>> parseIntegers(const std::string &flag, const std::string &text, size_t min_count,
                                           size_t max_count);

/// "4k" -> 4096: an integer, which may have a unit (k, M, G or Ki, Mi, Gi: powers of 1024) if it is not
/// negative. InvalidArgument is the end of a sentence that begins with whose it is: "is no integer ..." or
/// "is too large".
Result<int64_t> sizeOf(const std::string &text);
/// The same as a step before an option's checks.
CLI::Validator sizeUnits();

/// A check of an option that is any uint64_t: CLI11 takes -1 for the largest of them.
CLI::Validator unsignedNumber();

/// `--causal` as every verb has it: alone or "yes"; "no"; "both" where `several` problems may be asked for.
/// 0 and 1, and lists, say the same. `set` gets {false}, {true} or both.
CLI::Option *addCausalFlag(CLI::App &verb, bool several, std::function<void(const std::vector<bool> &)> set,
                           const std::string &default_text);

/// Prints `value` to stdout, two blanks of indent, whatever bytes its strings have.
void printJson(const Json &value);
bool jsonPrinted(); ///< Whether printJson() was called.

} // namespace flashplus::tool
