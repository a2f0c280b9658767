// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/arguments/forward_args.h"

#include "runtime/arguments/public_structs.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <tuple>

namespace flashplus {
namespace {

constexpr int64_t kMaxWindow = kMaxLength;
constexpr int64_t kMaxRows = int64_t(1) << 48; ///< batch * heads * rows: sums of it with splits and tiles fit int64.

std::string number(int64_t v) { return std::to_string(v); }

class Checker {
public:
  Checker(const flashplus_forward_args &args, DataPointers data, ScoreTable &scores, ForwardProblem &out)
      : a_(args), data_(data), scores_(scores), out_(out) {}

  Status run() {
    FLASHPLUS_RETURN_IF_ERROR(tensors());
    FLASHPLUS_RETURN_IF_ERROR(lengths());
    FLASHPLUS_RETURN_IF_ERROR(mask());
    FLASHPLUS_RETURN_IF_ERROR(score());
    FLASHPLUS_RETURN_IF_ERROR(rest());
    return rows();
  }

private:
  Status get(const char *name, const DLTensor *t, TensorView &out) {
    FLASHPLUS_RETURN_IF_ERROR(out.read(name, t, data_));
    if (out_.device.device_type == 0)
      out_.device = t->device;
    if (t->device.device_type != out_.device.device_type || t->device.device_id != out_.device.device_id)
      return invalidArgument(std::string(name) + " is on device type " + number(t->device.device_type) + " number " +
                             number(t->device.device_id) + "; it must be on the device of q (type " +
                             number(out_.device.device_type) + " number " + number(out_.device.device_id) + ")");
    return Status::ok();
  }

  Status tensors() {
    FLASHPLUS_RETURN_IF_ERROR(get("q", a_.q, q_));
    if (out_.device.device_type != kDLCPU && out_.device.device_type != kDLCUDA &&
        out_.device.device_type != kDLExtDev)
      return invalidArgument("q is on DLPack device type " + number(out_.device.device_type) +
                             "; it must be kDLCPU (1), kDLCUDA (2) or kDLExtDev (12), the emulator");
    FLASHPLUS_RETURN_IF_ERROR(get("k", a_.k, k_));
    FLASHPLUS_RETURN_IF_ERROR(get("v", a_.v, v_));
    FLASHPLUS_RETURN_IF_ERROR(get("o", a_.o, o_));
    if (q_.hasType(kDLFloat, 16))
      out_.spec.dtype = DType::F16;
    else if (q_.hasType(kDLBfloat, 16))
      out_.spec.dtype = DType::BF16;
    else if (q_.hasType(kDLFloat, 32))
      out_.spec.dtype = DType::F32;
    else
      return invalidArgument("q has dtype " + q_.dtypeText() + "; it must be float16, bfloat16 or float32");
    const DLDataType &dtype = q_.source->dtype;
    for (const TensorView *t : {&k_, &v_, &o_})
      if (!t->hasType(DLDataTypeCode(dtype.code), dtype.bits))
        return invalidArgument(std::string(t->name) + " has dtype " + t->dtypeText() + "; it must be q's, " +
                               q_.dtypeText());
    if (out_.spec.dtype == DType::F32 && out_.device.device_type != kDLCPU)
      return {StatusCode::Unsupported, "q has dtype float32; on a GPU it must be float16 or bfloat16"};
    if (!a_.cu_seqlens_q != !a_.cu_seqlens_k)
      return invalidArgument(std::string(a_.cu_seqlens_q ? "cu_seqlens_k" : "cu_seqlens_q") +
                             " is null and the other is not; give both or none");
    ragged_ = a_.cu_seqlens_q != nullptr;
    const int rank = ragged_ ? 3 : 4;
    for (const TensorView *t : {&q_, &k_, &v_, &o_}) {
      if (t->rank != rank)
        return invalidArgument(std::string(t->name) + " has shape " + t->shapeText() + "; it must have " +
                               number(rank) + " dimensions, " +
                               (ragged_ ? "(total, heads, head_dim), with cu_seqlens"
                                        : "(batch, seqlen, heads, head_dim), without cu_seqlens"));
      FLASHPLUS_RETURN_IF_ERROR(t->wantUnitStride());
    }
    dqk_ = q_.shape[rank - 1];
    dv_ = v_.shape[rank - 1];
    heads_q_ = q_.shape[rank - 2];
    heads_k_ = k_.shape[rank - 2];
    for (auto [name, value] : {std::pair{"q", dqk_}, {"v", dv_}})
      if (value < 1 || value > kMaxHeadDim)
        return invalidArgument(std::string(name) + " has head_dim " + number(value) + "; it must be 1 to " +
                               number(kMaxHeadDim));
    if (heads_k_ < 1 ? heads_q_ > 0 : heads_q_ % heads_k_ != 0)
      return invalidArgument("q has " + number(heads_q_) + " heads and k has " + number(heads_k_) +
                             "; k's must divide q's");
    rows_q_ = q_.shape[rank - 3];
    rows_k_ = k_.shape[rank - 3];
    if (ragged_) {
      FLASHPLUS_RETURN_IF_ERROR(k_.wantShape({rows_k_, heads_k_, dqk_}, "(total_k, heads_k, head_dim of q)"));
      FLASHPLUS_RETURN_IF_ERROR(v_.wantShape({rows_k_, heads_k_, dv_}, "(total_k, heads_k, head_dim_v)"));
      FLASHPLUS_RETURN_IF_ERROR(o_.wantShape({rows_q_, heads_q_, dv_}, "(total_q, heads_q, head_dim_v)"));
    } else {
      const int64_t batch = q_.shape[0];
      FLASHPLUS_RETURN_IF_ERROR(
          k_.wantShape({batch, rows_k_, heads_k_, dqk_}, "(batch of q, seqlen_k, heads_k, head_dim of q)"));
      FLASHPLUS_RETURN_IF_ERROR(
          v_.wantShape({batch, rows_k_, heads_k_, dv_}, "(batch, seqlen_k, heads_k, head_dim_v)"));
      FLASHPLUS_RETURN_IF_ERROR(
          o_.wantShape({batch, rows_q_, heads_q_, dv_}, "(batch, seqlen_q, heads_q, head_dim_v)"));
    }
    return o_.wantDistinct();
  }

