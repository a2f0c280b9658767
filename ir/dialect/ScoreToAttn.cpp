// SPDX-License-Identifier: BSD-3-Clause
// Score expression -> score region -> score expression.
#include "ir/dialect/Attn.h"
#include "spec/score_gradient.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/Matchers.h"
#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/SmallVectorExtras.h"

using namespace mlir;

namespace flashplus::attn {
namespace {

/// Emits a score expression into its region: each node as fp32, as int32 (of indices), or both, as its users
/// want it.
class ScoreBuilder {
public:
  ScoreBuilder(OpBuilder &builder, Location loc, Block &block)
      : builder_(builder), loc_(loc), block_(block) {}

  Value build(const ScoreExpr &expr) {
    return expr.isIdentity() ? Value(block_.getArgument(kScore))
                             : build(expr, {int(expr.nodes.size()) - 1}).front();
  }

  /// Values of the nodes `roots`.
  SmallVector<Value> build(const ScoreExpr &expr, ArrayRef<int> roots) {
    findUses(expr, roots);
    values_.resize(expr.nodes.size());
    integers_.resize(expr.nodes.size());
    for (size_t i = 0; i < expr.nodes.size(); ++i) {
      if (wants_integer_[i])
        integers_[i] = integer(expr.nodes[i]);
      if (wants_value_[i])
        values_[i] = node(expr, expr.nodes[i]);
    }
    return llvm::map_to_vector(roots, [&](int root) { return values_[size_t(root)]; });
  }

private:
  /// An index is fp32 like every value, unless it is a whole number in any case: fp32 holds those only up to
  /// 2^24.
  void findUses(const ScoreExpr &expr, ArrayRef<int> roots) {
    wants_value_.assign(expr.nodes.size(), false);
    wants_integer_.assign(expr.nodes.size(), false);
    for (int root : roots)
      wants_value_[size_t(root)] = true;
    for (size_t i = expr.nodes.size(); i-- > 0;)
      for (int operand : expr.nodes[i].operands) {
        const bool is_index = wants_value_[i] && expr.nodes[i].op == ScoreOp::Tensor;
        if (wants_integer_[i] || (is_index && expr.isIntegerIndex(operand)))
          wants_integer_[size_t(operand)] = true;
        if (wants_value_[i] && !(is_index && wants_integer_[size_t(operand)]))
          wants_value_[size_t(operand)] = true;
      }
  }

  static int integerArg(ScoreOp op) {
    switch (op) {
    case ScoreOp::Batch:
      return kBatch;
    case ScoreOp::Head:
      return kHead;
    case ScoreOp::HeadK:
      return kHeadK;
    case ScoreOp::Query:
      return kQuery;
    case ScoreOp::Key:
      return kKey;
    case ScoreOp::SeqlenQ:
      return kSeqlenQ;
    case ScoreOp::SeqlenK:
      return kSeqlenK;
    default:
      return -1;
    }
  }

  Value constant(double value) {
    return arith::ConstantOp::create(builder_, loc_, builder_.getF32FloatAttr(float(value)));
  }

  Value integerConstant(int32_t value) {
    return arith::ConstantOp::create(builder_, loc_, builder_.getI32IntegerAttr(value));
  }

  /// A node of an index that is worked out in int32.
  Value integer(const ScoreNode &n) {
    auto operand = [&](int i) { return integers_[size_t(n.operands[size_t(i)])]; };
    if (int arg = integerArg(n.op); arg >= 0)
      return block_.getArgument(arg);
    switch (n.op) {
    case ScoreOp::Constant:
      return integerConstant(int32_t(n.value));
    case ScoreOp::Neg: // no constant of an expression is negative, so that this reads back as what it is
      return arith::MulIOp::create(builder_, loc_, operand(0), integerConstant(-1));
    case ScoreOp::Abs:
      return math::AbsIOp::create(builder_, loc_, operand(0));
    case ScoreOp::Add:
      return arith::AddIOp::create(builder_, loc_, operand(0), operand(1));
    case ScoreOp::Sub:
      return arith::SubIOp::create(builder_, loc_, operand(0), operand(1));
    case ScoreOp::Mul:
      return arith::MulIOp::create(builder_, loc_, operand(0), operand(1));
    case ScoreOp::Mod:
      return RemainderOp::create(builder_, loc_, operand(0), operand(1));
    case ScoreOp::Min:
      return arith::MinSIOp::create(builder_, loc_, operand(0), operand(1));
    case ScoreOp::Max:
      return arith::MaxSIOp::create(builder_, loc_, operand(0), operand(1));
    default:
      return {};
    }
  }

