// SPDX-License-Identifier: BSD-3-Clause
// The worker's scratch of cpu.backward, and how tiles get into it.
#pragma once

#include "templates/backward/cpu_backward/layout.h"
#include "templates/common/cpu_rows.h"
#include "templates/common/sequence.h"
#include "templates/emit.h"

namespace flashplus::cpu_backward {

/// fp32 blocks of scratch, addressed by element.
class Scratch {
public:
  Scratch(EmitContext &c, const CpuBackwardLayout &l)
      : ir_(c.ir), l_(l), base_(c.scratch), vector_(ir_.vec(ir_.f32(), l.lanes)) {}

  Val at(int block, Val index) { return ir_.offset(ir_.offset(base_, int64_t(block) * 4), index * 4); }
  Val loadVector(int block, Val index) { return ir_.load(vector_, at(block, index), l_.lanes * 4); }
  void storeVector(int block, Val index, Val value) { ir_.store(value, at(block, index), l_.lanes * 4); }
  Val zero() { return ir_.constant(vector_, 0); }
  /// `count` elements, whole vectors, from element `index`.
  void clear(int block, int count, Val index = {});
  /// 0, 1, ... as an i32 vector.
  Val laneNumbers();

  template <class Body> void forRange(Val begin, Val end, int step, Body body) {
    ir_.forLoop(begin, end, ir_.i64(step), [&](Val i) { body(i); });
  }
  /// Calls body(first column (i64), columns in memory) for every `width` columns of a row of `dim` elements:
  /// a loop over the whole ones, so that code size does not grow with the head dim, and the rest.
  template <class Body> void forColumns(int dim, int width, Body body) {
    const int whole = dim / width * width;
    if (whole)
      forRange(ir_.i64(0), ir_.i64(whole), width, [&](Val column) { body(column, width); });
    if (dim > whole)
      body(ir_.i64(whole), dim - whole);
  }

private:
  Ir &ir_;
  const CpuBackwardLayout &l_;
  Val base_;
  mlir::Type vector_;
};

/// Tiles from memory into scratch, widened to fp32.
class Pack {
public:
  Pack(EmitContext &c, const CpuBackwardLayout &l, const Sequence &sequence, Scratch &scratch)
      : c_(c), ir_(c.ir), l_(l), seq_(sequence), m_(scratch) {}

  /// K^T, V^T and K of keys [key, key + keys). Columns past the last key repeat it; the mask hides them.
  void keys(Val head_k, Val key, Val keys);
  /// Q times `scale`, and Q and dO as they are, of rows [query, query + rows). Rows past the last one repeat
  /// it, in left matrices, as far as a register block reads them.
  void queries(Val head, Val query, Val rows, Val scale);

private:
  struct Source {
    Val first, stride; ///< Row 0 of the tile; bytes from row to row.
    DType dtype;
  };
  Source source(Operand operand, Val head, Val row);
  void transposed(const Source &from, int dim, int pad, int block, Val rows);
  /// Into row-major `left` (none: -1) times `scale`, and into `right` panels of `tile` rows (none: -1) as
  /// they are.
  void rows(const Source &from, int dim, int pad, int left, Val scale, Val left_rows, int right, int tile,
            Val rows);

  EmitContext &c_;
  Ir &ir_;
  const CpuBackwardLayout &l_;
  const Sequence &seq_;
  Scratch &m_;
};

} // namespace flashplus::cpu_backward
