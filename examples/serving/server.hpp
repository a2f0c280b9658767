// SPDX-License-Identifier: BSD-3-Clause
// The attention of a server's step, on any device: a pool of pages, the memory that a step's tokens and
// tables are written to, two plans, one workspace.
//
// All arguments are made once. What a step changes (lengths, block tables, tokens) is the content of device
// memory, which kernels read when they run; so a step plans, allocates and compiles nothing, and its launches
// may be captured in a CUDA graph once and replayed for ever.
#pragma once

#include "../cuda_stream.hpp"
#include "model.hpp"
#include "requests.hpp"

#include <flashplus/flashplus.hpp>

#include <optional>
#include <string>
#include <utility>

namespace serving {

using flashplus::DType;
using flashplus::Expected;
using flashplus::Tensor;

class Server {
public:
  /// `stream`: null on everything but CUDA. Plans, and so compiles what no cache has.
  static Expected<Server> create(const flashplus::Context &context, DLDevice device, CudaStream *stream,
                                 const Limits &limits, const Model &model) {
    Server server(context, device, stream, limits);
    if (auto done = server.allocate(model); !done)
      return done.error();
    if (auto done = server.plan(); !done)
      return done.error();
    return server;
  }

  /// Copies the step's tokens and tables to the device. The rows of q, k and v come from the model; in a real
  /// server they are on the device, written by the layer's projections.
  Expected<void> stage(const std::vector<Sequence> &sequences, const Model &model) {
    int32_t *ends = tables_.data(), *used = ends + limits_.batch + 1, *table = used + limits_.batch;
    const int32_t columns = limits_.pagesOfSequence();
    std::fill(table, tables_.data() + tables_.size(), -1); // never read where no key is
    longest_ = 0;
    int32_t tokens = ends[0] = 0;
    for (int32_t b = 0; b < limits_.batch; ++b) {
      used[b] = 0; // a batch that is not full ends in sequences without a token
      if (b < int32_t(sequences.size())) {
        const Sequence &s = sequences[size_t(b)];
        for (int32_t i = 0; i < s.now; ++i, ++tokens) {
          model.write(Model::Q, s.id, s.cached + i, &q_rows_[size_t(tokens * kHeadsQ * kHeadDim)]);
          model.write(Model::K, s.id, s.cached + i, &k_rows_[size_t(tokens * kHeadsK * kHeadDim)]);
          model.write(Model::V, s.id, s.cached + i, &v_rows_[size_t(tokens * kHeadsK * kHeadDim)]);
        }
        used[b] = s.cached;
        longest_ = std::max(longest_, s.now);
        std::copy(s.pages.begin(), s.pages.end(), table + b * columns);
      }
      ends[b + 1] = tokens;
    }
    tokens_ = tokens;
    for (auto [to, from, bytes] :
         {std::tuple<void *, const void *, size_t>{tables_there_.data(), tables_.data(), tables_.size() * 4},
          {q_.data(), q_rows_.data(), size_t(tokens * kHeadsQ * kHeadDim) * 2},
          {k_new_.data(), k_rows_.data(), size_t(tokens * kHeadsK * kHeadDim) * 2},
          {v_new_.data(), v_rows_.data(), size_t(tokens * kHeadsK * kHeadDim) * 2}})
      if (auto code = flashplus_copy_to_device(context_.handle(), device_, to, from, bytes);
          code != FLASHPLUS_OK)
        return flashplus::Error{code, flashplus_last_error()};
    // A small copy of pageable memory may still be under way on CUDA's default stream, for which a
    // non-blocking one does not wait.
    return context_.synchronize(device_);
  }

  /// New keys into the cache, and attention of all tokens; o is there when it returns.
  Expected<void> run() {
    if (!decodesOnly()) {
      if (auto done = mixed_plan_->run(mixed_, workspace_, queue()); !done)
        return done;
    } else if (stream_) {
      if (!stream_->replay())
        return flashplus::Error{FLASHPLUS_DEVICE_ERROR, stream_->problem};
    } else if (auto done = decode_plan_->run(decode_, workspace_, queue()); !done) {
      return done;
    }
    return context_.synchronize(device_, queue());
  }

  /// What the last step gave, a row of kHeadsQ heads a token.
  Expected<const uint16_t *> output() {
    if (auto code = flashplus_copy_to_host(context_.handle(), device_, o_rows_.data(), o_.data(),
                                           size_t(tokens_ * kHeadsQ * kHeadDim) * 2);
        code != FLASHPLUS_OK)
      return flashplus::Error{code, flashplus_last_error()};
    return static_cast<const uint16_t *>(o_rows_.data());
  }

  /// Of the step that is staged: no sequence has more than one token.
  bool decodesOnly() const { return longest_ <= 1; }
  int32_t tokens() const { return tokens_; }
  size_t workspaceBytes() const { return workspace_.size(); }
  size_t cacheBytes() const { return k_pool_.size() + v_pool_.size(); }

private:
  Server(const flashplus::Context &context, DLDevice device, CudaStream *stream, const Limits &limits)
      : context_(context), device_(device), stream_(stream), limits_(limits) {}

  void *queue() const { return stream_ ? stream_->get() : nullptr; }

