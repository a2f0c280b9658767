// SPDX-License-Identifier: BSD-3-Clause
#include "spec/params.h"

namespace flashplus {
namespace {

#define FLASHPLUS_PARAM_ROW(TYPE, NAME, COUNT) {#NAME, ParamType::TYPE, COUNT, offsetof(Struct, NAME)},
#define FLASHPLUS_PARAM_BYTES(TYPE, NAME, COUNT) +sizeof(detail::ParamCType<ParamType::TYPE>::type) * (COUNT)

template <class> struct Table;
template <> struct Table<ForwardParams> {
  using Struct = ForwardParams;
  static constexpr ParamInfo rows[] = {FLASHPLUS_FORWARD_PARAMS(FLASHPLUS_PARAM_ROW)};
  static constexpr size_t bytes = 0 FLASHPLUS_FORWARD_PARAMS(FLASHPLUS_PARAM_BYTES);
};
template <> struct Table<CombineParams> {
  using Struct = CombineParams;
  static constexpr ParamInfo rows[] = {FLASHPLUS_COMBINE_PARAMS(FLASHPLUS_PARAM_ROW)};
  static constexpr size_t bytes = 0 FLASHPLUS_COMBINE_PARAMS(FLASHPLUS_PARAM_BYTES);
};

// No padding inside, at most some at the end: two compilers cannot disagree on the offsets.
static_assert(sizeof(ForwardParams) - Table<ForwardParams>::bytes < 8);
static_assert(sizeof(CombineParams) - Table<CombineParams>::bytes < 8);

/// A struct's size: a multiple of its alignment.
constexpr size_t padded(size_t bytes) { return (bytes + 7) / 8 * 8; }

const char *typeName(ParamType type) {
  switch (type) {
  case ParamType::Ptr:
    return "ptr";
  case ParamType::I64:
    return "i64";
  case ParamType::I32:
    return "i32";
  case ParamType::F32:
    return "f32";
  }
  return "";
}

} // namespace

std::span<const ParamInfo> forwardParamTable() { return Table<ForwardParams>::rows; }
std::span<const ParamInfo> combineParamTable() { return Table<CombineParams>::rows; }

ParamLayout forwardParamLayout(bool clamps_indices) {
  const std::span<const ParamInfo> all = forwardParamTable();
  if (clamps_indices)
    return {all, sizeof(ForwardParams)};
  return {all.first(all.size() - 1), padded(offsetof(ForwardParams, aux_last))};
}

ParamLayout combineParamLayout() { return {combineParamTable(), sizeof(CombineParams)}; }

std::string paramLayoutText(std::span<const ParamInfo> table, size_t size) {
  std::string text;
  for (const ParamInfo &field : table) {
    text += std::string(field.name) + ":" + typeName(field.type);
    if (field.count != 1)
      text += "[" + std::to_string(field.count) + "]";
    text += "@" + std::to_string(field.offset) + " ";
  }
  return text + "size=" + std::to_string(size);
}

} // namespace flashplus
