// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/rng_state.h"

namespace flashplus {

RngState::RngState(Ir &ir, const ParamReader &params) {
  Val state = params.get("rng_state");
  const Vals both = ir.ifElse(
      ir.isNull(state),
      [&] {
        return Vals{params.get("rng_seed"), params.get("rng_offset")};
      },
      [&] {
        return Vals{ir.load(ir.i64(), state, 8), ir.load(ir.i64(), ir.offset(state, 8), 8)};
      });
  auto high = [&](Val x) {
    return ir.toI32(ir.wrap(mlir::arith::ShRUIOp::create(ir.builder, ir.loc, x.value, ir.i64(32).value)));
  };
  offset = ir.toI32(both[1]);
  key[0] = ir.toI32(both[0]);
  key[1] = high(both[0]) ^ high(both[1]);
}

} // namespace flashplus
