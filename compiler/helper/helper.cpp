// SPDX-License-Identifier: BSD-3-Clause
// flashplus-compile-helper: the compiler in a process of its own (docs/rationale/compile-helper.md). Started
// by libflashplus.so with a socket as descriptor 3; answers one request after the other, and ends when the
// other end is closed, when it was idle for long, or when it is in no state to go on.
#include "compiler/helper/open.h"
#include "compiler/helper/protocol.h"
#include "spec/status.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <new>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef FLASHPLUS_HELPER_BUILD_ID // tests have another one
#define FLASHPLUS_HELPER_BUILD_ID FLASHPLUS_BUILD_ID
#endif

namespace flashplus::helper {
namespace {

/// Nothing here allocates: it is also for handlers.
bool send(Kind kind, const void *head, size_t head_bytes, const void *data = nullptr, size_t bytes = 0) {
  Header header{.kind = kind, .bytes = head_bytes + bytes};
  iovec parts[3] = {
      {&header, sizeof header}, {const_cast<void *>(head), head_bytes}, {const_cast<void *>(data), bytes}};
  for (size_t part = 0; part < 3;) {
    msghdr message = {};
    message.msg_iov = parts + part;
    message.msg_iovlen = 3 - part;
    ssize_t sent = sendmsg(kSocket, &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR)
      continue;
    if (sent < 0)
      return false;
    for (; part < 3 && size_t(sent) >= parts[part].iov_len; ++part)
      sent -= ssize_t(parts[part].iov_len);
    if (part < 3) {
      parts[part].iov_base = static_cast<char *>(parts[part].iov_base) + sent;
      parts[part].iov_len -= size_t(sent);
    }
  }
  return true;
}

bool receive(void *to, size_t bytes) {
  for (auto *at = static_cast<char *>(to); bytes;) {
    const ssize_t got = recv(kSocket, at, bytes, 0);
    if (got < 0 && errno == EINTR)
      continue;
    if (got <= 0)
      return false;
    at += got;
    bytes -= size_t(got);
  }
  return true;
}

/// Whether there is no memory to be had. For a signal handler.
bool isMemoryGone() {
  constexpr size_t kLittle = size_t(1) << 20; // no more than malloc asks for at once
  void *some = mmap(nullptr, kLittle, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (some == MAP_FAILED)
    return errno == ENOMEM;
  munmap(some, kLittle);
  return false;
}

extern "C" {

/// The compiler can't go on; it must not come back.
void giveUp(int code, const char *text) {
  ResultHead head{.status = code};
  send(Kind::LastResult, &head, sizeof head, text, std::strlen(text));
  _exit(1);
}

void onCrash(int signal, siginfo_t *info, void *) {
  // MLIR makes an operation in what malloc gives it without looking (mlir::Operation::create): a few bytes
  // behind null where there was nothing to give.
  constexpr uintptr_t kNobodyHas = 64 << 10; // what no process has at its beginning
  if (signal == SIGSEGV && info->si_code == SEGV_MAPERR &&
      reinterpret_cast<uintptr_t>(info->si_addr) < kNobodyHas && isMemoryGone())
    giveUp(int(StatusCode::OutOfMemory), "the compiler ran out of memory");
  const int32_t which = signal;
  send(Kind::Crash, &which, sizeof which);
  std::signal(signal, SIG_DFL);
  raise(signal);
}

/// Whoever asked is gone: so is this process, with the assembler that it runs.
void *watch(void *) {
  pollfd end{kSocket, POLLRDHUP, 0};
  while (poll(&end, 1, -1) < 0 || !(end.revents & (POLLRDHUP | POLLHUP | POLLERR)))
    continue;
  kill(0, SIGKILL);
  return nullptr;
}

} // extern "C"

void handleCrashes() {
  static char stack[64 << 10];
  const stack_t alternate{.ss_sp = stack, .ss_flags = 0, .ss_size = sizeof stack};
  sigaltstack(&alternate, nullptr);
  struct sigaction action = {};
  action.sa_sigaction = onCrash;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | int(SA_RESETHAND);
  for (int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS})
    sigaction(signal, &action, nullptr);
}

/// `bytes`: of memory that this process and each that it starts may have; 0: no limit.
void setLimits(uint64_t bytes) {
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
#ifndef FLASHPLUS_SANITIZED // whose shadow is larger than any limit
  rlimit now{};
  if (bytes && getrlimit(RLIMIT_DATA, &now) == 0) {
    const rlim_t most = std::min<rlim_t>(bytes, now.rlim_max);
    const rlimit limit{std::min(most, now.rlim_cur), most};
    setrlimit(RLIMIT_DATA, &limit);
  }
#else
  (void)bytes;
#endif
  // Where the machine runs out of memory, this process goes before the one that it works for.
  if (const int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC); file >= 0) {
    (void)!write(file, "500", 3);
    close(file);
  }
}

void startWatch() {
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 64 << 10);
  pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
  pthread_t thread;
  pthread_create(&thread, &small, watch, nullptr); // without it the end is noticed after the next kernel
  pthread_attr_destroy(&small);
}

