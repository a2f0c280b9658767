// SPDX-License-Identifier: BSD-3-Clause
#include "compiler/own_stack.h"

#include <cfenv>
#include <csignal>
#include <pthread.h>
#include <system_error>

namespace flashplus {
namespace {

constexpr size_t kStackBytes = 16 << 20; // only what is used becomes memory
constexpr size_t kHandlerBytes = 32 << 10;

void *run(void *work) {
  std::fesetenv(FE_DFL_ENV);
  char stack[kHandlerBytes]; // a handler must have room when the rest has run out
  const stack_t alternate{.ss_sp = stack, .ss_flags = 0, .ss_size = sizeof stack};
  sigaltstack(&alternate, nullptr);
  (*static_cast<const std::function<void()> *>(work))();
  const stack_t none{.ss_sp = nullptr, .ss_flags = SS_DISABLE, .ss_size = 0};
  sigaltstack(&none, nullptr);
  return nullptr;
}

} // namespace

Status runOnOwnStack(const std::function<void()> &work) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  sigset_t all;
  sigfillset(&all);
  for (int fault : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS})
    sigdelset(&all, fault);
  pthread_attr_setsigmask_np(&attributes, &all);
  pthread_t thread;
  const int error = pthread_create(&thread, &attributes, run, const_cast<std::function<void()> *>(&work));
  pthread_attr_destroy(&attributes);
  if (error)
    return {StatusCode::OutOfMemory, "no thread to compile on: " + std::generic_category().message(error)};
  pthread_join(thread, nullptr);
  return Status::ok();
}

} // namespace flashplus
