// SPDX-License-Identifier: BSD-3-Clause
#include "emulator/ptx/ast.h"

namespace flashplus::emu {
namespace {

struct TypeRow {
  Type type;
  const char *name;
  int bits;
};
constexpr TypeRow kTypes[] = {
    {Type::Pred, "pred", 1},  {Type::B8, "b8", 8},        {Type::B16, "b16", 16},
    {Type::B32, "b32", 32},   {Type::B64, "b64", 64},     {Type::B128, "b128", 128},
    {Type::U8, "u8", 8},      {Type::U16, "u16", 16},     {Type::U32, "u32", 32},
    {Type::U64, "u64", 64},   {Type::S8, "s8", 8},        {Type::S16, "s16", 16},
    {Type::S32, "s32", 32},   {Type::S64, "s64", 64},     {Type::F16, "f16", 16},
    {Type::BF16, "bf16", 16}, {Type::F16x2, "f16x2", 32}, {Type::BF16x2, "bf16x2", 32},
    {Type::F32, "f32", 32},   {Type::F64, "f64", 64},
};

} // namespace

int typeBits(Type type) {
  for (const TypeRow &row : kTypes)
    if (row.type == type)
      return row.bits;
  return 0;
}

Type typeNamed(std::string_view text) {
  for (const TypeRow &row : kTypes)
    if (text == row.name)
      return row.type;
  return Type::None;
}

const char *typeName(Type type) {
  for (const TypeRow &row : kTypes)
    if (row.type == type)
      return row.name;
  return "none";
}

bool isFloat(Type type) {
  return type == Type::F16 || type == Type::BF16 || type == Type::F16x2 || type == Type::BF16x2 ||
         type == Type::F32 || type == Type::F64;
}

bool isSigned(Type type) {
  return type == Type::S8 || type == Type::S16 || type == Type::S32 || type == Type::S64;
}

const char *spaceName(Space space) {
  switch (space) {
  case Space::Generic:
    return "generic";
  case Space::Global:
    return "global";
  case Space::Shared:
    return "shared";
  case Space::SharedCluster:
    return "shared::cluster";
  case Space::Local:
    return "local";
  case Space::Param:
    return "param";
  case Space::Const:
    return "const";
  }
  return "?";
}

} // namespace flashplus::emu
