// SPDX-License-Identifier: BSD-3-Clause
// PTX as parsed: what the text says, nothing resolved. Names are views into the text that Module owns.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace flashplus::emu {

/// 1-based, in characters.
struct Location {
  int line = 0, column = 0;
  std::string text() const { return "line " + std::to_string(line) + ", column " + std::to_string(column); }
};

enum class Space : uint8_t { Generic, Global, Shared, SharedCluster, Local, Param, Const };
const char *spaceName(Space space);

/// A register's or variable's class. Bits are what matters; F and B of the same width are one class.
enum class Type : uint8_t {
  None,
  Pred,
  B8,
  B16,
  B32,
  B64,
  B128,
  U8,
  U16,
  U32,
  U64,
  S8,
  S16,
  S32,
  S64,
  F16,
  BF16,
  F16x2,
  BF16x2,
  F32,
  F64
};
/// Bits of one value; Pred is 1.
int typeBits(Type type);
bool isFloat(Type type);
bool isSigned(Type type);
/// The type that `text` names ("u32"), None if it names none.
Type typeNamed(std::string_view text);
const char *typeName(Type type);

struct OperandAst {
  enum class Kind : uint8_t {
    Name,    ///< Register, special register, variable or label; may end in ".x".
    Integer, ///< `value`
    Float32, ///< `value` holds the 32 bits
    Float64, ///< `value` holds the 64 bits
    Sink,    ///< "_"
    Vector,  ///< {a, b, ...}
    Address, ///< [base + offset]; elements[0] is the base, elements[1...] what follows a comma (tensor
             ///< coordinates)
  };
  Kind kind = Kind::Name;
  Location at;
  std::string_view name;
  uint64_t value = 0;
  int64_t offset = 0;   ///< Address only.
  bool negated = false; ///< "!p"
  std::vector<OperandAst> elements;
  std::unique_ptr<OperandAst> second; ///< What follows "|": the second destination.
};

struct InstructionAst {
  Location at;
  std::string_view opcode;
  std::vector<std::string_view> modifiers; ///< Without dots; "shared::cluster" is one.
  std::vector<int> modifier_columns;
  std::string_view guard; ///< Predicate register; empty if there is none.
  bool guard_negated = false;
  std::vector<OperandAst> operands;
  int scope = 0;
  std::string_view text; ///< As written, guard included.
};

/// ".reg .b32 %r<100>" is one entry with count 100 under the name "%r"; single registers have count -1.
struct RegisterAst {
  Type type = Type::None;
  int count = -1;
};

struct VariableAst {
  Location at;
  Space space = Space::Global;
  Type type = Type::B8;
  std::string_view name;
  uint32_t align = 1;
  uint64_t bytes = 0; ///< 0: ".extern", sized by the launch.
  bool external = false;
  std::vector<uint8_t> initial; ///< Shorter than `bytes`: the rest is zero; empty: nothing is initialised.
};

/// One pair of braces: names are looked up outwards.
struct ScopeAst {
  int parent = -1;
  std::map<std::string_view, RegisterAst> registers;
  std::map<std::string_view, uint32_t> labels;  ///< Index of the next instruction.
  std::map<std::string_view, size_t> variables; ///< Index into Entry::variables.
};

struct EntryAst {
  Location at;
  std::string_view name;
  std::vector<VariableAst> params;
  std::vector<VariableAst> variables;
  std::vector<InstructionAst> code;
  std::vector<ScopeAst> scopes;             ///< [0] is the body.
  Location end;                             ///< The closing brace.
  uint32_t required_threads[3] = {0, 0, 0}; ///< .reqntid; 0 = absent
  uint32_t max_threads[3] = {0, 0, 0};      ///< .maxntid
  int min_ctas = 0;                         ///< .minnctapersm
  int max_registers = 0;                    ///< .maxnreg
  uint32_t cluster[3] = {0, 0, 0};          ///< .reqnctapercluster
};

struct ModuleAst {
  std::string source;
  int version = 0; ///< times ten
  std::string target;
  std::vector<VariableAst> variables;
  std::vector<EntryAst> entries;
};

} // namespace flashplus::emu
