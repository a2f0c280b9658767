// SPDX-License-Identifier: BSD-3-Clause
// Kernel -> attn op -> kernel, field by field from the table of spec/fields.h; no field is named here. The
// round trip is tested for every field (tests/ir).
#include "ir/dialect/Attn.h"

using namespace mlir;

namespace flashplus::attn {
namespace {

FloatType storageType(MLIRContext *context, DType dtype) {
  switch (dtype) {
  case DType::F16:
    return Float16Type::get(context);
  case DType::BF16:
    return BFloat16Type::get(context);
  case DType::F32:
    break;
  }
  return Float32Type::get(context);
}

std::string_view dtypeNameOf(Type type) {
  return type.isF16()    ? dtypeName(DType::F16)
         : type.isBF16() ? dtypeName(DType::BF16)
         : type.isF32()  ? dtypeName(DType::F32)
                         : "";
}

Attribute toAttribute(Builder &builder, const SpecFieldInfo &field, int64_t value) {
  switch (field.kind) {
  case SpecFieldInfo::Kind::Flag:
    return value ? builder.getUnitAttr() : UnitAttr();
  case SpecFieldInfo::Kind::Integer:
    return builder.getI64IntegerAttr(value);
  case SpecFieldInfo::Kind::Word:
    break;
  }
  const std::string_view word = field.words[size_t(value)];
  if (auto dtype = parseDType(word); dtype && field.is_dtype)
    return TypeAttr::get(storageType(builder.getContext(), *dtype));
  return builder.getStringAttr(word);
}

/// -1 for an attribute of another kind than the field's, or a value that it does not have.
int64_t fromAttribute(const SpecFieldInfo &field, Attribute attribute) {
  if (field.kind == SpecFieldInfo::Kind::Flag)
    return isa<UnitAttr>(attribute) ? 1 : -1;
  if (field.kind == SpecFieldInfo::Kind::Integer) {
    auto integer = dyn_cast<IntegerAttr>(attribute);
    // validate() has more to say of a value than that it is outside; here it need only be one that an int
    // holds.
    return integer && integer.getValue().isSignedIntN(32) ? integer.getInt() : -1;
  }
  std::string_view word;
  if (auto type = dyn_cast<TypeAttr>(attribute); type && field.is_dtype)
    word = dtypeNameOf(type.getValue());
  else if (auto text = dyn_cast<StringAttr>(attribute))
    word = std::string_view(text.getValue());
  for (size_t i = 0; i < field.words.size(); ++i)
    if (field.words[i] == word)
      return int64_t(i);
  return -1;
}

const OperationInfo *infoOf(mlir::Operation *op) {
  if (op->getName().getDialectNamespace() != "attn")
    return nullptr;
  const auto known = parseOperation(std::string_view(op->getName().stripDialect()));
  return known ? &operationInfo(*known) : nullptr;
}

constexpr llvm::StringLiteral kSchedule = "schedule", kTarget = "target";

Result<std::string_view> textOf(mlir::Operation *op, StringRef name) {
  if (auto text = op->getAttrOfType<StringAttr>(name))
    return std::string_view(text.getValue());
  return invalidArgument("attribute '" + name.str() + "' is missing or not a string");
}

} // namespace

mlir::Operation *buildOp(ModuleOp module, const Kernel &kernel) {
  OpBuilder builder = OpBuilder::atBlockEnd(module.getBody());
  const OperationInfo &info = operationInfo(kernel.spec.op);
  OperationState state(builder.getUnknownLoc(), "attn." + std::string(info.name));
  state.addAttribute(SymbolTable::getSymbolAttrName(), builder.getStringAttr(kernelName(kernel.spec)));
  for (const SpecFieldInfo &field : specFields())
    if (const int64_t value = field.get(kernel.spec);
        field.isIn(info) && (field.required || value != field.standard))
      if (Attribute attribute = toAttribute(builder, field, value))
        state.addAttribute(StringRef(field.member), attribute);
  state.addAttribute(kSchedule, builder.getStringAttr(kernel.schedule.text()));
  state.addAttribute(kTarget, builder.getStringAttr(kernel.target.text()));
  if (info.hasScore())
    buildScore(*state.addRegion(), state.location, kernel.spec.score, info.score, kernel.spec.score_grads);
  return builder.create(state);
}

bool isKernel(mlir::Operation *op) { return infoOf(op) != nullptr; }

Result<Kernel> describeOpWithoutScore(mlir::Operation *op) {
  const OperationInfo *info = infoOf(op);
  if (!info)
    return invalidArgument("'" + op->getName().getStringRef().str() + "' is not a kernel");
  Kernel kernel;
  kernel.spec.op = info->op;
  FieldSet known = 0;
  for (const SpecFieldInfo &field : specFields()) {
    Attribute attribute = op->getAttr(StringRef(field.member));
    if (!attribute || !field.isIn(*info))
      continue;
    known |= fieldSet({field.id});
    const int64_t value = fromAttribute(field, attribute);
    if (value < 0)
      return invalidArgument(
          "attribute '" + std::string(field.member) + "' must be " +
          (field.kind == SpecFieldInfo::Kind::Flag ? "a unit attribute" : field.allowed()));
    field.set(kernel.spec, value);
  }
  for (const NamedAttribute &attribute : op->getDiscardableAttrs()) {
    const StringRef name = attribute.getName();
    const bool is_field = llvm::any_of(specFields(), [&](const SpecFieldInfo &field) {
      return StringRef(field.member) == name && (known & fieldSet({field.id}));
    });
    if (!is_field && !name.contains('.')) // an attribute of some dialect's is none of ours
      return invalidArgument("attribute '" + name.str() + "' is not a field of attn." +
                             std::string(info->name));
  }
  auto schedule_text = textOf(op, kSchedule);
  if (!schedule_text)
    return schedule_text.status();
  auto target_text = textOf(op, kTarget);
  if (!target_text)
    return target_text.status();
  auto schedule = Schedule::parse(*schedule_text);
  if (!schedule)
    return schedule.status();
  auto target = Target::parse(*target_text);
  if (!target)
    return target.status();
  kernel.schedule = std::move(*schedule);
  kernel.target = *target;
  return kernel;
}

Result<Kernel> describeOp(mlir::Operation *op) {
  auto kernel = describeOpWithoutScore(op);
  if (!kernel || !operationInfo(kernel->spec.op).hasScore())
    return kernel;
  auto score = readScore(op->getRegion(0));
  if (!score)
    return score.status();
  kernel->spec.score = std::move(*score);
  return kernel;
}

} // namespace flashplus::attn
