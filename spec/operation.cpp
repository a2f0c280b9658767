// SPDX-License-Identifier: BSD-3-Clause
#include "spec/operation.h"

#include "spec/fields.h"
#include "spec/made_once.h"
#include "spec/params.h"

#include <string>

namespace flashplus {
namespace {

template <Operand... operands> struct OperandList {
  static constexpr std::array<Operand, sizeof...(operands)> list = {operands...};
};

constexpr OperationInfo kOperations[] = {
#define FLASHPLUS_OPERATION_ROW(ENUMERATOR, NAME, PARAMS, FIELDS, SCORE, ...)                                \
  {Operation::ENUMERATOR,         NAME, paramTable<PARAMS>(), sizeof(PARAMS), FIELDS, SCORE,                 \
   OperandList<__VA_ARGS__>::list},
    FLASHPLUS_OPERATIONS(FLASHPLUS_OPERATION_ROW)
#undef FLASHPLUS_OPERATION_ROW
};

} // namespace

const OperationInfo &operationInfo(Operation op) { return kOperations[int(op)]; }

std::optional<Operation> parseOperation(std::string_view name) {
  for (const OperationInfo &info : kOperations)
    if (info.name == name)
      return info.op;
  return std::nullopt;
}

std::string_view operationNames() {
  static constinit MadeOnce<const std::string> names;
  return names.from([] {
    std::string text;
    for (const OperationInfo &info : kOperations)
      text += (text.empty() ? "" : ", ") + std::string(info.name);
    return std::make_unique<const std::string>(std::move(text));
  });
}

} // namespace flashplus
