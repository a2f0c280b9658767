// SPDX-License-Identifier: BSD-3-Clause
// flashplus-compile-helper as the runtime sees it: a process with the compiler, which this one starts, asks
// and ends (docs/rationale/compile-helper.md).
#pragma once

#include "compiler/helper/protocol.h"
#include "spec/status.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <sys/types.h>
#include <vector>

namespace flashplus {

struct HelperLimits {
  int64_t seconds = 300;            ///< For one kernel, the assembler included; 0: no limit.
  int64_t bytes = int64_t(4) << 30; ///< Of memory, for it and for each process that it starts; 0: no limit.
  static constexpr int kIdleMs = 30'000; ///< It ends itself when it was asked nothing for so long.
};

/// What came of a question.
struct HelperAnswer {
  enum class Kind {
    Result,   ///< `status`, `bytes`, `times`.
    Idle,     ///< It had ended before it was asked: ask another.
    Crashed,  ///< By `signal`.
    Killed,   ///< It ended without a word: killed, from outside or by the system.
    TimedOut, ///< It was ended.
  };
  Kind kind = Kind::Killed;
  StatusCode status = StatusCode::Ok;
  std::string bytes; ///< Of Result: data, or the message of a failure.
  flashplus_compile_times times{};
  int signal = 0;
  std::string last_lines; ///< What it printed meanwhile, at most a few lines; "" if nothing.
};

/// Used by one thread at a time. Its end ends the process, with whatever that has started.
class HelperProcess {
public:
  /// Why there is none, and what to do about it.
  struct Failure {
    Status status;
    bool for_good = false; ///< The program is missing or does not work: better compile without it.
  };

  /// Starts `program` and waits until it has opened the compiler library at `library`; null and `failure` if
  /// that does not come about.
  static std::unique_ptr<HelperProcess> start(const std::string &program, const std::string &library,
                                              const HelperLimits &limits, Failure &failure);
  ~HelperProcess();
  HelperProcess(const HelperProcess &) = delete;

  /// Asks, and waits for the answer. `waiting` (may be null) is called every few seconds meanwhile, with the
  /// milliseconds so far.
  HelperAnswer ask(helper::Kind kind, const std::vector<std::string> &fields,
                   const std::function<void(double)> &waiting);

  /// False when it cannot be asked again.
  bool isUsable() const { return usable_; }
  /// Whether it is still there, as far as can be seen without asking.
  bool isAlive() const;
  const std::string &description() const { return description_; } ///< "LLVM 22.1.8"
  pid_t pid() const { return pid_; }

  /// In the child of a fork: the parent's process is let go of, not ended.
  void abandon();

private:
  HelperProcess(int socket, int log, pid_t group, const HelperLimits &limits)
      : socket_(socket), log_(log), group_(group), limits_(limits) {}
  enum class Got { Message, End, TimedOut };
  Got receive(helper::Header &header, std::string &bytes, int64_t end_ms,
              const std::function<void(double)> &waiting);
  Got receive(void *to, size_t size, int64_t end_ms, const std::function<void(double)> &waiting);
  bool send(helper::Kind kind, const std::string &bytes);
  std::string lastLines() const;
  void end(bool by_force);

  int socket_, log_;
  const pid_t group_; ///< The process group, which has the number of the process that was started.
  pid_t pid_ = 0;
  const HelperLimits limits_;
  bool usable_ = true;
  std::string description_;
};

} // namespace flashplus
