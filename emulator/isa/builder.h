// SPDX-License-Identifier: BSD-3-Clause
// What a family of instructions (one file here each) needs to decode itself.
#pragma once

#include "emulator/core/program.h"

#include <initializer_list>
#include <map>

namespace flashplus::emu {

/// Looks names up for one entry, gives out places in the register file, and keeps the first failure.
class Names;

/// One instruction while it is decoded. Modifiers are taken one by one, from the left; whatever is left at
/// the end is an error that names it.
///
/// Nothing throws: the first failure is kept, and after it the instruction is thrown away. So a decoder need
/// not ask after each step: what it asks for is then a value that the text could have had (the first of
/// several modifiers, .u32, the least constant, an operand without a name), and operands that it adds are
/// ignored. Where it fails by itself it returns.
class Builder {
public:
  Builder(const InstructionAst &ast, Names &names, Instruction &out) : ast_(ast), names_(names), out(out) {}

  bool failed() const;
  void fail(const std::string &message) { fail(ast_.at, message); }
  void fail(Location at, const std::string &message);

  // --- modifiers
  // ---------------------------------------------------------------------------------------------------
  bool take(std::string_view modifier);
  /// Takes one of these, else fails and lists them. Returns its index.
  int takeOneOf(std::initializer_list<std::string_view> modifiers);
  /// As above, `otherwise` when the next modifier is none of them.
  int takeAny(std::initializer_list<std::string_view> modifiers, int otherwise = -1);
  /// Takes what must be there.
  void require(std::string_view modifier) { (void)takeOneOf({modifier}); }
  Type type();
  std::string_view peek() const;
  /// The type that the last modifier names; None if it names none. Takes nothing.
  Type lastType() const;
  void endModifiers();
  /// Takes the space of a memory instruction, Generic if there is none.
  Space space();

  // --- operands
  // ----------------------------------------------------------------------------------------------------
  size_t count() const { return ast_.operands.size(); }
  void wantOperands(size_t least, size_t most);
  void wantOperands(size_t n) { wantOperands(n, n); }
  const OperandAst &operand(size_t i) const; ///< One without a name if there are fewer.

  /// Adds a destination or source; `wider` lets the register have more bits than the type (ld, st, cvt).
  void dst(const OperandAst &o, Type type, bool wider = false);
  void src(const OperandAst &o, Type type, bool wider = false);
  void dst(size_t i, Type type, bool wider = false) { dst(operand(i), type, wider); }
  void src(size_t i, Type type, bool wider = false) { src(operand(i), type, wider); }
  void predDst(const OperandAst &o);
  void predSrc(const OperandAst &o);
  void predDst(size_t i) { predDst(operand(i)); }
  void predSrc(size_t i) { predSrc(operand(i)); }
  /// A vector in braces of exactly `n` elements, or one register when n is 1.
  void dstVector(const OperandAst &o, size_t n, Type type, bool wider = false);
  void srcVector(const OperandAst &o, size_t n, Type type, bool wider = false);
  /// [base + offset]: the base is a source, the offset goes to out.immediate. `space` checks variables.
  void address(size_t i, Space space);
  /// An integer constant.
  int64_t constant(size_t i, int64_t least, int64_t most);
  bool isConstant(size_t i) const { return operand(i).kind == OperandAst::Kind::Integer; }
  void label(size_t i);
  /// Whether operand i is a register of just as many bits.
  bool exactWidth(size_t i, Type type);

  const InstructionAst &ast() const { return ast_; }
  /// Puts the collected operands into `out`.
  void finish(std::vector<Operand> &pool);

private:
  const InstructionAst &ast_;
  Names &names_;
  size_t modifier_ = 0;
  std::vector<Operand> dsts_, srcs_;

public:
  Instruction &out;
  bool negated_source = false; ///< The last predSrc was "!p".
  bool sink = false;           ///< The last dst or predDst was "_".
};

using Decode = void (*)(Builder &);
using OpcodeTable = std::map<std::string_view, Decode>;

void addControl(OpcodeTable &table);
void addIntegerAndLogic(OpcodeTable &table);
void addFloat(OpcodeTable &table);
void addArithmetic(OpcodeTable &table); ///< Names that integers and floats share.
void addConvert(OpcodeTable &table);
void addMove(OpcodeTable &table);
void addMemory(OpcodeTable &table);
void addAtomic(OpcodeTable &table);
void addAsyncCopy(OpcodeTable &table);
void addMatrix(OpcodeTable &table);
void addExchange(OpcodeTable &table);
void addBarrier(OpcodeTable &table);
void addMbarrier(OpcodeTable &table);
void addCluster(OpcodeTable &table);
void decodeClusterBarrier(Builder &b); ///< From behind "barrier.cluster".
void addWgmma(OpcodeTable &table);

} // namespace flashplus::emu
