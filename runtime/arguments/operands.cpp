// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/arguments/operands.h"

#include <utility>

namespace flashplus {
namespace {

/// "(batch of q, seqlen_k, heads_k, head_dim of q)"
std::string dimNames(Operand like, bool ragged, bool cache) {
  if (cache)
    return std::string("(num_blocks of k, page_size of k, heads_k, ") +
           (hasValueDim(like) ? "head_dim_v)" : "head_dim of q)");
  const std::string side = operandInfo(like).side == Side::Query ? "_q" : "_k";
  const bool value = hasValueDim(like);
  const std::string rows = ragged ? "total" + side : (value ? "batch, seqlen" : "batch of q, seqlen") + side;
  return "(" + rows + ", heads" + side + (value ? ", head_dim_v)" : ", head_dim of q)");
}

/// Hardware that copies whole tiles takes strides of this kind only.
bool alignedStride(int64_t bytes) { return bytes > 0 && bytes % 16 == 0 && bytes < (int64_t(1) << 40); }

bool alignedRows(const TensorView &t, int64_t element) {
  if (reinterpret_cast<uintptr_t>(t.data) % 16 != 0)
    return false;
  for (int d = 0; d + 1 < t.rank; ++d)
    if (t.shape[d] > 1 && !alignedStride(t.strides[d] * element))
      return t.isEmpty();
  return true;
}

Status checkDTypes(std::span<const OperandArg> operands, bool on_cpu, SpecFields &spec) {
  const TensorView &q = operands[0].view;
  FLASHPLUS_RETURN_IF_ERROR(readDType(q, spec.dtype));
  const DLDataType &dtype = q.source->dtype;
  for (const OperandArg &o : operands.subspan(1))
    if (!o.view.hasType(DLDataTypeCode(dtype.code), dtype.bits))
      return invalidArgument(std::string(o.name) + " has dtype " + o.view.dtypeText() + "; it must be q's, " +
                             q.dtypeText());
  if (spec.dtype == DType::F32 && !on_cpu)
    return {StatusCode::Unsupported, "q has dtype float32; on a GPU it must be float16 or bfloat16"};
  return Status::ok();
}

Status checkSizes(std::span<const OperandArg> operands, TensorSizes &sizes) {
  const auto cached = [&](const OperandArg &o) {
    return sizes.cache && operandInfo(o.like).side == Side::Key;
  };
  const auto rankOf = [&](const OperandArg &o) { return sizes.ragged && !cached(o) ? 3 : 4; };
  for (const OperandArg &o : operands) {
    if (o.view.rank != rankOf(o))
      return invalidArgument(std::string(o.name) + " has shape " + o.view.shapeText() + "; it must have " +
                             std::to_string(rankOf(o)) + " dimensions, " +
                             (cached(o)      ? "(num_blocks, page_size, heads, head_dim), of a cache"
                              : sizes.ragged ? "(total, heads, head_dim), with cu_seqlens"
                                             : "(batch, seqlen, heads, head_dim), without cu_seqlens"));
    FLASHPLUS_RETURN_IF_ERROR(o.view.wantUnitStride());
  }
  const TensorView &q = operands[0].view, &k = operands[1].view, &v = operands[2].view;
  const int rank = q.rank;
  sizes.head_dim_qk = q.shape[rank - 1];
  sizes.head_dim_v = v.shape[v.rank - 1];
  for (auto [name, value] : {std::pair{"q", sizes.head_dim_qk}, {"v", sizes.head_dim_v}})
    if (value < 1 || value > kMaxHeadDim)
      return invalidArgument(std::string(name) + " has head_dim " + std::to_string(value) +
                             "; it must be 1 to " + std::to_string(kMaxHeadDim));
  const int64_t heads_q = q.shape[rank - 2], heads_k = k.shape[k.rank - 2];
  if (heads_k < 1 ? heads_q > 0 : heads_q % heads_k != 0)
    return invalidArgument("q has " + std::to_string(heads_q) + " heads and k has " +
                           std::to_string(heads_k) + "; k's must divide q's");
  sizes.heads_q = heads_q;
  sizes.heads_k = heads_k;
  sizes.rows_q = q.shape[rank - 3];
  sizes.rows_k = k.shape[k.rank - 3];
  if (!sizes.ragged)
    sizes.batch = q.shape[0];
  for (const OperandArg &o : operands.subspan(1)) {
    const Side side = operandInfo(o.like).side;
    const int64_t dim = hasValueDim(o.like) ? sizes.head_dim_v : sizes.head_dim_qk;
    const int64_t wanted[] = {cached(o) ? k.shape[0] : sizes.batch, sizes.rows(side), sizes.heads(side), dim};
    const std::span dims = std::span(wanted).subspan(size_t(4 - rankOf(o)));
    if (!o.view.hasShape(dims))
      return o.view.wantShape(dims, dimNames(o.like, sizes.ragged, cached(o)).c_str());
  }
  return Status::ok();
}

} // namespace

Status readDType(const TensorView &t, DType &out) {
  if (t.hasType(kDLFloat, 16))
    out = DType::F16;
  else if (t.hasType(kDLBfloat, 16))
    out = DType::BF16;
  else if (t.hasType(kDLFloat, 32))
    out = DType::F32;
  else
    return invalidArgument(std::string(t.name) + " has dtype " + t.dtypeText() +
                           "; it must be float16, bfloat16 or float32");
  return Status::ok();
}

Status TensorReader::read(const char *name, const DLTensor *source, TensorView &out) {
  FLASHPLUS_RETURN_IF_ERROR(out.read(name, source, data_));
  const DLDevice found = source->device;
  if (device_.device_type == 0) {
    if (found.device_type != kDLCPU && found.device_type != kDLCUDA && found.device_type != kDLExtDev)
      return unknownDevice(name, found);
    device_ = found;
    first_ = name;
  } else if (found.device_type != device_.device_type || found.device_id != device_.device_id) {
    return wrongDevice(name, found);
  }
  return Status::ok();
}

Status TensorReader::unknownDevice(const char *name, DLDevice found) const {
  return invalidArgument(std::string(name) + " is on DLPack device type " +
                         std::to_string(found.device_type) +
                         "; it must be kDLCPU (1), kDLCUDA (2) or kDLExtDev (12), the emulator");
}

Status TensorReader::wrongDevice(const char *name, DLDevice found) const {
  return invalidArgument(std::string(name) + " is on device type " + std::to_string(found.device_type) +
                         " number " + std::to_string(found.device_id) + "; it must be on the device of " +
                         first_ + " (type " + std::to_string(device_.device_type) + " number " +
                         std::to_string(device_.device_id) + ")");
}

Status checkOperands(TensorReader &reader, std::span<OperandArg> operands, bool has_cu_seqlens_q,
                     bool has_cu_seqlens_k, SpecFields &spec, TensorSizes &sizes) {
  for (OperandArg &o : operands)
    FLASHPLUS_RETURN_IF_ERROR(reader.read(o.name, o.source, o.view));
  FLASHPLUS_RETURN_IF_ERROR(checkDTypes(operands, reader.device().device_type == kDLCPU, spec));
  if (has_cu_seqlens_q != has_cu_seqlens_k && !(sizes.cache && has_cu_seqlens_q))
    return invalidArgument(std::string(has_cu_seqlens_q ? "cu_seqlens_k" : "cu_seqlens_q") +
                           " is null and the other is not; give both or none");
  sizes.ragged = has_cu_seqlens_q;
  FLASHPLUS_RETURN_IF_ERROR(checkSizes(operands, sizes));
  spec.head_dim_qk = int(sizes.head_dim_qk);
  spec.head_dim_v = int(sizes.head_dim_v);
  const int element = dtypeBytes(spec.dtype);
  bool aligned = sizes.head_dim_qk * element % 16 == 0 && sizes.head_dim_v * element % 16 == 0;
  for (const OperandArg &o : operands) {
    if (o.written)
      FLASHPLUS_RETURN_IF_ERROR(o.view.wantDistinct());
    aligned = aligned && alignedRows(o.view, element);
  }
  spec.alignment = aligned ? 16 : element;
  return Status::ok();
}

Status checkRowStatistic(TensorReader &reader, const char *name, const DLTensor *source, bool written,
                         const TensorSizes &sizes, TensorView &out) {
  FLASHPLUS_RETURN_IF_ERROR(reader.read(name, source, out));
  FLASHPLUS_RETURN_IF_ERROR(out.wantType(kDLFloat, 32, "float32"));
  FLASHPLUS_RETURN_IF_ERROR(
      sizes.ragged ? out.wantShape({sizes.heads_q, sizes.rows_q}, "(heads_q, total_q)")
                   : out.wantShape({sizes.batch, sizes.heads_q, sizes.rows_q}, "(batch, heads_q, seqlen_q)"));
  FLASHPLUS_RETURN_IF_ERROR(out.wantUnitStride());
  return written ? out.wantDistinct() : Status::ok();
}

} // namespace flashplus