  Value compare(arith::CmpFPredicate predicate, Value a, Value b) {
    Value bit = arith::CmpFOp::create(builder_, loc_, predicate, a, b);
    return arith::UIToFPOp::create(builder_, loc_, builder_.getF32Type(), bit);
  }

  Value isNotZero(Value x) {
    return arith::CmpFOp::create(builder_, loc_, arith::CmpFPredicate::UNE, x, constant(0));
  }

  template <class Op> Value join(Value a, Value b) {
    Value first = isNotZero(a), bit = Op::create(builder_, loc_, first, isNotZero(b));
    return arith::UIToFPOp::create(builder_, loc_, builder_.getF32Type(), bit);
  }

  Value node(const ScoreExpr &expr, const ScoreNode &n) {
    auto operand = [&](int i) { return values_[n.operands[i]]; };
    if (int arg = integerArg(n.op); arg >= 0)
      return arith::SIToFPOp::create(builder_, loc_, builder_.getF32Type(), block_.getArgument(arg));
    switch (n.op) {
    case ScoreOp::Constant:
      return constant(n.value);
    case ScoreOp::Score:
      return block_.getArgument(kScore);
    case ScoreOp::Scalar:
      return ScalarOp::create(builder_, loc_, builder_.getF32Type(), n.slot);
    case ScoreOp::Tensor: {
      SmallVector<Value> indices;
      for (int o : n.operands)
        indices.push_back(integers_[size_t(o)] ? integers_[size_t(o)]
                                               : Value(IndexOp::create(builder_, loc_, builder_.getI32Type(),
                                                                       values_[size_t(o)])));
      return AuxOp::create(builder_, loc_, builder_.getF32Type(), n.slot, indices);
    }
    case ScoreOp::Neg:
      return arith::NegFOp::create(builder_, loc_, operand(0));
    case ScoreOp::Abs:
      return math::AbsFOp::create(builder_, loc_, operand(0));
    case ScoreOp::Exp:
      return math::ExpOp::create(builder_, loc_, operand(0));
    case ScoreOp::Log:
      return math::LogOp::create(builder_, loc_, operand(0));
    case ScoreOp::Sqrt:
      return math::SqrtOp::create(builder_, loc_, operand(0));
    case ScoreOp::Tanh:
      return math::TanhOp::create(builder_, loc_, operand(0));
    case ScoreOp::Floor:
      return math::FloorOp::create(builder_, loc_, operand(0));
    case ScoreOp::Sech2: {
      auto magnitude = [&](int i) { return math::AbsFOp::create(builder_, loc_, operand(i)); };
      Value exponent = arith::MulFOp::create(builder_, loc_, magnitude(0), constant(-2));
      Value root = arith::AddFOp::create(builder_, loc_, magnitude(1), constant(1));
      return arith::MulFOp::create(builder_, loc_, math::ExpOp::create(builder_, loc_, exponent),
                                   arith::MulFOp::create(builder_, loc_, root, root));
    }
    case ScoreOp::Add:
      return arith::AddFOp::create(builder_, loc_, operand(0), operand(1));
    case ScoreOp::Sub:
      return arith::SubFOp::create(builder_, loc_, operand(0), operand(1));
    case ScoreOp::Mul:
      return arith::MulFOp::create(builder_, loc_, operand(0), operand(1));
    case ScoreOp::Div:
      return arith::DivFOp::create(builder_, loc_, operand(0), operand(1));
    case ScoreOp::Mod:
      return RemainderOp::create(builder_, loc_, operand(0), operand(1));
    case ScoreOp::Min:
      return arith::MinNumFOp::create(builder_, loc_, operand(0), operand(1));
    case ScoreOp::Max:
      return arith::MaxNumFOp::create(builder_, loc_, operand(0), operand(1));
    case ScoreOp::Lt:
      return compare(arith::CmpFPredicate::OLT, operand(0), operand(1));
    case ScoreOp::Le:
      return compare(arith::CmpFPredicate::OLE, operand(0), operand(1));
    case ScoreOp::Gt:
      return compare(arith::CmpFPredicate::OGT, operand(0), operand(1));
    case ScoreOp::Ge:
      return compare(arith::CmpFPredicate::OGE, operand(0), operand(1));
    case ScoreOp::Eq:
      return compare(arith::CmpFPredicate::OEQ, operand(0), operand(1));
    case ScoreOp::Ne:
      return compare(arith::CmpFPredicate::UNE, operand(0), operand(1));
    case ScoreOp::And:
      return join<arith::AndIOp>(operand(0), operand(1));
    case ScoreOp::Or:
      return join<arith::OrIOp>(operand(0), operand(1));
    case ScoreOp::Where:
      return arith::SelectOp::create(builder_, loc_, isNotZero(operand(0)), operand(1), operand(2));
    default:
      return {};
    }
  }

