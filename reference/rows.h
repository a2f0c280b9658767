// SPDX-License-Identifier: BSD-3-Clause
// Where the rows of a problem are, and which keys a query row sees.
#pragma once

#include "reference/attention.h"
#include "reference/numeric.h"

#include <algorithm>

namespace flashplus::reference {

/// One sequence of the batch.
struct Sequence {
  int64_t first_q = 0, first_k = 0; ///< First row when ragged, else 0.
  int64_t q_len = 0, k_len = 0;
};

inline Sequence sequenceOf(const Problem &p, int64_t b) {
  Sequence s{0, 0, p.seqlen_q, p.seqlen_k};
  if (p.cu_seqlens_q) {
    s.first_q = p.cu_seqlens_q[b];
    s.q_len = p.cu_seqlens_q[b + 1] - s.first_q;
    s.first_k = p.cu_seqlens_k[b];
    s.k_len = p.cu_seqlens_k[b + 1] - s.first_k;
  }
  if (p.seqused_q)
    s.q_len = std::min<int64_t>(s.q_len, p.seqused_q[b]);
  if (p.seqused_k)
    s.k_len = std::min<int64_t>(s.k_len, p.seqused_k[b]);
  return s;
}

/// Rows [0, n) of one head, widened and packed.
template <class T>
std::vector<T> gather(const Problem &p, const void *data, const Strides &strides, int64_t b, int64_t first,
                      int64_t head, int64_t n, int64_t dim) {
  std::vector<T> out(size_t(n * dim));
  const int64_t start = (p.cu_seqlens_q ? first * strides.s : b * strides.b) + head * strides.h;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t c = 0; c < dim; ++c)
      out[size_t(i * dim + c)] = T(loadElement(data, p.dtype, start + i * strides.s + c));
  return out;
}

/// Keys [first, second) are those that row i sees.
inline std::pair<int64_t, int64_t> visibleKeys(const Problem &p, const Sequence &s, int64_t i) {
  const int64_t diagonal = i + s.k_len - s.q_len;
  const int64_t lo = p.window_left < 0 ? 0 : std::clamp<int64_t>(diagonal - p.window_left, 0, s.k_len);
  const int64_t hi =
      p.window_right < 0 ? s.k_len : std::clamp<int64_t>(diagonal + p.window_right + 1, 0, s.k_len);
  return {lo, std::max(lo, hi)};
}

/// Where row i of a sequence is among the rows of the batch.
inline int64_t rowOf(const Problem &p, const Sequence &s, int64_t b, int64_t i) {
  return p.cu_seqlens_q ? s.first_q + i : b * p.seqlen_q + i;
}
inline int64_t keyRowOf(const Problem &p, const Sequence &s, int64_t b, int64_t j) {
  return p.cu_seqlens_q ? s.first_k + j : b * p.seqlen_k + j;
}

} // namespace flashplus::reference
