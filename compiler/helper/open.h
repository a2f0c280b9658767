// SPDX-License-Identifier: BSD-3-Clause
// Opening libflashplus-compiler.so, by the runtime or its helper.
#pragma once

#include "build_id.h"
#include "compiler/entry.h"

#include <dlfcn.h>
#include <string>

namespace flashplus {

/// The table of the library at `path`; null, and `problem` is a sentence, if it is missing, or of another
/// build or interface. It stays open for the life of the process.
inline const flashplus_compiler_table *openCompiler(const std::string &path, std::string &problem) {
  void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char *why = dlerror();
    problem = std::string("the compiler library cannot be opened: ") + (why ? why : path);
    return nullptr;
  }
  auto entry = reinterpret_cast<flashplus_compiler_fn>(dlsym(library, FLASHPLUS_COMPILER_ENTRY));
  const flashplus_compiler_table *table = entry ? entry() : nullptr;
  std::string wrong;
  if (!table)
    wrong = "it has no entry " FLASHPLUS_COMPILER_ENTRY;
  else if (table->abi != FLASHPLUS_COMPILER_ABI)
    wrong = "its interface is version " + std::to_string(table->abi) + ", not " +
            std::to_string(FLASHPLUS_COMPILER_ABI);
  else if (std::string(table->build_id) != FLASHPLUS_BUILD_ID)
    wrong =
        std::string("it is build ") + table->build_id + " and this runtime needs build " FLASHPLUS_BUILD_ID;
  if (wrong.empty())
    return table;
  dlclose(library);
  problem = "the compiler library " + path + " cannot be used: " + wrong;
  return nullptr;
}

} // namespace flashplus
