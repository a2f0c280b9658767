// SPDX-License-Identifier: BSD-3-Clause
#include "compiler/passes/Passes.h"
#include "ir/pch.h"

#include "mlir/Dialect/Math/Transforms/Passes.h"

#include <numbers>

using namespace mlir;

namespace flashplus {
namespace {

using std::numbers::ln2, std::numbers::log2e;

/// Builds the scalar fp32 replacements.
struct Builder {
  PatternRewriter &rewriter;
  Location loc;

  Value constant(double v) {
    return arith::ConstantOp::create(rewriter, loc, rewriter.getF32FloatAttr(float(v)));
  }
  Value mul(Value a, Value b) { return arith::MulFOp::create(rewriter, loc, a, b); }
  Value add(Value a, Value b) { return arith::AddFOp::create(rewriter, loc, a, b); }
  Value call(StringRef name, Value x) {
    return LLVM::CallIntrinsicOp::create(rewriter, loc, rewriter.getF32Type(), rewriter.getStringAttr(name),
                                         ValueRange(x))
        .getResult(0);
  }
  Value exp2(Value x) { return call("llvm.nvvm.ex2.approx.ftz.f", x); }
  Value log2(Value x) { return call("llvm.nvvm.lg2.approx.ftz.f", x); }
  Value rcp(Value x) { return call("llvm.nvvm.rcp.approx.ftz.f", x); }
};

template <class Op> struct Lower : OpRewritePattern<Op> {
  using Make = Value (*)(Builder, Value);
  Lower(MLIRContext *context, Make make) : OpRewritePattern<Op>(context), make(make) {}
  LogicalResult matchAndRewrite(Op op, PatternRewriter &rewriter) const final {
    if (!op.getType().isF32())
      return failure();
    rewriter.replaceOp(op, make({rewriter, op.getLoc()}, op.getOperand()));
    return success();
  }
  Make make;
};

Value lowerExp(Builder b, Value x) { return b.exp2(b.mul(x, b.constant(log2e))); }
Value lowerLog(Builder b, Value x) { return b.mul(b.log2(x), b.constant(ln2)); }
Value lowerSqrt(Builder b, Value x) { return b.call("llvm.nvvm.sqrt.rn.f", x); }

/// tanh x = 1 - 2 / (1 + e^(2x)), absolute error a few 2^-23. tanh.approx is one instruction but off by up to
/// 2^-11, which a softcap of 50 turns into 2 % of a probability (and into 18 times the error that the
/// conformance suite allows the LSE).
Value lowerTanh(Builder b, Value x) {
  Value e = b.exp2(b.mul(x, b.constant(2 * log2e)));
  return b.add(b.mul(b.rcp(b.add(e, b.constant(1))), b.constant(-2)), b.constant(1));
}

/// Division by a reciprocal, two ulp; the exact one is a subroutine. In two steps: the reciprocal of what is
/// the same for all scores, as a softcap, leaves the loop.
struct LowerDiv : OpRewritePattern<arith::DivFOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(arith::DivFOp op, PatternRewriter &rewriter) const final {
    if (!op.getType().isF32())
      return failure();
    Builder b{rewriter, op.getLoc()};
    Value quotient = b.mul(op.getLhs(), b.rcp(op.getRhs()));
    rewriter.replaceOp(op, quotient);
    return success();
  }
};

struct LowerMathToNvvmPass : PassWrapper<LowerMathToNvvmPass, OperationPass<ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(LowerMathToNvvmPass)
  StringRef getArgument() const final { return "lower-math-to-nvvm"; }
  StringRef getDescription() const final { return "Lower fp32 math to approximate NVPTX intrinsics"; }
  void getDependentDialects(DialectRegistry &registry) const final { registry.insert<LLVM::LLVMDialect>(); }
  void runOnOperation() final {
    RewritePatternSet patterns(&getContext());
    patterns.add<Lower<math::ExpOp>>(&getContext(), lowerExp);
    patterns.add<Lower<math::LogOp>>(&getContext(), lowerLog);
    patterns.add<Lower<math::SqrtOp>>(&getContext(), lowerSqrt);
    patterns.add<Lower<math::TanhOp>>(&getContext(), lowerTanh);
    patterns.add<LowerDiv>(&getContext());
    if (failed(applyPatternsGreedily(getOperation(), std::move(patterns))))
      signalPassFailure();
  }
};

struct ApproximateMathPass : PassWrapper<ApproximateMathPass, OperationPass<ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(ApproximateMathPass)
  StringRef getArgument() const final { return "approximate-math"; }
  StringRef getDescription() const final { return "Expand fp32 math into polynomials"; }
  void getDependentDialects(DialectRegistry &registry) const final {
    registry.insert<arith::ArithDialect, math::MathDialect, vector::VectorDialect>();
  }
  void runOnOperation() final {
    RewritePatternSet patterns(&getContext());
    // sqrt and fma are instructions; the rest would be library calls.
    auto wanted = [](StringRef name) {
      return name == math::ExpOp::getOperationName() || name == math::LogOp::getOperationName() ||
             name == math::TanhOp::getOperationName();
    };
    populateMathPolynomialApproximationPatterns(patterns, wanted);
    if (failed(applyPatternsGreedily(getOperation(), std::move(patterns))))
      signalPassFailure();
  }
};

} // namespace

std::unique_ptr<Pass> createLowerMathToNvvmPass() { return std::make_unique<LowerMathToNvvmPass>(); }
std::unique_ptr<Pass> createApproximateMathPass() { return std::make_unique<ApproximateMathPass>(); }

} // namespace flashplus