  /// int32 (n) tensors of lengths; n < 0: of any length.
  Status lengthTensor(const char *name, const DLTensor *source, int64_t n, TensorView &out) {
    FLASHPLUS_RETURN_IF_ERROR(get(name, source, out));
    FLASHPLUS_RETURN_IF_ERROR(out.wantType(kDLInt, 32, "int32"));
    if (n >= 0)
      FLASHPLUS_RETURN_IF_ERROR(out.wantShape({n}, name[0] == 'c' ? "(batch + 1)" : "(batch)"));
    if (out.rank != 1)
      return invalidArgument(std::string(name) + " has shape " + out.shapeText() + "; it must have 1 dimension");
    return out.wantUnitStride();
  }

  bool onHost(const TensorView &t) const { return out_.device.device_type == kDLCPU && t.data; }

  Status checkCumulative(const TensorView &t, int64_t total, int64_t longest, const char *longest_name) {
    if (!onHost(t))
      return Status::ok();
    const auto *values = static_cast<const int32_t *>(t.data);
    auto element = [&](int64_t i) { return t.name + ("[" + number(i) + "] is " + number(values[i])); };
    if (values[0] != 0)
      return invalidArgument(element(0) + "; it must be 0");
    for (int64_t i = 1; i < t.shape[0]; ++i) {
      if (values[i] < values[i - 1])
        return invalidArgument(element(i) + ", less than " + number(values[i - 1]) +
                               " before it; it must not decrease");
      if (values[i] - values[i - 1] > longest)
        return invalidArgument(std::string(longest_name) + " is " + number(longest) + ", but " + t.name +
                               " holds a sequence of " + number(values[i] - values[i - 1]) +
                               " rows; it must be at least that");
    }
    if (values[t.shape[0] - 1] > total)
      return invalidArgument(std::string(t.name) + " ends at " + number(values[t.shape[0] - 1]) +
                             "; there are only " + number(total) + " rows");
    return Status::ok();
  }

