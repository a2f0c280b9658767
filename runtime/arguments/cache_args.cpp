// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/arguments/cache_args.h"

#include "runtime/arguments/append_args.h"
#include "runtime/arguments/public_structs.h"

#include <algorithm>
#include <utility>

namespace flashplus {
namespace {

std::string number(int64_t v) { return std::to_string(v); }

Status readTable(TensorReader &reader, const char *name, const DLTensor *source, int rank, TensorView &out) {
  FLASHPLUS_RETURN_IF_ERROR(reader.read(name, source, out));
  FLASHPLUS_RETURN_IF_ERROR(out.wantType(kDLInt, 32, "int32"));
  if (out.rank != rank)
    return invalidArgument(std::string(name) + " has shape " + out.shapeText() + "; it must have " +
                           number(rank) + (rank == 1 ? " dimension" : " dimensions, (batch, max_blocks)"));
  return out.wantUnitStride();
}

/// Of sequence b, as the kernels find it.
struct HostSequence {
  int64_t first_entry, num_entries; ///< Of the entries' data.
  int64_t slots, used;              ///< What it has room for; slots that hold keys or are left out.
  int64_t leftpad, queries;
};

/// Values of a call whose arrays can be read.
class HostChecks {
public:
  HostChecks(const CacheTables &t, const AttentionProblem &problem, const ForwardParams &p,
             const AppendParams *append)
      : t_(t), problem_(problem), p_(p), append_(append) {}

  Status run() const {
    if (t_.args.page_indptr)
      FLASHPLUS_RETURN_IF_ERROR(checkIndptr());
    for (int64_t b = 0; b < problem_.bounds.batch; ++b) {
      HostSequence s;
      FLASHPLUS_RETURN_IF_ERROR(find(b, s));
      FLASHPLUS_RETURN_IF_ERROR(checkEntries(b, s));
    }
    return Status::ok();
  }

private:
  static int64_t at(const void *data, int64_t i) { return static_cast<const int32_t *>(data)[i]; }

  Status checkIndptr() const {
    const void *data = t_.indptr.data;
    int64_t before = 0;
    for (int64_t i = 0; i <= problem_.bounds.batch; ++i) {
      const int64_t value = at(data, i);
      if (value < before || value > t_.entries.shape[0])
        return invalidArgument("page_indptr[" + number(i) + "] is " + number(value) + "; it must be " +
                               number(before) + " to " + number(t_.entries.shape[0]) +
                               ", the elements of page_indices");
      before = value;
    }
    return Status::ok();
  }

  Status find(int64_t b, HostSequence &s) const {
    const bool table = t_.args.hasTable();
    s.first_entry = t_.args.page_indptr ? at(t_.indptr.data, b) : b * p_.page_table_stride;
    s.num_entries = t_.args.page_indptr ? at(t_.indptr.data, b + 1) - s.first_entry
                    : table             ? t_.entries.shape[1]
                                        : 1;
    s.slots = t_.args.page_indptr ? s.num_entries * t_.page_size : p_.seqlen_k;
    s.used = s.slots;
    const auto room = [&](const char *name, int64_t keys) {
      return invalidArgument(
          std::string(name) + " says that sequence " + number(b) + " has " + number(keys) +
          " keys; its cache has room for " + number(s.slots) +
          (table ? " (" + number(s.num_entries) + " pages of " + number(t_.page_size) + ")" : ""));
    };
    if (p_.cu_seqlens_k) {
      s.used = at(p_.cu_seqlens_k, b + 1) - at(p_.cu_seqlens_k, b);
      if (s.used > s.slots)
        return room("cu_seqlens_k", s.used);
    }
    if (p_.seqused_k) {
      if (at(p_.seqused_k, b) > s.slots)
        return room("seqused_k", at(p_.seqused_k, b));
      s.used = std::min(s.used, at(p_.seqused_k, b));
    }
    if (append_) // which fit: checkNewSlots()
      s.used += countedNewKeys(*append_, b);
    s.leftpad = p_.leftpad_k ? at(p_.leftpad_k, b) : 0;
    if (s.leftpad < 0)
      return invalidArgument("leftpad_k[" + number(b) + "] is " + number(s.leftpad) +
                             "; it must not be negative");
    s.queries = p_.cu_seqlens_q ? at(p_.cu_seqlens_q, b + 1) - at(p_.cu_seqlens_q, b) : p_.seqlen_q;
    if (p_.seqused_q)
      s.queries = std::min(s.queries, at(p_.seqused_q, b));
    return Status::ok();
  }

  /// Those of keys that some query sees.
  Status checkEntries(int64_t b, const HostSequence &s) const {
    if (s.used <= s.leftpad || s.queries == 0)
      return Status::ok();
    int64_t first = s.leftpad;
    if (problem_.spec.bounded_left)
      first += std::max<int64_t>(0, s.used - s.leftpad - s.queries - problem_.bounds.window_left);
    for (int64_t e = first / t_.page_size; first < s.used && e <= (s.used - 1) / t_.page_size; ++e) {
      const int64_t page = p_.page_table ? at(p_.page_table, s.first_entry + e) : b;
      if (page >= 0 && page < t_.num_pages)
        continue;
      const std::string entry = t_.args.page_indices      ? "[" + number(s.first_entry + e) + "]"
                                : t_.args.cache_batch_idx ? "[" + number(b) + "]"
                                                          : "[" + number(b) + ", " + number(e) + "]";
      return invalidArgument(t_.entries.name + entry + " is " + number(page) + "; it is entry " + number(e) +
                             " of sequence " + number(b) + ", which reads it, so it must be 0 to " +
                             number(t_.num_pages - 1) + ", since k has " + number(t_.num_pages) +
                             (t_.args.hasTable() ? " pages" : " rows of cache"));
    }
    return Status::ok();
  }

