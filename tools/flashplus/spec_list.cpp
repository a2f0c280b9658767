// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/spec_list.h"

#include "spec/kernel_spec.h"
#include "spec/schedule.h"
#include "spec/target.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

namespace flashplus::tool {

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
  std::ifstream in(path);
  std::vector<NamedSpec> specs;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    if (line.ends_with('\r'))
      line.pop_back();
    if (line.empty() || line.starts_with('#'))
      continue;
    Result<NamedSpec> named = readLine("--specs: " + path + ", line " + std::to_string(number), line);
    if (!named)
      return named.status();
    if (std::ranges::find(specs, *named) == specs.end())
      specs.push_back(std::move(*named));
  }
  if (!in.eof())
    return invalidArgument("--specs: '" + path + "' cannot be read: " + std::strerror(errno));
  return specs;
}

} // namespace flashplus::tool
