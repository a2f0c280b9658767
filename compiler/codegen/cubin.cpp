// SPDX-License-Identifier: BSD-3-Clause
#include "compiler/codegen/cubin.h"

#include <charconv>

namespace flashplus {
namespace {

/// The number that ends just before `what`, e.g. 12 in "..., 12 bytes spill stores"; -1 if absent.
int numberBefore(std::string_view log, std::string_view what) {
  const size_t at = log.find(what);
  if (at == std::string_view::npos)
    return -1;
  size_t end = at;
  while (end > 0 && log[end - 1] == ' ')
    --end;
  size_t begin = end;
  while (begin > 0 && log[begin - 1] >= '0' && log[begin - 1] <= '9')
    --begin;
  int value = -1;
  std::from_chars(log.data() + begin, log.data() + end, value);
  return value;
}

} // namespace

Resources parseResources(std::string_view log) {
  Resources r;
  r.registers = numberBefore(log, "registers");
  r.stack_bytes = numberBefore(log, "bytes stack frame");
  const int stores = numberBefore(log, "bytes spill stores"), loads = numberBefore(log, "bytes spill loads");
  if (stores >= 0 && loads >= 0)
    r.spill_bytes = stores + loads;
  return r;
}

std::string performanceLoss(std::string_view log) {
  const size_t at = log.find("(C75");
  if (at == std::string_view::npos)
    return {};
  return std::string(log.substr(at, log.find('\n', at) - at));
}

StatusCode refusalCode(std::string_view log) {
  for (std::string_view word : {"emory allocation", "ut of memory", "ad_alloc"})
    if (log.find(word) != std::string_view::npos)
      return StatusCode::OutOfMemory;
  return StatusCode::CompileFailed;
}

} // namespace flashplus