  Expected<void> allocate(const Model &model) {
    const size_t tokens = size_t(limits_.tokens), q_row = kHeadsQ * kHeadDim, k_row = kHeadsK * kHeadDim;
    tables_.resize(size_t(2 * limits_.batch + 1 + limits_.batch * limits_.pagesOfSequence()));
    q_rows_.resize(tokens * q_row);
    o_rows_.resize(tokens * q_row);
    k_rows_.resize(tokens * k_row);
    v_rows_.resize(tokens * k_row);
    const size_t pool = size_t(limits_.pagesOfPool() * limits_.page_size) * k_row * 2;
    for (auto [memory, bytes] : {std::pair<flashplus::DeviceMemory *, size_t>{&k_pool_, pool},
                                 {&v_pool_, pool},
                                 {&q_, q_rows_.size() * 2},
                                 {&o_, q_rows_.size() * 2},
                                 {&k_new_, k_rows_.size() * 2},
                                 {&v_new_, k_rows_.size() * 2},
                                 {&cos_, model.cos().size() * 2},
                                 {&sin_, model.sin().size() * 2},
                                 {&tables_there_, tables_.size() * 4}}) {
      auto made = context_.allocate(device_, bytes);
      if (!made)
        return made.error();
      *memory = std::move(*made);
    }
    if (auto done = cos_.upload(model.cos().data()); !done)
      return done;
    if (auto done = sin_.upload(model.sin().data()); !done)
      return done;
    return tables_there_.upload(tables_.data()); // no sequence has a token: what a capture may see
  }

  /// Of steps with at most `tokens` tokens, `longest` of them in one sequence.
  flashplus::ForwardArgs arguments(int64_t tokens, int64_t longest) const {
    const int64_t batch = limits_.batch, columns = limits_.pagesOfSequence();
    auto *ends = static_cast<int32_t *>(tables_there_.data()), *used = ends + batch + 1;
    flashplus::ForwardArgs args;
    args.q = Tensor(q_.data(), DType::BF16, {tokens, kHeadsQ, kHeadDim}, device_);
    args.o = Tensor(o_.data(), DType::BF16, {tokens, kHeadsQ, kHeadDim}, device_);
    args.k = Tensor(k_pool_.data(), DType::BF16,
                    {limits_.pagesOfPool(), limits_.page_size, kHeadsK, kHeadDim}, device_);
    args.v = Tensor(v_pool_.data(), DType::BF16,
                    {limits_.pagesOfPool(), limits_.page_size, kHeadsK, kHeadDim}, device_);
    args.k_new = Tensor(k_new_.data(), DType::BF16, {tokens, kHeadsK, kHeadDim}, device_);
    args.v_new = Tensor(v_new_.data(), DType::BF16, {tokens, kHeadsK, kHeadDim}, device_);
    // Every token is a query and a new key.
    args.cu_seqlens_q = args.cu_seqlens_k_new = Tensor(ends, DType::I32, {batch + 1}, device_);
    args.seqused_k = Tensor(used, DType::I32, {batch}, device_);
    args.block_table = Tensor(used + batch, DType::I32, {batch, columns}, device_);
    args.max_seqlen_q = longest;
    args.max_seqlen_k_new = int32_t(longest);
    args.max_seqlen_k = columns * limits_.page_size;
    const int64_t positions = int64_t(cos_.size()) / kHeadDim;
    args.rotary_cos = Tensor(cos_.data(), DType::BF16, {positions, kHeadDim / 2}, device_);
    args.rotary_sin = Tensor(sin_.data(), DType::BF16, {positions, kHeadDim / 2}, device_);
    args.causal = true;
    return args;
  }

  /// A plan for any step, and one for steps without prompts, which other kernels may do faster. They run one
  /// after the other and share a workspace, whose first bytes every run leaves as zero as it found them.
  Expected<void> plan() {
    mixed_ = arguments(limits_.tokens, limits_.tokens);
    decode_ = arguments(limits_.batch, 1);
    for (auto [args, plan] : {std::pair<const flashplus::ForwardArgs *, std::optional<flashplus::Plan> *>{
                                  &mixed_, &mixed_plan_},
                              {&decode_, &decode_plan_}}) {
      auto made = context_.plan(*args);
      if (!made)
        return made.error();
      *plan = std::move(*made);
    }
    const auto &larger =
        mixed_plan_->workspaceBytes() > decode_plan_->workspaceBytes() ? mixed_plan_ : decode_plan_;
    auto workspace = larger->allocateWorkspace();
    if (!workspace)
      return workspace.error();
    workspace_ = std::move(*workspace);
    return stream_ ? capture() : Expected<void>();
  }

  /// The launches of a step without prompts become a graph.
  Expected<void> capture() {
    if (!stream_->beginCapture())
      return flashplus::Error{FLASHPLUS_DEVICE_ERROR, stream_->problem};
    auto recorded = decode_plan_->run(decode_, workspace_, queue());
    const bool captured = stream_->endCapture();
    if (recorded && !captured)
      return flashplus::Error{FLASHPLUS_DEVICE_ERROR, stream_->problem};
    return recorded;
  }

  flashplus::Context context_;
  DLDevice device_;
  CudaStream *stream_;
  Limits limits_;
  // On the device. tables_there_: where each sequence's tokens end (batch + 1), how many keys it has in the
  // cache (batch), its pages (batch, columns); together, so that a step copies them at once.
  flashplus::DeviceMemory k_pool_, v_pool_, q_, o_, k_new_, v_new_, cos_, sin_, tables_there_, workspace_;
  std::vector<int32_t> tables_; ///< The same on the host, as all of these:
  std::vector<uint16_t> q_rows_, k_rows_, v_rows_, o_rows_;
  flashplus::ForwardArgs mixed_, decode_;
  std::optional<flashplus::Plan> mixed_plan_, decode_plan_;
  int32_t tokens_ = 0, longest_ = 0;
};

} // namespace serving
