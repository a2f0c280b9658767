// SPDX-License-Identifier: BSD-3-Clause
#include "ir/wgmma.h"

#include "ir/ptx.h"

using namespace mlir;

namespace flashplus::gpu {

namespace {

std::string product(DType dtype, int n) {
  const std::string type = dtype == DType::F16 ? "f16" : "bf16";
  return "wgmma.mma_async.sync.aligned.m64n" + std::to_string(n) + "k16.f32." + type + "." + type + " ";
}

constexpr uint64_t kSwizzle128 = uint64_t(1) << 62;

/// Address and byte offsets are encoded without their lowest four bits.
Val descriptor(Ir &ir, Val address, uint64_t leading_bytes, uint64_t stride_bytes) {
  const uint64_t fixed = kSwizzle128 | (stride_bytes >> 4) << 32 | (leading_bytes >> 4) << 16;
  Val low = ir.wrap(arith::ExtUIOp::create(ir.builder, ir.loc, ir.i64(), (address / 16).value));
  Val high =
      ir.wrap(arith::ConstantOp::create(ir.builder, ir.loc, ir.builder.getI64IntegerAttr(int64_t(fixed))));
  return low | high;
}

/// "$base + bytes" into a register named `name`.
std::string stepDescriptor(const char *name, int operand, int bytes) {
  return "add.s64 " + std::string(name) + ", $" + std::to_string(operand) + ", " +
         std::to_string(bytes / 16) + "; ";
}

} // namespace

// Between groups of 8 rows lie 8 * 128 bytes; the leading offset is not used with K contiguous.
Val descriptorRowsContiguousInK(Ir &ir, Val address) { return descriptor(ir, address, 16, 1024); }
Val descriptorColumnsAreN(Ir &ir, Val address, int slab_bytes) {
  return descriptor(ir, address, uint64_t(slab_bytes), 1024);
}

InFlight::InFlight(InFlight &&other) noexcept
    : values_(std::move(other.values_)), operands_(std::move(other.operands_)) {
  other.values_.clear();
}

InFlight productFromShared(Ir &ir, DType dtype, int n, int steps, Val a, ArrayRef<int> a_steps, Val b,
                           ArrayRef<int> b_steps, bool columns_are_n) {
  const int count = n / 2;
  std::string text = "{ .reg .b64 da, db; wgmma.fence.sync.aligned; ";
  for (int i = 0; i < steps; ++i)
    text += stepDescriptor("da", count, a_steps[i]) + stepDescriptor("db", count + 1, b_steps[i]) +
            product(dtype, n) + registers(0, count) + ", da, db, " + (i ? "1" : "0") + ", 1, 1, 0, " +
            (columns_are_n ? "1; " : "0; ");
  text += "wgmma.commit_group.sync.aligned; }";
  SmallVector<Type> types(count, ir.f32());
  return {ptx(ir, text, repeat("=f", count) + ",l,l,~{memory}", types, {a, b}), {}};
}

InFlight productFromRegisters(Ir &ir, DType dtype, int n, Vals d, const Vals &a, Val b,
                              ArrayRef<int> b_steps) {
  const int count = n / 2, steps = int(b_steps.size()), first_a = 2 * count;
  const int descriptor_operand = first_a + int(a.size());
  assert(int(a.size()) == 4 * steps && int(d.size()) == count);
  std::string text = "{ .reg .b64 db; wgmma.fence.sync.aligned; ";
  for (int i = 0; i < steps; ++i)
    text += stepDescriptor("db", descriptor_operand, b_steps[i]) + product(dtype, n) + registers(0, count) +
            ", " + registers(first_a + 4 * i, 4) + ", db, 1, 1, 1, 1; ";
  text += "wgmma.commit_group.sync.aligned; }";
  std::string constraints = repeat("=f", count);
  for (int i = 0; i < count; ++i)
    constraints += "," + std::to_string(i);
  constraints += "," + repeat("r", int(a.size())) + ",l,~{memory}";
  Vals operands = std::move(d);
  operands.insert(operands.end(), a.begin(), a.end());
  operands.push_back(b);
  SmallVector<Type> types(count, ir.f32());
  return {ptx(ir, text, constraints, types, operands), a};
}

Vals wait(Ir &ir, int pending, InFlight &&product, Vals *after) {
  // Every value that must not be touched earlier goes through the instruction, so that nothing can move above
  // it.
  Vals tied = std::move(product.values_);
  product.values_.clear();
  const size_t count = tied.size();
  if (after)
    tied.insert(tied.end(), after->begin(), after->end());
  std::string constraints = repeat("=f", int(tied.size()));
  for (size_t i = 0; i < tied.size(); ++i)
    constraints += "," + std::to_string(i);
  Vals operands = tied;
  for (Val a : product.operands_) { // alive until here
    constraints += ",r";
    operands.push_back(a);
  }
  SmallVector<Type> types(tied.size(), ir.f32());
  Vals out = ptx(ir, "wgmma.wait_group.sync.aligned " + std::to_string(pending) + ";",
                 constraints + ",~{memory}", types, operands);
  if (after)
    after->assign(out.begin() + count, out.end());
  out.resize(count);
  return out;
}

std::pair<Vals, Vals> waitBoth(Ir &ir, InFlight &&first, InFlight &&second, int pending) {
  const size_t count = first.values_.size();
  InFlight both(std::move(first));
  llvm::append_range(both.values_, second.values_);
  llvm::append_range(both.operands_, second.operands_);
  second.values_.clear();
  Vals out = wait(ir, pending, std::move(both));
  return {Vals(out.begin(), out.begin() + long(count)), Vals(out.begin() + long(count), out.end())};
}

void computeBeforeWait(Ir &ir, Val value) {
  ptx(ir,
      "{ .reg .pred p, any; .reg .b32 x; mov.b32 x, $0; setp.eq.b32 p, x, 0x7f123456; "
      "vote.sync.any.pred any, p, 0xffffffff; @any nanosleep.u32 0; }",
      "f,~{memory}", {value});
}

} // namespace flashplus::gpu
