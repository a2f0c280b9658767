// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/environment.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <system_error>
#include <unistd.h>

#include <sys/auxv.h>

namespace flashplus {
namespace {

std::string value(const char *name) {
  const char *text = secure_getenv(name);
  return text ? text : "";
}

/// A whole number from `text` on; false unless it is all of it but `rest`.
bool number(const std::string &text, int64_t &out, std::string &rest) {
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  rest = error == std::errc() ? text.substr(size_t(stop - text.data())) : text;
  return error == std::errc();
}

/// 0 unless it is a positive number, which is said.
int positive(const char *name, std::vector<std::string> &problems) {
  const std::string text = value(name);
  int64_t out = 0;
  std::string rest;
  if (text.empty() || (number(text, out, rest) && rest.empty() && out > 0 && out <= INT32_MAX))
    return int(out);
  problems.push_back("$" + std::string(name) + " is '" + text +
                     "', which is ignored: it must be a positive number");
  return 0;
}

/// No cache is smaller: a few kernels of one model need more.
constexpr int64_t kLeastBytes = int64_t(1) << 20;

/// As a number of bytes, 0 or at least kLeastBytes; -1 if unset, or no such size, which is said.
int64_t bytes(const char *name, std::vector<std::string> &problems) {
  const std::string text = value(name);
  int64_t out = -1;
  std::string unit;
  if (text.empty())
    return -1;
  if (number(text, out, unit) && out >= 0)
    for (const auto &[letter, shift] : {std::pair("", 0), {"K", 10}, {"M", 20}, {"G", 30}})
      if (unit == letter && out <= INT64_MAX >> shift && (out == 0 || out << shift >= kLeastBytes))
        return out << shift;
  problems.push_back("$" + std::string(name) + " is '" + text +
                     "', which is ignored: it must be a number of bytes, or one with K, M or G after it, of "
                     "at least 1M, or 0 for no limit");
  return -1;
}

/// Whether a word without a folder may be more than a file: something that is searched for.
enum class Word { File, Searched };

/// A path, "off", or a word that is not looked at. That nothing is there, or nothing of use, is said.
std::string existing(const char *name, int use, Word word, const char *what,
                     std::vector<std::string> &problems) {
  std::string text = value(name);
  const bool is_path =
      text.find('/') != std::string::npos || (word == Word::File && !text.empty() && text != "off");
  // eaccess: what this process may do, as open() and exec() see it
  if (is_path && ::eaccess(text.c_str(), use) != 0)
    problems.push_back("$" + std::string(name) + " is '" + text + "', which " + what + ": " +
                       std::generic_category().message(errno));
  return text;
}

/// As a number of seconds; -1 if unset, or none, which is said.
int64_t seconds(const char *name, std::vector<std::string> &problems) {
  const std::string text = value(name);
  int64_t out = -1;
  std::string rest;
  if (text.empty() || (number(text, out, rest) && rest.empty() && out >= 0 && out <= INT32_MAX))
    return out;
  problems.push_back("$" + std::string(name) + " is '" + text +
                     "', which is ignored: it must be a number of seconds, or 0 for no limit");
  return -1;
}

/// False unless it is 1; what is neither that nor 0 is said.
bool flag(const char *name, std::vector<std::string> &problems) {
  const std::string text = value(name);
  if (!text.empty() && text != "0" && text != "1")
    problems.push_back("$" + std::string(name) + " is '" + text + "', which is ignored: it must be 0 or 1");
  return text == "1";
}

} // namespace

Environment Environment::read() {
  Environment e;
  if (::getauxval(AT_SECURE)) // set-uid, file capabilities, a change of domain
    e.problems.push_back("the process has more rights than its caller, so no environment variable is read; "
                         "give options in code");
  e.cache_dir = value("FLASHPLUS_CACHE_DIR");
  if (e.cache_dir.empty()) {
    // The XDG base directory specification: a relative path there is to be ignored.
    const std::string xdg = value("XDG_CACHE_HOME"), home = value("HOME");
    if (xdg.starts_with("/"))
      e.cache_dir = xdg + "/flashplus";
    else if (!home.empty())
      e.cache_dir = home + "/.cache/flashplus";
  }
  const std::string folders = value("FLASHPLUS_CACHE_PATH");
  for (size_t at = 0; at < folders.size();) {
    const size_t end = std::min(folders.find(':', at), folders.size());
    if (end > at) // an empty one is nothing, not the current folder
      e.cache_path.push_back(folders.substr(at, end - at));
    at = end + 1;
  }
  e.cache_bytes = bytes("FLASHPLUS_CACHE_SIZE", e.problems);
  e.compiler = existing("FLASHPLUS_COMPILER", R_OK, Word::Searched,
                        "cannot be opened, so that nothing can be compiled", e.problems);
  e.nvjitlink = existing("FLASHPLUS_NVJITLINK", R_OK, Word::Searched, "cannot be opened", e.problems);
  e.ptxas = existing("FLASHPLUS_PTXAS", X_OK, Word::Searched, "cannot be run", e.problems);
  e.path = value("PATH");
  e.cuda_target = value("FLASHPLUS_CUDA_TARGET");
  e.cpu_target = value("FLASHPLUS_CPU_TARGET");
  e.cuda_shared_memory = positive("FLASHPLUS_CUDA_SHARED_MEMORY", e.problems);
  e.tuning =
      existing("FLASHPLUS_TUNING", R_OK, Word::File, "cannot be read, so that no record is used", e.problems);
  e.log = value("FLASHPLUS_LOG");
  e.debug_kernels = value("FLASHPLUS_DEBUG_KERNELS");
  e.debug_values = value("FLASHPLUS_DEBUG_VALUES");
  e.record_misses = value("FLASHPLUS_RECORD_MISSES");
  e.late_compile = value("FLASHPLUS_LATE_COMPILE");
  e.compile_in_process = flag("FLASHPLUS_COMPILE_IN_PROCESS", e.problems);
  e.compile_bytes = bytes("FLASHPLUS_COMPILE_MEMORY", e.problems);
  e.compile_seconds = seconds("FLASHPLUS_COMPILE_SECONDS", e.problems);
  e.num_threads = positive("FLASHPLUS_NUM_THREADS", e.problems);
  if (e.num_threads > kMaxThreads) {
    e.problems.push_back("$FLASHPLUS_NUM_THREADS is " + std::to_string(e.num_threads) + "; at most " +
                         std::to_string(kMaxThreads) + " are used");
    e.num_threads = kMaxThreads;
  }
  return e;
}

} // namespace flashplus
