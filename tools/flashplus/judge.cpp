// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/judge.h"

#include "templates/registry.h"
#include "tools/flashplus/check.h"
#include "tools/flashplus/gradients.h"
#include "tools/flashplus/parallel.h"
#include "tools/flashplus/table.h"
#include "tools/io/convert.h"

#include <algorithm>
#include <cmath>

namespace flashplus::tool {

namespace {

/// Largest distance of a row over the row's largest value; infinity for a NaN.
double rowError(const io::Tensor &a, const io::Tensor &b) {
  const int64_t width = a.shape.back(), rows = a.elements() / std::max<int64_t>(1, width);
  constexpr int64_t kRows =
      4096; // of a thread at a time: millions of elements are compared for every candidate
  std::vector<double> worst(static_cast<size_t>((rows + kRows - 1) / kRows), 0);
  inParallel(worst.size(), static_cast<int>(std::max(1u, std::thread::hardware_concurrency())),
             [&](size_t part) {
               for (int64_t row = static_cast<int64_t>(part) * kRows, end = std::min(rows, row + kRows);
                    row < end; ++row) {
                 double error = 0, largest = 0;
                 for (int64_t i = row * width; i < (row + 1) * width; ++i) {
                   const double x = io::elementAt(a, i), y = io::elementAt(b, i);
                   error = std::max(error, std::isnan(x) ? INFINITY : std::fabs(x - y));
                   largest = std::max(largest, std::fabs(y));
                 }
                 if (error > 0)
                   worst[part] = std::max(
                       worst[part], largest > 0 && std::isfinite(error) ? error / largest : INFINITY);
               }
             });
  return worst.empty() ? 0 : *std::max_element(worst.begin(), worst.end());
}

double largestDistance(const io::Tensor &a, const io::Tensor &b) {
  double worst = 0;
  for (int64_t i = 0; i < a.elements(); ++i) {
    const double x = io::elementAt(a, i), y = io::elementAt(b, i);
    if (std::isnan(x))
      return NAN;
    if (x != y)
      worst = std::max(worst, std::fabs(x - y));
  }
  return worst;
}

} // namespace

BenchCase reducedCase(const BenchCase &c, int multiprocessors, bool gpu) {
  BenchCase r = c;
  r.seqlen_q = std::min<int64_t>(c.seqlen_q, 257);
  r.seqlen_k = std::min<int64_t>(c.seqlen_k, 500);
  const int64_t group = c.heads_q / c.heads_k;
  r.heads_k = std::min<int64_t>(c.heads_k, 2);
  r.heads_q = r.heads_k * group;
  // (batch, head) pairs; each has two or more work items, and those of a backward four.
  const int64_t wanted = !gpu ? 2 : multiprocessors * (c.backward ? 1 : 3) / 4;
  r.batch = std::max<int64_t>(1, (wanted + r.heads_q - 1) / r.heads_q);
  return r;
}

Result<std::unique_ptr<Judge>> Judge::make(flashplus_context *context, DLDevice device, const BenchCase &c,
                                           int threads) {
  std::unique_ptr<Judge> judge(new Judge());
  judge->context_ = context;
  judge->device_ = device;
  judge->threads_ = threads;
  Problem &p = judge->problem_;
  const io::ElementType type = c.dtype == DType::F16    ? io::ElementType::F16
                               : c.dtype == DType::BF16 ? io::ElementType::BF16
                                                        : io::ElementType::F32;
  const std::vector<int64_t> shapes[] = {{c.batch, c.seqlen_q, c.heads_q, c.head_dim},
                                         {c.batch, c.seqlen_k, c.heads_k, c.head_dim},
                                         {c.batch, c.seqlen_k, c.heads_k, c.head_dim_v}};
  io::Tensor *tensors[] = {&p.q, &p.k, &p.v};
  for (size_t i = 0; i < 3; ++i) {
    auto made = randomTensor(shapes[i], type, 11 + i);
    if (!made)
      return made.status();
    *tensors[i] = std::move(*made);
  }
  if (c.alibi) {
    auto slopes = randomTensor({c.heads_q}, io::ElementType::F32, 17);
    if (!slopes)
      return slopes.status();
    p.alibi_slopes = std::move(*slopes);
  }
  if (c.sinks) {
    auto sinks = randomTensor({c.heads_q}, io::ElementType::F32, 19);
    if (!sinks)
      return sinks.status();
    p.sinks = std::move(*sinks);
  }
  if (c.backward) {
    auto dout = randomTensor({c.batch, c.seqlen_q, c.heads_q, c.head_dim_v}, type, 19);
    if (!dout)
      return dout.status();
    p.dout = std::move(*dout);
  }
  judge->any_order_ = c.any_order;
  p.causal = c.causal;
  p.window_left = static_cast<int>(c.window_left);
  p.window_right = static_cast<int>(c.window_right);
  p.softcap = static_cast<float>(c.softcap);
  p.dropout_p = static_cast<float>(c.dropout);
  p.dropout_seed = 1;
  p.page_size = c.page_size;
  p.random_pages = c.page_size != 0;
  return judge;
}

Result<std::string> Judge::judgeGradients(const std::string &schedule) {
  DeviceProblem forward;
  DeviceGradients gradients; // poisoned, too
  FLASHPLUS_RETURN_IF_ERROR(forward.upload(context_, device_, problem_));
  FLASHPLUS_RETURN_IF_ERROR(gradients.upload(context_, device_, problem_, forward));
  FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_forward(context_, &forward.args(), nullptr)));
  flashplus_backward_args args = gradients.args();
  args.schedule = schedule.c_str();
  args.any_order = any_order_;
  FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_backward(context_, &args, nullptr)));
  FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_synchronize(context_, device_, nullptr)));
  auto dq = gradients.dq(), dk = gradients.dk(), dv = gradients.dv();
  for (const auto *each : {&dq, &dk, &dv})
    if (!*each)
      return each->status();
  auto report = checkGradients(problem_, *dq, *dk, *dv, threads_);
  if (!report)
    return report.status();
  return report->good() ? std::string() : "wrong: " + report->complaint();
}

