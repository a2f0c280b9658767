// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/arguments/append_args.h"

#include "runtime/arguments/lengths.h"
#include "runtime/arguments/public_structs.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace flashplus {
namespace {

std::string number(int64_t v) { return std::to_string(v); }

/// The fields that an append can have, but k_new.
Status wantNewKeys(const flashplus_forward_args &a) {
  if (a.k_new)
    return Status::ok();
  for (auto [name, tensor] : {std::pair{"v_new", a.v_new},
                              {"cu_seqlens_k_new", a.cu_seqlens_k_new},
                              {"slot_mapping", a.slot_mapping},
                              {"rotary_cos", a.rotary_cos},
                              {"rotary_sin", a.rotary_sin},
                              {"rotary_seqlens", a.rotary_seqlens}})
    if (tensor)
      return invalidArgument(std::string(name) +
                             " is given and k_new is null; it goes with new keys and values, "
                             "k_new and v_new");
  return invalidArgument("max_seqlen_k_new is " + number(a.max_seqlen_k_new) +
                         " and k_new is null; it must be 0");
}

Status checkDType(const TensorView &t, const TensorView &q) {
  const DLDataType &dtype = q.source->dtype;
  if (t.hasType(DLDataTypeCode(dtype.code), dtype.bits))
    return Status::ok();
  return invalidArgument(std::string(t.name) + " has dtype " + t.dtypeText() + "; it must be q's, " +
                         q.dtypeText());
}

/// Bytes that the elements of a tensor lie in.
struct Extent {
  const char *begin, *end;

  static Extent of(const TensorView &t, int64_t element) {
    int64_t last = 0;
    for (int d = 0; d < t.rank; ++d)
      last += (t.shape[d] - 1) * (t.shape[d] > 1 ? t.strides[d] : 0);
    const auto *begin = static_cast<const char *>(t.data);
    return {begin, begin + (last + 1) * element};
  }
  bool meets(const Extent &o) const { return begin < o.end && o.begin < end; }
};

/// What is read while the cache is written, or written while it is read, is no part of it.
Status wantApart(const TensorView &t, const TensorView &cache, int64_t element) {
  if (!t.data || !cache.data || t.isEmpty() || cache.isEmpty() ||
      !Extent::of(t, element).meets(Extent::of(cache, element)))
    return Status::ok();
  return invalidArgument(std::string(t.name) + " lies in the memory of " + cache.name +
                         ", the cache that k_new and v_new are written into; it must have its own");
}

/// Whether every row of a tensor, and every `part` bytes of it, start at multiples of 16 bytes.
bool isWide(const TensorView &t, int64_t element) {
  bool wide = reinterpret_cast<uintptr_t>(t.data) % 16 == 0;
  for (int d = 0; d + 1 < t.rank; ++d)
    wide = wide && (t.shape[d] <= 1 || t.strides[d] * element % 16 == 0);
  return wide || t.isEmpty();
}

/// Reads k_new, v_new, their lengths and their slots.
class NewRows {
public:
  NewRows(TensorReader &reader, const flashplus_forward_args &a, const TensorSizes &sizes,
          ForwardProblem &out)
      : reader_(reader), a_(a), sizes_(sizes), out_(out), p_(*out.append) {}

  TensorView k, v;

