// SPDX-License-Identifier: BSD-3-Clause
#include "emulator/core/program.h"
#include "emulator/isa/builder.h"
#include "emulator/isa/control_flow.h"
#include "emulator/ptx/parser.h"
#include "spec/overlap.h"

#include <cstring>
#include <optional>

namespace flashplus::emu {

namespace {

constexpr const char *kNoGlobals = "global variables are not modelled; memory is the host's";

uint64_t alignUp(uint64_t value, uint64_t align) { return (value + align - 1) / align * align; }

constexpr uint64_t kMaxRegisterFile = 1u << 24;

struct SpecialName {
  const char *name;
  SpecialRegister reg;
  Type type;
};
using S = SpecialRegister;
constexpr SpecialName kSpecials[] = {
    {"%tid.x", S::TidX, Type::U32},
    {"%tid.y", S::TidY, Type::U32},
    {"%tid.z", S::TidZ, Type::U32},
    {"%ntid.x", S::NtidX, Type::U32},
    {"%ntid.y", S::NtidY, Type::U32},
    {"%ntid.z", S::NtidZ, Type::U32},
    {"%ctaid.x", S::CtaidX, Type::U32},
    {"%ctaid.y", S::CtaidY, Type::U32},
    {"%ctaid.z", S::CtaidZ, Type::U32},
    {"%nctaid.x", S::NctaidX, Type::U32},
    {"%nctaid.y", S::NctaidY, Type::U32},
    {"%nctaid.z", S::NctaidZ, Type::U32},
    {"%laneid", S::LaneId, Type::U32},
    {"%warpid", S::WarpId, Type::U32},
    {"%nwarpid", S::NwarpId, Type::U32},
    {"%smid", S::SmId, Type::U32},
    {"%nsmid", S::NsmId, Type::U32},
    {"%gridid", S::GridId, Type::U64},
    {"%lanemask_eq", S::LanemaskEq, Type::U32},
    {"%lanemask_le", S::LanemaskLe, Type::U32},
    {"%lanemask_lt", S::LanemaskLt, Type::U32},
    {"%lanemask_ge", S::LanemaskGe, Type::U32},
    {"%lanemask_gt", S::LanemaskGt, Type::U32},
    {"%dynamic_smem_size", S::DynamicSmemSize, Type::U32},
    {"%total_smem_size", S::TotalSmemSize, Type::U32},
    {"%cluster_ctarank", S::ClusterCtaRank, Type::U32},
    {"%cluster_nctarank", S::ClusterNctaRank, Type::U32},
    {"%cluster_ctaid.x", S::ClusterCtaidX, Type::U32},
    {"%cluster_ctaid.y", S::ClusterCtaidY, Type::U32},
    {"%cluster_ctaid.z", S::ClusterCtaidZ, Type::U32},
    {"%cluster_nctaid.x", S::ClusterNctaidX, Type::U32},
    {"%cluster_nctaid.y", S::ClusterNctaidY, Type::U32},
    {"%cluster_nctaid.z", S::ClusterNctaidZ, Type::U32},
    {"%clusterid.x", S::ClusteridX, Type::U32},
    {"%clusterid.y", S::ClusteridY, Type::U32},
    {"%clusterid.z", S::ClusteridZ, Type::U32},
    {"%nclusterid.x", S::NclusteridX, Type::U32},
    {"%nclusterid.y", S::NclusteridY, Type::U32},
    {"%nclusterid.z", S::NclusteridZ, Type::U32},
    {"%is_explicit_cluster", S::IsExplicitCluster, Type::Pred},
};

const OpcodeTable &opcodes() {
  static const OpcodeTable table = [] {
    OpcodeTable t;
    addControl(t);
    addIntegerAndLogic(t);
    addFloat(t);
    addArithmetic(t);
    addConvert(t);
    addMove(t);
    addMemory(t);
    addAtomic(t);
    addAsyncCopy(t);
    addMatrix(t);
    addExchange(t);
    addBarrier(t);
    addMbarrier(t);
    addCluster(t);
    addWgmma(t);
    return t;
  }();
  return table;
}

} // namespace

/// The first failure, of whoever uses the names, is kept; decodeProgram() makes a Status of it.
class Names {
public:
  Names(const ModuleAst &module, const EntryAst &entry, Program &program) : entry_(entry), program_(program) {
    (void)addRegister("_", 8, false, S::None, 0); // the sink: wide enough for everything
    layoutParams();
    for (const std::vector<VariableAst> *variables : {&module.variables, &entry.variables})
      for (const VariableAst &v : *variables)
        if (!failed()) // before memory is taken for what a refused module asks for
          place(v);
    program_.dynamic_shared_offset = alignUp(program_.static_shared_bytes, dynamic_align_);
    if (dynamic_)
      program_.params.shrink_to_fit();
  }

