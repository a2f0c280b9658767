// SPDX-License-Identifier: BSD-3-Clause
// Draft: paged keys and values, and decoding with a KV cache. See README.md here.
#pragma once

#include <cstdint>

namespace flashplus::draft {

/// How a key row is found. `Rows` is today's (dense, ragged, seqused by null pointers at run time).
enum class KeyAddressing {
  Rows,
  Paged,     ///< Row t of sequence b: block_table[b, t / page_size], slot t % page_size; any page size.
  PagedTile, ///< page_size is a multiple of tile_n: one tile, one page.
};

struct KeyCacheSpec {
  KeyAddressing addressing = KeyAddressing::Rows;
  bool append = false; ///< New k and v rows are written into the cache first (a step of its own).
  bool rotary = false;
  bool rotary_interleaved = true; ///< Pairs (2i, 2i + 1), else (i, i + rotary_dim / 2).
};

/// k, v of the forward become (num_blocks, page_size, heads_k, head_dim).
struct KeyCacheParams {
  const int32_t *block_table; ///< (batch, max_blocks); entries past a sequence's length are never read.
  int64_t block_table_stride;
  int32_t page_size;
  const int32_t *cache_seqlens;   ///< (batch): keys in the cache before the append.
  const int32_t *cache_batch_idx; ///< (batch) or null: which cache row.
  const int32_t *leftpad_k;       ///< (batch) or null: leading keys to skip; alignment uses what is left.
  const void *k_new, *v_new;      ///< (batch, seqlen_new, heads_k, head_dim) or null.
  const void *rotary_cos, *rotary_sin; ///< (rows, rotary_dim / 2)
  int32_t rotary_dim;
};

} // namespace flashplus::draft