  Status lengths() {
    ForwardParams &p = out_.params;
    int64_t max_q = rows_q_, max_k = rows_k_;
    for (auto [name, value] : {std::pair{"q", rows_q_}, {"k", rows_k_}})
      if (value > kMaxLength)
        return invalidArgument(std::string(name) + " has " + number(value) + " rows; at most " + number(kMaxLength) +
                               " are allowed");
    if (ragged_) {
      TensorView cu_q, cu_k;
      FLASHPLUS_RETURN_IF_ERROR(lengthTensor("cu_seqlens_q", a_.cu_seqlens_q, -1, cu_q));
      if (cu_q.shape[0] < 1)
        return invalidArgument("cu_seqlens_q has 0 elements; it must have batch + 1");
      batch_ = cu_q.shape[0] - 1;
      FLASHPLUS_RETURN_IF_ERROR(lengthTensor("cu_seqlens_k", a_.cu_seqlens_k, batch_ + 1, cu_k));
      for (auto [name, value] : {std::pair{"max_seqlen_q", a_.max_seqlen_q}, {"max_seqlen_k", a_.max_seqlen_k}})
        if (value < 0 || value > kMaxLength)
          return invalidArgument(std::string(name) + " is " + number(value) + "; it must be 0 to " +
                                 number(kMaxLength));
      FLASHPLUS_RETURN_IF_ERROR(checkCumulative(cu_q, rows_q_, a_.max_seqlen_q, "max_seqlen_q"));
      FLASHPLUS_RETURN_IF_ERROR(checkCumulative(cu_k, rows_k_, a_.max_seqlen_k, "max_seqlen_k"));
      // A bound beyond the total cannot be reached; cutting it keeps the grid small.
      max_q = std::min(a_.max_seqlen_q, rows_q_);
      max_k = std::min(a_.max_seqlen_k, rows_k_);
      p.cu_seqlens_q = cu_q.data;
      p.cu_seqlens_k = cu_k.data;
    } else {
      batch_ = q_.shape[0];
    }
    for (auto [name, value] :
         {std::pair{"batch", batch_}, {"heads of q", heads_q_}, {"heads of k", heads_k_}})
      if (value > kMaxLength)
        return invalidArgument(std::string(name) + " is " + number(value) + "; at most " + number(kMaxLength) +
                               " are allowed");
    int64_t rows = 0; // batch and heads are below 2^30, so their product fits
    if (__builtin_mul_overflow(batch_ * std::max<int64_t>(heads_q_, 1), std::max<int64_t>(max_q, 1), &rows) ||
        rows > kMaxRows)
      return invalidArgument("batch " + number(batch_) + " * heads of q " + number(heads_q_) + " * rows of q " +
                             number(max_q) + " is too large; at most 2^48 are allowed");
    for (auto [name, source, field] : {std::tuple{"seqused_q", a_.seqused_q, &p.seqused_q},
                                       {"seqused_k", a_.seqused_k, &p.seqused_k}}) {
      if (!source)
        continue;
      TensorView used;
      FLASHPLUS_RETURN_IF_ERROR(lengthTensor(name, source, batch_, used));
      if (onHost(used))
        for (int64_t i = 0; i < batch_; ++i)
          if (const int32_t value = static_cast<const int32_t *>(used.data)[i]; value < 0)
            return invalidArgument(std::string(name) + "[" + number(i) + "] is " + number(value) +
                                   "; it must not be negative");
      *field = used.data;
    }
    out_.bounds = {batch_, max_q, max_k, ragged_ ? rows_q_ : batch_ * rows_q_, heads_q_, heads_k_, -1, -1};
    out_.empty = out_.bounds.total_q == 0 || heads_q_ == 0 || batch_ == 0;
    p.batch = int32_t(batch_);
    p.seqlen_q = int32_t(max_q);
    p.seqlen_k = int32_t(max_k);
    p.heads_q = int32_t(heads_q_);
    p.heads_k = int32_t(heads_k_);
    p.rows_q = out_.bounds.total_q;
    p.rows_k = ragged_ ? rows_k_ : batch_ * rows_k_;
    return Status::ok();
  }

