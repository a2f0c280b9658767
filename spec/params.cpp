// SPDX-License-Identifier: BSD-3-Clause
#include "spec/params.h"

namespace flashplus {
namespace {

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

struct PartStart {
  ParamPart part;
  std::string_view first_field;
};
constexpr PartStart kPartStarts[] = {{ParamPart::PagedKeys, "page_size"},
                                     {ParamPart::ClampedIndices, "aux_last"}};

} // namespace

ParamLayout paramLayout(std::span<const ParamInfo> fields, size_t size, const ParamParts &parts) {
  size_t end = fields.size();
  for (const PartStart &part : kPartStarts) { // from the last part to the first
    if (parts.has(part.part))
      break;
    for (size_t i = 0; i < end; ++i)
      if (fields[i].name == part.first_field)
        end = i;
  }
  if (end == fields.size())
    return {fields, size};
  const size_t bytes = fields[end].offset; // of a struct: a multiple of its alignment
  return {fields.first(end), (bytes + 7) / 8 * 8};
}

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
