// SPDX-License-Identifier: BSD-3-Clause
#include "ir/tma.h"

#include "ir/ptx.h"

using namespace mlir;

namespace flashplus::gpu {

void loadBox(Ir &ir, Val shared, Val map, const Vals &coordinates, Val barrier, Keep keep) {
  std::string text = "cp.async.bulk.tensor." + std::to_string(coordinates.size()) +
                     "d.shared::cluster.global.tile.mbarrier::complete_tx::bytes";
  if (keep != Keep::Normal)
    text += ".L2::cache_hint";
  text += " [$0], [$1, " + registers(3, int(coordinates.size())) + "], [$2]";
  // Cache policies as createpolicy.fractional with fraction 1 makes them (CUTLASS names the same two
  // constants).
  if (keep == Keep::First)
    text = "{ .reg .b64 policy; mov.b64 policy, 0x12F0000000000000; " + text + ", policy; }";
  else if (keep == Keep::Last)
    text = "{ .reg .b64 policy; mov.b64 policy, 0x14F0000000000000; " + text + ", policy; }";
  else
    text += ";";
  Vals operands{shared, map, barrier};
  operands.insert(operands.end(), coordinates.begin(), coordinates.end());
  ptx(ir, text, "r,l,r," + repeat("r", int(coordinates.size())) + ",~{memory}", operands);
}

void prefetchMap(Ir &ir, Val map) { ptx(ir, "prefetch.tensormap [$0];", "l,~{memory}", {map}); }

void fenceAsyncShared(Ir &ir) { ptx(ir, "fence.proxy.async.shared::cta;"); }

} // namespace flashplus::gpu