  Status mask() {
    for (auto [name, value] : {std::pair{"window_left", a_.window_left}, {"window_right", a_.window_right}})
      if (value < -1)
        return invalidArgument(std::string(name) + " is " + number(value) + "; it must be -1 (unbounded) or more");
    const int32_t right = a_.causal ? 0 : a_.window_right;
    out_.spec.bounded_left = a_.window_left >= 0;
    out_.spec.bounded_right = right >= 0;
    out_.bounds.window_left = out_.params.window_left = int32_t(std::min<int64_t>(a_.window_left, kMaxWindow));
    out_.bounds.window_right = out_.params.window_right = int32_t(std::min<int64_t>(right, kMaxWindow));
    return Status::ok();
  }

  Status score() {
    if (!std::isfinite(a_.softcap) || a_.softcap < 0)
      return invalidArgument("softcap is " + std::to_string(a_.softcap) + "; it must be 0 (off) or a positive number");
    TensorView slopes;
    if (a_.alibi_slopes) {
      FLASHPLUS_RETURN_IF_ERROR(get("alibi_slopes", a_.alibi_slopes, slopes));
      FLASHPLUS_RETURN_IF_ERROR(slopes.wantType(kDLFloat, 32, "float32"));
      if (!slopes.hasShape({heads_q_}) && !slopes.hasShape({batch_, heads_q_}))
        return invalidArgument("alibi_slopes has shape " + slopes.shapeText() +
                               "; it must be (heads_q) or (batch, heads_q) = " + dimsText({batch_, heads_q_}));
    }
    auto form = scores_.find({a_.score ? a_.score : "", a_.softcap > 0, slopes.rank});
    if (!form)
      return form.status();
    for (auto [name, count, list] :
         {std::tuple{"score_tensors", a_.num_score_tensors, static_cast<const void *>(a_.score_tensors)},
          {"score_scalars", a_.num_score_scalars, static_cast<const void *>(a_.score_scalars)}})
      if (count < 0 || (count > 0 && !list))
        return invalidArgument(std::string("num_") + name + " is " + number(count) + " and " + name + " is " +
                               (list ? "given" : "null") + "; they must agree");
    const ScoreForm &f = **form;
    out_.spec.score = &f;
    auto number = f.numbers.begin(); // their slots ascend
    for (size_t slot = 0; slot < f.expr.scalars.size(); ++slot) {
      if (number != f.numbers.end() && number->slot == int(slot))
        out_.params.scalar[slot] = number++->value;
      else
        FLASHPLUS_RETURN_IF_ERROR(bindScalar(f.expr.scalars[slot], out_.params.scalar[slot]));
    }
    for (size_t slot = 0; slot < f.expr.tensors.size(); ++slot)
      FLASHPLUS_RETURN_IF_ERROR(bindTensor(f, int(slot), slopes));
    return everythingUsed(f.expr);
  }

  Status bindScalar(const std::string &name, float &value) {
    if (name == ScoreForm::kSoftcap) {
      value = a_.softcap;
      return Status::ok();
    }
    for (int i = 0; i < a_.num_score_scalars; ++i)
      if (a_.score_scalars[i].name && name == a_.score_scalars[i].name) {
        value = a_.score_scalars[i].value;
        return Status::ok();
      }
    return invalidArgument("score uses the scalar '" + name + "', which score_scalars does not give");
  }

