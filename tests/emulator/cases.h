// SPDX-License-Identifier: BSD-3-Clause
// Small PTX kernels, one behaviour each, with the results that the PTX ISA defines for them. The same table
// is run on the emulator by the tests and on a GPU by the recorder (record.cpp).
#pragma once

#include "emulator/core/tensor_map.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace flashplus::emu::test {

/// How a result may differ from what is expected, or recorded on a GPU.
struct Tolerance {
  enum class Kind {
    Exact,    ///< Bit for bit.
    Relative, ///< fp32: |a - b| <= value * |b|, or both NaN; infinities and zeros equal
    Absolute, ///< fp32: |a - b| <= value
  } kind = Kind::Exact;
  double value = 0;
};

/// The entry is `test(.param .u64 input, .param .u64 output)`, and with a map `, .param .align 64 .b8
/// map[128]`.
struct Case {
  std::string name; ///< A file name: letters, digits, '.', '_'.
  std::string ptx;
  std::vector<uint8_t> input;
  size_t output_bytes = 0;
  uint32_t blocks = 1, threads = 32, dynamic_shared = 0;
  Tolerance tolerance;
  int least_chip = 80;
  std::optional<TensorMapContents> map; ///< Its address counts from the input's.
  /// Computes the output from the input, by the definition.
  std::function<void(std::span<const uint8_t> input, std::span<uint8_t> output)> expect;
};

/// All of them.
std::vector<Case> allCases();

void addIntegerCases(std::vector<Case> &cases);
void addFloatCases(std::vector<Case> &cases);
void addConvertCases(std::vector<Case> &cases);
void addWarpCases(std::vector<Case> &cases);
void addMatrixCases(std::vector<Case> &cases);
void addMemoryCases(std::vector<Case> &cases);
void addHopperCases(std::vector<Case> &cases);
void addTensorCopyCases(std::vector<Case> &cases);
void addBulkCopyCases(std::vector<Case> &cases);
void addClusterCases(std::vector<Case> &cases);

/// Empty if `got` is within the tolerance of `want`, else what differs first.
std::string compare(const Case &c, std::span<const uint8_t> got, std::span<const uint8_t> want);

/// A module with the entry `test`, whose body starts with %in, %out and %tid (thread number in the grid)
/// loaded.
std::string module(const std::string &body, const std::string &declarations = "");

/// `instruction` applied to every element: operands are $0 (result), $1, $2, ... Values are register-sized
/// bits.
struct Elementwise {
  std::string name, instruction;
  std::vector<int> argument_bits;
  int result_bits = 32;
  std::vector<std::vector<uint64_t>> arguments; ///< One vector an argument, all of one length.
  std::function<uint64_t(std::span<const uint64_t>)> expect;
  Tolerance tolerance;
};
Case elementwise(const Elementwise &e);

/// All pairs (or triples) of two (three) lists.
std::vector<std::vector<uint64_t>> crossed(const std::vector<std::vector<uint64_t>> &lists);

/// Deterministic 64-bit values.
class Random {
public:
  explicit Random(uint64_t seed) : state_(seed * 2 + 1) {}
  uint64_t next();
  uint64_t below(uint64_t n) { return next() % n; }

private:
  uint64_t state_;
};

} // namespace flashplus::emu::test
