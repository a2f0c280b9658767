// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "emulator/isa/builder.h"

namespace flashplus::emu {

enum class FloatOp : uint8_t {
  Add,
  Sub,
  Mul,
  Fma,
  Min,
  Max,
  Neg,
  Abs,
  Div,
  Rcp,
  Sqrt,
  Rsqrt,
  Exp2,
  Log2,
  Tanh,
  Sin,
  Cos
};

/// Modifiers, type and `sources` operands of a floating point instruction.
void decodeFloat(Builder &b, FloatOp op, size_t sources);

} // namespace flashplus::emu