  Status bindTensor(const ScoreForm &form, int slot, const TensorView &slopes) {
    const ScoreTensor &wanted = form.expr.tensors[size_t(slot)];
    TensorView t = slopes;
    if (wanted.name != ScoreForm::kSlopes) {
      const DLTensor *source = nullptr;
      for (int i = 0; i < a_.num_score_tensors && !source; ++i)
        if (a_.score_tensors[i].name && wanted.name == a_.score_tensors[i].name)
          source = a_.score_tensors[i].tensor;
      if (!source)
        return invalidArgument("score uses the tensor '" + wanted.name + "', which score_tensors does not give");
      FLASHPLUS_RETURN_IF_ERROR(get(form.labels[size_t(slot)].c_str(), source, t));
      FLASHPLUS_RETURN_IF_ERROR(t.wantType(kDLFloat, 32, "float32"));
    }
    if (t.rank != wanted.rank)
      return invalidArgument(std::string(t.name) + " has shape " + t.shapeText() + "; the score reads it with " +
                             number(wanted.rank) + " indices");
    for (const ScoreForm::Index &index : form.indices)
      if (index.slot == slot)
        FLASHPLUS_RETURN_IF_ERROR(checkIndex(t, index));
    // Kernels clamp indices to the tensor, which needs something to clamp to; without a key nothing is read.
    if (t.isEmpty() && !out_.empty && rows_k_ > 0)
      return invalidArgument(std::string(t.name) + " has shape " + t.shapeText() +
                             "; the score reads it, so it must have an element");
    out_.params.aux[slot] = t.data;
    for (int d = 0; d < t.rank; ++d) {
      out_.params.aux_stride[slot * kMaxScoreTensorRank + d] = t.strides[d];
      out_.params.aux_last[slot * kMaxScoreTensorRank + d] =
          int32_t(std::clamp<int64_t>(t.shape[d] - 1, 0, std::numeric_limits<int32_t>::max()));
    }
    return Status::ok();
  }

  /// An index that is a number or a built-in name must be inside the tensor, as far as that is known: rows are only where
  /// every sequence has them all. b, h and hk are not clamped by kernels and rely on this.
  Status checkIndex(const TensorView &t, const ScoreForm::Index &index) {
    const char *by = "";
    int64_t least = 0;
    switch (index.op) {
    case ScoreOp::Constant:
      by = "a number";
      least = index.value + 1;
      break;
    case ScoreOp::Batch:
      by = "b";
      least = batch_;
      break;
    case ScoreOp::Head:
      by = "h";
      least = heads_q_;
      break;
    case ScoreOp::HeadK:
      by = "hk";
      least = heads_k_;
      break;
    case ScoreOp::Query:
      by = "q";
      least = ragged_ || a_.seqused_q ? 0 : rows_q_;
      break;
    case ScoreOp::Key:
      by = "k";
      least = ragged_ || a_.seqused_k ? 0 : rows_k_;
      break;
    default:
      break;
    }
    if (t.shape[index.dimension] >= least)
      return Status::ok();
    return invalidArgument(std::string(t.name) + " has shape " + t.shapeText() + "; the score reads dimension " +
                           number(index.dimension) + " by " + by + ", so it must be at least " + number(least));
  }

  /// A name that the score never mentions is most likely misspelt.
  Status everythingUsed(const ScoreExpr &expr) {
    for (int i = 0; i < a_.num_score_scalars; ++i) {
      const char *name = a_.score_scalars[i].name;
      if (!name || std::count(expr.scalars.begin(), expr.scalars.end(), name) == 0)
        return invalidArgument("score_scalars gives '" + std::string(name ? name : "(null)") +
                               "', which the score does not use");
    }
    for (int i = 0; i < a_.num_score_tensors; ++i) {
      const char *name = a_.score_tensors[i].name;
      bool used = false;
      for (const ScoreTensor &t : expr.tensors)
        used |= name && t.name == name;
      if (!used)
        return invalidArgument("score_tensors gives '" + std::string(name ? name : "(null)") +
                               "', which the score does not use");
    }
    return Status::ok();
  }

