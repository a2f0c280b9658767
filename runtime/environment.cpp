// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/environment.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <numeric>
#include <string_view>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <sys/auxv.h>

namespace flashplus {
namespace {

/// What the Python package reads (python/flashplus/environment.py).
constexpr std::string_view kOfPython[] = {"FLASHPLUS_FACE", "FLASHPLUS_LIBRARY", "FLASHPLUS_COMMAND"};
/// What tests read, besides those that begin with kOfTestsBegin.
constexpr std::string_view kOfTests[] = {"FLASHPLUS_SOAK", "FLASHPLUS_CLI", "FLASHPLUS_FAKE_COMPILER"};
constexpr std::string_view kOfTestsBegin = "FLASHPLUS_TEST_";

/// No cache is smaller: a few kernels of one model need more.
constexpr int64_t kLeastBytes = int64_t(1) << 20;

/// A whole number from `text` on; false unless it is all of it but `rest`.
bool number(const std::string &text, int64_t &out, std::string &rest) {
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  rest = error == std::errc() ? text.substr(size_t(stop - text.data())) : text;
  return error == std::errc();
}

/// The least number of letters to add, to leave out, to replace, or to swap with the next, from one to the
/// other.
size_t lettersApart(std::string_view a, std::string_view b) {
  std::vector<size_t> before, last(b.size() + 1), row(b.size() + 1); // of the beginnings of a and b
  std::iota(last.begin(), last.end(), size_t(0));
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
    before = std::exchange(last, row);
  }
  return last[b.size()];
}

/// Whether a word without a folder may be more than a file: something that is searched for.
enum class Word { File, Searched };

/// Reads variables, and knows afterwards which there are.
class Variables {
public:
  explicit Variables(std::vector<std::string> &problems) : problems_(problems) {}

  std::string value(const char *name) {
    names_.push_back(name);
    const char *text = secure_getenv(name);
    return text ? text : "";
  }

  /// 0 unless it is a positive number, which is said.
  int positive(const char *name) {
    const std::string text = value(name);
    int64_t out = 0;
    std::string rest;
    if (text.empty() || (number(text, out, rest) && rest.empty() && out > 0 && out <= INT32_MAX))
      return int(out);
    ignored(name, text, "a positive number");
    return 0;
  }

  /// As a number of bytes, 0 or at least kLeastBytes; -1 if unset, or no such size, which is said.
  int64_t bytes(const char *name) {
    const std::string text = value(name);
    int64_t out = -1;
    std::string unit;
    if (text.empty())
      return -1;
    if (number(text, out, unit) && out >= 0)
      for (const auto &[letter, shift] : {std::pair("", 0), {"K", 10}, {"M", 20}, {"G", 30}})
        if (unit == letter && out <= INT64_MAX >> shift && (out == 0 || out << shift >= kLeastBytes))
          return out << shift;
    ignored(name, text,
            "a number of bytes, or one with K, M or G after it, of at least 1M, or 0 for no limit");
    return -1;
  }

  /// As a number of seconds; -1 if unset, or none, which is said.
  int64_t seconds(const char *name) {
    const std::string text = value(name);
    int64_t out = -1;
    std::string rest;
    if (text.empty() || (number(text, out, rest) && rest.empty() && out >= 0 && out <= INT32_MAX))
      return out;
    ignored(name, text, "a number of seconds, or 0 for no limit");
    return -1;
  }

  /// False unless it is 1; what is neither that nor 0 is said.
  bool flag(const char *name) {
    const std::string text = value(name);
    if (!text.empty() && text != "0" && text != "1")
      ignored(name, text, "0 or 1");
    return text == "1";
  }

  /// A path, "off", or a word that is not looked at. That nothing is there, or nothing of use, is said.
  std::string existing(const char *name, int use, Word word, const char *what) {
    std::string text = value(name);
    const bool is_path =
        text.find('/') != std::string::npos || (word == Word::File && !text.empty() && text != "off");
    // eaccess: what this process may do, as open() and exec() see it
    if (is_path && ::eaccess(text.c_str(), use) != 0)
      problems_.push_back("$" + std::string(name) + " is '" + text + "', which " + what + ": " +
                          std::generic_category().message(errno));
    return text;
  }