  OpBuilder &builder_;
  Location loc_;
  Block &block_;
  std::vector<bool> wants_value_, wants_integer_;
  std::vector<Value> values_, integers_;
};

/// Reads a score region back into an expression.
class ScoreReader {
public:
  Result<ScoreExpr> read(Block &block) {
    for (mlir::Operation &op : block) {
      if (auto yield = dyn_cast<YieldOp>(op)) {
        if (yield.getValue() == block.getArgument(kScore))
          return ScoreExpr{};
        const int result = operand(yield.getValue());
        if (result < 0)
          break;
        if (yield.getValues().size() > 1 || gradients_) // derivatives' nodes come after the score's own
          expr_.nodes.resize(size_t(result) + 1);
        if (result != int(expr_.nodes.size()) - 1) // canonicalisation may have reordered
          return fail("the yielded value is not the last one computed");
        return std::move(expr_);
      }
      if (Status status = node(op); !status)
        return status;
    }
    return fail("the region yields something that is not a score");
  }

private:
  static Status fail(const std::string &why) {
    return {StatusCode::Unsupported, "the score region is not a score expression: " + why};
  }

  int push(ScoreOp op, std::vector<int> operands = {}, double value = 0, int slot = 0) {
    expr_.nodes.push_back({op, value, slot, std::move(operands)});
    return int(expr_.nodes.size()) - 1;
  }

  static ScoreOp leaf(unsigned arg) {
    constexpr ScoreOp kLeaves[] = {ScoreOp::Score, ScoreOp::Batch, ScoreOp::Head,    ScoreOp::HeadK,
                                   ScoreOp::Query, ScoreOp::Key,   ScoreOp::SeqlenQ, ScoreOp::SeqlenK};
    return kLeaves[arg];
  }

  /// The node of a value; block arguments become leaves where they are used.
  int operand(Value value) {
    if (auto it = nodes_.find(value); it != nodes_.end())
      return it->second;
    if (auto arg = dyn_cast<BlockArgument>(value))
      return nodes_[value] = push(leaf(arg.getArgNumber()));
    return -1;
  }

  Status unary(mlir::Operation &op, ScoreOp kind) {
    nodes_[op.getResult(0)] = push(kind, {operand(op.getOperand(0))});
    return Status::ok();
  }
  Status binary(mlir::Operation &op, ScoreOp kind) {
    const int a = operand(op.getOperand(0)), b = operand(op.getOperand(1));
    nodes_[op.getResult(0)] = push(kind, {a, b});
    return Status::ok();
  }

