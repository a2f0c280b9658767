// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/kernels/helper_process.h"

#include "build_id.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <fcntl.h>
#include <initializer_list>
#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <utility>

extern char **environ;

namespace flashplus {
namespace {

using helper::Header;
using helper::Kind;
using Clock = std::chrono::steady_clock;

constexpr int64_t kNever = INT64_MAX;
constexpr int64_t kStartMs = 60'000; ///< To open the compiler library, from a slow disk.
constexpr int64_t kTellMs = 5'000;

int64_t nowMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now().time_since_epoch()).count();
}

std::string errorText(int error) { return std::generic_category().message(error); }

/// Errors that are about the machine at this moment, not about the program.
bool isPassing(int error) {
  return error == EAGAIN || error == ENOMEM || error == EMFILE || error == ENFILE || error == EINTR;
}

Status cannotStart(const std::string &program, int error) {
  return {error == ENOMEM ? StatusCode::OutOfMemory : StatusCode::IoError,
          "'" + program + "', in which kernels are compiled, could not be started: " + errorText(error)};
}

/// A descriptor above those that a started program gets by number.
int moveUp(int fd) {
  if (fd < 0 || fd > helper::kSocket)
    return fd;
  const int above = fcntl(fd, F_DUPFD_CLOEXEC, helper::kSocket + 1);
  const int error = errno;
  close(fd);
  errno = error;
  return above;
}

