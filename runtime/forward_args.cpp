// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/forward_args.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <deque>
#include <limits>
#include <tuple>

namespace flashplus {
namespace {

constexpr int64_t kMaxLength = std::numeric_limits<int32_t>::max() / 2; ///< Positions are int32, with room to add.
constexpr int64_t kMaxWindow = kMaxLength;

std::string number(int64_t v) { return std::to_string(v); }

/// A view of one argument with strides filled in.
struct Tensor {
  const char *name = "";
  const DLTensor *source = nullptr;
  std::vector<int64_t> shape, strides;
  void *data = nullptr;

  explicit operator bool() const { return source != nullptr; }
};

std::string shapeText(const std::vector<int64_t> &shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i)
    text += (i ? ", " : "") + number(shape[i]);
  return text + ")";
}

std::string dtypeText(const DLDataType &t) {
  const char *kind = t.code == kDLFloat ? "float" : t.code == kDLBfloat ? "bfloat" : t.code == kDLInt ? "int" : "code";
  return kind + std::to_string(t.bits) + (t.lanes == 1 ? "" : "x" + std::to_string(t.lanes));
}

bool isType(const DLDataType &t, int code, int bits) { return t.code == code && t.bits == bits && t.lanes == 1; }

Result<Tensor> view(const char *name, const DLTensor *t, DataPointers data) {
  if (!t)
    return invalidArgument(std::string(name) + " is null; it must be a tensor");
  Tensor v{name, t, {}, {}, nullptr};
  if (t->ndim < 1 || t->ndim > 4 || !t->shape)
    return invalidArgument(std::string(name) + " has rank " + number(t->ndim) + "; it must have 1 to 4 dimensions");
  v.shape.assign(t->shape, t->shape + t->ndim);
  int64_t elements = 1;
  for (int64_t s : v.shape) {
    if (s < 0)
      return invalidArgument(std::string(name) + " has shape " + shapeText(v.shape) +
                             "; dimensions must not be negative");
    if (__builtin_mul_overflow(elements, s ? s : 1, &elements) || elements > (int64_t(1) << 48))
      return invalidArgument(std::string(name) + " has shape " + shapeText(v.shape) +
                             "; at most 2^48 elements are allowed");
  }
  if (t->strides) {
    v.strides.assign(t->strides, t->strides + t->ndim);
  } else {
    v.strides.resize(v.shape.size());
    int64_t stride = 1;
    for (size_t i = v.shape.size(); i-- > 0; stride *= std::max<int64_t>(v.shape[i], 1))
      v.strides[i] = stride;
  }
  for (size_t i = 0; i < v.shape.size(); ++i)
    if (v.shape[i] > 1 && (v.strides[i] < 0 || v.strides[i] > (int64_t(1) << 48)))
      return invalidArgument(std::string(name) + " has stride " + number(v.strides[i]) + " in dimension " +
                             std::to_string(i) + "; strides must be 0 to 2^48");
  const bool has_elements = std::count(v.shape.begin(), v.shape.end(), 0) == 0;
  if (t->data)
    v.data = static_cast<char *>(t->data) + t->byte_offset;
  else if (data == DataPointers::Required && has_elements)
    return invalidArgument(std::string(name) + " has null data; it must point to " + shapeText(v.shape) + " elements");
  return v;
}

Status wantShape(const Tensor &t, const std::vector<int64_t> &shape, const char *meaning) {
  if (t.shape == shape)
    return Status::ok();
  return invalidArgument(std::string(t.name) + " has shape " + shapeText(t.shape) + "; it must be " + meaning + " = " +
                         shapeText(shape));
}

Status wantType(const Tensor &t, int code, int bits, const char *wanted) {
  if (isType(t.source->dtype, code, bits))
    return Status::ok();
  return invalidArgument(std::string(t.name) + " has dtype " + dtypeText(t.source->dtype) + "; it must be " + wanted);
}

Status wantUnitStride(const Tensor &t) {
  if (t.shape.back() <= 1 || t.strides.back() == 1)
    return Status::ok();
  return invalidArgument(std::string(t.name) + " has stride " + number(t.strides.back()) +
                         " in its last dimension; it must be 1");
}

class Checker {
public:
  Checker(const flashplus_forward_args &args, DataPointers data) : a_(args), data_(data) {}