  struct Found {
    Operand operand;
    Type type;
  };

  Operand sink() const { return {program_.registers[0].offset, 0}; }

  bool failed() const { return failed_; }
  void fail(Location at, std::string message) {
    if (!failed_)
      message_ = at.text() + ": " + std::move(message);
    failed_ = true;
  }
  Status status() const { return failed_ ? invalidArgument(message_) : Status::ok(); }

  /// A register that was declared, or a special register; else fails.
  std::optional<Found> registerNamed(std::string_view name, int scope, Location at) {
    const Lookup found = lookUp(name, scope);
    if (found.past >= 0) {
      fail(at, "register " + std::string(name) + " is past the " + std::to_string(found.past) +
                   " that are declared");
      return std::nullopt;
    }
    if (found.special) {
      auto [it, fresh] = specials_.try_emplace(found.special->reg);
      if (fresh)
        it->second =
            addRegister(std::string(name), typeBits(found.special->type), true, found.special->reg, 0);
      return Found{it->second, found.special->type};
    }
    if (found.type != Type::None)
      return declared(found.scope, name, found.type);
    fail(at, "'" + std::string(name) + "' is not declared");
    return std::nullopt;
  }

  bool isRegister(std::string_view name, int scope) const {
    // Variables and labels don't begin with '%', and registers mostly do.
    if (variable(name, scope))
      return name.starts_with('%');
    const Lookup found = lookUp(name, scope);
    return found.past < 0 && (found.special || found.type != Type::None);
  }

  Operand constant(uint64_t value, int bits, const std::string &text) {
    auto [it, fresh] = constants_.try_emplace({value, bits == 1 ? 1 : bits > 32 ? 64 : 32});
    if (fresh)
      it->second = addRegister(text, bits, true, S::None, value);
    return it->second;
  }

  /// Address of a variable in its own space, or nothing.
  struct VariableAddress {
    Space space;
    uint64_t address;
  };
  const VariableAddress *variable(std::string_view name, int scope) const {
    for (int s = scope; s >= 0; s = entry_.scopes[size_t(s)].parent) {
      const auto &variables = entry_.scopes[size_t(s)].variables;
      if (auto it = variables.find(name); it != variables.end())
        return &entry_variables_.at(it->second);
    }
    const auto it = variables_.find(name);
    return it == variables_.end() ? nullptr : &it->second;
  }

  uint32_t label(std::string_view name, int scope, Location at) {
    for (int s = scope; s >= 0; s = entry_.scopes[size_t(s)].parent) {
      const auto &labels = entry_.scopes[size_t(s)].labels;
      if (auto it = labels.find(name); it != labels.end())
        return it->second;
    }
    fail(at, "label '" + std::string(name) + "' is not declared");
    return 0;
  }

private:
  /// What a name stands for: a register declared in `scope`, or a special one, or none.
  struct Lookup {
    Type type = Type::None;
    int scope = 0;
    const SpecialName *special = nullptr;
    int past = -1; ///< A register of a row, past the so many that are declared.
  };

  Lookup lookUp(std::string_view name, int scope) const {
    for (int s = scope; s >= 0; s = entry_.scopes[size_t(s)].parent) {
      const auto &registers = entry_.scopes[size_t(s)].registers;
      if (auto it = registers.find(name); it != registers.end() && it->second.count < 0)
        return {it->second.type, s};
      size_t digits = name.size();
      while (digits > 0 && name[digits - 1] >= '0' && name[digits - 1] <= '9')
        --digits;
      if (digits == name.size() || name.size() - digits > 8)
        continue;
      // "%r<100>" declares %r0 to %r99.
      if (auto it = registers.find(name.substr(0, digits)); it != registers.end() && it->second.count >= 0) {
        int index = 0;
        for (char c : name.substr(digits))
          index = index * 10 + (c - '0');
        if (index >= it->second.count)
          return {.past = it->second.count};
        return {it->second.type, s};
      }
    }
    for (const SpecialName &special : kSpecials)
      if (name == special.name)
        return {.special = &special};
    return {};
  }

