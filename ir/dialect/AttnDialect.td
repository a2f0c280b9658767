// SPDX-License-Identifier: BSD-3-Clause
// The attn dialect: level 1 of the compiler, *what* is computed. See docs/rationale/attn-dialect.md.
#ifndef FLASHPLUS_ATTN_DIALECT
#define FLASHPLUS_ATTN_DIALECT

include "mlir/IR/OpBase.td"

def Attn_Dialect : Dialect {
  let name = "attn";
  let cppNamespace = "::flashplus::attn";
  let summary = "Attention kernels as one operation each";
  let description = [{
    An `attn` operation is a KernelSpec (spec/kernel_spec.h) in IR form, with the schedule and the target that it is to
    be expanded for. What a caller may vary is a region over one score; the pass `attn-expand` replaces the operation
    by a kernel in `scf`, `arith` and the target's dialects.
  }];
}

class Attn_Op<string mnemonic, list<Trait> traits = []> : Op<Attn_Dialect, mnemonic, traits>;

#endif
