// SPDX-License-Identifier: BSD-3-Clause
// Artifact: compiled code together with everything a launcher must know to run it. What the compiler
// returns, the cache stores and the runtime loads.
#pragma once

#include "spec/operand.h"
#include "spec/status.h"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace flashplus {

enum class CodeKind {
  X86Object, ///< ELF64 relocatable, position independent, self-contained
  Ptx,       ///< NUL-free text; the driver assembles it
  Cubin,
};

/// A hardware tensor map (CUtensorMap) that the code reads one of the operands through: boxes of rows x
/// columns with 128-byte swizzle. Dimensions are (head dim, row, head, batch); outside them a read gives
/// zeros.
struct TensorMap {
  Operand operand = Operand::Q;
  int box_rows = 0;
  int box_columns = 0; ///< Elements; box_columns times the element's size is at most 128 bytes.
  bool operator==(const TensorMap &) const = default;
};
inline constexpr int kMaxTensorMaps = 8;
inline constexpr int kTensorMapBytes = 128; ///< sizeof(CUtensorMap); 64-byte aligned.

/// Launch schema. The entry takes the operation's params struct (spec/params.h):
///   CPU: void entry(const Params *params, int64_t work_item, void *scratch)  -- scratch is 64-byte aligned
///   GPU: .entry entry(Params by value[, CUtensorMap[n] by value]), 1-D grid
struct LaunchSchema {
  std::string entry;              ///< Symbol name.
  int threads = 0;                ///< Threads of a block; 0 for a CPU.
  int64_t shared_memory = 0;      ///< Dynamic shared memory of a block in bytes (GPU).
  int64_t scratch = 0;            ///< Private scratch of a worker in bytes (CPU).
  int64_t params_size = 0;        ///< sizeof the params struct that the code reads.
  int blocks_per_sm = 0;          ///< 0: one block per work item. n: at most n blocks per multiprocessor,
                                  ///< each of which takes the items blockIdx, blockIdx + gridDim, ... (GPU).
  std::vector<TensorMap> tensor_maps; ///< The second parameter of the entry; without them it has one (GPU).
  bool operator==(const LaunchSchema &) const = default;
};

/// What the assembler reported; -1 where it said nothing.
struct Resources {
  int registers = -1;
  int spill_bytes = -1; ///< Spill stores plus loads.
  int stack_bytes = -1;
  bool operator==(const Resources &) const = default;
};

/// What turned PTX into machine code, as it calls itself: "ptxas", 13, 0. None of it is in a key: any
/// assembler's code will do, and some is better (isBetter()).
struct Assembler {
  enum class Kind { None, NvJitLink, Ptxas, Driver };
  Kind kind = Kind::None; ///< None: nothing did; the code is PTX, or was never PTX.
  int major = 0, minor = 0;
  bool operator==(const Assembler &) const = default;
};

struct Artifact {
  CodeKind kind = CodeKind::X86Object;
  std::vector<uint8_t> code;
  LaunchSchema launch;
  Resources resources;
  Assembler assembler;
  std::string provenance; ///< For people: what made the code, e.g. "LLVM 22.1.8, nvJitLink 13.0".
  bool operator==(const Artifact &) const = default;
};

/// Whether `a` should take the place of `b`, which is of the same key: machine code is better than PTX, and a
/// newer assembler's than an older one's. Equal ones are not better than each other.
bool isBetter(const Artifact &a, const Artifact &b);

/// "ptxas", 13, 0 out of a version text such as "13.0"; 0.0 if that is not what it is.
Assembler assemblerOf(Assembler::Kind kind, std::string_view version);

/// The artifact as one byte string: the payload of a cache entry, and what crosses compiler/entry.h. Equal
/// artifacts give equal bytes. The format is in docs/file-formats.md.
std::vector<uint8_t> serializeArtifact(const Artifact &artifact);

/// Parses what serializeArtifact() wrote. `bytes` may be anything: whatever is not exactly a serialised
/// artifact is InvalidArgument that names the field. Refused as well: a negative launch size, an entry name
/// or PTX text with a NUL inside. Accepted bytes are canonical: serialising the result gives them back.
Result<Artifact> parseArtifact(std::span<const uint8_t> bytes);

} // namespace flashplus
