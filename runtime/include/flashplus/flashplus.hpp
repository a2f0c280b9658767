// SPDX-License-Identifier: BSD-3-Clause
/**
 * FlashAttention-Plus for C++17 and later: the C API of flashplus.h with handles that free themselves,
 * tensors by value and results instead of status codes. Header only; link libflashplus.so. flashplus.h has
 * the meaning of every field.
 *
 *   auto context = flashplus::Context::create();
 *   if (!context) { log(context.error().message); return; }
 *   flashplus::ForwardArgs args;
 *   args.q = flashplus::Tensor(q, flashplus::DType::BF16, {batch, seqlen, heads, dim}, flashplus::cuda(0));
 *   ...                                           // k, v, o alike
 *   args.causal = true;
 *   auto plan = context->plan(args);              // once, for the largest problem; compiles or loads
 *   auto workspace = plan->allocateWorkspace();
 *   auto done = plan->run(args, *workspace, stream); // per step; allocates and compiles nothing
 *
 * Errors. Whatever can fail gives an Expected: test it, then use *it, or error(). With exceptions enabled
 * value() returns the value or throws flashplus::Exception; nothing else here throws, except that copying
 * text may lack memory. Threads and ownership are those of flashplus.h. Plans and device memory keep what
 * they need of their context, so that objects may be destroyed in any order; tensors are views and own
 * nothing.
 */
#ifndef FLASHPLUS_HPP
#define FLASHPLUS_HPP

#include "flashplus.h"
#include "values.hpp"

