// SPDX-License-Identifier: BSD-3-Clause
// flashplus_forward_python, flashplus_forward_python_tuple and flashplus_backward_python_tuple: tensors of a
// Python framework, read through DLPack's C exchange API. Nothing of Python is linked or included: what is
// needed of the interpreter comes as function pointers.
#include "runtime/api/error.h"
#include "runtime/arguments/public_structs.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

using namespace flashplus;

namespace {

/// struct DLPackExchangeAPI of DLPack 1.3 (dlpack.h; stable within a major version), as far as it is used.
struct ExchangeApi {
  uint32_t major, minor;
  void *previous;
  void *allocate, *from_object, *to_object;   // of managed tensors, which a call has no use for
  int (*borrow)(void *object, DLTensor *out); ///< dltensor_from_py_object_no_sync; may be null
  int (*current_stream)(int32_t device_type, int32_t device_id, void **out);
};

constexpr int kMaxRank = 4;

/// A borrowed view with sizes of its own: without the interpreter's lock another thread may change a
/// tensor's.
struct View {
  DLTensor tensor;
  int64_t shape[kMaxRank], strides[kMaxRank];

  bool read(const ExchangeApi &api, void *object) {
    if (api.borrow(object, &tensor) != 0)
      return false;
    const int rank = std::clamp(tensor.ndim, 0, kMaxRank); // checkForwardArgs refuses more
    if (tensor.shape)
      tensor.shape = static_cast<int64_t *>(std::memcpy(shape, tensor.shape, sizeof(int64_t) * size_t(rank)));
    if (tensor.strides)
      tensor.strides =
          static_cast<int64_t *>(std::memcpy(strides, tensor.strides, sizeof(int64_t) * size_t(rank)));
    return true;
  }
};

/// What is known of a kind of arguments.
template <class Args> struct Kind;

/// What all entries begin with: the call, and an exchange API that it can be served by.
template <class Args> Status readCall(const flashplus_python_call *call, flashplus_python_call &known) {
  if (!call)
    return invalidArgument("call is null");
  FLASHPLUS_RETURN_IF_ERROR(readStruct("call", "flashplus_python_call", call,
                                       FLASHPLUS_SIZE_WITH(flashplus_python_call, restore_thread), known));
  if (!known.context || !Kind<Args>::args(known) || !known.exchange_api || !known.save_thread ||
      !known.restore_thread)
    return invalidArgument("call has a null field; all are required");
  const auto &api = *static_cast<const ExchangeApi *>(known.exchange_api);
  if (api.major != 1 || !api.borrow || !api.current_stream)
    return {StatusCode::Unsupported,
            "the exchange API is of DLPack " + std::to_string(api.major) + "." + std::to_string(api.minor) +
                (api.borrow ? "" : " and borrows no tensors") +
                "; it must be of version 1 and have dltensor_from_py_object_no_sync"};
  return Status::ok();
}

/// The arguments that the call has besides tensors; those of a caller whose header ends before `least` bytes
/// are refused.
template <class Args> Status readArgs(const flashplus_python_call &known, size_t least, Args &args) {
  FLASHPLUS_RETURN_IF_ERROR(readStruct("args", Kind<Args>::kName, Kind<Args>::args(known), least, args));
  args.struct_size = std::min(args.struct_size, sizeof args); // which is what the copy has
  return Status::ok();
}

/// That of the framework, on q's device.
Status readStream(const flashplus_python_call &known, DLDevice device, void *&stream) {
  const auto &api = *static_cast<const ExchangeApi *>(known.exchange_api);
  if (device.device_type != kDLCUDA || api.current_stream(device.device_type, device.device_id, &stream) == 0)
    return Status::ok();
  return {StatusCode::DeviceError,
          "the exchange API gives no stream of cuda:" + std::to_string(device.device_id)};
}

/// With the interpreter's lock given up.
template <class Args>
flashplus_status runUnlocked(const flashplus_python_call &known, const Args &args, void *stream) {
  void *thread = known.save_thread();
  const flashplus_status done = Kind<Args>::kRun(known.context, &args, stream);
  known.restore_thread(thread);
  return done;
}

/// The tensors of a call, and their names for messages.
struct TensorField {
  const char *name;
  size_t offset;
};
#define FIELD(name)                                                                                          \
  { #name, offsetof(flashplus_forward_args, name) }
constexpr TensorField kForwardFields[] = {FIELD(q),
                                          FIELD(k),
                                          FIELD(v),
                                          FIELD(o),
                                          FIELD(lse),
                                          FIELD(cu_seqlens_q),
                                          FIELD(cu_seqlens_k),
                                          FIELD(seqused_q),
                                          FIELD(seqused_k),
                                          FIELD(alibi_slopes),
                                          FIELD(block_table),
                                          FIELD(page_indptr),
                                          FIELD(page_indices),
                                          FIELD(cache_batch_idx),
                                          FIELD(leftpad_k),
                                          FIELD(k_new),
                                          FIELD(v_new),
                                          FIELD(cu_seqlens_k_new),
                                          FIELD(slot_mapping),
                                          FIELD(rotary_cos),
                                          FIELD(rotary_sin),
                                          FIELD(rotary_seqlens),
                                          FIELD(rng_state),
                                          FIELD(sinks)};
#undef FIELD
#define FIELD(name)                                                                                          \
  { #name, offsetof(flashplus_backward_args, name) }
constexpr TensorField kBackwardFields[] = {FIELD(q),
                                           FIELD(k),
                                           FIELD(v),
                                           FIELD(o),
                                           FIELD(lse),
                                           FIELD(dout),
                                           FIELD(dq),
                                           FIELD(dk),
                                           FIELD(dv),
                                           FIELD(dlse),
                                           FIELD(delta),
                                           FIELD(cu_seqlens_q),
                                           FIELD(cu_seqlens_k),
                                           FIELD(seqused_q),
                                           FIELD(seqused_k),
                                           FIELD(alibi_slopes),
                                           FIELD(rng_state),
                                           FIELD(dalibi_slopes)};
#undef FIELD

template <> struct Kind<flashplus_forward_args> {
  static constexpr const char *kName = "flashplus_forward_args";
  static constexpr std::span<const TensorField> kFields = kForwardFields;
  static constexpr auto kRun = flashplus_forward;
  static const flashplus_forward_args *args(const flashplus_python_call &call) { return call.args; }
};
template <> struct Kind<flashplus_backward_args> {
  static constexpr const char *kName = "flashplus_backward_args";
  static constexpr std::span<const TensorField> kFields = kBackwardFields;
  static constexpr auto kRun = flashplus_backward;
  static const flashplus_backward_args *args(const flashplus_python_call &call) { return call.backward_args; }
};
template <class Args> using Views = std::array<View, Kind<Args>::kFields.size()>;

/// Null where `offset` is that of no tensor.
template <class Args> const TensorField *fieldAt(size_t offset) {
  for (const TensorField &field : Kind<Args>::kFields)
    if (field.offset == offset)
      return &field;
  return nullptr;
}

Status declined(const char *why) { return {StatusCode::Unsupported, why}; }

/// Sides of a window that bound no row become -1, which is a faster kernel: query i of sq sees, of sk keys,
/// those from i + sk - sq - left to i + sk - sq + right, and no sequence has more rows than its tensor.
template <class Args> void dropIdleSides(Args &a, int64_t rows_q, int64_t rows_k) {
  if (!a.has_window)
    return;
  if (a.window_left >= rows_k - 1)
    a.window_left = -1;
  if (a.window_right >= rows_q - 1)
    a.window_right = -1;
}

/// What flash_attn refuses of attention on a cache and flashplus_forward takes, or what a caller has to do
/// something for first. All of it is in the tensors' sizes. Good calls alone pass, so that no reason is
/// given.
Status checkFaceRules(flashplus_forward_args &a) {
  const bool ragged = a.cu_seqlens_q != nullptr;
  const DLTensor &q = *a.q, &k = *a.k;
  if (q.ndim != (ragged ? 3 : 4) || k.ndim != 4 || a.v->ndim != 4 || (ragged && a.cu_seqlens_q->ndim != 1))
    return declined("the ranks of q, k and v");
  const int64_t batch = ragged ? a.cu_seqlens_q->shape[0] - 1 : q.shape[0];
  int64_t capacity = k.shape[1];
  if (a.block_table) {
    if (a.block_table->ndim != 2)
      return declined("the rank of block_table");
    if (__builtin_mul_overflow(capacity, a.block_table->shape[1], &capacity))
      return declined("the size of block_table");
  } else if (!a.cache_batch_idx && k.shape[0] != batch) {
    return declined("the batch of the cache");
  }
  if (batch < 1 || capacity < 1 || q.shape[ragged ? 0 : 1] < 1 || q.shape[q.ndim - 1] < 1)
    return declined("a tensor without elements");
  if (a.k_new && !a.cu_seqlens_k_new && (a.k_new->ndim != 4 || a.k_new->shape[1] > capacity))
    return declined("k_new");
  for (const DLTensor *t : {a.rotary_cos, a.rotary_sin})
    if (t && (t->ndim != 2 || t->shape[1] % 8 || t->shape[0] < capacity ||
              (t->strides && (t->strides[1] != 1 || t->strides[0] != t->shape[1]))))
      return declined("the sizes of cos and sin");
  if (!a.rotary_cos)
    a.rotary_interleaved = 0; // a caller's default, which means nothing without them
  dropIdleSides(a, q.shape[ragged ? 0 : 1], capacity);
  return Status::ok();
}

/// The backward's side of it: a batch there is, and sides of the window that count.
Status checkFaceRules(flashplus_backward_args &a) {
  const bool ragged = a.cu_seqlens_q != nullptr;
  const DLTensor &q = *a.q, &k = *a.k;
  if (q.ndim != (ragged ? 3 : 4) || k.ndim != q.ndim || (ragged && a.cu_seqlens_q->ndim != 1))
    return declined("the ranks of q and k");
  if ((ragged ? a.cu_seqlens_q->shape[0] - 1 : q.shape[0]) < 1)
    return declined("a batch of nothing");
  dropIdleSides(a, q.shape[ragged ? 0 : 1], k.shape[ragged ? 0 : 1]);
  return Status::ok();
}

/// The items of the tuple as tensors of `args`, which the views keep.
template <class Args>
Status readTuple(const flashplus_python_call &known, void *tuple, Views<Args> &views, Args &args) {
  const auto &api = *static_cast<const ExchangeApi *>(known.exchange_api);
  for (const TensorField &field : Kind<Args>::kFields)
    std::memset(reinterpret_cast<char *>(&args) + field.offset, 0, sizeof(void *));
  for (int64_t i = 0; i < known.num_fields; ++i) {
    void *item = known.tuple_item(tuple, ptrdiff_t(i));
    if (!item)
      return invalidArgument("tensors has no item " + std::to_string(i) + "; it must be a tuple of " +
                             std::to_string(known.num_fields));
    if (item == known.none)
      continue;
    const TensorField *field = fieldAt<Args>(known.fields[i]);
    if (!field)
      return invalidArgument("call.fields[" + std::to_string(i) + "] is " + std::to_string(known.fields[i]) +
                             "; it must be the offset of a tensor in " + Kind<Args>::kName);
    if (!views[size_t(i)].read(api, item))
      return invalidArgument(std::string(field->name) + " is no tensor that DLPack can describe");
    const DLTensor *tensor = &views[size_t(i)].tensor;
    std::memcpy(reinterpret_cast<char *>(&args) + field->offset, &tensor, sizeof tensor);
  }
  for (const DLTensor *required : {args.q, args.k, args.v, static_cast<const DLTensor *>(args.o)})
    if (!required)
      return invalidArgument("tensors has no q, k, v or o; all four are required");
  return Status::ok();
}

/// `least`: the bytes of the shortest arguments that say all that may be said here.
template <class Args>
flashplus_status runTuple(const flashplus_python_call *call, void *tensors, int64_t max_seqlen_q,
                          int64_t max_seqlen_k, size_t least) {
  Views<Args> views;
  flashplus_python_call known;
  Args args;
  void *stream = nullptr;
  const flashplus_status ready = guardedLaunch([&]() -> Status {
    FLASHPLUS_RETURN_IF_ERROR(readCall<Args>(call, known));
    if (!known.fields || !known.tuple_item || !known.none || !tensors)
      return invalidArgument("call.fields, tuple_item or none, or tensors, is null; all are required");
    if (known.num_fields < 1 || known.num_fields > int64_t(views.size()))
      return invalidArgument("call.num_fields is " + std::to_string(known.num_fields) + "; it must be 1 to " +
                             std::to_string(views.size()));
    FLASHPLUS_RETURN_IF_ERROR(readArgs(known, least, args));
    FLASHPLUS_RETURN_IF_ERROR(readTuple(known, tensors, views, args));
    FLASHPLUS_RETURN_IF_ERROR(readStream(known, args.q->device, stream));
    args.max_seqlen_q = max_seqlen_q;
    args.max_seqlen_k = max_seqlen_k;
    return checkFaceRules(args);
  });
  return ready == FLASHPLUS_OK ? runUnlocked(known, args, stream) : ready;
}

} // namespace

flashplus_status flashplus_forward_python(const flashplus_python_call *call, void *q, void *k, void *v,
                                          void *o) {
  View views[4];
  flashplus_python_call known;
  flashplus_forward_args args;
  void *stream = nullptr;
  const flashplus_status ready = guardedLaunch([&]() -> Status {
    FLASHPLUS_RETURN_IF_ERROR(readCall<flashplus_forward_args>(call, known));
    void *const objects[] = {q, k, v, o};
    for (int i = 0; i < 4; ++i)
      if (!objects[i] || !views[i].read(*static_cast<const ExchangeApi *>(known.exchange_api), objects[i]))
        return invalidArgument(std::string(1, "qkvo"[i]) + " is no tensor that DLPack can describe");
    FLASHPLUS_RETURN_IF_ERROR(readStream(known, views[0].tensor.device, stream));
    FLASHPLUS_RETURN_IF_ERROR(
        readArgs(known, FLASHPLUS_SIZE_WITH(flashplus_forward_args, tile_counter), args));
    args.q = &views[0].tensor;
    args.k = &views[1].tensor;
    args.v = &views[2].tensor;
    args.o = &views[3].tensor;
    return Status::ok();
  });
  return ready == FLASHPLUS_OK ? runUnlocked(known, args, stream) : ready;
}

flashplus_status flashplus_forward_python_tuple(const flashplus_python_call *call, void *tensors,
                                                int64_t max_seqlen_q, int64_t max_seqlen_k) {
  return runTuple<flashplus_forward_args>(call, tensors, max_seqlen_q, max_seqlen_k,
                                          FLASHPLUS_SIZE_WITH(flashplus_forward_args, rotary_seqlens));
}

flashplus_status flashplus_backward_python_tuple(const flashplus_python_call *call, void *tensors,
                                                 int64_t max_seqlen_q, int64_t max_seqlen_k) {
  return runTuple<flashplus_backward_args>(call, tensors, max_seqlen_q, max_seqlen_k,
                                           FLASHPLUS_SIZE_WITH(flashplus_backward_args, any_order));
}
