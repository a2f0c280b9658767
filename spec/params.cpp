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

/// 0 for a field that all kernels have.
unsigned groupOf(std::string_view field) {
  if (field == "aux_last")
    return kIndexParams;
  if (field.starts_with("page_") || field == "leftpad_k")
    return kPagedParams;
  if (field == "score_shares" || field == "dscalar" || field.starts_with("daux") || field == "score_part")
    return kScoreGradParams;
  if (field == "sinks" || field == "sink_in_lse")
    return kSinkParams;
  return field.starts_with("drop_") || field.starts_with("rng_") ? kDropoutParams : 0;
}

} // namespace

ParamLayout paramLayout(std::span<const ParamInfo> fields, size_t size, unsigned groups) {
  size_t count = fields.size();
  for (; count > 0; --count)
    if (const unsigned group = groupOf(fields[count - 1].name); group == 0 || (group & groups))
      break;
  if (count == fields.size())
    return {fields, size};
  const size_t bytes = fields[count].offset; // of a struct: a multiple of its alignment
  return {fields.first(count), (bytes + 7) / 8 * 8};
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
