// SPDX-License-Identifier: BSD-3-Clause
// PTX decoded once: registers are places in a register file, labels are indices, every instruction has its
// handler.
//
// A register file is bytes; a register of up to 32 bits is 32 lanes of uint32_t (upper bits zero), a 64-bit
// one 32 lanes of uint64_t, a predicate one uint32_t with a bit a lane. Immediates and the special registers
// that do not change are registers too, filled when a warp starts, so that handlers know one kind of operand.
#pragma once

#include "emulator/ptx/ast.h"
#include "spec/status.h"

#include <algorithm>
#include <memory>
#include <span>

namespace flashplus::emu {

class Warp;
struct Instruction;
/// Executes one instruction for the lanes of `mask`, which is never empty.
using Handler = void (*)(Warp &warp, const Instruction &in, uint32_t mask);

struct Operand {
  uint32_t offset = 0; ///< Bytes into the register file.
  uint32_t reg = 0;    ///< Index of its "written" mask.
};

enum class SpecialRegister : uint8_t {
  None,
  TidX,
  TidY,
  TidZ,
  NtidX,
  NtidY,
  NtidZ,
  CtaidX,
  CtaidY,
  CtaidZ,
  NctaidX,
  NctaidY,
  NctaidZ,
  LaneId,
  WarpId,
  NwarpId,
  SmId,
  NsmId,
  LanemaskEq,
  LanemaskLe,
  LanemaskLt,
  LanemaskGe,
  LanemaskGt,
  DynamicSmemSize,
  TotalSmemSize,
  ClusterCtaRank,
  ClusterNctaRank,
  ClusterCtaidX,
  ClusterCtaidY,
  ClusterCtaidZ,
  ClusterNctaidX,
  ClusterNctaidY,
  ClusterNctaidZ,
  ClusteridX,
  ClusteridY,
  ClusteridZ,
  NclusteridX,
  NclusteridY,
  NclusteridZ,
  GridId,
  IsExplicitCluster,
};

struct RegisterInfo {
  std::string name; ///< As in the text; a constant has its text.
  uint32_t offset = 0;
  uint8_t bytes = 4; ///< Of a lane's place: 4 or 8; 0 for a predicate.
  uint8_t bits = 32; ///< As declared.
  bool constant = false;
  SpecialRegister special = SpecialRegister::None;
  uint64_t value = 0; ///< Of a constant.
};

/// What an instruction is to the statistics.
enum class OpClass : uint8_t {
  Control,
  Integer,
  Float,
  Special,
  Convert,
  Move,
  GlobalLoad,
  GlobalStore,
  SharedLoad,
  SharedStore,
  ParamLoad,
  LocalMemory,
  AsyncCopy,
  Matrix,
  Wgmma,
  Barrier,
  Exchange,
  Atomic,
  Other,
};
inline constexpr int kOpClasses = int(OpClass::Other) + 1;
const char *opClassName(OpClass c);

inline constexpr uint32_t kNoTarget = ~0u;

struct Instruction {
  Handler run = nullptr;
  const Operand *operands = nullptr; ///< Destinations, then sources.
  uint16_t destinations = 0, sources = 0;
  Operand guard;
  bool guarded = false, guard_negated = false;
  bool moves =
      false; ///< Copies registers, values or not: it passes on which halves are written, and checks nothing.
  bool aligned = false; ///< All lanes of the warp that have not exited must execute it together.
  OpClass op_class = OpClass::Other;
  Space space = Space::Generic;
  uint8_t lane_bytes = 0; ///< Memory: bytes of one element.
  uint8_t elements = 1;   ///< Memory: elements of a vector.
  uint8_t mode = 0;       ///< Meaning is the handler's.
  uint8_t mode2 = 0;
  int64_t immediate = 0;              ///< Address offset, or whatever the handler wants.
  uint32_t target = kNoTarget;        ///< Branch.
  uint32_t reconvergence = kNoTarget; ///< Branch: where its two sides meet; kNoTarget: only at the exit.
  uint32_t flops = 0;                 ///< Matrix: multiply-adds of the warp.
  Location at;
  std::string_view text;   ///< As written.
  std::string_view opcode; ///< With modifiers, without operands and guard.

  const Operand &dst(int i = 0) const { return operands[i]; }
  const Operand &src(int i) const { return operands[destinations + i]; }
};

struct Variable {
  std::string_view name;
  Space space = Space::Shared;
  uint64_t offset = 0; ///< In its space's block.
  uint64_t bytes = 0;
};

/// One entry, ready to run. Immutable, so that any number of threads may run it.
struct Program {
  std::shared_ptr<const ModuleAst> module; ///< Owns the text.
  std::string entry;
  std::vector<Instruction> code; ///< Ends in an implicit exit.
  std::vector<Operand> operand_pool;
  std::vector<RegisterInfo> registers;
  uint32_t register_file_bytes = 0;
  std::vector<Variable> params; ///< Offsets in the parameter block.
  uint64_t param_bytes = 0;
  uint64_t static_shared_bytes = 0; ///< Dynamic shared memory follows, aligned.
  uint64_t dynamic_shared_offset = 0;
  uint64_t local_bytes = 0; ///< Per thread.
  std::vector<uint8_t> const_data, const_written;
  uint32_t required_threads[3] = {0, 0, 0}, max_threads[3] = {0, 0, 0}, cluster[3] = {1, 1, 1};
  bool explicit_cluster = false;
  int max_registers = 0, min_ctas = 0;
  /// Of a multiprocessor's, those of a CTA that must leave room for the others.
  int registersOfCta() const { return 65536 / std::max(min_ctas, 1); }
  bool has_wgmma = false;
  bool overlaps = false; ///< May be launched while the kernel before it runs (spec/overlap.h).

  Program() = default;
  Program(const Program &) = delete;
};

/// Shared memory starts here in its own space, so that null is no address in it.
inline constexpr uint32_t kSharedBase = 1024;
/// Where parameters start in their own space.
inline constexpr uint32_t kParamBase = 64;

/// Decodes entry `name` ("" = the only one). InvalidArgument with line and column for what the emulator does
/// not know, or what PTX does not allow: an unknown instruction or modifier, an operand of the wrong kind or
/// width, an undeclared name.
Result<std::shared_ptr<const Program>> decodeProgram(std::shared_ptr<const ModuleAst> module,
                                                     std::string_view name);

/// parsePtx() and decodeProgram().
Result<std::shared_ptr<const Program>> loadProgram(std::string ptx, std::string_view entry);

} // namespace flashplus::emu
