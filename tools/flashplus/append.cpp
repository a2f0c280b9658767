// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/append.h"

#include "reference/numeric.h"
#include "tools/flashplus/pages.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace flashplus::tool {

namespace {

using io::Tensor;

DType dtypeOf(const Tensor &t) {
  return t.type == io::ElementType::F16    ? DType::F16
         : t.type == io::ElementType::BF16 ? DType::BF16
                                           : DType::F32;
}

/// `count` rows from before[b] on of every batch entry of (batch, rows, heads, dim).
Result<Tensor> rowsOf(const Tensor &from, const std::vector<int64_t> &before, int64_t count) {
  auto part = io::makeTensor(from.type, {from.shape[0], count, from.shape[2], from.shape[3]});
  if (!part)
    return part;
  const size_t row = size_t(from.shape[2] * from.shape[3]) * io::elementBytes(from.type);
  for (size_t b = 0; b < before.size(); ++b)
    if (const size_t bytes = size_t(count) * row)
      std::memcpy(part->data.data() + b * bytes,
                  from.data.data() + (b * size_t(from.shape[1]) + size_t(before[b])) * row, bytes);
  return part;
}

/// The cache before: what is new is NaN.
Tensor withoutRows(Tensor cache, const std::vector<int64_t> &before, int64_t count) {
  const size_t row = size_t(cache.shape[2] * cache.shape[3]) * io::elementBytes(cache.type);
  for (size_t b = 0; b < before.size(); ++b)
    std::fill_n(cache.data.begin() + std::ptrdiff_t((b * size_t(cache.shape[1]) + size_t(before[b])) * row),
                size_t(count) * row, std::byte{0xff});
  return cache;
}

/// Cosines or sines of every position and pair.
Result<Tensor> tableOf(double (*function)(double), int64_t positions, int64_t columns, io::ElementType type) {
  auto table = io::makeTensor(type, {positions, columns / 2});
  if (!table)
    return table;
  for (int64_t i = 0; i < table->elements(); ++i) {
    const double frequency = std::pow(10000.0, -2.0 * double(i % (columns / 2)) / double(columns));
    reference::storeElement(table->data.data(), dtypeOf(*table), i,
                            float(function(double(i / (columns / 2)) * frequency)));
  }
  return table;
}

struct Turn {
  const AppendFlags &flags;
  const Tensor &cos, &sin;

  /// Row `row` of every head of batch entry b, in fp32, rounded once: as the library does it.
  void operator()(Tensor &t, int64_t b, int64_t row, int64_t position) const {
    const DType dtype = dtypeOf(t);
    const int64_t heads = t.shape[2], dim = t.shape[3], half = flags.rotary / 2;
    std::byte *data = t.data.data();
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < half; ++i) {
        const int64_t first = ((b * t.shape[1] + row) * heads + h) * dim;
        const int64_t at_x = first + (flags.interleaved ? 2 * i : i);
        const int64_t at_y = first + (flags.interleaved ? 2 * i + 1 : i + half);
        const float x = reference::loadElement(data, dtype, at_x),
                    y = reference::loadElement(data, dtype, at_y);
        const float c = reference::loadElement(cos.data.data(), dtype, position * half + i);
        const float s = reference::loadElement(sin.data.data(), dtype, position * half + i);
        reference::storeElement(data, dtype, at_x, std::fma(x, c, -(y * s)));
        reference::storeElement(data, dtype, at_y, std::fma(x, s, y * c));
      }
  }
};

/// `k` and `v` of the problem's shapes as they lie in its cache: as they are, or in pages.
Result<std::pair<Tensor, Tensor>> cacheOf(const Problem &problem, Tensor k, Tensor v) {
  if (!problem.page_size)
    return std::pair(std::move(k), std::move(v));
  Problem whole;
  whole.q = problem.q;
  whole.k = std::move(k);
  whole.v = std::move(v);
  whole.page_size = problem.page_size;
  whole.random_pages = problem.random_pages;
  whole.seqused_k = problem.seqused_k;
  auto pages = makePages(whole);
  if (!pages)
    return pages.status();
  return std::pair(std::move(pages->k), std::move(pages->v));
}

