// SPDX-License-Identifier: BSD-3-Clause
// Target: *where* code runs. {instructions the template may use, PTX version, chip the code is assembled
// for}. One table, `kTargets`, lists what exists; a new target is a row there and a template half.
#pragma once

#include "spec/status.h"

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

constexpr bool isGpu(Isa isa) { return isa == Isa::Sm80 || isa == Isa::Sm90a; }

/// One row of the table of instruction sets.
struct IsaInfo {
  Isa isa;
  std::string_view name;      ///< "x86-64-v3", "sm_80"; of a CPU a processor of LLVM's and "+" features
  int vector_lanes;           ///< fp32 lanes of a vector register (CPU), 0 for a GPU
  int vector_registers;       ///< CPU only
  int ptx_version;            ///< Emitted PTX ISA version times ten (80 = 8.0); 0 for a CPU
  int least_driver;           ///< CUDA driver API version that accepts it, as cuDriverGetVersion counts (12000)
  std::string_view chip_suffix; ///< "a" where the code runs on exactly that chip and on none later
  std::span<const int> chips;   ///< Compute capabilities (80, 86, ...) its PTX may be assembled for
  bool bf16_dot = false;        ///< CPU only: has instructions for bf16
};

std::span<const IsaInfo> isaTable();
const IsaInfo &isaInfo(Isa isa);

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
