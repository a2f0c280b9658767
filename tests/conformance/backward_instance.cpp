// SPDX-License-Identifier: BSD-3-Clause
#include "tests/conformance/backward_instance.h"

#include "reference/numeric.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

namespace flashplus::conformance {
namespace {

constexpr int64_t kGuard = 64; ///< Elements of poison before and after.
constexpr DLDataType kFloat32 = {kDLFloat, 32, 1};

double loadAt(const View &v, DType dtype, int64_t at) {
  return double(reference::loadElement(v.memory->host.data(), dtype, at));
}

} // namespace

BackwardInstance::BackwardInstance(const BackwardCase &c) : Instance(c.forward), backward_(c) {
  const flashplus_forward_args &f = Instance::args_;
  makeStatistics();
  makeGradients();
  args_.q = f.q;
  args_.k = f.k;
  args_.v = f.v;
  args_.o = f.o;
  args_.lse = &lse_.tensor;
  args_.cu_seqlens_q = f.cu_seqlens_q;
  args_.cu_seqlens_k = f.cu_seqlens_k;
  args_.seqused_q = f.seqused_q;
  args_.seqused_k = f.seqused_k;
  args_.max_seqlen_q = f.max_seqlen_q;
  args_.max_seqlen_k = f.max_seqlen_k;
  args_.softmax_scale = f.softmax_scale;
  args_.causal = f.causal;
  args_.window_left = f.window_left;
  args_.window_right = f.window_right;
  args_.softcap = f.softcap;
  args_.alibi_slopes = f.alibi_slopes;
  args_.score = f.score;
  args_.score_tensors = f.score_tensors;
  args_.score_scalars = f.score_scalars;
  args_.num_score_tensors = f.num_score_tensors;
  args_.num_score_scalars = f.num_score_scalars;
  args_.tile_counter = f.tile_counter;
  args_.dropout_p = f.dropout_p;
  args_.rng_state = f.rng_state;
  args_.dropout_seed = f.dropout_seed;
  args_.dropout_offset = f.dropout_offset;
  args_.any_order = c.any_order;
  if (c.score_grads)
    makeScoreGradients();
  makeReference();
}

bool BackwardOutputs::same(const BackwardOutputs &o, bool adds_dq) const {
  return (adds_dq || dq == o.dq) && dk == o.dk && dv == o.dv && delta == o.delta && tiles == o.tiles &&
         (score == o.score || !Session::get().onCpu());
}

DLTensor *BackwardInstance::scoreGradient(std::vector<int64_t> shape) {
  View &v = score_views_.emplace_back();
  v.offset = kGuard;
  v.dl_strides.resize(shape.size());
  int64_t elements = 1;
  for (size_t d = shape.size(); d-- > 0; elements *= shape[d])
    v.dl_strides[d] = elements;
  v.dl_shape = std::move(shape);
  v.memory = std::make_shared<Memory>();
  v.memory->host.assign(size_t(elements + 2 * kGuard) * 4, kPoison);
  return finish(v, kFloat32);
}

void BackwardInstance::makeScoreGradients() {
  const flashplus_forward_args &f = Instance::args_;
  if (f.softcap > 0) {
    args_.dsoftcap = scoreGradient({1});
    score_names_.push_back("softcap");
  }
  if (f.alibi_slopes) {
    args_.dalibi_slopes =
        scoreGradient({f.alibi_slopes->shape, f.alibi_slopes->shape + f.alibi_slopes->ndim});
    score_names_.push_back("slopes");
  }
  for (int i = 0; i < f.num_score_tensors; ++i) {
    const auto &[name, tensor] = f.score_tensors[i];
    score_gradients_.push_back({name, scoreGradient({tensor->shape, tensor->shape + tensor->ndim})});
    score_names_.push_back(name);
  }
  for (int i = 0; i < f.num_score_scalars; ++i) {
    score_gradients_.push_back({f.score_scalars[i].name, scoreGradient({1})});
    score_names_.push_back(f.score_scalars[i].name);
  }
  args_.score_gradients = score_gradients_.data();
  args_.num_score_gradients = int32_t(score_gradients_.size());
}

/// o and lse, as a forward leaves them.
void BackwardInstance::makeStatistics() {
  const Case &p = case_;
  if (backward_.after_forward) {
    runOwnForward();
  } else {
    const reference::Output known = reference::attentionFp64(reference_);
    forRows(o_, /*keys=*/false, [&](int64_t row, int64_t h, int64_t at, int64_t, int64_t) {
      for (int64_t c = 0; c < p.dimV(); ++c)
        reference::storeElement(o_.memory->host.data(), p.dtype, at + c,
                                float(known.o[size_t((row * p.hq + h) * p.dimV() + c)]));
    });
    forRows(lse_, /*keys=*/false, [&](int64_t row, int64_t h, int64_t at, int64_t, int64_t) {
      reference::storeElement(lse_.memory->host.data(), DType::F32, at,
                              float(known.lse[size_t(row * p.hq + h)]));
    });
  }
  spoilLse();
  o_.memory->device.write(o_.memory->host);
  lse_.memory->device.write(lse_.memory->host);
}

void BackwardInstance::runOwnForward() {
  const Session &s = Session::get();
  resetOutputs();
  require(flashplus_forward(s.context(), &Instance::args(), nullptr), backward_.text());
  require(flashplus_synchronize(s.context(), s.device(), nullptr), backward_.text());
  o_.memory->host = readO();
  lse_.memory->host = readLse();
}

void BackwardInstance::spoilLse() {
  static constexpr float kGarbage[] = {kInf, -kInf, kNaN, 0, 1e30f, -1e30f, 50};
  const Case &p = case_;
  forRows(lse_, /*keys=*/false, [&](int64_t, int64_t h, int64_t at, int64_t b, int64_t i) {
    const auto [first, last] = visibleKeys(p, b, i);
    const bool empty = first > last, spoilt = backward_.infinite_lse && (i + h) % 5 == 1;
    if (spoilt)
      reference::storeElement(lse_.memory->host.data(), DType::F32, at,
                              kGarbage[(i + h) / 5 % 3]); // not finite
    else if (empty)
      reference::storeElement(lse_.memory->host.data(), DType::F32, at,
                              kGarbage[(i * 3 + h) % std::ssize(kGarbage)]);
  });
}

void BackwardInstance::makeGradients() {
  const Case &p = case_;
  const DLDataType type = typeOf(p.dtype);
  dout_ = view(type, backward_.dout_layout, p.rowsQ(), p.hq, p.dimV());
  write(dout_, 'g', p.dtype, p.dimV());
  args_.dout = finish(dout_, type);
  if (backward_.packed_dqkv) {
    sliceQkv(backward_.dq_layout, dq_, dk_, dv_);
  } else {
    dq_ = view(type, backward_.dq_layout, p.rowsQ(), p.hq, p.d);
    dk_ = view(type, backward_.dk_layout, p.rowsK(), p.hk, p.d);
    dv_ = view(type, backward_.dv_layout, p.rowsK(), p.hk, p.dimV());
  }
  args_.dq = finish(dq_, type);
  args_.dk = finish(dk_, type);
  args_.dv = finish(dv_, type);
  dlse_ = statistic();
  write(dlse_, 'e', DType::F32, 1);
  const DLTensor *dlse = finish(dlse_, kFloat32);
  args_.dlse = backward_.dlse ? dlse : nullptr;
  delta_ = statistic();
  DLTensor *delta = finish(delta_, kFloat32);
  args_.delta = backward_.delta ? delta : nullptr;
}

void BackwardInstance::makeReference() {
  const Case &p = case_;
  const size_t rows = size_t(reference_.rowsQ());
  o_values_.assign(rows * size_t(p.hq * p.dimV()), 0);
  lse_values_.assign(rows * size_t(p.hq), 0);
  dlse_values_.assign(rows * size_t(p.hq), 0);
  forRows(o_, /*keys=*/false, [&](int64_t row, int64_t h, int64_t at, int64_t, int64_t) {
    for (int64_t c = 0; c < p.dimV(); ++c)
      o_values_[size_t((row * p.hq + h) * p.dimV() + c)] = loadAt(o_, p.dtype, at + c);
  });
  // The reference knows infinities only.
  for (auto [from, to] : {std::pair{&lse_, &lse_values_}, {&dlse_, &dlse_values_}})
    forRows(*from, /*keys=*/false, [&](int64_t row, int64_t h, int64_t at, int64_t, int64_t) {
      (*to)[size_t(row * p.hq + h)] = loadAt(*from, DType::F32, at);
    });
  for (double &x : lse_values_)
    x = std::isfinite(x) ? x : double(kInf);
  reference::BackwardProblem &r = gradient_reference_;
  r.forward = reference_;
  r.dout = dout_.memory->host.data() + dout_.offset * dtypeBytes(p.dtype);
  r.dout_strides = dout_.strides;
  r.dlse = backward_.dlse ? dlse_values_.data() : nullptr;
  if (!backward_.after_forward) {
    r.o = o_values_.data();
    r.lse = lse_values_.data();
  } // else those of fp64: the two passes together are as good as a model of both
}

void BackwardInstance::resetGradients() {
  resetTiles();
  for (View *v : {&dq_, &dk_, &dv_, &delta_})
    v->memory->device.write(v->memory->host); // which is poison
  for (View &v : score_views_)
    v.memory->device.write(v.memory->host);
}

BackwardOutputs BackwardInstance::readGradients() const {
  std::vector<std::vector<std::byte>> score;
  for (const View &v : score_views_)
    score.push_back(v.memory->device.read());
  return {dq_.memory->device.read(),
          dk_.memory->device.read(),
          dv_.memory->device.read(),
          delta_.memory->device.read(),
          readTiles(),
          std::move(score)};
}

bool BackwardInstance::gradientInputsUnchanged() const {
  return inputsUnchanged() && unchanged(o_) && unchanged(lse_) && unchanged(dout_) && unchanged(dlse_);
}

bool BackwardInstance::gradientsUntouched(const BackwardOutputs &outputs, std::string &where) const {
  const Case &p = case_;
  struct Part {
    const char *name;
    const View *view;
    const std::vector<std::byte> *bytes;
    bool keys, written;
    int64_t dim, size;
  };
  const int64_t size = dtypeBytes(p.dtype);
  const Part parts[] = {{"dq", &dq_, &outputs.dq, false, true, p.d, size},
                        {"dk", &dk_, &outputs.dk, true, true, p.d, size},
                        {"dv", &dv_, &outputs.dv, true, true, p.dimV(), size},
                        {"delta", &delta_, &outputs.delta, false, backward_.delta, 1, 4}};
  for (const Part &part : parts) {
    std::vector<std::byte> rest = *part.bytes;
    for (const Part &other : parts) // several lie in one memory
      if (other.written && other.view->memory == part.view->memory)
        forRows(*other.view, other.keys, [&](int64_t, int64_t, int64_t at, int64_t, int64_t) {
          std::fill_n(rest.begin() + at * other.size, other.dim * other.size, kPoison);
        });
    const auto found = std::find_if(rest.begin(), rest.end(), [](std::byte x) { return x != kPoison; });
    if (found != rest.end()) {
      where = std::string(part.name) + " was written at element " +
              std::to_string((found - rest.begin()) / part.size - part.view->offset) + " from its first";
      return false;
    }
  }
  for (size_t i = 0; i < outputs.score.size(); ++i)
    for (auto part :
         {std::span(outputs.score[i]).first(kGuard * 4), std::span(outputs.score[i]).last(kGuard * 4)})
      if (std::any_of(part.begin(), part.end(), [](std::byte x) { return x != kPoison; })) {
        where = "beside the gradient of " + score_names_[i] + " something was written";
        return false;
      }
  return true;
}

reference::Gradients BackwardInstance::unpackGradients(const BackwardOutputs &outputs) const {
  const Case &p = case_;
  reference::Gradients g;
  auto unpack = [&](const View &v, const std::vector<std::byte> &bytes, bool keys, int64_t dim) {
    const int64_t heads = keys ? p.hk : p.hq;
    std::vector<double> values(size_t((keys ? reference_.rowsK() : reference_.rowsQ()) * heads * dim));
    forRows(v, keys, [&](int64_t row, int64_t h, int64_t at, int64_t, int64_t) {
      for (int64_t c = 0; c < dim; ++c)
        values[size_t((row * heads + h) * dim + c)] =
            double(reference::loadElement(bytes.data(), p.dtype, at + c));
    });
    return values;
  };
  g.dq = unpack(dq_, outputs.dq, false, p.d);
  g.dk = unpack(dk_, outputs.dk, true, p.d);
  g.dv = unpack(dv_, outputs.dv, true, p.dimV());
  auto score = [&](const std::string &name) {
    std::vector<double> values;
    for (size_t i = 0; i < score_names_.size(); ++i)
      if (score_names_[i] == name)
        for (size_t at = kGuard; at < outputs.score[i].size() / 4 - kGuard; ++at)
          values.push_back(double(reference::loadElement(outputs.score[i].data(), DType::F32, int64_t(at))));
    return values;
  };
  if (!backward_.score_grads)
    return g;
  for (const ScoreTensor &t : reference_.score.tensors)
    g.dtensors.push_back(score(t.name));
  for (const std::string &name : reference_.score.scalars)
    g.dscalars.push_back(score(name).at(0));
  g.dsoftcap = score("softcap");
  g.dslopes = score("slopes");
  return g;
}

BackwardInstance::Delta BackwardInstance::unpackDelta(const BackwardOutputs &outputs) const {
  const Case &p = case_;
  const size_t n = size_t(reference_.rowsQ() * p.hq);
  Delta delta = {std::vector<double>(n), std::vector<double>(n), std::vector<double>(n)};
  forRows(delta_, /*keys=*/false, [&](int64_t row, int64_t h, int64_t at, int64_t, int64_t) {
    delta.actual[size_t(row * p.hq + h)] =
        double(reference::loadElement(outputs.delta.data(), DType::F32, at));
  });
  forRows(dout_, /*keys=*/false, [&](int64_t row, int64_t h, int64_t at, int64_t, int64_t) {
    const size_t to = size_t(row * p.hq + h);
    if (!std::isfinite(lse_values_[to]))
      return;
    double sum = 0, magnitude = 0;
    for (int64_t c = 0; c < p.dimV(); ++c) {
      const double term = loadAt(dout_, p.dtype, at + c) * o_values_[to * size_t(p.dimV()) + size_t(c)];
      sum += term;
      magnitude += std::fabs(term);
    }
    const double dlse = backward_.dlse ? dlse_values_[to] : 0;
    delta.expected[to] = sum - dlse;
    delta.allowed[to] = (magnitude + std::fabs(dlse)) * double(p.dimV() + 4) * 0x1p-24;
  });
  return delta;
}

} // namespace flashplus::conformance