  void layoutParams() {
    uint64_t at = 0;
    for (const VariableAst &p : entry_.params) {
      at = alignUp(at, p.align);
      program_.params.push_back({p.name, Space::Param, at, p.bytes});
      variables_[p.name] = {Space::Param, kParamBase + at};
      at += p.bytes;
    }
    if (at > 32764) // PTX ISA: the parameter space of sm_70 and newer
      fail(entry_.at, "the parameters take " + std::to_string(at) + " bytes; at most 32764 are allowed");
    program_.param_bytes = at;
  }

  void place(const VariableAst &v) {
    VariableAddress where{v.space, 0};
    switch (v.space) {
    case Space::Shared:
      if (v.external && v.bytes == 0) { // all of these start where the static variables end
        dynamic_ = true;
        dynamic_align_ = std::max<uint64_t>(dynamic_align_, v.align);
        externals_.push_back(&v);
        break;
      }
      program_.static_shared_bytes = alignUp(program_.static_shared_bytes, v.align);
      where.address = kSharedBase + program_.static_shared_bytes;
      program_.static_shared_bytes += v.bytes;
      break;
    case Space::Local:
      program_.local_bytes = alignUp(program_.local_bytes, v.align);
      where.address = program_.local_bytes;
      program_.local_bytes += v.bytes;
      break;
    case Space::Const: {
      const uint64_t at = alignUp(program_.const_data.size(), v.align);
      program_.const_data.resize(at + v.bytes);
      program_.const_written.resize(at + v.bytes);
      std::copy(v.initial.begin(), v.initial.end(), program_.const_data.begin() + long(at));
      std::fill(program_.const_written.begin() + long(at), program_.const_written.end(), !v.initial.empty());
      where.address = at;
      break;
    }
    case Space::Global: // code may say something to its loader by one; using it is an error
      program_.overlaps |= v.name == kOverlapSymbol;
      break;
    default:
      return fail(v.at,
                  std::string(spaceName(v.space)) + " variables are not modelled; memory is the host's");
    }
    if (program_.static_shared_bytes + program_.local_bytes + program_.const_data.size() > kMaxRegisterFile)
      return fail(v.at, "the variables take more than " + std::to_string(kMaxRegisterFile) + " bytes");
    remember(v, where);
    if (v.space == Space::Shared)
      for (const VariableAst *e : externals_) // static variables may follow in the text
        remember(*e, {Space::Shared, kSharedBase + alignUp(program_.static_shared_bytes, dynamic_align_)});
  }

  void remember(const VariableAst &v, VariableAddress where) {
    const VariableAst *first = entry_.variables.data();
    if (&v >= first && &v < first + entry_.variables.size())
      entry_variables_[size_t(&v - first)] = where;
    else
      variables_[v.name] = where;
  }

  Found declared(int scope, std::string_view name, Type type) {
    auto [it, fresh] = declared_.try_emplace({scope, name});
    if (fresh)
      it->second = addRegister(std::string(name), typeBits(type), false, S::None, 0);
    return {it->second, type};
  }

  Operand addRegister(std::string name, int bits, bool constant, SpecialRegister special, uint64_t value) {
    RegisterInfo reg;
    reg.name = std::move(name);
    reg.bytes = bits == 1 ? 0 : bits > 32 || (!constant && bits == 8) ? 8 : 4;
    reg.bits = uint8_t(bits == 8 ? 64 : bits);
    reg.constant = constant;
    reg.special = special;
    reg.value = value;
    const uint32_t size = reg.bytes == 0 ? 4 : reg.bytes * 32u;
    program_.register_file_bytes = uint32_t(alignUp(program_.register_file_bytes, reg.bytes == 0 ? 4 : 8));
    reg.offset = program_.register_file_bytes;
    program_.register_file_bytes += size;
    if (program_.register_file_bytes > kMaxRegisterFile) {
      fail(entry_.at, "the entry uses too many registers");
      return sink();
    }
    program_.registers.push_back(std::move(reg));
    return {program_.registers.back().offset, uint32_t(program_.registers.size() - 1)};
  }