  Result<ForwardProblem> run() {
    FLASHPLUS_RETURN_IF_ERROR(tensors());
    FLASHPLUS_RETURN_IF_ERROR(lengths());
    FLASHPLUS_RETURN_IF_ERROR(mask());
    FLASHPLUS_RETURN_IF_ERROR(score());
    FLASHPLUS_RETURN_IF_ERROR(rest());
    return std::move(out_);
  }

private:
  Status get(const char *name, const DLTensor *t, Tensor &out) {
    auto v = view(name, t, data_);
    if (!v)
      return v.status();
    out = std::move(*v);
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
    if (out_.device.device_type != kDLCPU && out_.device.device_type != kDLCUDA)
      return invalidArgument("q is on DLPack device type " + number(out_.device.device_type) +
                             "; it must be kDLCPU (1) or kDLCUDA (2)");
    FLASHPLUS_RETURN_IF_ERROR(get("k", a_.k, k_));
    FLASHPLUS_RETURN_IF_ERROR(get("v", a_.v, v_));
    FLASHPLUS_RETURN_IF_ERROR(get("o", a_.o, o_));
    const DLDataType dtype = q_.source->dtype;
    if (isType(dtype, kDLFloat, 16))
      out_.spec.dtype = DType::F16;
    else if (isType(dtype, kDLBfloat, 16))
      out_.spec.dtype = DType::BF16;
    else if (isType(dtype, kDLFloat, 32))
      out_.spec.dtype = DType::F32;
    else
      return invalidArgument("q has dtype " + dtypeText(dtype) + "; it must be float16, bfloat16 or float32");
    for (const Tensor *t : {&k_, &v_, &o_})
      if (!isType(t->source->dtype, dtype.code, dtype.bits))
        return invalidArgument(std::string(t->name) + " has dtype " + dtypeText(t->source->dtype) +
                               "; it must be q's, " + dtypeText(dtype));
    if (out_.spec.dtype == DType::F32 && out_.device.device_type == kDLCUDA)
      return Status(StatusCode::Unsupported, "q has dtype float32; on a GPU it must be float16 or bfloat16");
    if (!a_.cu_seqlens_q != !a_.cu_seqlens_k)
      return invalidArgument(std::string(a_.cu_seqlens_q ? "cu_seqlens_k" : "cu_seqlens_q") +
                             " is null and the other is not; give both or none");
    ragged_ = a_.cu_seqlens_q != nullptr;
    const size_t rank = ragged_ ? 3 : 4;
    for (const Tensor *t : {&q_, &k_, &v_, &o_}) {
      if (t->shape.size() != rank)
        return invalidArgument(std::string(t->name) + " has shape " + shapeText(t->shape) + "; it must have " +
                               number(int64_t(rank)) + " dimensions, " +
                               (ragged_ ? "(total, heads, head_dim), with cu_seqlens"
                                        : "(batch, seqlen, heads, head_dim), without cu_seqlens"));
      FLASHPLUS_RETURN_IF_ERROR(wantUnitStride(*t));
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
    const int64_t rows_q = q_.shape[rank - 3], rows_k = k_.shape[rank - 3];
    if (ragged_) {
      FLASHPLUS_RETURN_IF_ERROR(wantShape(k_, {rows_k, heads_k_, dqk_}, "(total_k, heads_k, head_dim of q)"));
      FLASHPLUS_RETURN_IF_ERROR(wantShape(v_, {rows_k, heads_k_, dv_}, "(total_k, heads_k, head_dim_v)"));
      FLASHPLUS_RETURN_IF_ERROR(wantShape(o_, {rows_q, heads_q_, dv_}, "(total_q, heads_q, head_dim_v)"));
    } else {
      const int64_t batch = q_.shape[0];
      FLASHPLUS_RETURN_IF_ERROR(
          wantShape(k_, {batch, rows_k, heads_k_, dqk_}, "(batch of q, seqlen_k, heads_k, head_dim of q)"));
      FLASHPLUS_RETURN_IF_ERROR(
          wantShape(v_, {batch, rows_k, heads_k_, dv_}, "(batch, seqlen_k, heads_k, head_dim_v)"));
      FLASHPLUS_RETURN_IF_ERROR(
          wantShape(o_, {batch, rows_q, heads_q_, dv_}, "(batch, seqlen_q, heads_q, head_dim_v)"));
    }
    rows_q_ = rows_q;
    rows_k_ = rows_k;
    return Status::ok();
  }

  /// int32 (n) tensors of lengths.
  Status lengthTensor(const char *name, const DLTensor *source, int64_t n, Tensor &out) {
    FLASHPLUS_RETURN_IF_ERROR(get(name, source, out));
    FLASHPLUS_RETURN_IF_ERROR(wantType(out, kDLInt, 32, "int32"));
    if (n >= 0)
      FLASHPLUS_RETURN_IF_ERROR(wantShape(out, {n}, std::string(name).starts_with("cu") ? "(batch + 1)" : "(batch)"));
    if (out.shape.size() != 1)
      return invalidArgument(std::string(name) + " has shape " + shapeText(out.shape) + "; it must have 1 dimension");
    return wantUnitStride(out);
  }

  bool onHost(const Tensor &t) const { return out_.device.device_type == kDLCPU && t.data; }

  Status checkCumulative(const Tensor &t, int64_t total, int64_t longest, const char *longest_name) {
    if (!onHost(t))
      return Status::ok();
    const auto *values = static_cast<const int32_t *>(t.data);
    const std::string name = t.name;
    if (values[0] != 0)
      return invalidArgument(name + "[0] is " + number(values[0]) + "; it must be 0");
    for (int64_t i = 1; i < t.shape[0]; ++i) {
      if (values[i] < values[i - 1])
        return invalidArgument(name + "[" + number(i) + "] is " + number(values[i]) + ", less than " +
                               number(values[i - 1]) + " before it; it must not decrease");
      if (values[i] - values[i - 1] > longest)
        return invalidArgument(std::string(longest_name) + " is " + number(longest) + ", but " + name +
                               " holds a sequence of " + number(values[i] - values[i - 1]) +
                               " rows; it must be at least that");
    }
    if (values[t.shape[0] - 1] > total)
      return invalidArgument(name + " ends at " + number(values[t.shape[0] - 1]) + "; there are only " + number(total) +
                             " rows");
    return Status::ok();
  }

  Status lengths() {
    ForwardParams &p = out_.params;
    int64_t max_q = rows_q_, max_k = rows_k_;
    if (ragged_) {
      Tensor cu_q, cu_k;
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
    for (auto [name, value] : {std::pair{"q", rows_q_}, {"k", rows_k_}})
      if (value > kMaxLength)
        return invalidArgument(std::string(name) + " has " + number(value) + " rows; at most " + number(kMaxLength) +
                               " are allowed");
    for (auto [name, value] : {std::pair{"batch", batch_}, {"heads of q", heads_q_}})
      if (value > kMaxLength)
        return invalidArgument(std::string(name) + " is " + number(value) + "; at most " + number(kMaxLength) +
                               " are allowed");
    for (auto [name, source, field] : {std::tuple{"seqused_q", a_.seqused_q, &p.seqused_q},
                                       {"seqused_k", a_.seqused_k, &p.seqused_k}}) {
      if (!source)
        continue;
      Tensor used;
      FLASHPLUS_RETURN_IF_ERROR(lengthTensor(name, source, batch_, used));
      if (onHost(used))
        for (int64_t i = 0; i < batch_; ++i)
          if (static_cast<const int32_t *>(used.data)[i] < 0)
            return invalidArgument(std::string(name) + "[" + number(i) + "] is " +
                                   number(static_cast<const int32_t *>(used.data)[i]) + "; it must not be negative");
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

  /// Softcap and ALiBi are score expressions like the caller's own, composed as text.
  Status score() {
    std::string text = a_.score && *a_.score ? a_.score : "s";
    if (a_.score && *a_.score) {
      // Parsed alone first, so that columns in messages are the caller's.
      auto own = ScoreExpr::parse(text);
      if (!own)
        return own.status();
    }
    if (!std::isfinite(a_.softcap) || a_.softcap < 0)
      return invalidArgument("softcap is " + std::to_string(a_.softcap) + "; it must be 0 (off) or a positive number");
    if (a_.softcap > 0)
      text = "flashplus_softcap * tanh((" + text + ") / flashplus_softcap)";
    Tensor slopes;
    if (a_.alibi_slopes) {
      FLASHPLUS_RETURN_IF_ERROR(get("alibi_slopes", a_.alibi_slopes, slopes));
      FLASHPLUS_RETURN_IF_ERROR(wantType(slopes, kDLFloat, 32, "float32"));
      if (slopes.shape != std::vector{heads_q_} && slopes.shape != std::vector{batch_, heads_q_})
        return invalidArgument("alibi_slopes has shape " + shapeText(slopes.shape) +
                               "; it must be (heads_q) or (batch, heads_q) = " + shapeText({batch_, heads_q_}));
      text = "(" + text + ") - flashplus_slopes[" + (slopes.shape.size() == 1 ? "h" : "b, h") +
             "] * abs(q + sk - sq - k)";
    }
    auto expr = ScoreExpr::parse(text);
    if (!expr)
      return expr.status();
    for (auto [name, count, list] :
         {std::tuple{"score_tensors", a_.num_score_tensors, static_cast<const void *>(a_.score_tensors)},
          {"score_scalars", a_.num_score_scalars, static_cast<const void *>(a_.score_scalars)}})
      if (count < 0 || (count > 0 && !list))
        return invalidArgument(std::string("num_") + name + " is " + number(count) + " and " + name + " is " +
                               (list ? "given" : "null") + "; they must agree");
    for (size_t slot = 0; slot < expr->scalars.size(); ++slot)
      FLASHPLUS_RETURN_IF_ERROR(bindScalar(expr->scalars[slot], int(slot)));
    for (size_t slot = 0; slot < expr->tensors.size(); ++slot)
      FLASHPLUS_RETURN_IF_ERROR(bindTensor(expr->tensors[slot], int(slot), slopes));
    FLASHPLUS_RETURN_IF_ERROR(everythingUsed(*expr));
    out_.spec.score = std::move(*expr);
    return Status::ok();
  }

  Status bindScalar(const std::string &name, int slot) {
    float &value = out_.params.scalar[slot];
    if (name == "flashplus_softcap") {
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

  Status bindTensor(const ScoreTensor &wanted, int slot, const Tensor &slopes) {
    Tensor t = slopes;
    if (wanted.name != "flashplus_slopes") {
      const DLTensor *source = nullptr;
      for (int i = 0; i < a_.num_score_tensors; ++i)
        if (a_.score_tensors[i].name && wanted.name == a_.score_tensors[i].name)
          source = a_.score_tensors[i].tensor;
      if (!source)
        return invalidArgument("score uses the tensor '" + wanted.name + "', which score_tensors does not give");
      names_.push_back("score tensor '" + wanted.name + "'");
      FLASHPLUS_RETURN_IF_ERROR(get(names_.back().c_str(), source, t));
      FLASHPLUS_RETURN_IF_ERROR(wantType(t, kDLFloat, 32, "float32"));
    }
    if (int(t.shape.size()) != wanted.rank)
      return invalidArgument(std::string(t.name) + " has shape " + shapeText(t.shape) + "; the score reads it with " +
                             number(wanted.rank) + " indices");
    out_.params.aux[slot] = t.data;
    for (size_t d = 0; d < t.strides.size(); ++d)
      out_.params.aux_stride[slot * kMaxScoreTensorRank + int(d)] = t.strides[d];
    return Status::ok();
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
    p.softmax_scale = a_.softmax_scale ? *a_.softmax_scale : 1.0f / std::sqrt(float(dqk_));
    if (!std::isfinite(p.softmax_scale))
      return invalidArgument("softmax_scale is " + std::to_string(p.softmax_scale) + "; it must be finite");
    if (std::isnan(a_.lse_empty))
      return invalidArgument("lse_empty is NaN; it must be a number, +inf or -inf");
    p.lse_empty = a_.lse_empty;
    if (a_.num_splits < 0)
      return invalidArgument("num_splits is " + number(a_.num_splits) + "; it must be 0 to 128");
    out_.options.num_splits = a_.num_splits;
    out_.options.batch_invariant = a_.batch_invariant != 0;
    p.tile_counter = a_.tile_counter;
    if (a_.schedule && *a_.schedule) {
      auto schedule = Schedule::parse(a_.schedule);
      if (!schedule)
        return schedule.status();
      out_.options.schedule = std::move(*schedule);
    }

    if (a_.lse) {
      Tensor lse;
      FLASHPLUS_RETURN_IF_ERROR(get("lse", a_.lse, lse));
      FLASHPLUS_RETURN_IF_ERROR(wantType(lse, kDLFloat, 32, "float32"));
      FLASHPLUS_RETURN_IF_ERROR(ragged_
                                    ? wantShape(lse, {heads_q_, rows_q_}, "(heads_q, total_q)")
                                    : wantShape(lse, {batch_, heads_q_, rows_q_}, "(batch, heads_q, seqlen_q)"));
      FLASHPLUS_RETURN_IF_ERROR(wantUnitStride(lse));
      p.lse = lse.data;
      p.lse_stride_b = ragged_ ? 0 : lse.strides[0];
      p.lse_stride_h = lse.strides[ragged_ ? 0 : 1];
    }
    setRows(q_, p.q, p.q_stride_b, p.q_stride_s, p.q_stride_h);
    setRows(k_, p.k, p.k_stride_b, p.k_stride_s, p.k_stride_h);
    setRows(v_, p.v, p.v_stride_b, p.v_stride_s, p.v_stride_h);
    setRows(o_, p.o, p.o_stride_b, p.o_stride_s, p.o_stride_h);
    out_.spec.head_dim_qk = int(dqk_);
    out_.spec.head_dim_v = int(dv_);
    const int element = dtypeBytes(out_.spec.dtype);
    bool aligned = dqk_ * element % 16 == 0 && dv_ * element % 16 == 0;
    for (const Tensor *t : {&q_, &k_, &v_, &o_}) {
      if (reinterpret_cast<uintptr_t>(t->data) % uintptr_t(element))
        return invalidArgument(std::string(t->name) + " has data at an address that is not a multiple of its element "
                                                      "size, " + number(element) + " bytes");
      aligned = aligned && reinterpret_cast<uintptr_t>(t->data) % 16 == 0;
      for (size_t d = 0; d + 1 < t->shape.size(); ++d)
        aligned = aligned && (t->shape[d] <= 1 || alignedStride(t->strides[d] * element));
    }
    out_.spec.alignment = aligned ? 16 : element;
    return out_.spec.validate();
  }

  /// Hardware that copies whole tiles takes strides of this kind only.
  static bool alignedStride(int64_t bytes) { return bytes > 0 && bytes % 16 == 0 && bytes < (int64_t(1) << 40); }

  void setRows(const Tensor &t, void *&data, int64_t &b, int64_t &s, int64_t &h) {
    data = t.data;
    const size_t first = ragged_ ? 0 : 1;
    b = ragged_ ? 0 : t.strides[0];
    s = t.strides[first];
    h = t.strides[first + 1];
  }

  const flashplus_forward_args &a_;
  const DataPointers data_;
  ForwardProblem out_;
  Tensor q_, k_, v_, o_;
  bool ragged_ = false;
  int64_t dqk_ = 0, dv_ = 0, heads_q_ = 0, heads_k_ = 0, rows_q_ = 0, rows_k_ = 0, batch_ = 0;
  std::deque<std::string> names_; ///< Keeps the names that messages point to.
};

} // namespace

Result<ForwardProblem> checkForwardArgs(const flashplus_forward_args *args, DataPointers data) {
  if (!args)
    return invalidArgument("args is null");
  // A caller built with an older header passes a shorter struct: its missing fields are the defaults.
  constexpr size_t kLeast = offsetof(flashplus_forward_args, tile_counter) + sizeof(args->tile_counter);
  if (args->struct_size < kLeast || args->struct_size > 16 * sizeof(flashplus_forward_args))
    return invalidArgument("args.struct_size is " + number(int64_t(args->struct_size)) +
                           "; it must be sizeof(flashplus_forward_args), " +
                           number(int64_t(sizeof(flashplus_forward_args))));
  return Checker(*args, data).run();
}

} // namespace flashplus
