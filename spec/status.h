// SPDX-License-Identifier: BSD-3-Clause
// How every layer reports failure. No layer throws, aborts or prints: a function that can fail returns a
// Status, or a Result<T> that holds either a T or a failed Status.
#pragma once

#include <cassert>
#include <optional>
#include <string>
#include <utility>

namespace flashplus {

/// The kinds of failure a caller may want to tell apart. The values are part of the C ABI
/// (`flashplus_status` in flashplus.h mirrors them) and never change meaning.
enum class StatusCode : int {
  Ok = 0,
  InvalidArgument = 1,  ///< A value the caller passed; the message names it, its value and what is allowed.
  Unsupported = 2,      ///< Well-formed, but no target or schedule can do it.
  NoDevice = 3,         ///< The requested device does not exist or its driver is missing.
  OutOfMemory = 4,      ///< Host or device memory.
  CompileFailed = 5,    ///< Code generation or assembly failed.
  NotResident = 6,      ///< The kernel is not loaded and may not be compiled now (capture, offline mode).
  DeviceError = 7,      ///< The driver reported an error.
  IoError = 8,          ///< A file could not be read or written.
  Internal = 9,         ///< A bug in this library.
  TimedOut = 10,        ///< A compilation took longer than its limit; that says nothing about the kernel.
  CompilerCrashed = 11, ///< The compiler's process died of a fault of its own.
};

/// Short stable name of a code, e.g. "invalid_argument".
const char *statusCodeName(StatusCode code);

/// Success, or a code with one sentence for a person. Cheap to return on success (no allocation).
class [[nodiscard]] Status {
public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}
  static Status ok() { return {}; }

  bool isOk() const { return code_ == StatusCode::Ok; }
  explicit operator bool() const { return isOk(); }
  StatusCode code() const { return code_; }
  const std::string &message() const { return message_; }

private:
  StatusCode code_ = StatusCode::Ok;
  std::string message_;
};

inline Status invalidArgument(std::string message) {
  return {StatusCode::InvalidArgument, std::move(message)};
}

/// A value of type T, or the Status that says why there is none.
template <class T> class [[nodiscard]] Result {
public:
  Result(T value) : value_(std::move(value)) {}
  Result(Status status) : status_(std::move(status)) { assert(!status_.isOk()); }

  bool isOk() const { return value_.has_value(); }
  explicit operator bool() const { return isOk(); }
  const Status &status() const { return status_; }
  T &operator*() & { return *value_; }
  const T &operator*() const & { return *value_; }
  T &&operator*() && { return std::move(*value_); }
  T *operator->() { return &*value_; }
  const T *operator->() const { return &*value_; }

private:
  std::optional<T> value_;
  Status status_;
};

} // namespace flashplus

/// Returns the failed Status of `expr` (a Status) from the enclosing function.
#define FLASHPLUS_RETURN_IF_ERROR(expr)                                                                      \
  do {                                                                                                       \
    if (::flashplus::Status flashplus_status_ = (expr); !flashplus_status_.isOk())                           \
      return flashplus_status_;                                                                              \
  } while (0)
