// SPDX-License-Identifier: BSD-3-Clause
// New keys and values into a cache, and attention to it, as a test writes it down; append_instance.h makes
// tensors of it and runs it.
#pragma once

#include "tests/conformance/problem.h"

namespace flashplus::conformance {

struct AppendCase {
  enum class Cache {
    Plain,      ///< k and v of the batch itself.
    Indexed,    ///< Rows of a larger cache, chosen by cache_batch_idx.
    Table,      ///< Pages, block_table.
    Compressed, ///< Pages, page_indptr and page_indices.
  };

  DType dtype = DType::BF16;
  std::vector<int32_t> used;  ///< Keys of every sequence before.
  std::vector<int64_t> fresh; ///< New ones of every sequence; one number if all have as many.
  bool ragged_new = false;    ///< k_new and v_new are packed.
  int64_t sq = 1;
  std::vector<int64_t> ragged_q;          ///< Lengths; packed q.
  int64_t hq = 4, hk = 2, d = 64, dv = 0; ///< dv 0: as d.
  bool causal = true;
  int window_left = -1;
  int num_splits = 1;

  Cache cache = Cache::Plain;
  int64_t capacity = 64; ///< Slots of a sequence.
  int64_t page_size = 16;
  bool heads_first = false;           ///< Of the cache: (pages, heads, slots, dim) in memory.
  int64_t cache_gap = 0, new_gap = 0; ///< Elements of poison after every row.
  std::vector<int32_t> leftpad = {};
  bool slot_mapping = false;
  std::vector<int64_t> dropped = {}; ///< New rows that slot_mapping drops, counted through the batch.
  std::vector<int64_t> idle = {};    ///< Sequences that fill up the batch: their table entries are
  int32_t idle_entry = -1;           ///< this, which is no page.

  int64_t rotary_dim = 0;
  bool interleaved = false;
  int64_t positions = 200;           ///< Rows of rotary_cos and rotary_sin.
  std::vector<int32_t> offsets = {}; ///< rotary_seqlens; empty: none.
  uint64_t seed = 1;

  int64_t batch() const { return int64_t(used.size()); }
  int64_t dimV() const { return dv ? dv : d; }
  int64_t newOf(int64_t b) const { return fresh[fresh.size() == 1 ? 0 : size_t(b)]; }
  int64_t firstNew(int64_t b) const;
  int64_t rowsOfQ(int64_t b) const { return ragged_q.empty() ? sq : ragged_q[size_t(b)]; }
  int64_t firstQ(int64_t b) const; ///< Among all rows of q.
  bool isIdle(int64_t b) const;
  bool paged() const { return cache == Cache::Table || cache == Cache::Compressed; }
  /// Slots of a page: a row of a cache is one.
  int64_t pageSlots() const { return paged() ? page_size : capacity; }
  std::string text() const;
};

} // namespace flashplus::conformance
