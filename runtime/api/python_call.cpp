// SPDX-License-Identifier: BSD-3-Clause
// flashplus_forward_python: tensors of a Python framework, read through DLPack's C exchange API. Nothing of
// Python is linked or included: what is needed of the interpreter comes as function pointers.
#include "runtime/api/error.h"
#include "runtime/arguments/public_structs.h"

#include <algorithm>
#include <cstring>

using namespace flashplus;

namespace {

/// struct DLPackExchangeAPI of DLPack 1.3 (dlpack.h; stable within a major version), as far as it is used.
struct ExchangeApi {
  uint32_t major, minor;
  void *previous;
  void *allocate, *from_object, *to_object; // of managed tensors, which a call has no use for
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

} // namespace

flashplus_status flashplus_forward_python(const flashplus_python_call *call, void *q, void *k, void *v,
                                          void *o) {
  View views[4];
  flashplus_python_call known;
  flashplus_forward_args args;
  void *stream = nullptr;
  const flashplus_status ready = guarded([&]() -> Status {
    if (!call)
      return invalidArgument("call is null");
    FLASHPLUS_RETURN_IF_ERROR(readStruct("call", "flashplus_python_call", call,
                                         FLASHPLUS_SIZE_WITH(flashplus_python_call, restore_thread), known));
    if (!known.context || !known.args || !known.exchange_api || !known.save_thread || !known.restore_thread)
      return invalidArgument("call has a null field; all are required");
    const auto &api = *static_cast<const ExchangeApi *>(known.exchange_api);
    if (api.major != 1 || !api.borrow || !api.current_stream)
      return {StatusCode::Unsupported,
              "the exchange API is of DLPack " + std::to_string(api.major) + "." + std::to_string(api.minor) +
                  (api.borrow ? "" : " and borrows no tensors") +
                  "; it must be of version 1 and have dltensor_from_py_object_no_sync"};
    void *const objects[] = {q, k, v, o};
    for (int i = 0; i < 4; ++i)
      if (!objects[i] || !views[i].read(api, objects[i]))
        return invalidArgument(std::string(1, "qkvo"[i]) + " is no tensor that DLPack can describe");
    const DLDevice device = views[0].tensor.device;
    if (device.device_type == kDLCUDA &&
        api.current_stream(device.device_type, device.device_id, &stream) != 0)
      return {StatusCode::DeviceError,
              "the exchange API gives no stream of cuda:" + std::to_string(device.device_id)};
    FLASHPLUS_RETURN_IF_ERROR(readStruct("args", "flashplus_forward_args", known.args,
                                         FLASHPLUS_SIZE_WITH(flashplus_forward_args, tile_counter), args));
    args.struct_size = std::min(args.struct_size, sizeof args); // which is what the copy has
    args.q = &views[0].tensor;
    args.k = &views[1].tensor;
    args.v = &views[2].tensor;
    args.o = &views[3].tensor;
    return Status::ok();
  });
  if (ready != FLASHPLUS_OK)
    return ready;
  void *thread = known.save_thread();
  const flashplus_status done = flashplus_forward(known.context, &args, stream);
  known.restore_thread(thread);
  return done;
}
