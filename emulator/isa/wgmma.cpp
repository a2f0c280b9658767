// SPDX-License-Identifier: BSD-3-Clause
// wgmma.mma_async of f16, bf16, tf32, e4m3 and e5m2 with f32 accumulators, its fence, groups and waits.
// Whatever the type, a row of an operand is 32 bytes along K.
//
// A warp of the four computes its 16 rows when it issues; nothing is late but the permission to look: until
// its group is waited for, the accumulators may not be touched, operands in registers not be written
// (Warp::checkFlights), and operands in shared memory not be overwritten (SharedMemory::onGroupRead).
#include "emulator/core/tensor_map.h"
#include "emulator/isa/access.h"
#include "emulator/isa/builder.h"
#include "emulator/isa/float_bits.h"

namespace flashplus::emu {
namespace {

/// PTX ISA, "Matrix descriptor"; bits 62-63 as on sm_90.
struct Descriptor {
  uint32_t start, leading, stride, swizzle;

  explicit Descriptor(uint64_t bits)
      : start(uint32_t(bits & 0x3fff) << 4), leading(uint32_t(bits >> 16 & 0x3fff) << 4),
        stride(uint32_t(bits >> 32 & 0x3fff) << 4), swizzle(0) {
    constexpr uint32_t kBytes[4] = {0, 128, 64, 32};
    swizzle = kBytes[bits >> 62];
  }

