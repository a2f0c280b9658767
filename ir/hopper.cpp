// SPDX-License-Identifier: BSD-3-Clause
#include "ir/hopper.h"

using namespace mlir;

namespace flashplus::hopper {
namespace {

/// Inline PTX with side effects. The lowering marks it convergent (compiler/compiler.cpp).
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
  auto op = LLVM::InlineAsmOp::create(ir.builder, ir.loc, type, values, text, constraints, /*has_side_effects=*/true,
                                      /*is_align_stack=*/false, LLVM::tailcallkind::TailCallKind::None,
                                      LLVM::AsmDialectAttr(), ArrayAttr());
  Vals out;
  if (results.size() == 1)
    out.push_back(ir.wrap(op.getRes()));
  for (size_t i = 0; results.size() > 1 && i < results.size(); ++i)
    out.push_back(ir.wrap(LLVM::ExtractValueOp::create(ir.builder, ir.loc, op.getRes(), int64_t(i))));
  return out;
}

void ptx(Ir &ir, const std::string &text, const std::string &constraints = "~{memory}", const Vals &operands = {}) {
  ptx(ir, text, constraints, {}, operands);
}

std::string repeat(const std::string &item, int count) {
  std::string text;
  for (int i = 0; i < count; ++i)
    text += (i ? "," : "") + item;
  return text;
}

/// "{$first, ..., $(first + count - 1)}"
std::string registers(int first, int count) {
  std::string text = "{";
  for (int i = 0; i < count; ++i)
    text += (i ? ", $" : "$") + std::to_string(first + i);
  return text + "}";
}

std::string product(DType dtype, int n) {
  const std::string type = dtype == DType::F16 ? "f16" : "bf16";
  return "wgmma.mma_async.sync.aligned.m64n" + std::to_string(n) + "k16.f32." + type + "." + type + " ";
}

} // namespace

Val sharedAddress(Ir &ir, Val pointer) {
  return ir.wrap(LLVM::PtrToIntOp::create(ir.builder, ir.loc, ir.i32(), pointer.value));
}

Val uniform(Ir &ir, Val value) {
  return ir.wrap(NVVM::ShflOp::create(ir.builder, ir.loc, ir.i32(), ir.i32(-1).value, value.value, ir.i32(0).value,
                                      ir.i32(31).value, NVVM::ShflKind::idx, UnitAttr()));
}

Val uniformWarp(Ir &ir, Val thread) { return uniform(ir, thread / 32); }

Val electOne(Ir &ir) {
  Val chosen = ptx(ir, "{ .reg .pred p; elect.sync _|p, 0xffffffff; selp.b32 $0, 1, 0, p; }", "=r", {ir.i32()}, {})[0];
  return chosen != 0;
}


void increaseRegisters(Ir &ir, int count) {
  ptx(ir, "setmaxnreg.inc.sync.aligned.u32 " + std::to_string(count) + ";");
}
void decreaseRegisters(Ir &ir, int count) {
  ptx(ir, "setmaxnreg.dec.sync.aligned.u32 " + std::to_string(count) + ";");
}

void barrierSync(Ir &ir, Val id, int threads) {
  ptx(ir, "bar.sync $0, " + std::to_string(threads) + ";", "r,~{memory}", {id});
}
void barrierArrive(Ir &ir, Val id, int threads) {
  ptx(ir, "bar.arrive $0, " + std::to_string(threads) + ";", "r,~{memory}", {id});
}

void initBarrier(Ir &ir, Val barrier, int arrivals) {
  ptx(ir, "mbarrier.init.shared::cta.b64 [$0], " + std::to_string(arrivals) + ";", "r,~{memory}", {barrier});
}
void fenceBarrierInit(Ir &ir) { ptx(ir, "fence.mbarrier_init.release.cluster;"); }
void arrive(Ir &ir, Val barrier, Val predicate) {
  // Predicated and not branched over: a branch would have to reconverge.
  Val number = ir.wrap(arith::ExtUIOp::create(ir.builder, ir.loc, ir.i32(), predicate.value));
  ptx(ir, "{ .reg .pred p; setp.ne.b32 p, $1, 0; @p mbarrier.arrive.shared::cta.b64 _, [$0]; }", "r,r,~{memory}",
      {barrier, number});
}
void arriveExpect(Ir &ir, Val barrier, int bytes) {
  ptx(ir, "mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], " + std::to_string(bytes) + ";", "r,~{memory}",
      {barrier});
}
void waitBarrier(Ir &ir, Val barrier, Val parity) {
  ptx(ir,
      "{ .reg .pred p;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 p, [$0], $1;\n"
      "@p bra done;\n"
      "bra again;\n"
      "done: }",
      "r,r,~{memory}", {barrier, parity});
}

