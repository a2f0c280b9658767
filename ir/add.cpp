// SPDX-License-Identifier: BSD-3-Clause
#include "ir/add.h"

#include "ir/ptx.h"

using namespace mlir;

namespace flashplus::gpu {

void add4(Ir &ir, Val pointer, int64_t offset, ArrayRef<Val> values) {
  ptx(ir, "red.relaxed.gpu.global.add.v4.f32 [$0+" + std::to_string(offset) + "], {$1, $2, $3, $4};",
      "l,f,f,f,f,~{memory}", {pointer, values[0], values[1], values[2], values[3]});
}

void storeMatrix4(Ir &ir, Val shared, ArrayRef<Val> matrices, bool transposed) {
  ptx(ir,
      std::string("stmatrix.sync.aligned.m8n8.x4") + (transposed ? ".trans" : "") +
          ".shared.b16 [$0], {$1, $2, $3, $4};",
      "r,r,r,r,r,~{memory}", {shared, matrices[0], matrices[1], matrices[2], matrices[3]});
}

} // namespace flashplus::gpu