Result<std::string> Judge::judge(const std::string &schedule) {
  if (problem_.dout)
    return judgeGradients(schedule);
  DeviceProblem on_device; // poisons its outputs
  FLASHPLUS_RETURN_IF_ERROR(on_device.upload(context_, device_, problem_));
  flashplus_forward_args args = on_device.args();
  args.schedule = schedule.c_str();
  // One kernel is judged: of shares, where it merges them itself, else of all keys at once.
  auto parsed = Schedule::parse(schedule);
  args.num_splits = parsed && itemTraits(*parsed).merges ? 0 : 1;
  FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_forward(context_, &args, nullptr)));
  FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_synchronize(context_, device_, nullptr)));
  auto output = on_device.output(), lse = on_device.lse();
  if (!output || !lse)
    return output ? lse.status() : output.status();
  if (!right_) {
    auto report = checkOutputs(problem_, *output, *lse, threads_);
    if (!report)
      return report.status();
    if (!report->good())
      return "wrong: error " + numberText(report->error) + " of a row, allowed " + numberText(report->bound);
    right_ = std::move(*output);
    right_lse_ = std::move(*lse);
    allowed_ = 2 * report->bound; // two answers, each within the bound of the exact one
    allowed_lse_ = 2 * report->lse_bound;
    return std::string();
  }
  const double error = rowError(*output, *right_), lse_error = largestDistance(*lse, *right_lse_);
  if (!(error <= allowed_) || !(lse_error <= allowed_lse_))
    return "wrong: " + numberText(error) + " of a row and " + numberText(lse_error) +
           " of lse from a checked result, allowed " + numberText(allowed_) + " and " +
           numberText(allowed_lse_);
  return std::string();
}

} // namespace flashplus::tool
