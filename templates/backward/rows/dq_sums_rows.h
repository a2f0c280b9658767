// SPDX-License-Identifier: BSD-3-Clause
// Sizes of what templates/backward/rows/dq_sums.h describes. No LLVM here.
#pragma once

#include <cstdint>

namespace flashplus {

struct DQSumsRows {
  static constexpr int kRows = 8, kColumns = 16, kBlockBytes = kRows * kColumns * 4;

  /// Rows of a head, for a workspace's size.
  static constexpr int64_t ofHead(int64_t rows_q, int64_t batch) {
    return (rows_q + kRows * batch + kRows - 1) / kRows * kRows;
  }
};

} // namespace flashplus