  /// Address of 16-byte chunk `chunk` (8 elements of 2 bytes) of row `row`, for the layout whose rows run
  /// along K.
  uint32_t alongK(uint32_t row, uint32_t chunk) const {
    if (!swizzle) // 8 x 16-byte core matrices
      return start + row / 8 * stride + chunk * leading + row % 8 * 16;
    return swizzled(start + row / 8 * stride + row % 8 * swizzle + chunk * 16, swizzle);
  }
  /// Address of the chunk of 8 elements from `element` on, at depth k, for the layout whose rows run along M
  /// or N.
  uint32_t acrossK(uint32_t element, uint32_t k) const {
    const uint32_t span = swizzle / 2; // elements of a row of an atom
    return swizzled(start + element / span * leading + k / 8 * stride + k % 8 * swizzle + element % span * 2,
                    swizzle);
  }
};

/// Reads 16 bytes through the asynchronous proxy, checked. False after a fault.
bool readChunk(Warp &w, uint32_t address, uint16_t (&out)[8]) {
  SharedMemory &shared = w.cta().shared();
  if (address < kSharedBase || address - kSharedBase + 16 > shared.bytes()) {
    w.fault(FaultKind::OutOfBounds,
            "a matrix lies outside shared memory; the CTA has " + std::to_string(shared.bytes()) +
                " bytes from " + std::to_string(kSharedBase),
            -1, address, Space::Shared);
    return false;
  }
  SharedProblem problem;
  if (!shared.onGroupRead(address - kSharedBase, 16, {w.thread(0), w.pc()}, w.wgmma_committed + 1, problem)) {
    w.fault(problem, 0);
    return false;
  }
  std::memcpy(out, shared.data(address - kSharedBase), 16);
  return true;
}

enum class Input : uint8_t { F16, BF16, TF32, E4M3, E5M2 };
constexpr int inputBytes(Input t) { return t == Input::TF32 ? 4 : t >= Input::E4M3 ? 1 : 2; }

template <class Raw, class ToFloat> int widenAs(const void *from, int bytes, double *out, ToFloat toFloat) {
  Raw raw[16 / sizeof(Raw)];
  const int n = bytes / int(sizeof(Raw));
  std::memcpy(raw, from, size_t(bytes));
  for (int i = 0; i < n; ++i)
    out[i] = double(toFloat(raw[i]));
  return n;
}

/// `bytes` (4 or 16) of elements, as doubles; returns how many.
int widen(Input type, const void *from, int bytes, double *out) {
  switch (type) {
  case Input::F16:
    return widenAs<uint16_t>(from, bytes, out, halfToFloat);
  case Input::BF16:
    return widenAs<uint16_t>(from, bytes, out, bfloatToFloat);
  case Input::TF32:
    return widenAs<uint32_t>(from, bytes, out, tf32ToFloat);
  case Input::E4M3:
    return widenAs<uint8_t>(from, bytes, out, e4m3ToFloat);
  case Input::E5M2:
    return widenAs<uint8_t>(from, bytes, out, e5m2ToFloat);
  }
  return 0;
}

// `mode2` holds the types of A (lower 4 bits) and B.
enum : uint8_t {
  kRegisterA = 1,
  kTransposeA = 4,
  kTransposeB = 8,
  kNegateA = 16,
  kNegateB = 32,
  kScaleImmediate = 64,
  kScaleOn = 128
};

/// D must be fenced from what others did to it, and in flight only for wgmmas of the same shape.
bool checkAccumulators(Warp &w, const Instruction &in, int count, bool reads, int a_first, int a_count) {
  for (int i = 0; i < count + a_count; ++i) {
    const Operand &o = i < count ? in.dst(i) : in.src(a_first + i - count);
    if (w.fence_step == 0 || w.lastAccess(o) > w.fence_step) {
      w.fault(FaultKind::AsyncPending, "no wgmma.fence orders register " + w.registerName(o) + " before it",
              -1);
      return false;
    }
    if (i < count && reads && !w.isWritten(o, kAllLanes)) {
      w.fault(FaultKind::UninitialisedRegister,
              "accumulates on register " + w.registerName(o) + ", which nothing has written", -1);
      return false;
    }
    const Warp::Flight &f = w.flight(o);
    if (i < count ? f.operand > w.wgmma_waited : f.accumulator > w.wgmma_waited) {
      w.fault(FaultKind::AsyncPending,
              "register " + w.registerName(o) + " is " + (i < count ? "read" : "written") +
                  " by a wgmma that has not been waited for",
              -1);
      return false;
    }
  }
  return true;
}

void runWgmma(Warp &w, const Instruction &in, uint32_t) {
  const int n = in.destinations * 2;
  const bool register_a = in.mode & kRegisterA;
  const int a_count = register_a ? 4 : 1;
  bool scale = in.mode & kScaleOn;
  if (!(in.mode & kScaleImmediate)) {
    const uint32_t p = w.predicate(in.src(a_count + 1));
    if (p != 0 && p != kAllLanes)
      return w.fault(FaultKind::Divergence, "lanes give different scale-d", -1);
    scale = p != 0;
  }
  if (!checkAccumulators(w, in, in.destinations, scale, 0, register_a ? 4 : 0))
    return;
  const auto a_type = Input(in.mode2 & 15), b_type = Input(in.mode2 >> 4);
  const int depth = 32 / inputBytes(a_type);

  // A: 16 rows of this warp, 32 bytes deep.
  double a[16][32], values[16];
  Statistics &s = w.cta().statistics();
  uint64_t shared_bytes = 0;
  if (register_a) {
    for (int r = 0; r < 4; ++r) {
      const uint32_t *v = w.lanes<uint32_t>(in.src(r));
      for (int lane = 0; lane < 32; ++lane)
        (void)widen(a_type, &v[lane], 4,
                    &a[lane / 4 + 8 * (r % 2)][(4 * (lane % 4) + 16 * (r / 2)) / inputBytes(a_type)]);
    }
  } else {
    const uint64_t bits = w.lanes<uint64_t>(in.src(0))[0];
    const Descriptor d(bits);
    const uint32_t first = uint32_t(w.index() % 4) * 16;
    uint16_t chunk[8];
    if (in.mode & kTransposeA) {
      for (uint32_t k = 0; k < 16; ++k)
        for (uint32_t c = 0; c < 2; ++c) {
          if (!readChunk(w, d.acrossK(first + 8 * c, k), chunk))
            return;
          (void)widen(a_type, chunk, 16, values);
          for (int e = 0; e < 8; ++e)
            a[8 * c + uint32_t(e)][k] = values[e];
        }
    } else {
      for (uint32_t row = 0; row < 16; ++row)
        for (uint32_t c = 0; c < 2; ++c) {
          if (!readChunk(w, d.alongK(first + row, c), chunk))
            return;
          (void)widen(a_type, chunk, 16, &a[row][c * uint32_t(depth) / 2]);
        }
    }
    shared_bytes += 512;
  }

  // B: n columns, 32 bytes deep, as [k][n] so that the sums run over columns.
  static thread_local double b[32][256];
  {
    const Descriptor d(w.lanes<uint64_t>(in.src(a_count))[0]);
    uint16_t chunk[8];
    if (in.mode & kTransposeB) {
      for (uint32_t k = 0; k < 16; ++k)
        for (uint32_t c = 0; c < uint32_t(n) / 8; ++c) {
          if (!readChunk(w, d.acrossK(8 * c, k), chunk))
            return;
          (void)widen(b_type, chunk, 16, &b[k][8 * c]);
        }
    } else {
      for (uint32_t column = 0; column < uint32_t(n); ++column)
        for (uint32_t c = 0; c < 2; ++c) {
          if (!readChunk(w, d.alongK(column, c), chunk))
            return;
          const int count = widen(b_type, chunk, 16, values);
          for (int e = 0; e < count; ++e)
            b[int(c) * count + e][column] = values[e];
        }
    }
    shared_bytes += w.index() % 4 == 0 ? uint64_t(n) * 32 : 0; // the four warps share one read
  }
  const double sign = ((in.mode & kNegateA) != 0) != ((in.mode & kNegateB) != 0) ? -1 : 1;

  double sum[16][256];
  for (int row = 0; row < 16; ++row) {
    for (int c = 0; c < n; ++c)
      sum[row][c] = 0;
    for (int k = 0; k < depth; ++k) {
      const double x = a[row][k] * sign;
      for (int c = 0; c < n; ++c)
        sum[row][c] += x * b[k][c];
    }
  }
  for (int i = 0; i < in.destinations; ++i) {
    // Register i: column 8 (i / 4) + 2 (lane % 4) + i % 2, row lane / 4 + 8 (i / 2 % 2).
    const uint32_t *old = w.lanes<uint32_t>(in.dst(i));
    uint32_t out[kLanes];
    for (int lane = 0; lane < 32; ++lane) {
      const double start = scale ? double(std::bit_cast<float>(old[lane])) : 0.0;
      const int row = lane / 4 + 8 * (i / 2 % 2), column = 8 * (i / 4) + 2 * (lane % 4) + i % 2;
      out[lane] = std::bit_cast<uint32_t>(canonical(float(start + sum[row][column])));
    }
    w.store<uint32_t>(in.dst(i), kAllLanes, out);
    w.flight(in.dst(i)).accumulator = w.wgmma_committed + 1;
  }
  if (register_a)
    for (int i = 0; i < 4; ++i)
      w.flight(in.src(i)).operand = w.wgmma_committed + 1;
  w.wgmma_open = true;
  s.shared_read += shared_bytes;
  s.by_pc[w.pc()].wavefronts += (shared_bytes + 127) / 128;
}

void runFence(Warp &w, const Instruction &, uint32_t) { w.fence_step = w.stepNumber(); }

void runCommit(Warp &w, const Instruction &, uint32_t) {
  ++w.wgmma_committed;
  w.wgmma_open = false;
}

void runWait(Warp &w, const Instruction &in, uint32_t) {
  const auto pending = uint32_t(in.immediate);
  if (w.wgmma_committed <= pending || w.wgmma_committed - pending <= w.wgmma_waited)
    return;
  w.wgmma_waited = w.wgmma_committed - pending;
  Clocks &clocks = w.cta().clocks();
  clocks.observe(w.thread(0), w.live(), clocks.group(w.index()), w.wgmma_waited);
}

void decodeWgmma(Builder &b) {
  b.out.aligned = true;
  b.out.op_class = OpClass::Wgmma;
  switch (b.takeOneOf({"mma_async", "fence", "commit_group", "wait_group"})) {
  case 1:
    b.out.run = runFence;
    break;
  case 2:
    b.out.run = runCommit;
    break;
  case 3:
    b.out.run = runWait;
    break;
  default: {
    b.require("sync");
    b.require("aligned");
    const std::string_view shape = b.peek();
    const size_t k_at = shape.rfind('k');
    int n = 0;
    if (shape.size() >= 7 && shape.starts_with("m64n") && k_at != std::string_view::npos)
      for (char c : shape.substr(4, k_at - 4))
        n = c >= '0' && c <= '9' && n < 1000 ? n * 10 + (c - '0') : 1000;
    if (n < 8 || n > 256 || n % 8 || !b.take(shape))
      return b.fail("wgmma: shape ." + std::string(shape) +
                    " is not m64nNkK with N from 8 to 256 in steps of 8");
    b.require("f32");
    const auto a_type = Input(b.takeOneOf({"f16", "bf16", "tf32", "e4m3", "e5m2"}));
    auto b_type = a_type;
    if (inputBytes(a_type) == 1)
      b_type = Input(int(Input::E4M3) + b.takeOneOf({"e4m3", "e5m2"}));
    else
      b.require(a_type == Input::F16 ? "f16" : a_type == Input::BF16 ? "bf16" : "tf32");
    const int depth = 32 / inputBytes(a_type);
    if (shape.substr(k_at + 1) != std::to_string(depth))
      return b.fail("wgmma: shape ." + std::string(shape) + ": K is " + std::to_string(depth) +
                    " for these types");
    const bool transposes = inputBytes(a_type) == 2;
    const bool register_a = b.count() > 1 && b.operand(1).kind == OperandAst::Kind::Vector;
    b.wantOperands(transposes ? (register_a ? 7 : 8) : 6);
    b.dstVector(b.operand(0), size_t(n) / 2, Type::F32);
    if (register_a)
      b.srcVector(b.operand(1), 4, Type::B32);
    else
      b.src(1, Type::B64);
    b.src(2, Type::B64);
    uint8_t mode = register_a ? kRegisterA : 0;
    if (b.isConstant(3))
      mode |= uint8_t(kScaleImmediate | (b.constant(3, 0, 1) ? kScaleOn : 0));
    else
      b.predSrc(3);
    for (auto [operand, flag] : {std::pair{size_t(4), kNegateA}, {size_t(5), kNegateB}}) {
      const int64_t v = b.constant(operand, -1, 1);
      if (v == 0)
        return b.fail("wgmma: the scale of an operand must be 1 or -1");
      mode |= v < 0 ? uint8_t(flag) : uint8_t(0);
    }
    if (transposes && !register_a && b.constant(6, 0, 1))
      mode |= kTransposeA;
    if (transposes && b.constant(register_a ? 6 : 7, 0, 1))
      mode |= kTransposeB;
    b.out.mode = mode;
    b.out.mode2 = uint8_t(int(a_type) | int(b_type) << 4);
    b.out.flops = uint32_t(16 * n * depth);
    b.out.run = runWgmma;
    return;
  }
  }
  b.require("sync");
  b.require("aligned");
  b.wantOperands(b.out.run == runWait ? 1 : 0);
  if (b.out.run == runWait)
    b.out.immediate = b.constant(0, 0, 7);
}

} // namespace

void addWgmma(OpcodeTable &t) { t["wgmma"] = decodeWgmma; }

} // namespace flashplus::emu