  Status rest() {
    ForwardParams &p = out_.params;
    // Rounded once, as head_dim ** -0.5 of a caller's language is.
    p.softmax_scale = a_.softmax_scale ? *a_.softmax_scale : float(1.0 / std::sqrt(double(dqk_)));
    if (!std::isfinite(p.softmax_scale))
      return invalidArgument("softmax_scale is " + std::to_string(p.softmax_scale) + "; it must be finite");
    if (std::isnan(a_.lse_empty))
      return invalidArgument("lse_empty is NaN; it must be a number, +inf or -inf");
    p.lse_empty = a_.lse_empty;
    if (a_.num_splits < 0)
      return invalidArgument("num_splits is " + number(a_.num_splits) + "; it must be 0 to 128");
    out_.num_splits = a_.num_splits;
    out_.batch_invariant = a_.batch_invariant != 0;
    p.tile_counter = a_.tile_counter;
    if (a_.schedule && *a_.schedule)
      out_.schedule = a_.schedule;
    if (reinterpret_cast<uintptr_t>(a_.tile_counter) % sizeof(int64_t))
      return invalidArgument("tile_counter is not a multiple of 8 bytes");
    if (!a_.lse)
      return Status::ok();
    TensorView lse;
    FLASHPLUS_RETURN_IF_ERROR(get("lse", a_.lse, lse));
    FLASHPLUS_RETURN_IF_ERROR(lse.wantType(kDLFloat, 32, "float32"));
    FLASHPLUS_RETURN_IF_ERROR(ragged_ ? lse.wantShape({heads_q_, rows_q_}, "(heads_q, total_q)")
                                      : lse.wantShape({batch_, heads_q_, rows_q_}, "(batch, heads_q, seqlen_q)"));
    FLASHPLUS_RETURN_IF_ERROR(lse.wantUnitStride());
    FLASHPLUS_RETURN_IF_ERROR(lse.wantDistinct());
    p.lse = lse.data;
    p.lse_stride_b = ragged_ ? 0 : lse.strides[0];
    p.lse_stride_h = lse.strides[ragged_ ? 0 : 1];
    return Status::ok();
  }

  Status rows() {
    ForwardParams &p = out_.params;
    setRows(q_, p.q, p.q_stride_b, p.q_stride_s, p.q_stride_h);
    setRows(k_, p.k, p.k_stride_b, p.k_stride_s, p.k_stride_h);
    setRows(v_, p.v, p.v_stride_b, p.v_stride_s, p.v_stride_h);
    setRows(o_, p.o, p.o_stride_b, p.o_stride_s, p.o_stride_h);
    out_.spec.head_dim_qk = int(dqk_);
    out_.spec.head_dim_v = int(dv_);
    const int element = dtypeBytes(out_.spec.dtype);
    bool aligned = dqk_ * element % 16 == 0 && dv_ * element % 16 == 0;
    for (const TensorView *t : {&q_, &k_, &v_, &o_}) {
      aligned = aligned && reinterpret_cast<uintptr_t>(t->data) % 16 == 0;
      for (int d = 0; d + 1 < t->rank && !t->isEmpty(); ++d)
        aligned = aligned && (t->shape[d] <= 1 || alignedStride(t->strides[d] * element));
    }
    out_.spec.alignment = aligned ? 16 : element;
    return Status::ok();
  }

  /// Hardware that copies whole tiles takes strides of this kind only.
  static bool alignedStride(int64_t bytes) { return bytes > 0 && bytes % 16 == 0 && bytes < (int64_t(1) << 40); }

  void setRows(const TensorView &t, void *&data, int64_t &b, int64_t &s, int64_t &h) {
    data = t.data;
    const int first = ragged_ ? 0 : 1;
    b = ragged_ ? 0 : t.strides[0];
    s = t.strides[first];
    h = t.strides[first + 1];
  }

  const flashplus_forward_args &a_; ///< As readForwardArgs has them.
  const DataPointers data_;
  ScoreTable &scores_;
  ForwardProblem &out_;
  TensorView q_, k_, v_, o_;
  bool ragged_ = false;
  int64_t dqk_ = 0, dv_ = 0, heads_q_ = 0, heads_k_ = 0, rows_q_ = 0, rows_k_ = 0, batch_ = 0;
};

} // namespace

KernelSpec ProblemSpec::spec() const {
  KernelSpec spec;
  static_cast<SpecFields &>(spec) = *this;
  spec.score = score->expr;
  return spec;
}

bool ProblemSpec::sameSpec(const ProblemSpec &o) const {
  return static_cast<const SpecFields &>(*this) == o && (score == o.score || score->canonical == o.score->canonical);
}

Status checkForwardArgs(const flashplus_forward_args *args, DataPointers data, ScoreTable &scores,
                        ForwardProblem &out) {
  flashplus_forward_args now;
  FLASHPLUS_RETURN_IF_ERROR(readForwardArgs(args, now));
  return Checker(now, data, scores, out).run();
}

} // namespace flashplus
