// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/bench_suite.h"

#include <algorithm>
#include <cmath>

namespace flashplus::tool {

std::vector<SuiteRow> featureSuite(int64_t tokens, int64_t hidden) {
  BenchCase base; // D 128, bf16
  base.seqlen_q = base.seqlen_k = std::max<int64_t>(16, tokens / 4);
  base.batch = std::max<int64_t>(1, tokens / base.seqlen_q);
  base.heads_q = base.heads_k = std::max<int64_t>(4, hidden / 128 / 4 * 4);
  base.causal = true;
  auto with = [&](auto change) {
    BenchCase c = base;
    change(c);
    return c;
  };
  std::vector<SuiteRow> rows;

  BenchCase many = base; // 32 heads over 8, scaled with the rest
  many.heads_q = many.heads_k = 2 * base.heads_q;
  BenchCase grouped = many;
  grouped.heads_k = many.heads_q / 4;
  const std::string ratio = std::to_string(grouped.heads_q) + "/" + std::to_string(grouped.heads_k);
  rows.push_back({"GQA " + ratio, grouped, many, 1.0});
  many.causal = grouped.causal = false;
  rows.push_back({"GQA " + ratio + ", full", grouped, many, 1.0});

  // Sixteen lengths, uniform from 1/16 to 15/16 of an eighth of the tokens, the same in every run.
  BenchCase ragged = base;
  uint64_t state = 12345;
  for (int i = 0; i < 16; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const double uniform =
        1.0 / 16 + 14.0 / 16 * static_cast<double>(state >> 40) / static_cast<double>(1 << 24);
    ragged.lengths.push_back(std::max<int64_t>(1, std::llround(uniform * static_cast<double>(tokens) / 8)));
  }
  ragged.batch = 16;
  ragged.seqlen_q = ragged.seqlen_k = *std::max_element(ragged.lengths.begin(), ragged.lengths.end());
  double squares = 0;
  for (int64_t length : ragged.lengths)
    squares += static_cast<double>(length) * static_cast<double>(length);
  BenchCase equal = base;
  equal.batch = 16;
  equal.seqlen_q = equal.seqlen_k = std::max<int64_t>(1, std::llround(std::sqrt(squares / 16)));
  rows.push_back({"ragged lengths", ragged, equal, 0.9});
  BenchCase loose = ragged;
  loose.max_seqlen = 10 * ragged.seqlen_q;
  rows.push_back({"max_seqlen 10x too large", loose, ragged, 0.95});

  BenchCase window = base;
  window.batch = 1;
  window.seqlen_q = window.seqlen_k = tokens;
  window.causal = false;
  window.window_left = std::max<int64_t>(1, tokens / 16) - 1;
  window.window_right = 0;
  BenchCase narrow = window; // every query sees as many keys as one does on average under the window
  narrow.window_left = narrow.window_right = -1;
  narrow.seqlen_k = std::max<int64_t>(1, std::llround(window.visiblePairs() / static_cast<double>(tokens)));
  rows.push_back({"window " + std::to_string(window.window_left + 1) + " at " + std::to_string(tokens),
                  window, narrow, 0.85});

  rows.push_back({"softcap", with([](BenchCase &c) { c.softcap = 30; }), base, 0.85});
  rows.push_back({"ALiBi", with([](BenchCase &c) { c.alibi = true; }), base, 0.9});
  rows.push_back({"dropout 0.1", with([](BenchCase &c) { c.dropout = 0.1; }), base, 0.9});
  rows.push_back({"fp16", with([](BenchCase &c) { c.dtype = DType::F16; }), base, 0.97});
  rows.push_back({"D 96", with([](BenchCase &c) { c.head_dim = c.head_dim_v = 96; }), base, std::nullopt});
  rows.push_back({"D 192/128", with([](BenchCase &c) { c.head_dim = 192; }), base, std::nullopt});
  return rows;
}

} // namespace flashplus::tool
