// SPDX-License-Identifier: BSD-3-Clause
// Any bytes as the text of a spec, a schedule or a target: refused with a message, or a value whose own text
// brings it back.
#include "spec/kernel_spec.h"
#include "spec/schedule.h"
#include "spec/target.h"
#include "tests/fuzz/seeds.h"

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

std::vector<std::string> seeds() {
  return {
      "forward dtype=bf16 dqk=128 dv=64 left=0 right=1 split=0 align=16 score={s}",
      "forward dtype=fp32 dqk=33 dv=33 left=1 right=1 split=1 align=4 score={p0 * tanh(s / p0) - t0[b, h]}",
      "forward dtype=bf16 dtype_kv=fp16 dqk=64 dv=64 left=1 results=merged",
      "combine dtype=fp16 dv=128 align=2",
      "cpu.flash mr=6 nr=2 tile_m=96 tile_n=64",
      "sm80.flash tile_m=128 tile_n=64 warps=4",
      "x86-64-v4",
      "sm_80@sm_90",
      "sm_80"};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const std::string_view text(reinterpret_cast<const char *>(data), size);
  check<KernelSpec>(text);
  check<Schedule>(text);
  check<Target>(text);
  if (auto spec = KernelSpec::parse(text))
    require(spec->validate().isOk());
  return 0;
}