bool answer(const flashplus_compiler_table &table, Kind kind, const std::string &bytes) {
  std::vector<std::string> f;
  if (!take(bytes, f, kRequestFields))
    return false;
  const flashplus_compile_request request{
      f[0].c_str(), f[1].c_str(), f[2].c_str(), {f[3].c_str(), f[4].c_str()}, 0};
  if (kind == Kind::Describe) {
    char text[2][1024] = {};
    const int linker = table.nvjitlink(f[3].c_str(), text[0], sizeof text[0]);
    const int program = table.ptxas(f[4].c_str(), text[1], sizeof text[1]);
    std::string out;
    for (std::string_view field :
         {std::string_view(table.describe), std::string_view(linker ? "1" : "0"), std::string_view(text[0]),
          std::string_view(program ? "1" : "0"), std::string_view(text[1])})
      put(out, field);
    const ResultHead head{};
    return send(Kind::Result, &head, sizeof head, out.data(), out.size());
  }
  flashplus_compile_result result{};
  if (kind == Kind::Compile)
    table.compile(&request, &result);
  else
    table.print(&request, f[5].c_str(), &result);
  const ResultHead head{.status = result.status, .times = result.times};
  const bool sent = send(Kind::Result, &head, sizeof head, result.data, result.data ? result.size : 0);
  table.release(&result);
  return sent;
}

int serve(const flashplus_compiler_table &table, int idle_ms) {
  for (;;) {
    pollfd end{kSocket, POLLIN, 0};
    const int ready = poll(&end, 1, idle_ms);
    if (ready < 0 && errno == EINTR)
      continue;
    if (ready == 0) {
      send(Kind::Bye, nullptr, 0);
      return 0;
    }
    Header header;
    if (ready < 0 || !receive(&header, sizeof header) || header.magic != kMagic || header.bytes > kMostBytes)
      return 0;
    std::string bytes(header.bytes, '\0');
    if (!receive(bytes.data(), bytes.size()) || !answer(table, header.kind, bytes))
      return 0;
  }
}

} // namespace
} // namespace flashplus::helper

int main(int count, char **arguments) {
  using namespace flashplus;
  using namespace flashplus::helper;
  int kind = 0;
  socklen_t size = sizeof kind;
  if (count != 4 || getsockopt(kSocket, SOL_SOCKET, SO_TYPE, &kind, &size) != 0) {
    std::fputs("flashplus-compile-helper is started by libflashplus.so, which compiles kernels in it; it is "
               "of no other use.\nBuild " FLASHPLUS_BUILD_ID "\n",
               stderr);
    return 2;
  }
  // No child of the process that asked, who may wait for all of its own. Where no process can be made it
  // stays one.
  if (fork() > 0)
    _exit(0);
  setLimits(std::strtoull(arguments[3], nullptr, 10));
  handleCrashes();
  std::set_new_handler([] { giveUp(int(StatusCode::OutOfMemory), "the compiler ran out of memory"); });
  std::string problem;
  const flashplus_compiler_table *table = openCompiler(arguments[1], problem);
  if (table)
    table->serve(giveUp);
  std::string hello;
  for (const std::string &field : {std::to_string(getpid()), std::string(FLASHPLUS_HELPER_BUILD_ID), problem,
                                   std::string(table ? table->describe : "")})
    put(hello, field);
  if (!send(Kind::Hello, hello.data(), hello.size()) || !table)
    _exit(1);
  startWatch();
  _exit(serve(*table, int(std::strtol(arguments[2], nullptr, 10))));
}
