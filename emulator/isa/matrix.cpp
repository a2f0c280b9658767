// SPDX-License-Identifier: BSD-3-Clause
// ldmatrix, stmatrix, movmatrix and mma.sync. Fragment layouts: PTX ISA, "Warp-level matrix instructions".
#include "emulator/isa/access.h"
#include "emulator/isa/builder.h"
#include "emulator/isa/float_bits.h"

namespace flashplus::emu {
namespace {

// --- ldmatrix, stmatrix
// -------------------------------------------------------------------------------------------- 8 x 8 matrices
// of 16 bits. Lane 8 i + r holds the address of row r of matrix i. In a register, lane l has elements 2 (l %
// 4) and the next of row l / 4; with .trans of column l / 4.

/// Row addresses of the matrices: lanes that need not have one are left out of `mask`.
uint32_t rowLanes(int matrices) { return matrices == 4 ? kAllLanes : (1u << (8 * matrices)) - 1; }

void countMatrixBanks(Warp &w, const uint64_t (&at)[kLanes], int matrices) {
  countBanks(w, at, rowLanes(matrices), 16);
}

void runLoadMatrix(Warp &w, const Instruction &in, uint32_t mask) {
  uint64_t at[kLanes];
  addresses(w, in, 0, at);
  const int matrices = in.destinations;
  uint16_t values[4][8][8];
  for (int i = 0; i < matrices; ++i)
    for (int r = 0; r < 8; ++r) {
      const uint32_t lane = uint32_t(8 * i + r);
      const uint8_t *from = access(w, Space::Shared, at[lane], 16, 16, lane, AccessKind::Read);
      if (!from)
        return;
      std::memcpy(values[i][r], from, 16);
    }
  uint32_t out[kLanes];
  for (int i = 0; i < matrices; ++i) {
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
      const uint32_t row = lane / 4, column = 2 * (lane % 4);
      const uint32_t a = in.mode ? values[i][column][row] : values[i][row][column];
      const uint32_t b = in.mode ? values[i][column + 1][row] : values[i][row][column + 1];
      out[lane] = a | b << 16;
    }
    w.store<uint32_t>(in.dst(i), mask, out);
  }
  w.cta().statistics().shared_read += uint64_t(matrices) * 128;
  countMatrixBanks(w, at, matrices);
}

void runStoreMatrix(Warp &w, const Instruction &in, uint32_t) {
  uint64_t at[kLanes];
  addresses(w, in, 0, at);
  const int matrices = in.sources - 1;
  for (int i = 0; i < matrices; ++i) {
    const uint32_t *v = w.lanes<uint32_t>(in.src(1 + i));
    uint16_t values[8][8];
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
      const uint32_t row = lane / 4, column = 2 * (lane % 4);
      (in.mode ? values[column][row] : values[row][column]) = uint16_t(v[lane]);
      (in.mode ? values[column + 1][row] : values[row][column + 1]) = uint16_t(v[lane] >> 16);
    }
    for (int r = 0; r < 8; ++r) {
      const uint32_t lane = uint32_t(8 * i + r);
      uint8_t *to = access(w, Space::Shared, at[lane], 16, 16, lane, AccessKind::Write);
      if (!to)
        return;
      std::memcpy(to, values[r], 16);
    }
  }
  w.cta().statistics().shared_written += uint64_t(matrices) * 128;
  countMatrixBanks(w, at, matrices);
}

template <bool Load> void decodeMatrixAccess(Builder &b) {
  b.require("sync");
  b.require("aligned");
  b.require("m8n8");
  const size_t n = size_t(1) << b.takeOneOf({"x1", "x2", "x4"});
  b.out.mode = b.take("trans");
  b.takeOneOf({"shared", "shared::cta"});
  b.require("b16");
  b.wantOperands(2);
  if (Load) {
    b.dstVector(b.operand(0), n, Type::B32);
    b.address(1, Space::Shared);
    b.out.run = runLoadMatrix;
    b.out.op_class = OpClass::SharedLoad;
  } else {
    b.address(0, Space::Shared);
    b.srcVector(b.operand(1), n, Type::B32);
    b.out.run = runStoreMatrix;
    b.out.op_class = OpClass::SharedStore;
  }
  b.out.aligned = true;
}

// --- movmatrix
// -------------------------------------------------------------------------------------------------------