void loadBox(Ir &ir, Val shared, Val map, const Vals &coordinates, Val barrier, Keep keep) {
  std::string text = "cp.async.bulk.tensor." + std::to_string(coordinates.size()) +
                     "d.shared::cluster.global.tile.mbarrier::complete_tx::bytes";
  if (keep != Keep::Normal)
    text += ".L2::cache_hint";
  text += " [$0], [$1, " + registers(3, int(coordinates.size())) + "], [$2]";
  // Cache policies as createpolicy.fractional with fraction 1 makes them (CUTLASS names the same two constants).
  if (keep == Keep::First)
    text = "{ .reg .b64 policy; mov.b64 policy, 0x12F0000000000000; " + text + ", policy; }";
  else if (keep == Keep::Last)
    text = "{ .reg .b64 policy; mov.b64 policy, 0x14F0000000000000; " + text + ", policy; }";
  else
    text += ";";
  Vals operands{shared, map, barrier};
  operands.insert(operands.end(), coordinates.begin(), coordinates.end());
  ptx(ir, text, "r,l,r," + repeat("r", int(coordinates.size())) + ",~{memory}", operands);
}

void prefetchMap(Ir &ir, Val map) { ptx(ir, "prefetch.tensormap [$0];", "l,~{memory}", {map}); }

void fenceAsyncShared(Ir &ir) { ptx(ir, "fence.proxy.async.shared::cta;"); }

namespace {

constexpr uint64_t kSwizzle128 = uint64_t(1) << 62;

/// Address and byte offsets are encoded without their lowest four bits.
Val descriptor(Ir &ir, Val address, uint64_t leading_bytes, uint64_t stride_bytes) {
  const uint64_t fixed = kSwizzle128 | (stride_bytes >> 4) << 32 | (leading_bytes >> 4) << 16;
  Val low = ir.wrap(arith::ExtUIOp::create(ir.builder, ir.loc, ir.i64(), (address / 16).value));
  Val high = ir.wrap(arith::ConstantOp::create(ir.builder, ir.loc, ir.builder.getI64IntegerAttr(int64_t(fixed))));
  return low | high;
}

/// "$base + bytes" into a register named `name`.
std::string stepDescriptor(const char *name, int operand, int bytes) {
  return "add.s64 " + std::string(name) + ", $" + std::to_string(operand) + ", " + std::to_string(bytes / 16) + "; ";
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
                           ArrayRef<int> b_steps) {
  const int count = n / 2;
  std::string text = "{ .reg .b64 da, db; wgmma.fence.sync.aligned; ";
  for (int i = 0; i < steps; ++i)
    text += stepDescriptor("da", count, a_steps[i]) + stepDescriptor("db", count + 1, b_steps[i]) +
            product(dtype, n) + registers(0, count) + ", da, db, " + (i ? "1" : "0") + ", 1, 1, 0, 0; ";
  text += "wgmma.commit_group.sync.aligned; }";
  SmallVector<Type> types(count, ir.f32());
  return {ptx(ir, text, repeat("=f", count) + ",l,l,~{memory}", types, {a, b}), {}};
}

InFlight productFromRegisters(Ir &ir, DType dtype, int n, Vals d, const Vals &a, Val b, ArrayRef<int> b_steps) {
  const int count = n / 2, steps = int(b_steps.size()), first_a = 2 * count;
  const int descriptor_operand = first_a + int(a.size());
  assert(int(a.size()) == 4 * steps && int(d.size()) == count);
  std::string text = "{ .reg .b64 db; wgmma.fence.sync.aligned; ";
  for (int i = 0; i < steps; ++i)
    text += stepDescriptor("db", descriptor_operand, b_steps[i]) + product(dtype, n) + registers(0, count) + ", " +
            registers(first_a + 4 * i, 4) + ", db, 1, 1, 1, 1; ";
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
  // Every value that must not be touched earlier goes through the instruction, so that nothing can move above it.
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
  Vals out = ptx(ir, "wgmma.wait_group.sync.aligned " + std::to_string(pending) + ";", constraints + ",~{memory}",
                 types, operands);
  if (after)
    after->assign(out.begin() + count, out.end());
  out.resize(count);
  return out;
}

void computeBeforeWait(Ir &ir, Val value) {
  ptx(ir,
      "{ .reg .pred p, any; .reg .b32 x; mov.b32 x, $0; setp.eq.b32 p, x, 0x7f123456; "
      "vote.sync.any.pred any, p, 0xffffffff; @any nanosleep.u32 0; }",
      "f,~{memory}", {value});
}

void Pipeline::init(int producers, int consumers) {
  for (int i = 0; i < stages_; ++i) {
    initBarrier(ir_, barriers_ + 8 * i, producers);
    initBarrier(ir_, barriers_ + 8 * (stages_ + i), consumers);
  }
}

Position Pipeline::next(Position p) {
  if (stages_ == 1)
    return {p.stage, p.phase ^ 1};
  Val last = p.stage == stages_ - 1;
  return {ir_.select(last, ir_.i32(0), p.stage + 1), ir_.select(last, p.phase ^ 1, p.phase)};
}

} // namespace flashplus::hopper
