// SPDX-License-Identifier: BSD-3-Clause
#include "ir/ptx.h"

using namespace mlir;

namespace flashplus::gpu {

Vals ptx(Ir &ir, const std::string &text, const std::string &constraints, ArrayRef<Type> results,
         const Vals &operands) {
  SmallVector<Value> values;
  for (Val v : operands)
    values.push_back(v.value);
  Type type;
  if (results.size() == 1)
    type = results[0];
  else if (results.size() > 1)
    type = LLVM::LLVMStructType::getLiteral(ir.builder.getContext(), results);
  auto op = LLVM::InlineAsmOp::create(
      ir.builder, ir.loc, type, values, text, constraints, /*has_side_effects=*/true,
      /*is_align_stack=*/false, LLVM::tailcallkind::TailCallKind::None, LLVM::AsmDialectAttr(), ArrayAttr());
  Vals out;
  if (results.size() == 1)
    out.push_back(ir.wrap(op.getRes()));
  for (size_t i = 0; results.size() > 1 && i < results.size(); ++i)
    out.push_back(ir.wrap(LLVM::ExtractValueOp::create(ir.builder, ir.loc, op.getRes(), int64_t(i))));
  return out;
}

void ptx(Ir &ir, const std::string &text, const std::string &constraints, const Vals &operands) {
  ptx(ir, text, constraints, {}, operands);
}

std::string repeat(const std::string &item, int count) {
  std::string text;
  for (int i = 0; i < count; ++i)
    text += (i ? "," : "") + item;
  return text;
}

std::string registers(int first, int count) {
  std::string text = "{";
  for (int i = 0; i < count; ++i)
    text += (i ? ", $" : "$") + std::to_string(first + i);
  return text + "}";
}

} // namespace flashplus::gpu