  Status read(const TensorView &q) {
    ragged_ = a_.cu_seqlens_k_new != nullptr;
    static constexpr const char *kNames[] = {"(batch, seqlen_new, heads_k, head_dim of q)",
                                             "(total_new, heads_k, head_dim of q)"};
    static constexpr const char *kValueNames[] = {"(batch, seqlen_new of k_new, heads_k, head_dim_v)",
                                                  "(total_new of k_new, heads_k, head_dim_v)"};
    FLASHPLUS_RETURN_IF_ERROR(readRows("k_new", a_.k_new, sizes_.head_dim_qk, kNames, q, k));
    FLASHPLUS_RETURN_IF_ERROR(readRows("v_new", a_.v_new, sizes_.head_dim_v, kValueNames, q, v));
    const int64_t rows = k.shape[ragged_ ? 0 : 1];
    if (rows > kMaxLength)
      return invalidArgument("k_new has " + number(rows) + " rows; at most " + number(kMaxLength) +
                             " are allowed");
    int64_t most = rows;
    if (ragged_) {
      FLASHPLUS_RETURN_IF_ERROR(readLengths(rows));
      if (a_.max_seqlen_k_new)
        most = std::min<int64_t>(most, a_.max_seqlen_k_new);
    }
    setRows(k, ragged_, p_.k_new, p_.k_new_stride_b, p_.k_new_stride_s, p_.k_new_stride_h);
    setRows(v, ragged_, p_.v_new, p_.v_new_stride_b, p_.v_new_stride_s, p_.v_new_stride_h);
    out_.bounds.max_seqlen_new = most;
    p_.seqlen_new = int32_t(most);
    return a_.slot_mapping ? readSlots(ragged_ ? rows : sizes_.batch * rows) : Status::ok();
  }

private:
  /// `shape_names`: the dimensions of dense rows and of packed ones; literals, since a check that passes
  /// allocates nothing.
  Status readRows(const char *name, const DLTensor *source, int64_t dim, const char *const *shape_names,
                  const TensorView &q, TensorView &t) {
    FLASHPLUS_RETURN_IF_ERROR(reader_.read(name, source, t));
    FLASHPLUS_RETURN_IF_ERROR(checkDType(t, q));
    const int rank = ragged_ ? 3 : 4;
    if (t.rank != rank)
      return invalidArgument(std::string(name) + " has shape " + t.shapeText() + "; it must have " +
                             number(rank) + " dimensions, " +
                             (ragged_ ? "(total_new, heads_k, head_dim), with cu_seqlens_k_new"
                                      : "(batch, seqlen_new, heads_k, head_dim), without cu_seqlens_k_new"));
    FLASHPLUS_RETURN_IF_ERROR(t.wantUnitStride());
    const TensorView &like = &t == &v ? k : t; // the rows of v_new are those of k_new
    const int64_t wanted[] = {sizes_.batch, like.shape[rank - 3], sizes_.heads_k, dim};
    return t.wantShape(std::span(wanted).subspan(size_t(4 - rank)), shape_names[ragged_]);
  }

  Status readLengths(int64_t rows) {
    TensorView cu;
    FLASHPLUS_RETURN_IF_ERROR(reader_.read("cu_seqlens_k_new", a_.cu_seqlens_k_new, cu));
    FLASHPLUS_RETURN_IF_ERROR(cu.wantType(kDLInt, 32, "int32"));
    FLASHPLUS_RETURN_IF_ERROR(cu.wantShape({sizes_.batch + 1}, "(batch + 1)"));
    FLASHPLUS_RETURN_IF_ERROR(cu.wantUnitStride());
    if (a_.max_seqlen_k_new < 0 || a_.max_seqlen_k_new > kMaxLength)
      return invalidArgument("max_seqlen_k_new is " + number(a_.max_seqlen_k_new) + "; it must be 0 to " +
                             number(kMaxLength));
    p_.cu_seqlens_k_new = cu.data;
    return checkCumulative(reader_, cu, rows, a_.max_seqlen_k_new ? a_.max_seqlen_k_new : kMaxLength,
                           "max_seqlen_k_new");
  }

  Status readSlots(int64_t total) {
    TensorView slots;
    FLASHPLUS_RETURN_IF_ERROR(reader_.read("slot_mapping", a_.slot_mapping, slots));
    FLASHPLUS_RETURN_IF_ERROR(slots.wantType(kDLInt, 64, "int64"));
    FLASHPLUS_RETURN_IF_ERROR(
        slots.wantShape({total}, ragged_ ? "(total_new)" : "(batch * seqlen_new of k_new)"));
    FLASHPLUS_RETURN_IF_ERROR(slots.wantUnitStride());
    if (!a_.block_table && !a_.page_indices)
      return invalidArgument(
          "slot_mapping is given without block_table and page_indices; its slots are those of "
          "pages");
    p_.slot_mapping = slots.data;
    return Status::ok();
  }