int spawn(pid_t &child, const std::string &program, const std::vector<std::string> &arguments, int socket,
          int log) {
  std::vector<char *> argv;
  for (const std::string &argument : arguments)
    argv.push_back(const_cast<char *>(argument.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  for (int output : {1, 2})
    if (log >= 0)
      posix_spawn_file_actions_adddup2(&actions, log, output);
    else
      posix_spawn_file_actions_addopen(&actions, output, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, socket, helper::kSocket);
  posix_spawn_file_actions_addclosefrom_np(&actions, helper::kSocket + 1);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t signals;
  sigemptyset(&signals);
  posix_spawnattr_setsigmask(&attributes, &signals);
  sigfillset(&signals);
  posix_spawnattr_setsigdefault(&attributes, &signals);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
  const int error = posix_spawn(&child, program.c_str(), &actions, &attributes, argv.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return error;
}

/// How a child ended. `broken`: by itself, with a code that says that it does not work.
std::string waitForEnd(pid_t child, bool &broken) {
  int status = 0;
  pid_t got = 0;
  while ((got = waitpid(child, &status, 0)) < 0 && errno == EINTR)
    continue;
  broken = got == child && WIFEXITED(status) && WEXITSTATUS(status) != 0;
  if (broken)
    return "ended with code " + std::to_string(WEXITSTATUS(status));
  if (got == child && WIFSIGNALED(status))
    return "was killed by signal " + std::to_string(WTERMSIG(status));
  return "ended without a word";
}

/// What the loader says of a library that it finds no room for ("cannot open" is of one that is not there).
bool isNoMemory(const std::string &text) {
  return std::ranges::any_of(
      std::initializer_list<const char *>{"failed to map", "cannot map", "annot allocate", "cannot create",
                                          "cannot extend", "cannot change memory protections"},
      [&](const char *words) { return text.find(words) != std::string::npos; });
}

/// Whether processes without a parent become children of this one.
bool adopts() {
  int adopts = 0;
  return getpid() == 1 || (prctl(PR_GET_CHILD_SUBREAPER, &adopts) == 0 && adopts);
}

} // namespace

std::unique_ptr<HelperProcess> HelperProcess::start(const std::string &program, const std::string &library,
                                                    const HelperLimits &limits, Failure &failure) {
  const auto failed = [&](Status status, bool for_good) {
    failure = {std::move(status), for_good};
    return nullptr;
  };
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return failed(cannotStart(program, errno), !isPassing(errno));
  const int theirs = moveUp(ends[1]), theirs_error = errno;
  const int ours = moveUp(ends[0]), ours_error = errno;
  if (ours < 0 || theirs < 0) {
    close(ours < 0 ? theirs : ours);
    return failed(cannotStart(program, ours < 0 ? ours_error : theirs_error), false);
  }
  // What it prints goes to memory; where there is none, nowhere.
  const int log = moveUp(memfd_create("flashplus-compile-helper", MFD_CLOEXEC));
  if (log >= 0)
    fcntl(log, F_SETFL, O_APPEND); // of the open file: both see it
  pid_t child = 0;
  const int error = spawn(
      child, program, {program, library, std::to_string(HelperLimits::kIdleMs), std::to_string(limits.bytes)},
      theirs, log);
  close(theirs);
  if (error) {
    close(ours);
    if (log >= 0)
      close(log);
    return failed(cannotStart(program, error), !isPassing(error));
  }
  std::unique_ptr<HelperProcess> made(new HelperProcess(ours, log, child, limits));
  Header header;
  std::string bytes;
  std::vector<std::string> hello;
  const Got got = made->receive(header, bytes, nowMs() + kStartMs, nullptr);
  if (got != Got::Message || header.kind != Kind::Hello ||
      !helper::take(bytes, hello, helper::kHelloFields)) {
    if (got == Got::Message && header.kind == Kind::LastResult)
      return failed(Status(StatusCode::OutOfMemory, "the compiler ran out of memory when it was opened"),
                    false);
    const std::string said = made->lastLines();
    made->end(/*by_force=*/true);
    if (isNoMemory(said))
      return failed(Status(StatusCode::OutOfMemory, "no memory for '" + program + "': " + said), false);
    bool broken = false;
    const std::string ending =
        got == Got::TimedOut ? "did not answer within 60 s" : waitForEnd(child, broken);
    return failed(Status(broken ? StatusCode::CompileFailed : StatusCode::IoError,
                         "'" + program + "', in which kernels are compiled, " + ending +
                             (said.empty() ? "" : ": " + said)),
                  broken);
  }
  made->pid_ = pid_t(std::strtol(hello[0].c_str(), nullptr, 10));
  bool ignored = false;
  if (made->pid_ != child) // the process in between, which has ended
    (void)waitForEnd(child, ignored);
  if (hello[1] != FLASHPLUS_BUILD_ID)
    return failed(Status(StatusCode::CompileFailed, "'" + program + "' is build " + hello[1] +
                                                        " and this runtime needs build " FLASHPLUS_BUILD_ID),
                  true);
  if (!hello[2].empty())
    return failed(
        Status(isNoMemory(hello[2]) ? StatusCode::OutOfMemory : StatusCode::CompileFailed, hello[2]), false);
  made->description_ = hello[3];
  return made;
}

HelperProcess::~HelperProcess() { end(/*by_force=*/false); }

void HelperProcess::abandon() {
  usable_ = false;
  for (int *fd : {&socket_, &log_})
    if (const int open = std::exchange(*fd, -1); open >= 0)
      close(open);
}

void HelperProcess::end(bool by_force) {
  if (socket_ < 0)
    return;
  // It sees the end of the socket and leaves. By force only one that was there a moment ago: later the number
  // may be another's. What it has started, and may have outlived it, is in its group.
  abandon();
  if (by_force)
    kill(-group_, SIGKILL);
  bool ignored = false;
  if (pid_ == group_) // a child of ours: there was no process for one in between
    (void)waitForEnd(pid_, ignored);
  else if (pid_ && adopts())
    (void)waitpid(pid_, nullptr, WNOHANG);
}

bool HelperProcess::isAlive() const {
  pollfd end{socket_, POLLIN, 0};
  return usable_ && poll(&end, 1, 0) == 0; // idle, it says nothing but that it ends
}

bool HelperProcess::send(Kind kind, const std::string &bytes) {
  const Header header{.kind = kind, .bytes = bytes.size()};
  std::string all(reinterpret_cast<const char *>(&header), sizeof header);
  all += bytes;
  for (size_t at = 0; at < all.size();) {
    const ssize_t sent = ::send(socket_, all.data() + at, all.size() - at, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR)
      continue;
    if (sent < 0)
      return false;
    at += size_t(sent);
  }
  return true;
}

HelperProcess::Got HelperProcess::receive(void *to, size_t size, int64_t end_ms,
                                          const std::function<void(double)> &waiting) {
  const int64_t start = nowMs();
  int64_t tell = waiting ? start + kTellMs : kNever;
  for (auto *at = static_cast<char *>(to); size;) {
    const ssize_t got = recv(socket_, at, size, MSG_DONTWAIT);
    if (got > 0) {
      at += got;
      size -= size_t(got);
      continue;
    }
    if (got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
      return Got::End;
    const int64_t now = nowMs();
    if (now >= end_ms)
      return Got::TimedOut;
    if (now >= tell) {
      waiting(double(now - start));
      tell = now + kTellMs;
    }
    const int64_t until = std::min({end_ms, tell, now + INT_MAX});
    pollfd ready{socket_, POLLIN, 0};
    poll(&ready, 1, int(std::max<int64_t>(until - now, 1)));
  }
  return Got::Message;
}

HelperProcess::Got HelperProcess::receive(Header &header, std::string &bytes, int64_t end_ms,
                                          const std::function<void(double)> &waiting) {
  Got got = receive(&header, sizeof header, end_ms, waiting);
  if (got != Got::Message)
    return got;
  if (header.magic != helper::kMagic || header.bytes > helper::kMostBytes)
    return Got::End;
  bytes.resize(header.bytes);
  return receive(bytes.data(), bytes.size(), end_ms, waiting);
}

HelperAnswer HelperProcess::ask(Kind kind, const std::vector<std::string> &fields,
                                const std::function<void(double)> &waiting) {
  HelperAnswer answer;
  if (log_ >= 0)
    (void)!ftruncate(log_, 0);
  std::string bytes;
  for (const std::string &field : fields)
    helper::put(bytes, field);
  const int64_t end_ms = limits_.seconds > 0 ? nowMs() + limits_.seconds * 1000 : kNever;
  Header header;
  const bool sent = send(kind, bytes);
  const Got got = receive(header, bytes, end_ms, waiting); // also where it could not be sent: it may say why
  usable_ = got == Got::Message && header.kind == Kind::Result;
  answer.last_lines = usable_ ? "" : lastLines();
  if (got == Got::TimedOut) {
    answer.kind = HelperAnswer::Kind::TimedOut;
  } else if (got == Got::End) {
    answer.kind = sent ? HelperAnswer::Kind::Killed : HelperAnswer::Kind::Idle;
  } else if (header.kind == Kind::Bye) {
    answer.kind = HelperAnswer::Kind::Idle;
  } else if (header.kind == Kind::Crash && bytes.size() == sizeof(int32_t)) {
    int32_t signal = 0;
    std::memcpy(&signal, bytes.data(), sizeof signal);
    answer.kind = HelperAnswer::Kind::Crashed;
    answer.signal = signal;
  } else if ((header.kind == Kind::Result || header.kind == Kind::LastResult) &&
             bytes.size() >= sizeof(helper::ResultHead)) {
    helper::ResultHead head;
    std::memcpy(static_cast<void *>(&head), bytes.data(), sizeof head);
    answer.kind = HelperAnswer::Kind::Result;
    answer.status = StatusCode(head.status);
    answer.times = head.times;
    bytes.erase(0, sizeof head);
    answer.bytes = std::move(bytes);
  }
  if (!usable_)
    end(/*by_force=*/answer.kind != HelperAnswer::Kind::Idle);
  return answer;
}

std::string HelperProcess::lastLines() const {
  constexpr int64_t kMost = 1000;
  struct stat printed = {};
  if (log_ < 0 || fstat(log_, &printed) != 0 || printed.st_size == 0)
    return "";
  const int64_t from = std::max<int64_t>(0, printed.st_size - kMost);
  std::string text(size_t(printed.st_size - from), '\0');
  const ssize_t got = pread(log_, text.data(), text.size(), from);
  text.resize(got < 0 ? 0 : size_t(got));
  for (char &c : text)
    if (c != '\n' && static_cast<unsigned char>(c) < ' ')
      c = ' ';
  while (text.ends_with('\n') || text.ends_with(' '))
    text.pop_back();
  int lines = 1;
  for (size_t at = text.size(); at-- > 0;)
    if (text[at] == '\n' && ++lines > 4) {
      text.erase(0, at + 1);
      break;
    }
  for (size_t at = 0; (at = text.find('\n', at)) != std::string::npos;)
    text.replace(at, 1, " | ");
  return text;
}

} // namespace flashplus