  Status node(mlir::Operation &op) {
    if (isa<ScalarGradientOp, AuxGradientOp>(op)) {
      gradients_ = true;
      return Status::ok();
    }
    IntegerAttr minus_one;
    const StringRef name = op.getName().getStringRef();
    static const llvm::StringMap<ScoreOp> kUnary = {
        {"arith.negf", ScoreOp::Neg}, {"math.absf", ScoreOp::Abs},   {"math.exp", ScoreOp::Exp},
        {"math.log", ScoreOp::Log},   {"math.sqrt", ScoreOp::Sqrt},  {"math.tanh", ScoreOp::Tanh},
        {"math.absi", ScoreOp::Abs},  {"math.floor", ScoreOp::Floor}};
    static const llvm::StringMap<ScoreOp> kBinary = {
        {"arith.addf", ScoreOp::Add},  {"arith.subf", ScoreOp::Sub},    {"arith.mulf", ScoreOp::Mul},
        {"arith.divf", ScoreOp::Div},  {"arith.minnumf", ScoreOp::Min}, {"arith.maxnumf", ScoreOp::Max},
        {"arith.addi", ScoreOp::Add},  {"arith.subi", ScoreOp::Sub},    {"arith.muli", ScoreOp::Mul},
        {"arith.minsi", ScoreOp::Min}, {"arith.maxsi", ScoreOp::Max},   {"attn.remainder", ScoreOp::Mod}};
    if (auto it = kUnary.find(name); it != kUnary.end())
      return unary(op, it->second);
    if (isa<arith::MulIOp>(op) && matchPattern(op.getOperand(1), m_Constant(&minus_one)) &&
        minus_one.getInt() == -1)
      return unary(op, ScoreOp::Neg);
    if (auto it = kBinary.find(name); it != kBinary.end())
      return binary(op, it->second);
    if (auto constant = dyn_cast<arith::ConstantOp>(op)) {
      if (auto integer = dyn_cast<IntegerAttr>(constant.getValue())) {
        nodes_[op.getResult(0)] = push(ScoreOp::Constant, {}, double(integer.getInt()));
        return Status::ok();
      }
      auto value = dyn_cast<FloatAttr>(constant.getValue());
      if (!value)
        return fail("a constant is no number");
      nodes_[op.getResult(0)] = push(ScoreOp::Constant, {}, value.getValueAsDouble());
      return Status::ok();
    }
    if (auto scalar = dyn_cast<ScalarOp>(op)) {
      const int slot = int(scalar.getSlot());
      while (int(expr_.scalars.size()) <= slot)
        expr_.scalars.push_back("p" + std::to_string(expr_.scalars.size()));
      nodes_[op.getResult(0)] = push(ScoreOp::Scalar, {}, 0, slot);
      return Status::ok();
    }
    if (auto aux = dyn_cast<AuxOp>(op)) {
      const int slot = int(aux.getSlot());
      while (int(expr_.tensors.size()) <= slot)
        expr_.tensors.push_back({"t" + std::to_string(expr_.tensors.size()), 0});
      expr_.tensors[slot].rank = int(aux.getIndices().size());
      std::vector<int> indices;
      for (Value index : aux.getIndices())
        indices.push_back(operand(index));
      nodes_[op.getResult(0)] = push(ScoreOp::Tensor, std::move(indices), 0, slot);
      return Status::ok();
    }
    if (isa<arith::SIToFPOp, IndexOp>(op)) { // a position as a value, a value as an index
      nodes_[op.getResult(0)] = operand(op.getOperand(0));
      return Status::ok();
    }
    if (auto compare = dyn_cast<arith::CmpFOp>(op)) {
      compares_[op.getResult(0)] = compare;
      return Status::ok();
    }
    if (isa<arith::AndIOp, arith::OrIOp>(op)) {
      joins_[op.getResult(0)] = &op;
      return Status::ok();
    }
    if (mlir::Operation *join = isa<arith::UIToFPOp>(op) ? joins_.lookup(op.getOperand(0)) : nullptr) {
      int operands[2];
      for (int i : {0, 1}) { // the zeros that they are compared with are not part of the expression
        auto compare = compares_.lookup(join->getOperand(unsigned(i)));
        if (!compare || compare.getPredicate() != arith::CmpFPredicate::UNE)
          return fail(join->getName().getStringRef().str() + " of something that is not `x != 0`");
        operands[i] = operand(compare.getLhs());
      }
      nodes_[op.getResult(0)] =
          push(isa<arith::AndIOp>(join) ? ScoreOp::And : ScoreOp::Or, {operands[0], operands[1]});
      return Status::ok();
    }
    if (isa<arith::UIToFPOp>(op)) {
      auto compare = compares_.lookup(op.getOperand(0));
      if (!compare)
        return fail("arith.uitofp of something that is not a comparison");
      ScoreOp kind;
      switch (compare.getPredicate()) {
      case arith::CmpFPredicate::OLT:
        kind = ScoreOp::Lt;
        break;
      case arith::CmpFPredicate::OLE:
        kind = ScoreOp::Le;
        break;
      case arith::CmpFPredicate::OGT:
        kind = ScoreOp::Gt;
        break;
      case arith::CmpFPredicate::OGE:
        kind = ScoreOp::Ge;
        break;
      case arith::CmpFPredicate::OEQ:
        kind = ScoreOp::Eq;
        break;
      case arith::CmpFPredicate::UNE:
        kind = ScoreOp::Ne;
        break;
      default:
        return fail("a comparison that the grammar lacks");
      }
      const int a = operand(compare.getLhs()), b = operand(compare.getRhs());
      nodes_[op.getResult(0)] = push(kind, {a, b});
      return Status::ok();
    }
    if (auto select = dyn_cast<arith::SelectOp>(op)) {
      auto compare = compares_.lookup(select.getCondition());
      if (!compare || compare.getPredicate() != arith::CmpFPredicate::UNE)
        return fail("arith.select on something that is not `x != 0`");
      // The zero that `where` compares with is not part of the expression.
      const int condition = operand(compare.getLhs());
      const int yes = operand(select.getTrueValue()), no = operand(select.getFalseValue());
      nodes_[op.getResult(0)] = push(ScoreOp::Where, {condition, yes, no});
      return Status::ok();
    }
    return fail(name.str());
  }