  TensorReader &reader_;
  const flashplus_forward_args &a_;
  const TensorSizes &sizes_;
  ForwardProblem &out_;
  AppendParams &p_;
  bool ragged_ = false;
};

/// `wide` is cleared where the rows of cos and sin, or halves of what turns, are not aligned.
Status readRotary(TensorReader &reader, const flashplus_forward_args &a, const TensorView &q,
                  const TensorSizes &sizes, AppendParams &p, bool &wide) {
  if (!a.rotary_cos != !a.rotary_sin)
    return invalidArgument(std::string(a.rotary_cos ? "rotary_sin" : "rotary_cos") +
                           " is null and the other is not; give both or none");
  if (!a.rotary_cos) {
    if (a.rotary_seqlens)
      return invalidArgument("rotary_seqlens is given and rotary_cos is null; it goes with rotary_cos and "
                             "rotary_sin");
    return Status::ok();
  }
  TensorView cos, sin;
  FLASHPLUS_RETURN_IF_ERROR(reader.read("rotary_cos", a.rotary_cos, cos));
  FLASHPLUS_RETURN_IF_ERROR(reader.read("rotary_sin", a.rotary_sin, sin));
  for (const TensorView *t : {&cos, &sin}) {
    FLASHPLUS_RETURN_IF_ERROR(checkDType(*t, q));
    if (t->rank != 2)
      return invalidArgument(std::string(t->name) + " has shape " + t->shapeText() +
                             "; it must have 2 dimensions, (positions, rotary_dim / 2)");
    FLASHPLUS_RETURN_IF_ERROR(t->wantUnitStride());
  }
  const int64_t rows = cos.shape[0], half = cos.shape[1];
  if (half < 1 || 2 * half > sizes.head_dim_qk)
    return invalidArgument("rotary_cos has shape " + cos.shapeText() + ", for a rotary_dim of " +
                           number(2 * half) + "; it must be 2 to " + number(sizes.head_dim_qk) +
                           ", the head_dim of q");
  FLASHPLUS_RETURN_IF_ERROR(sin.wantShape({rows, half}, "that of rotary_cos"));
  if (a.rotary_seqlens) {
    TensorView positions;
    FLASHPLUS_RETURN_IF_ERROR(reader.read("rotary_seqlens", a.rotary_seqlens, positions));
    FLASHPLUS_RETURN_IF_ERROR(positions.wantType(kDLInt, 32, "int32"));
    FLASHPLUS_RETURN_IF_ERROR(positions.wantShape({sizes.batch}, "(batch)"));
    FLASHPLUS_RETURN_IF_ERROR(positions.wantUnitStride());
    p.rotary_seqlens = positions.data;
  }
  p.rotary_cos = cos.data;
  p.rotary_sin = sin.data;
  p.rotary_cos_stride = rows > 1 ? cos.strides[0] : 0;
  p.rotary_sin_stride = rows > 1 ? sin.strides[0] : 0;
  p.rotary_dim = int32_t(2 * half);
  p.rotary_rows = int32_t(std::min<int64_t>(rows, std::numeric_limits<int32_t>::max()));
  p.interleaved = a.rotary_interleaved;
  const int element = q.source->dtype.bits / 8;
  wide = wide && 2 * half % 16 == 0 && isWide(cos, element) && isWide(sin, element) && isWide(q, element);
  return Status::ok();
}

} // namespace