Status checkFlags(const AppendFlags &flags, const Problem &problem) {
  if (problem.ragged())
    return invalidArgument("--append: not with --cu-seqlens-q/-k; every sequence gets as many keys");
  int64_t shortest = problem.k.shape[1];
  for (auto [queries, keys] : sequenceLengths(problem))
    shortest = std::min(shortest, keys);
  if (flags.rows > shortest)
    return invalidArgument("--append " + std::to_string(flags.rows) + ": must be at most " +
                           std::to_string(shortest) +
                           (problem.seqused_k ? ", the keys of the shortest sequence" : ", the rows of k") +
                           ", the last of which are new");
  if (flags.rotary % 2 || flags.rotary > problem.q.shape[3])
    return invalidArgument("--rotary " + std::to_string(flags.rotary) + ": must be even and at most " +
                           std::to_string(problem.q.shape[3]) + ", the head_dim");
  return Status::ok();
}

} // namespace

Result<DLTensor *> DeviceAppend::put(flashplus_context *context, DLDevice device, const Tensor &host) {
  auto made = DeviceTensor::upload(context, device, host);
  if (!made)
    return made.status();
  tensors_.push_back(std::move(*made));
  return tensors_.back().dl();
}

Status DeviceAppend::upload(flashplus_context *context, DLDevice device, const AppendFlags &flags,
                            Problem &problem, flashplus_forward_args &args) {
  FLASHPLUS_RETURN_IF_ERROR(checkFlags(flags, problem));
  tensors_.reserve(7); // args point into them
  std::vector<int64_t> before;
  for (auto [queries, keys] : sequenceLengths(problem))
    before.push_back(keys - flags.rows);
  auto set = [&](const DLTensor *&field, const Result<Tensor> &host) -> Status {
    if (!host)
      return host.status();
    auto tensor = put(context, device, *host);
    if (!tensor)
      return tensor.status();
    field = *tensor;
    return Status::ok();
  };
  auto cache = cacheOf(problem, withoutRows(problem.k, before, flags.rows),
                       withoutRows(problem.v, before, flags.rows));
  if (!cache)
    return cache.status();
  FLASHPLUS_RETURN_IF_ERROR(set(args.k, std::move(cache->first)));
  FLASHPLUS_RETURN_IF_ERROR(set(args.v, std::move(cache->second)));
  FLASHPLUS_RETURN_IF_ERROR(set(args.k_new, rowsOf(problem.k, before, flags.rows)));
  FLASHPLUS_RETURN_IF_ERROR(set(args.v_new, rowsOf(problem.v, before, flags.rows)));
  auto used = io::makeTensor(io::ElementType::I32, {int64_t(before.size())});
  if (used)
    std::ranges::copy(before, reinterpret_cast<int32_t *>(used->data.data()));
  FLASHPLUS_RETURN_IF_ERROR(set(args.seqused_k, used));
  if (!flags.rotary)
    return Status::ok();
  const int64_t longest = before.empty() ? 0 : std::ranges::max(before);
  const int64_t positions = longest + std::max(flags.rows, problem.q.shape[1]) + 1;
  const auto cos = tableOf(std::cos, positions, flags.rotary, problem.q.type);
  const auto sin = tableOf(std::sin, positions, flags.rotary, problem.q.type);
  FLASHPLUS_RETURN_IF_ERROR(set(args.rotary_cos, cos));
  FLASHPLUS_RETURN_IF_ERROR(set(args.rotary_sin, sin));
  args.rotary_interleaved = flags.interleaved;
  const Turn turn{flags, *cos, *sin};
  const bool by_row = problem.causal || problem.window_left >= 0 || problem.window_right >= 0;
  for (int64_t b = 0; b < int64_t(before.size()); ++b) {
    const int64_t first = before[size_t(b)];
    for (int64_t i = 0; i < flags.rows; ++i)
      turn(problem.k, b, first + i, first + i);
    for (int64_t i = 0; i < problem.q.shape[1]; ++i)
      turn(problem.q, b, i, first + (by_row ? i : 0));
  }
  return Status::ok();
}

Result<std::string> DeviceAppend::checkCache(const Problem &problem) const {
  const auto cache = cacheOf(problem, problem.k, problem.v);
  if (!cache)
    return cache.status();
  const Tensor *wanted[] = {&cache->first, &cache->second};
  for (size_t i = 0; i < 2; ++i) {
    const auto found = tensors_[i].download();
    if (!found)
      return found.status();
    const auto &want = wanted[i]->data;
    const auto at = std::mismatch(want.begin(), want.end(), found->data.begin()).first;
    if (at != want.end())
      return (i ? "v" : "k") + std::string(" differs from element ") +
             std::to_string(size_t(at - want.begin()) / io::elementBytes(wanted[i]->type)) + " on";
  }
  return std::string();
}

} // namespace flashplus::tool