  ScoreExpr expr_;
  bool gradients_ = false; ///< The region has some.
  llvm::DenseMap<Value, int> nodes_;
  llvm::DenseMap<Value, arith::CmpFOp> compares_;
  llvm::DenseMap<Value, mlir::Operation *> joins_; ///< `and` and `or` of comparisons.
};

/// The score, and how it depends on the scalars and tensors in `wanted`.
void buildParameters(OpBuilder &builder, Location loc, Block &block, const ScoreExpr &both,
                     const ScoreGradient &gradient, int wanted) {
  SmallVector<int> roots = {gradient.value};
  SmallVector<size_t> scalars, reads;
  for (size_t slot = 0; slot < gradient.dscalars.size(); ++slot)
    if (wanted >> slot & 1 && !gradient.isConstant(gradient.dscalars[slot], 0)) {
      scalars.push_back(slot);
      roots.push_back(gradient.dscalars[slot]);
    }
  for (size_t i = 0; i < gradient.reads.size(); ++i)
    if (wanted >> (kMaxScoreScalars + gradient.reads[i].slot) & 1) {
      reads.push_back(i);
      roots.push_back(gradient.reads[i].adjoint);
      roots.push_back(gradient.reads[i].node);
    }
  const SmallVector<Value> values = ScoreBuilder(builder, loc, block).build(both, roots);
  const Value *next = values.begin() + 1;
  for (size_t slot : scalars)
    ScalarGradientOp::create(builder, loc, int64_t(slot), *next++);
  for (size_t i : reads) {
    const Value adjoint = *next++;
    auto read = next++->getDefiningOp<AuxOp>();
    AuxGradientOp::create(builder, loc, gradient.reads[i].slot, read.getIndices(), adjoint);
  }
  YieldOp::create(builder, loc, values.front());
}

} // namespace

void buildScore(Region &region, Location loc, const ScoreExpr &score, ScoreUse use, int wanted) {
  OpBuilder builder(loc->getContext()); // the region may belong to no operation yet
  Block &block = region.emplaceBlock();
  block.addArgument(builder.getF32Type(), loc);
  for (int i = 1; i < kNumScoreArgs; ++i)
    block.addArgument(builder.getI32Type(), loc);
  builder.setInsertionPointToEnd(&block);
  if (use == ScoreUse::Value || use == ScoreUse::None) {
    YieldOp::create(builder, loc, ScoreBuilder(builder, loc, block).build(score));
    return;
  }
  const ScoreGradient gradient = differentiate(score);
  ScoreExpr both = score;
  both.nodes = gradient.nodes;
  if (use == ScoreUse::Parameters) {
    buildParameters(builder, loc, block, both, gradient, wanted);
    return;
  }
  YieldOp::create(builder, loc, ScoreBuilder(builder, loc, block).build(both, {gradient.value, gradient.ds}));
}

Result<ScoreExpr> readScore(Region &region) { return ScoreReader().read(region.front()); }

} // namespace flashplus::attn
