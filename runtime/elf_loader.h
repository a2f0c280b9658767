// SPDX-License-Identifier: BSD-3-Clause
// Maps a self-contained, position-independent x86-64 ELF object without LLVM: what the compiler emits and the cache
// stores. Everything read from the object is checked; a bad one is a Status.
#pragma once

#include "spec/status.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

namespace flashplus {

/// Code in memory; unmapped with the object.
class LoadedObject {
public:
  static Result<std::unique_ptr<LoadedObject>> load(std::span<const uint8_t> object);
  ~LoadedObject();

  /// Address of a defined global function; null if there is none of that name.
  void *find(std::string_view name) const;

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
