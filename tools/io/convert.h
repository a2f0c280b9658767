// SPDX-License-Identifier: BSD-3-Clause
// Conversions between storage types, rounding to nearest even. NaN stays NaN, overflow becomes infinity.
#pragma once

#include "tools/io/tensor.h"

#include <vector>

namespace flashplus::io {

float halfToFloat(uint16_t bits);
uint16_t floatToHalf(float value);
float bfloat16ToFloat(uint16_t bits);
uint16_t floatToBfloat16(float value);

/// Element `index` of a tensor as a double.
double elementAt(const Tensor &tensor, int64_t index);

/// `tensor` as another type. Integers only widen (int32 -> int64) or narrow when every value fits;
/// InvalidArgument says which element does not. Floating types convert among each other.
Result<Tensor> convert(const Tensor &tensor, ElementType to);

} // namespace flashplus::io