#include <cstring>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace flashplus {
inline namespace api { // names of its own for the linker, apart from the library's internals

/// flashplus_forward_args with C++ members; the defaults are no mask and no score.
struct ForwardArgs {
  Tensor q, k, v, o, lse;
  Tensor cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k;
  int64_t max_seqlen_q = 0, max_seqlen_k = 0;
  std::optional<float> softmax_scale;
  bool causal = false;
  int32_t window_left = -1, window_right = -1;
  float lse_empty = INFINITY; ///< 0 too is +inf.
  float softcap = 0;
  Tensor alibi_slopes;
  std::string score;
  std::vector<std::pair<std::string, Tensor>> score_tensors;
  std::vector<std::pair<std::string, float>> score_scalars;
  int32_t num_splits = 0;
  bool batch_invariant = false;
  int64_t *tile_counter = nullptr;
  /// A cache of keys and values, of which k and v are the pools or the rows.
  Tensor block_table, page_indptr, page_indices, cache_batch_idx, leftpad_k;
  /// New keys and values that go into it first.
  Tensor k_new, v_new, cu_seqlens_k_new, slot_mapping;
  int32_t max_seqlen_k_new = 0;
  Tensor rotary_cos, rotary_sin, rotary_seqlens;
  bool rotary_interleaved = false;
  float dropout_p = 0;
  Tensor rng_state; ///< Absent: dropout_seed and dropout_offset.
  uint64_t dropout_seed = 0, dropout_offset = 0;
  Tensor sinks;
  bool lse_without_sinks = false;
};

/// flashplus_merge_args.
struct MergeArgs {
  Tensor o_a, lse_a, o_b, lse_b, o, lse;
};

namespace detail {

inline Error lastError(flashplus_status code) { return {code, flashplus_last_error()}; }

inline Expected<void> result(flashplus_status code) {
  if (code == FLASHPLUS_OK)
    return {};
  return lastError(code);
}

/// The C form of ForwardArgs; borrows from it. Allocates nothing: a score has at most 4 tensors and 8
/// scalars, and what is given beyond that is passed on as a count that the library refuses.
class CArgs {
public:
  explicit CArgs(const ForwardArgs &a) {
    c.struct_size = sizeof c;
    c.q = a.q.dl();
    c.k = a.k.dl();
    c.v = a.v.dl();
    c.o = const_cast<DLTensor *>(a.o.dl());
    c.lse = const_cast<DLTensor *>(a.lse.dl());
    c.cu_seqlens_q = a.cu_seqlens_q.dl();
    c.cu_seqlens_k = a.cu_seqlens_k.dl();
    c.seqused_q = a.seqused_q.dl();
    c.seqused_k = a.seqused_k.dl();
    c.max_seqlen_q = a.max_seqlen_q;
    c.max_seqlen_k = a.max_seqlen_k;
    c.softmax_scale = a.softmax_scale ? &*a.softmax_scale : nullptr;
    c.causal = a.causal;
    c.window_left = a.window_left;
    c.window_right = a.window_right;
    c.has_window = 1;
    c.lse_empty = a.lse_empty;
    c.softcap = a.softcap;
    c.alibi_slopes = a.alibi_slopes.dl();
    c.score = a.score.empty() ? nullptr : a.score.c_str();
    const size_t tensors = a.score_tensors.size(), scalars = a.score_scalars.size();
    for (size_t i = 0; i < tensors && i < 4; ++i)
      tensors_[i] = {a.score_tensors[i].first.c_str(), a.score_tensors[i].second.dl()};
    for (size_t i = 0; i < scalars && i < 8; ++i)
      scalars_[i] = {a.score_scalars[i].first.c_str(), a.score_scalars[i].second};
    c.num_score_tensors = tensors <= 4 ? int32_t(tensors) : -1;
    c.num_score_scalars = scalars <= 8 ? int32_t(scalars) : -1;
    c.score_tensors = tensors ? tensors_ : nullptr;
    c.score_scalars = scalars ? scalars_ : nullptr;
    c.num_splits = a.num_splits;
    c.batch_invariant = a.batch_invariant;
    c.tile_counter = a.tile_counter;
    c.block_table = a.block_table.dl();
    c.page_indptr = a.page_indptr.dl();
    c.page_indices = a.page_indices.dl();
    c.cache_batch_idx = a.cache_batch_idx.dl();
    c.leftpad_k = a.leftpad_k.dl();
    c.k_new = a.k_new.dl();
    c.v_new = a.v_new.dl();
    c.cu_seqlens_k_new = a.cu_seqlens_k_new.dl();
    c.slot_mapping = a.slot_mapping.dl();
    c.max_seqlen_k_new = a.max_seqlen_k_new;
    c.rotary_cos = a.rotary_cos.dl();
    c.rotary_sin = a.rotary_sin.dl();
    c.rotary_seqlens = a.rotary_seqlens.dl();
    c.rotary_interleaved = a.rotary_interleaved;
    c.dropout_p = a.dropout_p;
    c.rng_state = a.rng_state.dl();
    c.dropout_seed = a.dropout_seed;
    c.dropout_offset = a.dropout_offset;
    c.sinks = a.sinks.dl();
    c.lse_without_sinks = a.lse_without_sinks;
  }
  CArgs(const CArgs &) = delete;
  operator const flashplus_forward_args *() const { return &c; }

private:
  flashplus_forward_args c{};
  flashplus_score_tensor tensors_[4] = {};
  flashplus_score_scalar scalars_[8] = {};
};

/// A context and the callbacks that it calls; shared by all that was made from it.
struct ContextState {
  std::function<void(std::string_view)> log;
  std::function<void(const flashplus_event &)> listener;
  flashplus_context *handle = nullptr;
  ~ContextState() { flashplus_context_destroy(handle); }
};

struct PlanDestroy {
  void operator()(flashplus_plan *plan) const { flashplus_plan_destroy(plan); }
};
struct KernelDestroy {
  void operator()(flashplus_kernel *kernel) const { flashplus_kernel_destroy(kernel); }
};
struct TextFree {
  void operator()(char *text) const { flashplus_free_text(text); }
};

} // namespace detail

/// Memory on a device, 256-byte aligned; freed with the object. For workspaces and tests: an embedder has an
/// allocator.
class DeviceMemory {
public:
  DeviceMemory() = default;
  DeviceMemory(DeviceMemory &&other) noexcept { *this = std::move(other); }
  DeviceMemory &operator=(DeviceMemory &&other) noexcept {
    std::swap(context_, other.context_);
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~DeviceMemory() {
    if (data_)
      (void)flashplus_device_free(context_->handle, device_, data_);
  }
  void *data() const { return data_; }
  size_t size() const { return size_; }
  /// Blocking copies of the whole.
  Expected<void> upload(const void *from) {
    return detail::result(
        flashplus_copy_to_device(context_ ? context_->handle : nullptr, device_, data_, from, size_));
  }
  Expected<void> download(void *to) const {
    return detail::result(
        flashplus_copy_to_host(context_ ? context_->handle : nullptr, device_, to, data_, size_));
  }

private:
  friend class Context;
  friend class Plan;
  static Expected<DeviceMemory> make(std::shared_ptr<detail::ContextState> context, DLDevice device,
                                     size_t bytes) {
    DeviceMemory memory;
    if (bytes)
      if (auto code = flashplus_device_malloc(context->handle, device, bytes, &memory.data_);
          code != FLASHPLUS_OK)
        return detail::lastError(code);
    memory.context_ = std::move(context);
    memory.device_ = device;
    memory.size_ = bytes;
    return memory;
  }
  std::shared_ptr<detail::ContextState> context_;
  DLDevice device_{};
  void *data_ = nullptr;
  size_t size_ = 0;
};

/// A plan for problems up to a size (flashplus_plan_create).
class Plan {
public:
  size_t workspaceBytes() const { return flashplus_plan_workspace(handle_.get()); }
  /// Empty if the plan needs none; else as a first run wants it, its counters zero.
  Expected<DeviceMemory> allocateWorkspace() const {
    auto memory = DeviceMemory::make(context_, device_, workspaceBytes());
    if (!memory || !memory->size())
      return memory;
    static constexpr char kZeros[FLASHPLUS_WORKSPACE_ZEROED] = {};
    const size_t zeroed = memory->size() < sizeof kZeros ? memory->size() : sizeof kZeros;
    if (auto code = flashplus_copy_to_device(context_->handle, device_, memory->data(), kZeros, zeroed);
        code != FLASHPLUS_OK)
      return detail::lastError(code);
    return memory;
  }
  /// JSON text; belongs to the plan.
  const char *describe() const { return flashplus_plan_describe(handle_.get()); }

  /// Enqueues a run on `stream` (CUDA) or finishes it (CPU). Allocates nothing unless it fails; may be
  /// captured.
  Expected<void> run(const ForwardArgs &args, void *workspace, size_t workspace_bytes,
                     void *stream = nullptr) const {
    const detail::CArgs c(args);
    return detail::result(flashplus_plan_run(handle_.get(), c, workspace, workspace_bytes, stream));
  }
  Expected<void> run(const ForwardArgs &args, const DeviceMemory &workspace, void *stream = nullptr) const {
    return run(args, workspace.data(), workspace.size(), stream);
  }

private:
  friend class Context;
  std::shared_ptr<detail::ContextState> context_; // before the handle, which is destroyed first
  DLDevice device_{};
  std::unique_ptr<flashplus_plan, detail::PlanDestroy> handle_;
};

/// Code of one kernel (flashplus_get_kernel).
class Kernel {
public:
  /// Pointers belong to the kernel.
  flashplus_kernel_info info() const {
    flashplus_kernel_info info{};
    info.struct_size = sizeof info;
    (void)flashplus_kernel_get_info(handle_.get(), &info);
    return info;
  }
  std::string_view code() const {
    const flashplus_kernel_info i = info();
    return {static_cast<const char *>(i.code), i.code_size};
  }

private:
  friend class Context;
  std::unique_ptr<flashplus_kernel, detail::KernelDestroy> handle_;
};

struct ContextOptions {
  std::optional<std::string> cache_dir;     ///< Not set: the environment decides. "": no disk cache.
  std::optional<std::string> compiler_path; ///< Not set: $FLASHPLUS_COMPILER, else beside libflashplus.so.
  int num_threads = 0;                      ///< CPU workers; 0: as many as the process may use.
  bool offline = false;                     ///< Never compile.
  flashplus_parallel_for parallel_for = nullptr;
  void *pool = nullptr;
  int pool_threads = 0;
  std::function<void(std::string_view)> log; ///< Warnings, from any thread; must not call back into the
                                             ///< library.
  std::function<void(const flashplus_event &)> listener; ///< Likewise: what happens to kernels.
  bool cache_optional = false; ///< A cache_dir that cannot be used is a warning, not an error.
  bool compile_in_process = false; ///< Compile in this process, which a compilation can then take down.
  int64_t compile_bytes = 0;       ///< Most memory of a compilation; 0: the default, -1: no limit.
  int compile_seconds = 0;         ///< Most time of a compilation; 0: the default, -1: no limit.
};

/// Devices, the kernel table and the cache. A value that may be copied: copies are the same context.
class Context {
public:
  static Expected<Context> create(const ContextOptions &options = {}) {
    auto state = std::make_shared<detail::ContextState>();
    state->log = options.log;
    state->listener = options.listener;
    flashplus_context_options o{};
    o.struct_size = sizeof o;
    o.cache_dir = options.cache_dir ? options.cache_dir->c_str() : nullptr;
    o.cache_optional = options.cache_optional;
    o.compile_in_process = options.compile_in_process;
    o.compile_bytes = options.compile_bytes;
    o.compile_seconds = options.compile_seconds;
    o.compiler_path = options.compiler_path ? options.compiler_path->c_str() : nullptr;
    o.num_threads = options.num_threads;
    o.offline = options.offline;
    o.parallel_for = options.parallel_for;
    o.pool = options.pool;
    o.pool_threads = options.pool_threads;
    if (state->log) {
      o.log = [](void *self, const char *message) {
        static_cast<detail::ContextState *>(self)->log(message);
      };
      o.log_context = state.get();
    }
    if (state->listener) {
      o.listener = [](void *self, const flashplus_event *event) {
        static_cast<detail::ContextState *>(self)->listener(*event);
      };
      o.listener_context = state.get();
    }
    if (auto code = flashplus_context_create(&o, &state->handle); code != FLASHPLUS_OK)
      return detail::lastError(code);
    Context context;
    context.state_ = std::move(state);
    return context;
  }

  /// For calls that this header does not wrap.
  flashplus_context *handle() const { return state_->handle; }

  Expected<void> forward(const ForwardArgs &args, void *stream = nullptr) const {
    const detail::CArgs c(args);
    return detail::result(flashplus_forward(state_->handle, c, stream));
  }

  /// Two results of the same queries over different keys become one.
  Expected<void> mergeStates(MergeArgs args, void *stream = nullptr) const {
    const flashplus_merge_args c = {sizeof c,         args.o_a.dl(), args.lse_a.dl(), args.o_b.dl(),
                                    args.lse_b.dl(), args.o.dl(),   args.lse.dl()};
    return detail::result(flashplus_merge_states(state_->handle, &c, stream));
  }

  Expected<Plan> plan(const ForwardArgs &args) const {
    const detail::CArgs c(args);
    flashplus_plan *handle = nullptr;
    if (auto code = flashplus_plan_create(state_->handle, c, &handle); code != FLASHPLUS_OK)
      return detail::lastError(code);
    Plan plan;
    plan.context_ = state_;
    plan.device_ = args.q.dl()->device;
    plan.handle_.reset(handle);
    return plan;
  }

  /// `schedule` empty: the target's default.
  Expected<Kernel> kernel(const std::string &spec, const std::string &target,
                          const std::string &schedule = "") const {
    flashplus_kernel *handle = nullptr;
    if (auto code =
            flashplus_get_kernel(state_->handle, spec.c_str(), schedule.empty() ? nullptr : schedule.c_str(),
                                 target.c_str(), &handle);
        code != FLASHPLUS_OK)
      return detail::lastError(code);
    Kernel kernel;
    kernel.handle_.reset(handle);
    return kernel;
  }

  Expected<DeviceMemory> allocate(DLDevice device, size_t bytes) const {
    return DeviceMemory::make(state_, device, bytes);
  }
  Expected<void> synchronize(DLDevice device, void *stream = nullptr) const {
    return detail::result(flashplus_synchronize(state_->handle, device, stream));
  }

  flashplus_counters counters() const {
    flashplus_counters counters{};
    counters.struct_size = sizeof counters;
    (void)flashplus_get_counters(state_->handle, &counters);
    return counters;
  }

  /// Everything is warm: from now on a compilation is what `late` says.
  Expected<void> markReady(flashplus_late_compile late = FLASHPLUS_LATE_ENVIRONMENT) const {
    return detail::result(flashplus_mark_ready(state_->handle, late));
  }

  /// Frees the kernels that were neither made nor launched since the last call of this; how many.
  Expected<int64_t> dropIdleKernels() const {
    int64_t dropped = 0;
    if (auto code = flashplus_drop_idle_kernels(state_->handle, &dropped); code != FLASHPLUS_OK)
      return detail::lastError(code);
    return dropped;
  }

  /// Devices, compiler and cache as JSON text.
  Expected<std::string> describe() const {
    const char *text = nullptr;
    if (auto code = flashplus_describe(state_->handle, &text); code != FLASHPLUS_OK)
      return detail::lastError(code);
    return std::string(text);
  }

private:
  Context() = default;
  std::shared_ptr<detail::ContextState> state_;
};

/// Canonical spec text of a forward with these arguments.
inline Expected<std::string> specOf(const ForwardArgs &args) {
  const detail::CArgs c(args);
  char *text = nullptr;
  if (auto code = flashplus_spec_of(c, &text); code != FLASHPLUS_OK)
    return detail::lastError(code);
  const std::unique_ptr<char, detail::TextFree> owner(text);
  return std::string(text);
}

} // namespace api
} // namespace flashplus
#endif // FLASHPLUS_HPP