  const CacheTables &t_;
  const AttentionProblem &problem_;
  const ForwardParams &p_;
  const AppendParams *append_;
};

} // namespace

Status readCache(TensorReader &reader, const CacheArgs &args, const TensorView &k, TensorSizes &sizes,
                 CacheTables &out) {
  out.args = args;
  if (args.block_table && (args.page_indptr || args.page_indices))
    return invalidArgument("block_table and page_indptr or page_indices are given; the table of pages must "
                           "have one form");
  if (!args.page_indptr != !args.page_indices)
    return invalidArgument(std::string(args.page_indptr ? "page_indices" : "page_indptr") +
                           " is null and the other is not; give both or none");
  if (args.cache_batch_idx && args.hasTable())
    return invalidArgument(std::string("cache_batch_idx and ") +
                           (args.block_table ? "block_table" : "page_indices") +
                           " are given; rows of a cache are chosen by one of them");
  out.num_pages = k.shape[0];
  out.page_size = k.shape[1];
  for (auto [what, value] : {std::pair{" rows of slots", out.page_size}, {" pages", out.num_pages}})
    if (value > kMaxLength)
      return invalidArgument("k has shape " + k.shapeText() + ", " + number(value) + what + "; at most " +
                             number(kMaxLength) + " are allowed");
  if (args.hasTable() && out.page_size == 0)
    return invalidArgument("k has shape " + k.shapeText() +
                           ", (num_blocks, page_size, heads_k, head_dim); page_size must be at least 1");
  if (args.block_table) {
    FLASHPLUS_RETURN_IF_ERROR(readTable(reader, "block_table", args.block_table, 2, out.entries));
    const int64_t most = out.entries.shape[1];
    if (most > kMaxLength || most * out.page_size > kMaxLength)
      return invalidArgument("block_table has shape " + out.entries.shapeText() + "; " + number(most) +
                             " pages of " + number(out.page_size) + " slots are more than " +
                             number(kMaxLength) + ", the most keys of a sequence");
    sizes.rows_k = most * out.page_size;
  } else if (args.page_indices) {
    FLASHPLUS_RETURN_IF_ERROR(readTable(reader, "page_indptr", args.page_indptr, 1, out.indptr));
    FLASHPLUS_RETURN_IF_ERROR(readTable(reader, "page_indices", args.page_indices, 1, out.entries));
    sizes.rows_k = std::min(std::min(out.entries.shape[0], kMaxLength) * out.page_size, kMaxLength);
  } else {
    sizes.rows_k = out.page_size;
    out.page_size = std::max<int64_t>(out.page_size, 1);
    if (args.cache_batch_idx)
      FLASHPLUS_RETURN_IF_ERROR(readTable(reader, "cache_batch_idx", args.cache_batch_idx, 1, out.entries));
  }
  return args.leftpad_k ? readTable(reader, "leftpad_k", args.leftpad_k, 1, out.leftpad) : Status::ok();
}

Status checkCache(const CacheTables &t, const TensorSizes &sizes, ForwardParams &p) {
  const int64_t batch = sizes.batch;
  if (t.args.block_table && t.entries.shape[0] != batch)
    return t.entries.wantShape({batch, t.entries.shape[1]}, "(batch, max_blocks)");
  if (t.args.page_indptr)
    FLASHPLUS_RETURN_IF_ERROR(t.indptr.wantShape({batch + 1}, "(batch + 1)"));
  if (t.args.cache_batch_idx)
    FLASHPLUS_RETURN_IF_ERROR(t.entries.wantShape({batch}, "(batch)"));
  if (t.args.leftpad_k)
    FLASHPLUS_RETURN_IF_ERROR(t.leftpad.wantShape({batch}, "(batch)"));
  if (!t.args.hasTable() && !t.args.cache_batch_idx && t.num_pages < batch)
    return invalidArgument("k has " + number(t.num_pages) +
                           " rows of cache; without cache_batch_idx it must have at least " + number(batch) +
                           ", the batch");
  const PageDivisor divisor = PageDivisor::of(int32_t(t.page_size));
  p.page_size = divisor.page_size;
  p.page_multiplier = divisor.multiplier;
  p.page_shift = divisor.shift;
  p.page_table = t.entries.data;
  p.page_table_stride = t.args.block_table ? t.entries.strides[0] : t.args.cache_batch_idx ? 1 : 0;
  p.page_indptr = t.indptr.data;
  p.leftpad_k = t.leftpad.data;
  p.seqlen_k = int32_t(sizes.rows_k);
  p.rows_k = t.num_pages * t.page_size;
  return Status::ok();
}

Status checkCacheValues(const CacheTables &t, const AttentionProblem &problem, const ForwardParams &p,
                        const AppendParams *append) {
  return HostChecks(t, problem, p, append).run();
}

} // namespace flashplus