  const EntryAst &entry_;
  Program &program_;
  std::map<std::pair<int, std::string_view>, Operand> declared_;
  std::map<SpecialRegister, Operand> specials_;
  std::map<std::pair<uint64_t, int>, Operand> constants_;
  std::map<std::string_view, VariableAddress> variables_;
  std::map<size_t, VariableAddress> entry_variables_;
  std::vector<const VariableAst *> externals_;
  bool dynamic_ = false;
  uint64_t dynamic_align_ = 16;
  bool failed_ = false;
  std::string message_; ///< Of the first failure.
};

// --- Builder
// -------------------------------------------------------------------------------------------------------

bool Builder::failed() const { return names_.failed(); }
void Builder::fail(Location at, const std::string &message) { names_.fail(at, message); }

const OperandAst &Builder::operand(size_t i) const {
  static const OperandAst kNone;
  return i < count() ? ast_.operands[i] : kNone;
}

std::string_view Builder::peek() const {
  return modifier_ < ast_.modifiers.size() ? ast_.modifiers[modifier_] : std::string_view();
}

bool Builder::take(std::string_view modifier) {
  if (peek() != modifier)
    return false;
  ++modifier_;
  return true;
}

int Builder::takeAny(std::initializer_list<std::string_view> modifiers, int otherwise) {
  int index = 0;
  for (std::string_view m : modifiers) {
    if (take(m))
      return index;
    ++index;
  }
  return otherwise;
}

int Builder::takeOneOf(std::initializer_list<std::string_view> modifiers) {
  const int found = takeAny(modifiers);
  if (found >= 0)
    return found;
  std::string allowed;
  for (std::string_view m : modifiers)
    allowed += (allowed.empty() ? "." : ", .") + std::string(m);
  const std::string what = peek().empty() ? "nothing" : "." + std::string(peek());
  const int column =
      modifier_ < ast_.modifier_columns.size() ? ast_.modifier_columns[modifier_] : ast_.at.column;
  fail({ast_.at.line, column}, std::string(ast_.opcode) + ": expected " + allowed + ", found " + what);
  return 0;
}

Type Builder::type() {
  const Type t = typeNamed(peek());
  if (t == Type::None) {
    const int column =
        modifier_ < ast_.modifier_columns.size() ? ast_.modifier_columns[modifier_] : ast_.at.column;
    fail({ast_.at.line, column},
         std::string(ast_.opcode) + ": " +
             (peek().empty() ? std::string("a type is missing")
                             : "modifier ." + std::string(peek()) + " is not known here"));
    return Type::U32;
  }
  ++modifier_;
  return t;
}

Type Builder::lastType() const {
  return ast_.modifiers.empty() ? Type::None : typeNamed(ast_.modifiers.back());
}

void Builder::endModifiers() {
  if (modifier_ < ast_.modifiers.size())
    fail({ast_.at.line, ast_.modifier_columns[modifier_]},
         std::string(ast_.opcode) + ": modifier ." + std::string(peek()) + " is not known here");
}

Space Builder::space() {
  if (take("global"))
    return Space::Global;
  if (take("shared") || take("shared::cta"))
    return Space::Shared;
  if (take("shared::cluster"))
    return Space::SharedCluster;
  if (take("local"))
    return Space::Local;
  if (take("param") || take("param::entry"))
    return Space::Param;
  if (take("const"))
    return Space::Const;
  return Space::Generic;
}

void Builder::wantOperands(size_t least, size_t most) {
  if (count() < least || count() > most)
    fail(std::string(ast_.opcode) + ": " + std::to_string(count()) + " operands, expected " +
         std::to_string(least) + (most > least ? " to " + std::to_string(most) : ""));
}

void Builder::dst(const OperandAst &o, Type type, bool wider) {
  if (failed())
    return;
  sink = o.kind == OperandAst::Kind::Sink;
  if (sink) {
    dsts_.push_back(names_.sink());
    return;
  }
  if (o.kind != OperandAst::Kind::Name)
    return fail(o.at, std::string(ast_.opcode) + ": a destination must be a register");
  const auto found = names_.registerNamed(o.name, ast_.scope, o.at);
  if (!found)
    return;
  const int have = typeBits(found->type), want = typeBits(type);
  if (found->type == Type::Pred || !(have == want || (wider && have > want)))
    return fail(o.at, std::string(ast_.opcode) + ": register " + std::string(o.name) + " is ." +
                          typeName(found->type) + ", the instruction writes ." + typeName(type));
  dsts_.push_back(found->operand);
}

void Builder::src(const OperandAst &o, Type type, bool wider) {
  if (failed())
    return;
  const int want = typeBits(type);
  const std::string opcode(ast_.opcode);
  switch (o.kind) {
  case OperandAst::Kind::Integer: {
    if (type == Type::F32 || type == Type::F64)
      return fail(o.at, opcode + ": an integer where a ." + typeName(type) + " is expected");
    // Either reading of the bits: 0xffffffff and -1 are the same u32.
    const int64_t v = int64_t(o.value);
    if (want < 64 && (v < -(int64_t(1) << (want - 1)) || v > int64_t((uint64_t(1) << want) - 1)))
      return fail(o.at, opcode + ": " + std::to_string(v) + " does not fit ." + typeName(type));
    srcs_.push_back(names_.constant(want < 64 ? o.value & ((uint64_t(1) << want) - 1) : o.value,
                                    std::max(want, 2), std::to_string(v)));
    return;
  }
  case OperandAst::Kind::Float32:
    if (want != 32)
      return fail(o.at, opcode + ": a 32-bit float where a ." + typeName(type) + " is expected");
    srcs_.push_back(names_.constant(o.value, 32, "constant"));
    return;
  case OperandAst::Kind::Float64:
    if (type == Type::F32) { // a double constant is rounded to the type
      double d;
      std::memcpy(&d, &o.value, 8);
      const float f = float(d);
      uint32_t bits;
      std::memcpy(&bits, &f, 4);
      srcs_.push_back(names_.constant(bits, 32, "constant"));
      return;
    }
    if (want != 64)
      return fail(o.at, opcode + ": a 64-bit float where a ." + typeName(type) + " is expected");
    srcs_.push_back(names_.constant(o.value, 64, "constant"));
    return;
  case OperandAst::Kind::Name:
    break;
  default:
    return fail(o.at, opcode + ": expected a register or a constant");
  }
  if (const auto *v = names_.variable(o.name, ast_.scope); v && !names_.isRegister(o.name, ast_.scope)) {
    if (v->space == Space::Global)
      return fail(o.at, kNoGlobals);
    if (want != 32 && want != 64)
      return fail(o.at, opcode + ": the address of " + std::string(o.name) + " where a ." + typeName(type) +
                            " is expected");
    srcs_.push_back(names_.constant(v->address, want, std::string(o.name)));
    return;
  }
  const auto found = names_.registerNamed(o.name, ast_.scope, o.at);
  if (!found)
    return;
  const int have = typeBits(found->type);
  if (found->type == Type::Pred || !(have == want || (wider && have > want)))
    return fail(o.at, opcode + ": register " + std::string(o.name) + " is ." + typeName(found->type) +
                          ", the instruction reads ." + typeName(type));
  srcs_.push_back(found->operand);
}

void Builder::predDst(const OperandAst &o) {
  if (failed())
    return;
  sink = o.kind == OperandAst::Kind::Sink;
  if (sink) {
    dsts_.push_back(names_.sink());
    return;
  }
  if (o.kind != OperandAst::Kind::Name)
    return fail(o.at, std::string(ast_.opcode) + ": expected a predicate register");
  const auto found = names_.registerNamed(o.name, ast_.scope, o.at);
  if (!found)
    return;
  if (found->type != Type::Pred)
    return fail(o.at, std::string(ast_.opcode) + ": register " + std::string(o.name) + " is ." +
                          typeName(found->type) + ", a predicate is expected");
  dsts_.push_back(found->operand);
}

void Builder::predSrc(const OperandAst &o) {
  if (failed())
    return;
  negated_source = o.negated;
  if (o.kind == OperandAst::Kind::Integer) {
    srcs_.push_back(names_.constant(o.value != 0, 1, std::to_string(o.value)));
    return;
  }
  if (o.kind != OperandAst::Kind::Name)
    return fail(o.at, std::string(ast_.opcode) + ": expected a predicate register");
  const auto found = names_.registerNamed(o.name, ast_.scope, o.at);
  if (!found)
    return;
  if (found->type != Type::Pred)
    return fail(o.at, std::string(ast_.opcode) + ": register " + std::string(o.name) + " is ." +
                          typeName(found->type) + ", a predicate is expected");
  srcs_.push_back(found->operand);
}

void Builder::dstVector(const OperandAst &o, size_t n, Type type, bool wider) {
  if (failed())
    return;
  if (o.kind != OperandAst::Kind::Vector) {
    if (n != 1)
      return fail(o.at, std::string(ast_.opcode) + ": expected {" + std::to_string(n) + " registers}");
    return dst(o, type, wider);
  }
  if (o.elements.size() != n)
    return fail(o.at, std::string(ast_.opcode) + ": " + std::to_string(o.elements.size()) +
                          " registers in braces, expected " + std::to_string(n));
  for (const OperandAst &e : o.elements)
    dst(e, type, wider);
}

void Builder::srcVector(const OperandAst &o, size_t n, Type type, bool wider) {
  if (failed())
    return;
  if (o.kind != OperandAst::Kind::Vector) {
    if (n != 1)
      return fail(o.at, std::string(ast_.opcode) + ": expected {" + std::to_string(n) + " registers}");
    return src(o, type, wider);
  }
  if (o.elements.size() != n)
    return fail(o.at, std::string(ast_.opcode) + ": " + std::to_string(o.elements.size()) +
                          " registers in braces, expected " + std::to_string(n));
  for (const OperandAst &e : o.elements)
    src(e, type, wider);
}

void Builder::address(size_t i, Space space) {
  if (failed())
    return;
  const OperandAst &o = operand(i);
  if (o.kind != OperandAst::Kind::Address)
    return fail(o.at, std::string(ast_.opcode) + ": expected an address in brackets");
  if (o.elements.size() != 1)
    return fail(o.at, std::string(ast_.opcode) + ": expected one address");
  const OperandAst &base = o.elements[0];
  out.space = space;
  out.immediate = o.offset;
  if (base.kind == OperandAst::Kind::Integer) {
    srcs_.push_back(names_.constant(base.value, 64, "constant"));
    return;
  }
  if (base.kind != OperandAst::Kind::Name)
    return fail(base.at,
                std::string(ast_.opcode) + ": the base of an address must be a register or a variable");
  if (!names_.isRegister(base.name, ast_.scope)) {
    const auto *v = names_.variable(base.name, ast_.scope);
    if (!v)
      return fail(base.at, "'" + std::string(base.name) + "' is not declared");
    if (v->space == Space::Global)
      return fail(base.at, kNoGlobals);
    if (v->space != space && !(v->space == Space::Shared && space == Space::SharedCluster))
      return fail(base.at, std::string(ast_.opcode) + ": " + std::string(base.name) + " is in ." +
                               spaceName(v->space) + " space, the instruction addresses ." +
                               spaceName(space));
    srcs_.push_back(names_.constant(v->address, 64, std::string(base.name)));
    return;
  }
  const auto found = names_.registerNamed(base.name, ast_.scope, base.at);
  if (!found)
    return;
  const int bits = typeBits(found->type);
  if (isFloat(found->type) || (bits != 64 && bits != 32) ||
      (bits == 32 && (space == Space::Global || space == Space::Generic)))
    return fail(base.at, std::string(ast_.opcode) + ": register " + std::string(base.name) + " is ." +
                             typeName(found->type) +
                             "; an address is .b64 (in shared, local, param and const also .b32)");
  srcs_.push_back(found->operand);
}

int64_t Builder::constant(size_t i, int64_t least, int64_t most) {
  const OperandAst &o = operand(i);
  if (o.kind == OperandAst::Kind::Integer && int64_t(o.value) >= least && int64_t(o.value) <= most)
    return int64_t(o.value);
  fail(o.at, std::string(ast_.opcode) + ": operand " + std::to_string(i + 1) + " must be a constant from " +
                 std::to_string(least) + " to " + std::to_string(most));
  return least;
}

void Builder::label(size_t i) {
  if (failed())
    return;
  const OperandAst &o = operand(i);
  if (o.kind != OperandAst::Kind::Name)
    return fail(o.at, std::string(ast_.opcode) + ": expected a label");
  out.target = names_.label(o.name, ast_.scope, o.at);
}

bool Builder::exactWidth(size_t i, Type type) {
  const OperandAst &o = operand(i);
  if (failed() || o.kind != OperandAst::Kind::Name || !names_.isRegister(o.name, ast_.scope))
    return false;
  const auto found = names_.registerNamed(o.name, ast_.scope, o.at);
  return found && typeBits(found->type) == typeBits(type);
}

void Builder::finish(std::vector<Operand> &pool) {
  if (failed())
    return;
  if (!ast_.guard.empty()) {
    const auto found = names_.registerNamed(ast_.guard, ast_.scope, ast_.at);
    if (!found)
      return;
    if (found->type != Type::Pred)
      return fail("the guard " + std::string(ast_.guard) + " is no predicate");
    out.guard = found->operand;
    out.guarded = true;
    out.guard_negated = ast_.guard_negated;
  }
  out.destinations = uint16_t(dsts_.size());
  out.sources = uint16_t(srcs_.size());
  pool.insert(pool.end(), dsts_.begin(), dsts_.end());
  pool.insert(pool.end(), srcs_.begin(), srcs_.end());
}

// --- program
// -------------------------------------------------------------------------------------------------------

namespace {

void decodeInstruction(const InstructionAst &ast, Names &names, Program &program) {
  Instruction in;
  in.at = ast.at;
  in.text = ast.text;
  while (!in.text.empty() && (in.text.front() == ' ' || in.text.front() == '\t'))
    in.text.remove_prefix(1);
  if (in.text.ends_with(';'))
    in.text.remove_suffix(1);
  const char *end = ast.modifiers.empty() ? ast.opcode.data() + ast.opcode.size()
                                          : ast.modifiers.back().data() + ast.modifiers.back().size();
  in.opcode = {ast.opcode.data(), size_t(end - ast.opcode.data())};
  const auto row = opcodes().find(ast.opcode);
  if (row == opcodes().end())
    return names.fail(ast.at, "instruction '" + std::string(ast.opcode) + "' is not known");
  Builder b(ast, names, in);
  row->second(b);
  b.endModifiers();
  b.finish(program.operand_pool);
  if (b.failed())
    return;
  if (program.overlaps && in.opcode.find(".nc") != std::string_view::npos)
    return names.fail(ast.at, std::string(in.opcode) +
                                  ": what it reads must be constant while the kernel runs, "
                                  "and the kernel before may still write (" +
                                  kOverlapSymbol + ")");
  program.has_wgmma |= in.op_class == OpClass::Wgmma;
  program.code.push_back(in);
}

} // namespace

Result<std::shared_ptr<const Program>> decodeProgram(std::shared_ptr<const ModuleAst> module,
                                                     std::string_view name) {
  const EntryAst *entry = nullptr;
  for (const EntryAst &e : module->entries)
    if (e.name == name || (name.empty() && module->entries.size() == 1))
      entry = &e;
  if (!entry)
    return invalidArgument(name.empty() ? "the module has " + std::to_string(module->entries.size()) +
                                              " entries; name one"
                                        : "the module has no entry '" + std::string(name) + "'");
  auto program = std::make_shared<Program>();
  program->module = module;
  program->entry = std::string(entry->name);
  std::copy(entry->required_threads, entry->required_threads + 3, program->required_threads);
  std::copy(entry->max_threads, entry->max_threads + 3, program->max_threads);
  program->explicit_cluster = entry->cluster[0] != 0;
  if (program->explicit_cluster)
    std::copy(entry->cluster, entry->cluster + 3, program->cluster);
  program->max_registers = entry->max_registers;
  program->min_ctas = entry->min_ctas;
  InstructionAst exit; // falling off the end is an exit
  exit.at = entry->end;
  exit.opcode = "exit";
  exit.text = "}";
  Names names(*module, *entry, *program);
  for (const InstructionAst &ast : entry->code)
    if (!names.failed())
      decodeInstruction(ast, names, *program);
  if (!names.failed())
    decodeInstruction(exit, names, *program);
  FLASHPLUS_RETURN_IF_ERROR(names.status());
  const Operand *at = program->operand_pool.data();
  for (Instruction &in : program->code) {
    in.operands = at;
    at += in.destinations + in.sources;
  }
  findReconvergence(program->code);
  return std::shared_ptr<const Program>(std::move(program));
}

Result<std::shared_ptr<const Program>> loadProgram(std::string ptx, std::string_view entry) {
  auto module = parsePtx(std::move(ptx));
  if (!module)
    return module.status();
  return decodeProgram(std::shared_ptr<const ModuleAst>(std::move(*module)), entry);
}

} // namespace flashplus::emu
