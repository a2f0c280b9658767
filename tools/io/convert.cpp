// SPDX-License-Identifier: BSD-3-Clause
#include "tools/io/convert.h"

#include <bit>
#include <cstring>
#include <limits>

namespace flashplus::io {

float halfToFloat(uint16_t bits) {
  uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  uint32_t exponent = (bits >> 10) & 31u;
  uint32_t mantissa = bits & 0x3ffu;
  if (exponent == 31)
    return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent == 0) { // zero or subnormal: an exact multiple of 2^-24
    float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

uint16_t floatToHalf(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u)
    return sign | 0x7e00u;
  if (magnitude >= 0x477ff000u) // 65520 rounds up to 65536, which is infinity
    return sign | 0x7c00u;
  if (magnitude < 0x38800000u) { // below 2^-14: the addition rounds to a multiple of 2^-24
    float scaled = std::bit_cast<float>(magnitude) + 0.5f;
    return sign | static_cast<uint16_t>(std::bit_cast<uint32_t>(scaled) - 0x3f000000u);
  }
  magnitude += 0xfffu + ((magnitude >> 13) & 1u);
  return sign | static_cast<uint16_t>((magnitude >> 13) - (112u << 10));
}

float bfloat16ToFloat(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

uint16_t floatToBfloat16(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u)
    return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

namespace {

template <class T> T load(const Tensor &tensor, int64_t index) {
  T value;
  std::memcpy(&value, tensor.data.data() + static_cast<size_t>(index) * sizeof(T), sizeof(T));
  return value;
}

template <class T> void store(Tensor &tensor, int64_t index, T value) {
  std::memcpy(tensor.data.data() + static_cast<size_t>(index) * sizeof(T), &value, sizeof(T));
}

bool isInteger(ElementType type) { return type == ElementType::I32 || type == ElementType::I64; }

} // namespace

double elementAt(const Tensor &tensor, int64_t index) {
  switch (tensor.type) {
  case ElementType::F16:
    return halfToFloat(load<uint16_t>(tensor, index));
  case ElementType::BF16:
    return bfloat16ToFloat(load<uint16_t>(tensor, index));
  case ElementType::F32:
    return load<float>(tensor, index);
  case ElementType::F64:
    return load<double>(tensor, index);
  case ElementType::I32:
    return load<int32_t>(tensor, index);
  case ElementType::I64:
    return static_cast<double>(load<int64_t>(tensor, index));
  }
  return 0;
}

Result<Tensor> convert(const Tensor &tensor, ElementType to) {
  if (tensor.type == to)
    return tensor;
  if (isInteger(tensor.type) != isInteger(to))
    return invalidArgument("a tensor of " + std::string(elementName(tensor.type)) + " can't be taken as " +
                           std::string(elementName(to)));
  Result<Tensor> made = makeTensor(to, tensor.shape);
  if (!made)
    return made.status();
  Tensor out = std::move(*made);
  int64_t n = tensor.elements();
  for (int64_t i = 0; i < n; ++i) {
    switch (to) {
    case ElementType::F16:
      store(out, i, floatToHalf(static_cast<float>(elementAt(tensor, i))));
      break;
    case ElementType::BF16:
      store(out, i, floatToBfloat16(static_cast<float>(elementAt(tensor, i))));
      break;
    case ElementType::F32:
      store(out, i, static_cast<float>(elementAt(tensor, i)));
      break;
    case ElementType::F64:
      store(out, i, elementAt(tensor, i));
      break;
    case ElementType::I64:
      store(out, i, static_cast<int64_t>(load<int32_t>(tensor, i)));
      break;
    case ElementType::I32: {
      int64_t value = load<int64_t>(tensor, i);
      if (value < std::numeric_limits<int32_t>::min() || value > std::numeric_limits<int32_t>::max())
        return invalidArgument("element " + std::to_string(i) + " = " + std::to_string(value) +
                               " does not fit int32");
      store(out, i, static_cast<int32_t>(value));
      break;
    }
    }
  }
  return out;
}

} // namespace flashplus::io