Status checkAppend(TensorReader &reader, const flashplus_forward_args &a,
                   std::span<const OperandArg> operands, const TensorSizes &sizes, ForwardProblem &out) {
  const TensorView &q = operands[0].view, &k = operands[1].view, &v = operands[2].view, &o = operands[3].view;
  const ForwardParams &f = out.params;
  FLASHPLUS_RETURN_IF_ERROR(wantNewKeys(a));
  if (!a.v_new)
    return invalidArgument("v_new is null and k_new is not; give both or none");
  if (!a.seqused_k)
    return invalidArgument("seqused_k is null and k_new is given; it must say how many keys the cache has");
  if (a.cu_seqlens_k)
    return invalidArgument("cu_seqlens_k and k_new are given; the keys of a cache that grows are counted by "
                           "seqused_k alone");
  for (const TensorView *cache : {&k, &v})
    FLASHPLUS_RETURN_IF_ERROR(cache->wantDistinct());
  AppendParams &p = out.append.emplace();
  NewRows rows(reader, a, sizes, out);
  FLASHPLUS_RETURN_IF_ERROR(rows.read(q));
  const TensorView &k_new = rows.k, &v_new = rows.v;
  const int element = q.source->dtype.bits / 8;
  for (const TensorView *cache : {&k, &v})
    for (const TensorView *t : {&k_new, &v_new, &q, &o})
      FLASHPLUS_RETURN_IF_ERROR(wantApart(*t, *cache, element));
  bool wide = element == 2;
  for (const TensorView *t : {&k, &v, &k_new, &v_new})
    wide = wide && isWide(*t, element);
  FLASHPLUS_RETURN_IF_ERROR(readRotary(reader, a, q, sizes, p, wide));
  const int64_t moved = 2 * sizes.heads_k * out.bounds.max_seqlen_new +
                        (p.rotary_dim ? sizes.heads_q * out.bounds.max_seqlen_q : 0);
  if (moved > std::numeric_limits<int32_t>::max())
    return invalidArgument("k_new has " + number(out.bounds.max_seqlen_new) + " rows of " +
                           number(sizes.heads_k) + " heads a sequence and q " +
                           number(out.bounds.max_seqlen_q) + " of " + number(sizes.heads_q) +
                           "; an append moves fewer than 2^31 rows of a sequence");
  constexpr int64_t kMostTurned = int64_t(1) << 48; // times elements and bytes: fits int64
  if (int64_t turned = 0;
      p.rotary_dim &&
      (__builtin_mul_overflow(out.bounds.total_q, sizes.heads_q, &turned) || turned > kMostTurned))
    return invalidArgument("q has " + number(out.bounds.total_q) + " rows of " + number(sizes.heads_q) +
                           " heads; at most 2^48 in all can be turned");
  out.spec.append = true;
  out.bounds.rotates_q = p.rotary_dim != 0;
  out.empty = out.bounds.batch == 0;

  p.q = f.q;
  p.q_stride_b = f.q_stride_b;
  p.q_stride_s = f.q_stride_s;
  p.q_stride_h = f.q_stride_h;
  p.k = f.k;
  p.k_stride_b = f.k_stride_b;
  p.k_stride_s = f.k_stride_s;
  p.k_stride_h = f.k_stride_h;
  p.v = f.v;
  p.v_stride_b = f.v_stride_b;
  p.v_stride_s = f.v_stride_s;
  p.v_stride_h = f.v_stride_h;
  p.cu_seqlens_q = f.cu_seqlens_q;
  p.seqused_q = f.seqused_q;
  p.seqused_k = f.seqused_k;
  p.batch = f.batch;
  p.seqlen_q = f.seqlen_q;
  p.heads_q = f.heads_q;
  p.heads_k = f.heads_k;
  p.rotates_rows = out.spec.bounded_left || out.spec.bounded_right;
  p.wide = wide;
  p.num_pages = int32_t(std::min<int64_t>(k.shape[0], kMaxLength));
  if (out.spec.pagedKeys()) {
    p.page_size = f.page_size;
    p.page_table = f.page_table;
    p.page_indptr = f.page_indptr;
    p.page_table_stride = f.page_table_stride;
  } else {
    p.page_size = std::max(f.seqlen_k, 1);
  }
  p.page_entries = f.seqlen_k / p.page_size;
  return Status::ok();
}

} // namespace flashplus
