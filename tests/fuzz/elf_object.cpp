// SPDX-License-Identifier: BSD-3-Clause
// Any bytes as a compiled x86 object: refused with a message, or mapped with every function inside the
// mapping's code. Nothing of it is run.
#include "runtime/devices/cpu/elf_loader.h"
#include "tests/fuzz/seeds.h"
#include "tests/unit/runtime/object_builder.h"

#include <cstdlib>

using namespace flashplus;

std::vector<std::string> seeds() {
  auto big = test::answerObject();
  const size_t zeros = big.add(SHT_NOBITS, SHF_ALLOC | SHF_WRITE, {});
  big.sections[zeros].header.sh_size = 5000;
  return {seedOf(test::answerObject().finish()),
          seedOf(test::countingKernel("flashplus_forward_fp32_d64", true)), seedOf(big.finish())};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  auto loaded = LoadedObject::load({data, size});
  if (!loaded) {
    if (loaded.status().message().empty())
      std::abort();
    return 0;
  }
  for (const char *name : {"answer", "flashplus_forward_fp32_d64", ""})
    if (const auto *code = static_cast<const volatile uint8_t *>((*loaded)->find(name)))
      (void)*code; // mapped
  return 0;
}
