// SPDX-License-Identifier: BSD-3-Clause
// Where new rows go, seen on the host: what templates/append/rows.cpp finds on the device.
#include "runtime/arguments/append_args.h"

#include <algorithm>

namespace flashplus {
namespace {

std::string number(int64_t v) { return std::to_string(v); }
int64_t at(const void *data, int64_t i) { return static_cast<const int32_t *>(data)[i]; }

/// The new rows of a sequence and its part of the table.
struct NewKeys {
  const AppendParams &p;
  int64_t batch, used, first, count; ///< The first's number among all new rows.
  int64_t first_entry, entries;

  NewKeys(const AppendParams &params, int64_t b)
      : p(params), batch(b), used(std::max<int64_t>(0, at(p.seqused_k, b))) {
    first = p.cu_seqlens_k_new ? at(p.cu_seqlens_k_new, b) : b * p.seqlen_new;
    count = p.cu_seqlens_k_new ? at(p.cu_seqlens_k_new, b + 1) - first : p.seqlen_new;
    first_entry = p.page_indptr ? at(p.page_indptr, b) : b * p.page_table_stride;
    entries = p.page_indptr ? at(p.page_indptr, b + 1) - first_entry : p.page_entries;
  }

  int64_t room() const { return entries * p.page_size; }
  int64_t page(int64_t entry) const { return p.page_table ? at(p.page_table, first_entry + entry) : batch; }
  int64_t mapped(int64_t row) const { return static_cast<const int64_t *>(p.slot_mapping)[first + row]; }
  /// Row 0 is for nobody: a sequence that fills up a batch.
  bool dropped() const {
    if (p.slot_mapping)
      return mapped(0) < 0;
    const int64_t entry = used / p.page_size;
    return entry < entries && page(entry) < 0;
  }
};

std::string entryName(const flashplus_forward_args &a, const NewKeys &s, int64_t entry) {
  if (a.block_table)
    return "block_table[" + number(s.batch) + ", " + number(entry) + "]";
  if (a.page_indices)
    return "page_indices[" + number(s.first_entry + entry) + "]";
  return a.cache_batch_idx ? "cache_batch_idx[" + number(s.batch) + "]"
                           : "the row of sequence " + number(s.batch);
}

Status checkSequence(const flashplus_forward_args &a, const NewKeys &s) {
  const AppendParams &p = s.p;
  if (s.used + s.count > s.room())
    return invalidArgument("k_new adds " + number(s.count) + " keys to sequence " + number(s.batch) +
                           ", of which seqused_k says " + number(s.used) + "; its cache has room for " +
                           number(s.room()));
  if (p.slot_mapping) {
    const int64_t slots = int64_t(p.num_pages) * p.page_size;
    for (int64_t i = 0; i < s.count; ++i)
      if (s.mapped(i) >= slots)
        return invalidArgument("slot_mapping[" + number(s.first + i) + "] is " + number(s.mapped(i)) +
                               "; it must be less than " + number(slots) +
                               ", the slots of k's pages, or negative for a row that is dropped");
    return Status::ok();
  }
  for (int64_t e = s.used / p.page_size; e <= (s.used + s.count - 1) / p.page_size; ++e)
    if (const int64_t page = s.page(e); page < 0 || page >= p.num_pages)
      return invalidArgument(entryName(a, s, e) + " is " + number(page) + "; new keys of sequence " +
                             number(s.batch) + " go there, so it must be 0 to " + number(p.num_pages - 1));
  return Status::ok();
}

} // namespace

int64_t countedNewKeys(const AppendParams &p, int64_t b) {
  const NewKeys s(p, b);
  return s.count <= 0 || s.dropped() ? 0 : s.count;
}

Status checkNewSlots(const flashplus_forward_args &a, const AppendParams &p) {
  for (int64_t b = 0; b < p.batch; ++b)
    if (const NewKeys s(p, b); s.count > 0 && !s.dropped())
      FLASHPLUS_RETURN_IF_ERROR(checkSequence(a, s));
  return Status::ok();
}

} // namespace flashplus
