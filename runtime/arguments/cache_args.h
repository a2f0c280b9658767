// SPDX-License-Identifier: BSD-3-Clause
// A cache of keys and values: pages that a table names, or rows of which a sequence has one
// (docs/rationale/paged-keys.md). All of it is one kind of kernel, keys = paged: a row of a cache is a page.
#pragma once

#include "runtime/arguments/lengths.h"
#include "runtime/arguments/operands.h"
#include "runtime/arguments/problem.h"
#include "spec/params.h"

namespace flashplus {

/// The fields of a caller's struct that say where the cache's rows are.
struct CacheArgs {
  const DLTensor *block_table, *page_indptr, *page_indices, *cache_batch_idx, *leftpad_k;

  bool hasTable() const { return block_table || page_indptr || page_indices; }
  bool any() const { return hasTable() || cache_batch_idx || leftpad_k; }
};
template <class Args> CacheArgs cacheArgs(const Args &a) {
  return {a.block_table, a.page_indptr, a.page_indices, a.cache_batch_idx, a.leftpad_k};
}

/// The tables of a call, checked as far as that needs no batch.
struct CacheTables {
  CacheArgs args;
  TensorView entries; ///< block_table, page_indices or cache_batch_idx; not read if there is none.
  TensorView indptr, leftpad;
  int64_t num_pages = 0, page_size = 1;
};

/// Before the lengths: reads the tables of k, a cache, and sets the rows of keys that a sequence has room for
/// (of page_indices: all sequences together).
Status readCache(TensorReader &reader, const CacheArgs &args, const TensorView &k, TensorSizes &sizes,
                 CacheTables &out);

/// After the lengths and the mask: shapes that have the batch. Sets the params of paged keys, and seqlen_k.
Status checkCache(const CacheTables &tables, const TensorSizes &sizes, ForwardParams &p);

/// After checkCache: lengths and entries, which are in host memory. `append`, of a call that has one, with
/// what checkNewSlots() looks at.
Status checkCacheValues(const CacheTables &tables, const AttentionProblem &problem, const ForwardParams &p,
                        const AppendParams *append);

} // namespace flashplus
