// SPDX-License-Identifier: BSD-3-Clause
// Maps a self-contained, position-independent x86-64 ELF object without LLVM: what the compiler emits and the
// cache stores. Everything read from the object is checked; a bad one is a Status.
#pragma once

#include "spec/status.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace flashplus {

/// A function in memory, as its symbol says; `size` is 0 if the symbol has none, and never passes the end of
/// the code.
struct LoadedFunction {
  std::string name;
  const uint8_t *address = nullptr;
  size_t size = 0;
};

/// Code in memory; unmapped with the object.
class LoadedObject {
public:
  static Result<std::unique_ptr<LoadedObject>> load(std::span<const uint8_t> object);
  ~LoadedObject();

  /// Address of a defined global function; null if there is none of that name.
  void *find(std::string_view name) const;

  /// Every named function, local ones too.
  const std::vector<LoadedFunction> &functions() const;

  /// `object`, the bytes that this was loaded from, as a symbol file for a debugger: each section that is in
  /// memory carries its address there (sh_addr).
  std::vector<uint8_t> symbolFile(std::span<const uint8_t> object) const;

  LoadedObject(const LoadedObject &) = delete;
  LoadedObject &operator=(const LoadedObject &) = delete;

private:
  LoadedObject() = default;
  struct Symbols;
  std::unique_ptr<Symbols> symbols_;
  uint8_t *base_ = nullptr;
  size_t size_ = 0;
};

} // namespace flashplus
