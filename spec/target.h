// SPDX-License-Identifier: BSD-3-Clause
// Target: *where* code runs. {instructions the template may use, PTX version, chip the code is assembled
// for}. One table, `kTargets`, lists what exists and what it can do; a new target is a row there, and runs
// every algorithm whose needs it meets.
#pragma once

#include "spec/status.h"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace flashplus {

enum class Isa { // of the CPUs each includes those before it
  X86_64_v3, ///< AVX2, FMA, F16C: 8 fp32 lanes, 16 vector registers
  X86_64_v4, ///< AVX-512 F/BW/DQ/VL: 16 fp32 lanes, 32 vector registers
  X86_64_v4_Bf16, ///< X86_64_v4's and AVX512_BF16: products of pairs of bf16
  Sm80,      ///< mma.sync, ldmatrix, cp.async
  Sm90a,     ///< Sm80's, and wgmma, TMA, mbarrier, setmaxnreg: compute capability 9.0 only
};

enum class TargetKind { Cpu, Gpu };

/// What the instructions of a target can do, a bit each: algorithms say what they need.
enum Feature : uint32_t {
  kMmaSync = 1 << 0,      ///< mma.sync m16n8k16, ldmatrix, cp.async
  kTma = 1 << 1,          ///< cp.async.bulk.tensor, mbarrier
  kWgmma = 1 << 2,        ///< Warpgroup products.
  kSetMaxRegisters = 1 << 3, ///< setmaxnreg: wants an assembler that is not nvJitLink
                             ///< (docs/rationale/assemblers.md).
  kBf16Dot = 1 << 4,      ///< AVX512_BF16: products of pairs of bf16.
};

/// One row of the table of instruction sets.
struct IsaInfo {
  Isa isa;
  TargetKind kind;
  uint32_t features;          ///< Bits of Feature.
  std::string_view name;      ///< "x86-64-v3", "sm_80"; of a CPU a processor of LLVM's and "+" features
  int vector_lanes;           ///< fp32 lanes of a vector register (CPU), 0 for a GPU
  int vector_registers;       ///< CPU only
  int ptx_version;            ///< Emitted PTX ISA version times ten (80 = 8.0); 0 for a CPU
  int least_driver;           ///< CUDA driver API version that accepts it, as cuDriverGetVersion counts
                              ///< (12000)
  std::string_view chip_suffix; ///< "a" where the code runs on exactly that chip and on none later
  std::span<const int> chips;   ///< Compute capabilities (80, 86, ...) its PTX may be assembled for

  bool has(Feature feature) const { return (features & feature) != 0; }
};

std::span<const IsaInfo> isaTable();
const IsaInfo &isaInfo(Isa isa);
inline bool isGpu(Isa isa) { return isaInfo(isa).kind == TargetKind::Gpu; }

struct Target {
  Isa isa = Isa::X86_64_v3;
  int chip = 0; ///< Compute capability the PTX is assembled for (80, 90, ...); 0 for a CPU.

  /// "x86-64-v3", or "sm_80@sm_90" (instructions @ chip).
  std::string text() const;
  /// As assemblers name the chip: "sm_90", "sm_90a".
  std::string chipName() const;
  /// Accepts what text() prints and, for a GPU, "sm_80" alone (= "sm_80@sm_80").
  static Result<Target> parse(std::string_view text);

  /// Shared memory one thread block may use on this chip, in bytes (0 for a CPU).
  int sharedMemoryPerBlock() const;

  bool operator==(const Target &) const = default;
};

} // namespace flashplus
