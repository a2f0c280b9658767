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

std::vector<SuiteRow> decodeSuite(int64_t tokens, bool gpu) {
  const auto part = [&](int64_t numerator, int64_t denominator) {
    return std::max<int64_t>(8, tokens * numerator / denominator);
  };
  auto step = [](int64_t batch, int64_t keys, int64_t heads_q, int64_t heads_k, int64_t dim) {
    BenchCase c;
    c.batch = batch, c.seqlen_q = 1, c.seqlen_k = keys;
    c.heads_q = heads_q, c.heads_k = heads_k, c.head_dim = c.head_dim_v = dim;
    c.causal = true;
    return c;
  };
  struct Heads {
    int64_t q, k, dim;
  };
  using Cell = std::pair<int64_t, int64_t>; // batch and keys
  const std::vector<Heads> shapes =
      gpu ? std::vector<Heads>{{32, 8, 128}, {64, 8, 128}, {32, 32, 128}, {16, 2, 64}}
          : std::vector<Heads>{{32, 8, 128}, {8, 8, 128}, {16, 2, 64}};
  const std::vector<Cell> cells =
      gpu ? std::vector<Cell>{{1, part(1, 8)}, {1, tokens},  {1, part(16, 1)}, {4, tokens},
                              {16, tokens},    {64, tokens}, {128, part(1, 4)}}
          : std::vector<Cell>{{1, part(1, 8)}, {1, tokens}, {2, tokens}, {8, part(1, 4)}};
  std::vector<SuiteRow> rows;
  for (const Heads &h : shapes) {
    const std::string name = (h.q == h.k ? "MHA " : "GQA ") + std::to_string(h.q) + "/" +
                             std::to_string(h.k) + " D " + std::to_string(h.dim);
    for (auto [batch, keys] : cells)
      rows.push_back({name, step(batch, keys, h.q, h.k, h.dim), std::nullopt, std::nullopt});
  }
  const BenchCase many = step(gpu ? 64 : 2, tokens, 32, 8, 128), few = step(gpu ? 8 : 1, tokens, 32, 8, 128);
  auto with = [](BenchCase c, auto change) {
    change(c);
    return c;
  };
  for (auto [size, reach] : {std::pair(1, 0.9), {16, 0.96}, {64, 0.98}, {256, 0.99}})
    rows.push_back({"pages of " + std::to_string(size),
                    with(many, [&, size = size](BenchCase &c) { c.page_size = size; }), many, reach});
  rows.push_back({"append, rotary", with(many, [](BenchCase &c) { c.append = 1; }), many, 0.97});
  for (auto [count, reach] : {std::pair(4, 1 / 1.1), {8, 1 / 1.2}})
    rows.push_back({std::to_string(count) + " query rows",
                    with(few, [&, count = count](BenchCase &c) { c.seqlen_q = count; }), few, reach});
  const int64_t window = part(1, 8);
  rows.push_back({"window " + std::to_string(window),
                  with(few,
                       [&](BenchCase &c) {
                         c.seqlen_k = 4 * tokens;
                         c.window_left = window - 1;
                         c.window_right = 0;
                       }),
                  with(few, [&](BenchCase &c) { c.seqlen_k = window; }), 1 / 1.1});
  // Uniform from an eightieth of the tokens to four times as many, the same in every run.
  BenchCase ragged = step(gpu ? 64 : 8, (gpu ? 4 : 1) * tokens, 32, 8, 128);
  uint64_t state = 12345;
  for (int64_t b = 0; b < ragged.batch; ++b) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const int64_t least = std::max<int64_t>(1, tokens / 80);
    ragged.keys.push_back(least + static_cast<int64_t>(state >> 33) % (ragged.seqlen_k - least));
  }
  rows.push_back({"ragged lengths", ragged, std::nullopt, std::nullopt});
  return rows;
}

} // namespace flashplus::tool
