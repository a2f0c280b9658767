// SPDX-License-Identifier: BSD-3-Clause
// Any bytes as the text of a spec, a schedule or a target: refused with a message, or a value whose own text brings it
// back.
#include "spec/kernel_spec.h"
#include "spec/schedule.h"
#include "spec/target.h"

#include <cstdlib>

using namespace flashplus;

namespace {

void require(bool condition) {
  if (!condition)
    std::abort();
}

template <class T> void check(std::string_view text) {
  auto value = T::parse(text);
  if (!value) {
    require(!value.status().message().empty());
    return;
  }
  auto again = T::parse(value->text());
  require(again.isOk() && again->text() == value->text());
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const std::string_view text(reinterpret_cast<const char *>(data), size);
  check<KernelSpec>(text);
  check<Schedule>(text);
  check<Target>(text);
  if (auto spec = KernelSpec::parse(text))
    require(spec->validate().isOk());
  return 0;
}
