// SPDX-License-Identifier: BSD-3-Clause
// FragmentLayout: which elements of a product's accumulators one thread holds. No LLVM here.
//
// Both of NVIDIA's 16-bit products leave their fp32 results in the same shape. A warp has blocks of 16 rows
// and 8 columns; in a block, lane l holds four elements (PTX ISA, "Matrix Fragments for mma.m16n8k16" and
// "wgmma .m64nNk16, matrix D"):
//
//              column 0   1     2   3     4   5     6   7
//    row 0          T0: 0  1  T1: 0  1  T2: 0  1  T3: 0  1
//    row 1          T4: 0  1  T5: 0  1  T6: 0  1  T7: 0  1
//     ...                                                          row    = l / 4 + 8 (e / 2)
//    row 7         T28: 0  1 T29: 0  1 T30: 0  1 T31: 0  1         column = 2 (l % 4) + e % 2
//    row 8          T0: 2  3  T1: 2  3  T2: 2  3  T3: 2  3
//     ...
//    row 15        T28: 2  3 T29: 2  3 T30: 2  3 T31: 2  3
//
//   mma.sync   a warp has `row_blocks` such blocks under each other, `column_blocks` beside each other; it
//              starts at a row of its own (sm80.flash: warp * 16 * row_blocks).
//   wgmma      a warpgroup has 64 rows: its warp w (of 4) has the one block of rows from 16 w on, row_blocks
//              = 1.
//
// A thread's rows and columns, its *lines*, are numbered from 0 as it holds them. Element (row r, column c)
// is value
//   ((r / 2) column_blocks + c / 2) 4 + 2 (r % 2) + c % 2
// and lies, from the thread's first element on, 16 (r / 2) + 8 (r % 2) rows further down and 8 (c / 2) + c %
// 2 columns further to the right. Four lanes, l ^ 1 and l ^ 2, share rows; eight lanes, l ^ 4, l ^ 8 and l ^
// 16, share columns.
//
// Everything here is asked for along either axis: a forward's scores have queries in rows and one maximum a
// row, a backward's S transposed has them in columns and its statistics one a column.
//
// The next product's A operand (m16n8k16 and m64nNk16 alike) has, for 16 columns, four registers of two
// neighbours each:
//
//              columns 0-7        columns 8-15
//   row l / 4      register 0         register 2
//   row l / 4 + 8  register 1         register 3
//
// that is, two neighbouring blocks of columns of these accumulators, rounded and packed in pairs: no lane
// gives anything away.
#pragma once

#include <array>
#include <span>

namespace flashplus {

/// What a line is.
enum class Axis { Rows, Columns };

constexpr Axis across(Axis axis) { return axis == Axis::Rows ? Axis::Columns : Axis::Rows; }

struct FragmentLayout {
  int row_blocks = 1;    ///< Of 16 rows.
  int column_blocks = 0; ///< Of 8 columns.

  constexpr int size() const { return 4 * row_blocks * column_blocks; } ///< Values of a thread.

  /// A thread's lines along `axis`; a line has count(across(axis)) elements.
  constexpr int count(Axis axis) const { return 2 * (axis == Axis::Rows ? row_blocks : column_blocks); }

  /// The value that is element `i` of line `line`.
  constexpr int at(Axis axis, int line, int i) const {
    const int row = axis == Axis::Rows ? line : i, column = axis == Axis::Rows ? i : line;
    return (row / 2 * column_blocks + column / 2) * 4 + row % 2 * 2 + column % 2;
  }

  /// The first of the four values of a block.
  constexpr int block(int row_block, int column_block) const {
    return (row_block * column_blocks + column_block) * 4;
  }

  /// The line that value `x` is in.
  constexpr int lineOf(Axis axis, int x) const {
    const int block = x / 4;
    return axis == Axis::Rows ? block / column_blocks * 2 + x / 2 % 2 : block % column_blocks * 2 + x % 2;
  }

  /// Rows (columns) from the thread's first row (column) to its line `line`.
  static constexpr int offset(Axis axis, int line) {
    return axis == Axis::Rows ? line / 2 * 16 + line % 2 * 8 : line / 2 * 8 + line % 2;
  }

  /// Row (column) of lane `lane`'s first one among the warp's.
  static constexpr int firstOfLane(Axis axis, int lane) {
    return axis == Axis::Rows ? lane / 4 : lane % 4 * 2;
  }

  /// Exclusive ors of lane numbers that lead to all lanes of a line.
  static constexpr std::span<const int> lanesOfLine(Axis axis) {
    return axis == Axis::Rows ? std::span<const int>(kInRow) : std::span<const int>(kInColumn);
  }

  /// The two values that register `reg` (0 to 3) of the A operand packs, the lower half first, for columns
  /// [16 step, 16 step + 16) and block of rows `row_block`.
  constexpr std::array<int, 2> operandA(int row_block, int step, int reg) const {
    const int row = 2 * row_block + reg % 2, column = 2 * (2 * step + reg / 2);
    return {at(Axis::Rows, row, column), at(Axis::Rows, row, column + 1)};
  }

private:
  static constexpr int kInRow[] = {1, 2};
  static constexpr int kInColumn[] = {4, 8, 16};
};

} // namespace flashplus
