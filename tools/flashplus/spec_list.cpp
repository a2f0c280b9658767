// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/spec_list.h"

#include "spec/kernel_spec.h"
#include "spec/schedule.h"
#include "spec/target.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>
#include <tuple>

namespace flashplus::tool {

namespace {

constexpr size_t kMostBytes = size_t(16) << 20; ///< Of a file of specs; one of a thousand misses has 0.2 MB.

} // namespace

Result<NamedSpec> readSpec(const std::string &where, const std::string &text) {
  Result<KernelSpec> spec = KernelSpec::parse(text);
  if (!spec)
    return invalidArgument(where + ": " + spec.status().message());
  if (Status valid = spec->validate(); !valid)
    return invalidArgument(where + ": " + valid.message());
  return NamedSpec{spec->text(), "", ""};
}

namespace {

Result<NamedSpec> readLine(const std::string &where, const std::string &line) {
  std::vector<std::string> fields(1);
  for (char c : line)
    if (c == '\t')
      fields.emplace_back();
    else
      fields.back() += c;
  Result<NamedSpec> named = readSpec(where, fields[0]);
  if (!named || fields.size() == 1)
    return named;
  if (fields.size() != 3)
    return invalidArgument(where + ": has " + std::to_string(fields.size()) +
                           " fields between tabs; it must have 1 (spec) or 3 (spec, schedule, target)");
  Result<Schedule> schedule = Schedule::parse(fields[1]);
  if (!schedule)
    return invalidArgument(where + ": " + schedule.status().message());
  Result<Target> target = Target::parse(fields[2]);
  if (!target)
    return invalidArgument(where + ": " + target.status().message());
  named->schedule = schedule->text();
  named->target = target->text();
  return named;
}

} // namespace

Result<std::vector<NamedSpec>> readSpecFile(const std::string &path) {
  // A pipe is as good as a file (--specs <(...)), but neither is read for ever.
  std::ifstream in(path);
  std::string text, chunk(1 << 16, '\0');
  while (in.read(chunk.data(), std::streamsize(chunk.size())) || in.gcount() > 0) {
    text.append(chunk, 0, size_t(in.gcount()));
    if (text.size() > kMostBytes)
      return invalidArgument("--specs: '" + path + "' has more than " + std::to_string(kMostBytes >> 20) +
                             " MiB");
  }
  if (!in.eof())
    return invalidArgument("--specs: '" + path + "' cannot be read: " + std::strerror(errno));
  std::vector<NamedSpec> specs;
  std::set<std::tuple<std::string, std::string, std::string>> known;
  std::istringstream lines(std::move(text));
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    if (line.ends_with('\r'))
      line.pop_back();
    if (line.empty() || line.starts_with('#'))
      continue;
    Result<NamedSpec> named = readLine("--specs: " + path + ", line " + std::to_string(number), line);
    if (!named)
      return named.status();
    if (known.emplace(named->spec, named->schedule, named->target).second)
      specs.push_back(std::move(*named));
  }
  return specs;
}

} // namespace flashplus::tool