/// The transposed of the 8 x 8 matrix that the warp holds, in the layout of ldmatrix's registers.
void runMoveMatrix(Warp &w, const Instruction &in, uint32_t mask) {
  const uint32_t *v = w.lanes<uint32_t>(in.src(0));
  uint16_t values[8][8];
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    values[lane / 4][2 * (lane % 4)] = uint16_t(v[lane]);
    values[lane / 4][2 * (lane % 4) + 1] = uint16_t(v[lane] >> 16);
  }
  uint32_t out[kLanes];
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    const uint32_t row = lane / 4, column = 2 * (lane % 4);
    out[lane] = values[column][row] | uint32_t(values[column + 1][row]) << 16;
  }
  w.store<uint32_t>(in.dst(), mask, out);
}

void decodeMoveMatrix(Builder &b) {
  b.require("sync");
  b.require("aligned");
  b.require("m8n8");
  b.require("trans");
  b.require("b16");
  b.wantOperands(2);
  b.dst(0, Type::B32);
  b.src(1, Type::B32);
  b.out.run = runMoveMatrix;
  b.out.aligned = true;
  b.out.op_class = OpClass::Exchange;
}

// --- mma.sync
// --------------------------------------------------------------------------------------------------------

template <bool Bf> float element(uint32_t pair, int half) {
  const auto bits = uint16_t(half ? pair >> 16 : pair);
  return Bf ? bfloatToFloat(bits) : halfToFloat(bits);
}

/// D = A B + C for m16n8k(K), fp32 accumulators. Products are exact; the sum of a dot product and C is formed
/// in double and rounded once (docs/emulator.md: the hardware's order and width are its own).
template <bool Bf, int K> void runMma(Warp &w, const Instruction &in, uint32_t mask) {
  constexpr int kA = K / 4, kB = K / 8; // registers
  double a[16][K], bt[8][K];
  for (int r = 0; r < kA; ++r) {
    const uint32_t *v = w.lanes<uint32_t>(in.src(r));
    for (int lane = 0; lane < 32; ++lane) {
      const int row = lane / 4 + 8 * (r % 2), k = 2 * (lane % 4) + 8 * (r / 2);
      a[row][k] = element<Bf>(v[lane], 0);
      a[row][k + 1] = element<Bf>(v[lane], 1);
    }
  }
  for (int r = 0; r < kB; ++r) {
    const uint32_t *v = w.lanes<uint32_t>(in.src(kA + r));
    for (int lane = 0; lane < 32; ++lane) {
      const int column = lane / 4, k = 2 * (lane % 4) + 8 * r;
      bt[column][k] = element<Bf>(v[lane], 0);
      bt[column][k + 1] = element<Bf>(v[lane], 1);
    }
  }
  for (int r = 0; r < 4; ++r) {
    const uint32_t *c = w.lanes<uint32_t>(in.src(kA + kB + r));
    uint32_t out[kLanes];
    for (int lane = 0; lane < 32; ++lane) {
      const double *x = a[lane / 4 + 8 * (r / 2)], *y = bt[2 * (lane % 4) + r % 2];
      double sum = std::bit_cast<float>(c[lane]);
      for (int k = 0; k < K; ++k)
        sum += x[k] * y[k];
      out[lane] = std::bit_cast<uint32_t>(canonical(float(sum)));
    }
    w.store<uint32_t>(in.dst(r), mask, out);
  }
}

void decodeMma(Builder &b) {
  b.require("sync");
  b.require("aligned");
  const bool k8 = b.takeOneOf({"m16n8k16", "m16n8k8"}) == 1;
  b.require("row");
  b.require("col");
  b.require("f32");
  const bool bf = b.takeOneOf({"f16", "bf16"}) == 1;
  b.require(bf ? "bf16" : "f16");
  b.require("f32");
  b.wantOperands(4);
  b.dstVector(b.operand(0), 4, Type::F32);
  b.srcVector(b.operand(1), k8 ? 2 : 4, Type::B32);
  b.srcVector(b.operand(2), k8 ? 1 : 2, Type::B32);
  b.srcVector(b.operand(3), 4, Type::F32);
  b.out.run = bf ? (k8 ? runMma<true, 8> : runMma<true, 16>) : (k8 ? runMma<false, 8> : runMma<false, 16>);
  b.out.flops = 16 * 8 * (k8 ? 8 : 16);
  b.out.aligned = true;
  b.out.op_class = OpClass::Matrix;
}

} // namespace

void addMatrix(OpcodeTable &t) {
  t["ldmatrix"] = decodeMatrixAccess<true>;
  t["stmatrix"] = decodeMatrixAccess<false>;
  t["movmatrix"] = decodeMoveMatrix;
  t["mma"] = decodeMma;
}

} // namespace flashplus::emu
