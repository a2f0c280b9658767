// SPDX-License-Identifier: BSD-3-Clause
// flashplus: the command line over libflashplus. One file a verb; this one parses, dispatches and sets exit
// codes.
#include "tools/flashplus/command.h"
#include "tools/flashplus/interrupt.h"
#include "tools/flashplus/terminal.h"
#include "tools/flashplus/usage.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <new>

namespace flashplus::tool {
namespace {

void reportFailure(const Status &status, bool json) {
  std::fflush(stdout);
  std::fprintf(stderr, "flashplus: %s\n", status.message().c_str());
  if (json && !jsonPrinted()) // one document: what was found comes before a file that could not be written
    printJson({{"error", {{"status", statusCodeName(status.code())}, {"message", status.message()}}}});
}

int finish(const Result<int> &outcome, bool json) {
  int code = outcome                                                  ? *outcome
             : interrupted()                                          ? exitInterrupted()
             : outcome.status().code() == StatusCode::InvalidArgument ? kExitUsage
                                                                      : kExitFailed;
  if (!outcome)
    reportFailure(outcome.status(), json);
  // Output that could not be written (a full disk, a closed pipe) is a failure too.
  if ((std::fflush(stdout) != 0 || std::ferror(stdout)) && code == kExitGood) {
    std::fprintf(stderr, "flashplus: standard output can't be written: %s\n", std::strerror(errno));
    code = kExitFailed;
  }
  return code;
}

int run(int argc, char **argv) {
  CLI::App app{"FlashAttention-Plus: attention kernels, compiled when they are needed.\n"
               "Exit status: 0 good, 1 the work failed, 2 bad usage or input; ended by a signal: 128 and its "
               "number, 130 for Ctrl-C, 143 for SIGTERM.",
               "flashplus"};
  app.set_version_flag("--version", std::string("flashplus ") + flashplus_version());
  app.require_subcommand(1);
  app.footer("Example:\n  flashplus run --random 1,1024,1024,8,8,128 --dtype bf16 --causal --check\n"
             "\n'flashplus VERB --help' explains a verb and shows an example.");
  Action selected;
  addRun(app, &selected);
  addWarmup(app, &selected);
  addInspect(app, &selected);
  addEmulate(app, &selected);
  addBench(app, &selected);
  addTune(app, &selected);
  addCache(app, &selected);
  addDevices(app, &selected);
  addDoctor(app, &selected);
  addCompletion(app, &selected);
  addHelp(app, &selected); // which lists the others
  formatHelp(app);
  catchInterrupts();

  const std::vector<std::string> words = withHelpLast(app, {argv + 1, argv + argc});
  const bool json = std::ranges::find(words, "--json") != words.end(); // Also when the flags don't parse.
  try {
    app.parse(std::vector<std::string>(words.rbegin(), words.rend())); // CLI11 takes the last word first
  } catch (const CLI::Success &help) {
    app.exit(help);
    return finish(kExitGood, json);
  } catch (const CLI::ParseError &error) {
    return finish(invalidArgument(usageMessage(app, error, words)), json);
  }
  try {
    return finish(selected(), json);
  } catch (const std::bad_alloc &) {
    return finish(Status(StatusCode::OutOfMemory, "not enough memory"), json);
  } catch (const std::exception &error) {
    return finish(Status(StatusCode::Internal, std::string("internal error: ") + error.what()), json);
  }
}

} // namespace
} // namespace flashplus::tool

int main(int argc, char **argv) { return flashplus::tool::run(argc, argv); }
