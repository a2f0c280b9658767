// SPDX-License-Identifier: BSD-3-Clause
// The cache of an Instance: its keys in pages, in an order of their own, and a table of them.
#include "tests/conformance/instance.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

namespace flashplus::conformance {
namespace {

constexpr int64_t kGuard = 128; ///< As instance.cpp's.
constexpr int64_t kSparePages = 3;
constexpr DLDataType kInt32 = {kDLInt, 32, 1};

/// What stands where no query reads: none is a page.
constexpr int32_t kGarbage[] = {-1, 2147483647, 1 << 20, -2147483647 - 1};

} // namespace

/// `num_pages` pages of poison.
View Instance::pool(const Layout &layout, int64_t num_pages, int64_t dim) const {
  const Pages &pages = case_.pages;
  const int64_t heads = case_.hk, pitch = dim + layout.gap, page = pages.size * heads * pitch;
  View v;
  v.strides = pages.heads_first ? reference::Strides{page, pitch, pages.size * pitch}
                                : reference::Strides{page, heads * pitch, pitch};
  if (pages.interleaved)
    v.strides.b *= 2;
  v.offset = kGuard + layout.shift;
  v.memory = std::make_shared<Memory>();
  const int64_t elements = v.offset + num_pages * page * (pages.interleaved ? 2 : 1) + kGuard;
  v.memory->host.assign(size_t(elements * dtypeBytes(case_.dtype)), kPoison);
  v.dl_shape = {num_pages, pages.size, heads, dim};
  v.dl_strides = {v.strides.b, v.strides.s, v.strides.h, 1};
  return v;
}

void Instance::makeCache() {
  const Case &p = case_;
  const int64_t size = p.pages.size, batch = p.batches();
  const bool table = p.pages.form == Pages::Form::Table || p.pages.form == Pages::Form::Indices;
  const bool shared = p.k_layout.broadcast; // all entries use one row of the cache
  int64_t most = 0, total = 0;
  std::vector<int64_t> counts; // pages of a sequence
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t slots = p.leftpadOf(b) + p.lengthK(b);
    REQUIRE((table || slots <= size));
    counts.push_back(table ? (slots + size - 1) / size : 1);
    used_.push_back(int32_t(slots));
    most = std::max(most, counts.back());
    total += counts.back();
  }
  std::vector<int32_t> order(size_t(total + kSparePages)); // of pages in the pool
  std::iota(order.begin(), order.end(), 0);
  if (p.pages.form != Pages::Form::Order)
    std::shuffle(order.begin(), order.end(), std::mt19937(uint32_t(p.seed)));

  k_ = pool(p.k_layout, int64_t(order.size()), p.d);
  if (p.pages.interleaved) {
    v_ = k_; // shares the memory
    v_.offset += k_.strides.b / 2;
  } else {
    v_ = pool(p.v_layout, int64_t(order.size()), p.dimV());
  }

  const bool full =
      p.leftpad.empty() && std::ranges::all_of(used_, [&](int32_t n) { return n == most * size; });
  const int64_t columns = most + (full ? 0 : 1); // of a block_table
  int64_t next = 0, garbage = 0;
  indptr_ = {0};
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t pad = p.leftpadOf(b), keys = p.lengthK(b);
    int64_t seen = 0; // the first key that a query sees
    auto someQuerySees = [&](int64_t key) {
      for (int64_t i = 0; i < p.lengthQ(b); ++i)
        if (p.sees(b, i, key))
          return true;
      return false;
    };
    while (seen < keys && !someQuerySees(seen))
      ++seen;
    auto page = [&](int64_t e) { return order[size_t(shared ? 0 : next + e)]; };
    for (auto [view, rows, dim] : {std::tuple{&k_, &rows_k_, p.d}, {&v_, &rows_v_, p.dimV()}}) {
      const size_t bytes = size_t(dtypeBytes(p.dtype));
      for (int64_t i = 0; i < keys; ++i)
        for (int64_t h = 0; h < p.hk; ++h) {
          const int64_t entry = p.ragged() ? 0 : b * rows->strides.b, slot = pad + i;
          const int64_t from =
              rows->offset + entry + (p.startK(b) + i) * rows->strides.s + h * rows->strides.h;
          const int64_t to = view->offset + page(slot / size) * view->strides.b +
                             slot % size * view->strides.s + h * view->strides.h;
          std::memcpy(view->memory->host.data() + size_t(to) * bytes,
                      rows->memory->host.data() + size_t(from) * bytes, size_t(dim) * bytes);
        }
    }
    for (int64_t e = 0; e < counts[size_t(b)]; ++e)
      entries_.push_back((e < (pad + seen) / size && table) || seen == keys ? kGarbage[garbage++ % 4]
                                                                          : page(e));
    if (p.pages.form == Pages::Form::Table)
      while (int64_t(entries_.size()) < (b + 1) * columns)
        entries_.push_back(kGarbage[garbage++ % 4]);
    indptr_.push_back(int32_t(entries_.size()));
    next += counts[size_t(b)];
  }
  switch (p.pages.form) {
  case Pages::Form::Table:
    args_.block_table = vector(entries_.data(), kInt32, {batch, columns}, /*guarded=*/true);
    break;
  case Pages::Form::Indices:
    args_.page_indptr = vector(indptr_.data(), kInt32, {batch + 1}, /*guarded=*/true);
    args_.page_indices = vector(entries_.data(), kInt32, {int64_t(entries_.size())}, /*guarded=*/true);
    break;
  case Pages::Form::Rows:
    args_.cache_batch_idx = vector(entries_.data(), kInt32, {batch}, /*guarded=*/true);
    break;
  case Pages::Form::Order:
    break;
  }
  if (!p.leftpad.empty())
    args_.leftpad_k = vector(p.leftpad.data(), kInt32, {batch});
  if (p.pages.cumulative) {
    std::vector<int32_t> starts = {0};
    for (int32_t n : used_)
      starts.push_back(starts.back() + n);
    args_.cu_seqlens_k = vector(starts.data(), kInt32, {batch + 1});
  } else if (!full) {
    args_.seqused_k = vector(used_.data(), kInt32, {batch});
  }
}

} // namespace flashplus::conformance
