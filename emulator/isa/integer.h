// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "emulator/isa/builder.h"

namespace flashplus::emu {

enum class IntegerOp : uint8_t {
  Add,
  Sub,
  Min,
  Max,
  And,
  Or,
  Xor,
  MulLow,
  MulHigh,
  Neg,
  Not,
  Abs,
  MadLow,
  MadHigh,
  Shl,
  Shr,
  MinRelu,
  MaxRelu
};

/// The type and `sources` operands of an arithmetic instruction whose other modifiers are taken.
void decodeInteger(Builder &b, IntegerOp op, size_t sources);
void decodeIntegerDivide(Builder &b, bool remainder);
/// mul or mad, from .lo/.hi/.wide on.
void decodeMultiply(Builder &b, bool add);

} // namespace flashplus::emu