  /// Says which are set that have our prefix and that nobody reads: misspelt, or of another version.
  void sayUnknown() const {
    for (char **entry = environ; entry && *entry; ++entry) {
      const std::string_view whole = *entry, name = whole.substr(0, whole.find('='));
      if (!name.starts_with("FLASHPLUS_") || name.starts_with(kOfTestsBegin) || isIn(names_, name) ||
          isIn(kOfPython, name) || isIn(kOfTests, name))
        continue;
      constexpr size_t kMost = 64; // none that there is has more letters
      const std::string_view begin = name.substr(0, kMost);
      std::vector<std::string_view> known = names_;
      known.insert(known.end(), std::begin(kOfPython), std::end(kOfPython));
      const std::string_view nearest = *std::min_element(known.begin(), known.end(), [&](auto a, auto b) {
        return lettersApart(begin, a) < lettersApart(begin, b);
      });
      problems_.push_back("$" + std::string(begin) + (name.size() > kMost ? "..." : "") +
                          " is set, and nothing reads a variable of that name; the nearest is $" +
                          std::string(nearest));
    }
  }

private:
  template <class Names> static bool isIn(const Names &names, std::string_view name) {
    return std::find(std::begin(names), std::end(names), name) != std::end(names);
  }
  void ignored(const char *name, const std::string &text, const char *wanted) {
    problems_.push_back("$" + std::string(name) + " is '" + text + "', which is ignored: it must be " +
                        wanted);
  }

  std::vector<std::string> &problems_;
  std::vector<std::string_view> names_; ///< Of those that were read.
};

} // namespace

Environment Environment::read() {
  Environment e;
  if (::getauxval(AT_SECURE)) // set-uid, file capabilities, a change of domain
    e.problems.push_back("the process has more rights than its caller, so no environment variable is read; "
                         "give options in code");
  Variables v(e.problems);
  e.cache_dir = v.value("FLASHPLUS_CACHE_DIR");
  if (e.cache_dir.empty()) {
    // The XDG base directory specification: a relative path there is to be ignored.
    const std::string xdg = v.value("XDG_CACHE_HOME"), home = v.value("HOME");
    if (xdg.starts_with("/"))
      e.cache_dir = xdg + "/flashplus";
    else if (!home.empty())
      e.cache_dir = home + "/.cache/flashplus";
  }
  const std::string folders = v.value("FLASHPLUS_CACHE_PATH");
  for (size_t at = 0; at < folders.size();) {
    const size_t end = std::min(folders.find(':', at), folders.size());
    if (end > at) // an empty one is nothing, not the current folder
      e.cache_path.push_back(folders.substr(at, end - at));
    at = end + 1;
  }
  e.cache_bytes = v.bytes("FLASHPLUS_CACHE_SIZE");
  e.compiler = v.existing("FLASHPLUS_COMPILER", R_OK, Word::Searched,
                          "cannot be opened, so that nothing can be compiled");
  e.nvjitlink = v.existing("FLASHPLUS_NVJITLINK", R_OK, Word::Searched, "cannot be opened");
  e.ptxas = v.existing("FLASHPLUS_PTXAS", X_OK, Word::Searched, "cannot be run");
  e.path = v.value("PATH");
  e.cuda_target = v.value("FLASHPLUS_CUDA_TARGET");
  e.cpu_target = v.value("FLASHPLUS_CPU_TARGET");
  e.cuda_shared_memory = v.positive("FLASHPLUS_CUDA_SHARED_MEMORY");
  e.tuning = v.existing("FLASHPLUS_TUNING", R_OK, Word::File, "cannot be read, so that no record is used");
  e.log = v.value("FLASHPLUS_LOG");
  e.debug_kernels = v.value("FLASHPLUS_DEBUG_KERNELS");
  e.debug_values = v.value("FLASHPLUS_DEBUG_VALUES");
  e.record_misses = v.value("FLASHPLUS_RECORD_MISSES");
  e.late_compile = v.value("FLASHPLUS_LATE_COMPILE");
  e.compile_in_process = v.flag("FLASHPLUS_COMPILE_IN_PROCESS");
  e.compile_bytes = v.bytes("FLASHPLUS_COMPILE_MEMORY");
  e.compile_seconds = v.seconds("FLASHPLUS_COMPILE_SECONDS");
  e.num_threads = v.positive("FLASHPLUS_NUM_THREADS");
  if (e.num_threads > kMaxThreads) {
    e.problems.push_back("$FLASHPLUS_NUM_THREADS is " + std::to_string(e.num_threads) + "; at most " +
                         std::to_string(kMaxThreads) + " are used");
    e.num_threads = kMaxThreads;
  }
  if (!::getauxval(AT_SECURE))
    v.sayUnknown();
  return e;
}

} // namespace flashplus
