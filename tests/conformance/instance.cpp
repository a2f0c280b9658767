// SPDX-License-Identifier: BSD-3-Clause
#include "tests/conformance/instance.h"

#include "reference/numeric.h"
#include "spec/score.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

namespace flashplus::conformance {
namespace {

constexpr int64_t kTilesBefore = 1000; ///< The kernel adds to what is in the counter.
constexpr int64_t kGuard = 128;        ///< Elements of poison before and after; keeps 256-byte alignment.
constexpr DLDataType kFloat32 = {kDLFloat, 32, 1}, kInt32 = {kDLInt, 32, 1};

uint64_t mix(uint64_t x) { // splitmix64 (Steele, Lea, Flood 2014)
  x += 0x9e3779b97f4a7c15;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

/// Near enough to a standard normal: the sum of four uniform numbers, a function of the position alone.
float randomNormal(uint64_t seed, char tensor, int64_t b, int64_t row, int64_t head, int64_t c) {
  uint64_t bits = seed * 256 + uint64_t(tensor);
  for (int64_t x : {b, row, head, c})
    bits = mix(bits ^ uint64_t(x));
  float sum = 0;
  for (int i = 0; i < 4; ++i)
    sum += float(bits >> 16 * i & 0xffff);
  return (sum / 65536.0f - 2.0f) * 1.7320508f;
}

} // namespace

DLDataType Instance::typeOf(DType dtype) {
  return {uint8_t(dtype == DType::BF16 ? kDLBfloat : kDLFloat), uint8_t(dtypeBytes(dtype) * 8), 1};
}

Instance::Instance(const Case &c) : case_(c) {
  makeLengths();
  makeInputs();
  makeOutputs();
  makeScore();
  makeDropout();
  makeSinks();
  const Case &p = case_;
  scale_ = p.softmaxScale();
  if (p.scale)
    args_.softmax_scale = &scale_;
  args_.causal = p.causal;
  args_.window_left = p.window_left;
  args_.window_right = p.window_right;
  args_.lse_empty = p.lse_empty;
  args_.num_splits = p.num_splits;
  args_.batch_invariant = p.batch_invariant;
  args_.schedule = p.schedule.empty() ? nullptr : p.schedule.c_str();

  reference::Problem &r = reference_;
  r.dtype = p.dtype;
  r.batch = p.batches();
  r.seqlen_q = p.sq;
  r.seqlen_k = p.sk;
  r.total_q = p.rowsQ();
  r.total_k = p.rowsK();
  r.heads_q = p.hq;
  r.heads_k = p.hk;
  r.head_dim_qk = p.d;
  r.head_dim_v = p.dimV();
  const int64_t bytes = dtypeBytes(p.dtype);
  r.q = q_.memory->host.data() + q_.offset * bytes;
  r.k = rows_k_.memory->host.data() + rows_k_.offset * bytes;
  r.v = rows_v_.memory->host.data() + rows_v_.offset * bytes;
  r.q_strides = q_.strides;
  r.k_strides = rows_k_.strides;
  r.v_strides = rows_v_.strides;
  r.window_left = p.window_left;
  r.window_right = p.windowRight();
  r.softmax_scale = scale_;
  r.lse_empty = p.lse_empty;
}

// --- tensors
// -----------------------------------------------------------------------------------------------------

View Instance::view(DLDataType type, const Layout &layout, int64_t rows, int64_t heads, int64_t dim) {
  View v;
  const int64_t batch = case_.ragged() || layout.broadcast ? 1 : case_.batch, pitch = dim + layout.gap;
  switch (layout.order) {
  case Layout::Order::Bshd:
    v.strides = {rows * heads * pitch, heads * pitch, pitch};
    break;
  case Layout::Order::Bhsd:
    v.strides = {rows * heads * pitch, pitch, rows * pitch};
    break;
  case Layout::Order::Sbhd:
    v.strides = {heads * pitch, batch * heads * pitch, pitch};
    break;
  }
  if (layout.broadcast)
    v.strides.b = 0;
  v.offset = kGuard + layout.shift;
  v.memory = std::make_shared<Memory>();
  v.memory->host.assign(size_t((v.offset + batch * rows * heads * pitch + kGuard) * type.bits / 8), kPoison);
  v.dl_shape = {rows, heads, dim};
  v.dl_strides = {v.strides.s, v.strides.h, 1};
  if (!case_.ragged()) {
    v.dl_shape.insert(v.dl_shape.begin(), case_.batch);
    v.dl_strides.insert(v.dl_strides.begin(), v.strides.b);
  }
  return v;
}

/// Copies the host memory to the device and fills in the DLTensor.
DLTensor *Instance::finish(View &v, DLDataType type) {
  if (!v.memory->device.data())
    v.memory->device = DeviceBuffer(v.memory->host);
  v.tensor.data = v.memory->device.data();
  v.tensor.device = Session::get().device();
  v.tensor.ndim = int32_t(v.dl_shape.size());
  v.tensor.dtype = type;
  v.tensor.shape = v.dl_shape.data();
  v.tensor.strides = v.dl_strides.data();
  v.tensor.byte_offset = uint64_t(v.offset * type.bits / 8);
  return &v.tensor;
}

void Instance::write(View &v, char tensor, DType dtype, int64_t dim) {
  const Case &p = case_;
  const bool keys = tensor != 'q' && tensor != 'g' && tensor != 'e';
  const bool broadcast = v.strides.b == 0 && !p.ragged(); // one set of values
  forRows(v, keys, [&](int64_t, int64_t h, int64_t at, int64_t b, int64_t i) {
    const int64_t entry = broadcast ? 0 : b;
    for (int64_t c = 0; c < dim; ++c)
      reference::storeElement(v.memory->host.data(), dtype, at + c,
                              p.fill ? p.fill(tensor, entry, i, h, c)
                                     : randomNormal(p.seed, tensor, p.first_batch + entry, i, h, c));
  });
}

void Instance::sliceQkv(const Layout &layout, View &q, View &k, View &v) {
  const Case &p = case_;
  View whole = view(typeOf(p.dtype), layout, p.rowsQ(), p.hq + 2 * p.hk, p.d);
  int64_t first_head = 0;
  for (auto [part, heads] : {std::pair{&q, p.hq}, {&k, p.hk}, {&v, p.hk}}) {
    *part = whole; // shares the memory
    part->offset += first_head * whole.strides.h;
    part->dl_shape[part->dl_shape.size() - 2] = heads;
    first_head += heads;
  }
}

void Instance::makeInputs() {
  const Case &p = case_;
  const DLDataType type = typeOf(p.dtype);
  if (p.packed_qkv) {
    sliceQkv(p.q_layout, q_, k_, v_);
  } else {
    q_ = view(type, p.q_layout, p.rowsQ(), p.hq, p.d);
    k_ = view(type, p.k_layout, p.rowsK(), p.hk, p.d);
    v_ = view(type, p.v_layout, p.rowsK(), p.hk, p.dimV());
  }
  write(q_, 'q', p.dtype, p.d);
  write(k_, 'k', p.dtype, p.d);
  write(v_, 'v', p.dtype, p.dimV());
  rows_k_ = k_;
  rows_v_ = v_;
  if (p.paged())
    makeCache();
  args_.q = finish(q_, type);
  args_.k = finish(k_, type);
  args_.v = finish(v_, type);
}

View Instance::statistic() const {
  const Case &p = case_;
  const int64_t per_head = p.rowsQ() + p.lse_gap, batch = p.ragged() ? 1 : p.batch;
  View v;
  v.offset = kGuard;
  v.strides = {p.hq * per_head, 1, per_head};
  v.memory = std::make_shared<Memory>();
  v.memory->host.assign(size_t((batch * p.hq * per_head + 2 * kGuard) * 4), kPoison);
  v.dl_shape = {p.hq, p.rowsQ()};
  v.dl_strides = {per_head, 1};
  if (!p.ragged()) {
    v.dl_shape.insert(v.dl_shape.begin(), p.batch);
    v.dl_strides.insert(v.dl_strides.begin(), v.strides.b);
  }
  return v;
}

void Instance::makeOutputs() {
  const Case &p = case_;
  o_ = view(typeOf(p.dtype), p.o_layout, p.rowsQ(), p.hq, p.dimV());
  args_.o = finish(o_, typeOf(p.dtype));

  lse_ = statistic();
  DLTensor *lse = finish(lse_, kFloat32);
  if (p.want_lse)
    args_.lse = lse;

  tiles_ = DeviceBuffer(sizeof(int64_t));
  args_.tile_counter = static_cast<int64_t *>(tiles_.data());
}

// --- lengths and scores
// ------------------------------------------------------------------------------------------

/// A compact tensor; `data` is copied.
DLTensor *Instance::vector(const void *data, DLDataType type, std::vector<int64_t> shape, bool guarded) {
  View &v = small_.emplace_back();
  v.memory = std::make_shared<Memory>();
  int64_t elements = 1;
  v.dl_strides.resize(shape.size());
  for (size_t d = shape.size(); d-- > 0; elements *= shape[d])
    v.dl_strides[d] = elements;
  v.memory->host.resize(size_t(elements) * 4);
  if (elements)
    std::memcpy(v.memory->host.data(), data, size_t(elements) * 4);
  v.dl_shape = std::move(shape);
  if (guarded)
    v.memory->device = DeviceBuffer::guarded(v.memory->host, case_.aux_at_start);
  return finish(v, type);
}

void Instance::makeLengths() {
  const Case &p = case_;
  if (p.ragged()) {
    int64_t longest_q = 0, longest_k = 0;
    for (int64_t b = 0; b <= p.batches(); ++b) {
      cu_q_.push_back(int32_t(p.startQ(b)));
      cu_k_.push_back(int32_t(p.startK(b)));
      if (b < p.batches()) {
        longest_q = std::max(longest_q, p.ragged_q[size_t(b)]);
        longest_k = std::max(longest_k, p.ragged_k[size_t(b)]);
      }
    }
    args_.cu_seqlens_q = vector(cu_q_.data(), kInt32, {p.batches() + 1});
    if (!p.paged())
      args_.cu_seqlens_k = vector(cu_k_.data(), kInt32, {p.batches() + 1});
    args_.max_seqlen_q = p.max_q < 0 ? longest_q : p.max_q;
    args_.max_seqlen_k = p.max_k < 0 ? longest_k : p.max_k;
    reference_.cu_seqlens_q = cu_q_.data();
    reference_.cu_seqlens_k = cu_k_.data();
  }
  if (!p.used_q.empty()) {
    args_.seqused_q = vector(p.used_q.data(), kInt32, {p.batches()});
    reference_.seqused_q = p.used_q.data();
  }
  if (!p.used_k.empty()) {
    if (!p.paged())
      args_.seqused_k = vector(p.used_k.data(), kInt32, {p.batches()});
    reference_.seqused_k = p.used_k.data();
  }
}

void Instance::makeScore() {
  const Case &p = case_;
  args_.softcap = reference_.softcap = p.softcap;
  if (p.alibi != Alibi::None) {
    const bool per_batch = p.alibi == Alibi::PerBatch;
    std::vector<float> &slopes = floats_.emplace_back();
    for (int64_t b = 0; b < (per_batch ? p.batches() : 1); ++b)
      for (int64_t h = 0; h < p.hq; ++h)
        slopes.push_back(std::exp2(-float(h % 5) - 2) * float(1 + b));
    args_.alibi_slopes = per_batch ? vector(slopes.data(), kFloat32, {p.batches(), p.hq})
                                   : vector(slopes.data(), kFloat32, {p.hq});
    reference_.alibi_slopes = slopes.data();
    reference_.alibi_per_batch = per_batch;
  }
  if (p.score.empty())
    return;
  args_.score = p.score.c_str();
  auto parsed = ScoreExpr::parse(p.score);
  REQUIRE_MESSAGE(parsed, parsed.status().message());
  reference_.score = std::move(*parsed);
  for (const Aux &aux : p.aux) {
    // Stored compactly in the order of the indices, or in the reverse one.
    const size_t rank = aux.shape.size();
    std::vector<int64_t> strides(rank), compact(rank);
    int64_t elements = 1, n = 1;
    for (size_t i = 0; i < rank; ++i) {
      const size_t d = aux.transposed ? i : rank - 1 - i;
      strides[d] = elements;
      elements *= aux.shape[d];
      compact[rank - 1 - i] = n;
      n *= aux.shape[rank - 1 - i];
    }
    std::vector<float> &values = floats_.emplace_back(size_t(elements));
    for (int64_t i = 0; i < elements; ++i) {
      int64_t at = 0;
      for (size_t d = 0; d < rank; ++d)
        at += i / compact[d] % aux.shape[d] * strides[d];
      values[size_t(at)] =
          aux.values.empty() ? randomNormal(p.seed, aux.name[0], 0, 0, 0, i) : aux.values[size_t(i)];
    }
    DLTensor *tensor = vector(values.data(), kFloat32, aux.shape, /*guarded=*/true);
    std::copy(strides.begin(), strides.end(), tensor->strides);
    score_tensors_.push_back({aux.name.c_str(), tensor});
  }
  for (const auto &[name, value] : p.scalars)
    score_scalars_.push_back({name.c_str(), value});
  args_.score_tensors = score_tensors_.data();
  args_.num_score_tensors = int32_t(score_tensors_.size());
  args_.score_scalars = score_scalars_.data();
  args_.num_score_scalars = int32_t(score_scalars_.size());

  // The reference wants them by slot.
  for (const std::string &name : reference_.score.scalars)
    for (const auto &given : p.scalars)
      if (given.first == name)
        reference_.scalars.push_back(given.second);
  for (const ScoreTensor &wanted : reference_.score.tensors)
    for (size_t i = 0; i < p.aux.size(); ++i)
      if (p.aux[i].name == wanted.name) {
        reference::AuxTensor t;
        t.data = floats_[floats_.size() - p.aux.size() + i].data();
        std::copy_n(score_tensors_[i].tensor->strides, wanted.rank, t.strides.begin());
        std::copy_n(score_tensors_[i].tensor->shape, wanted.rank, t.shape.begin());
        reference_.tensors.push_back(t);
      }
}

void Instance::makeDropout() {
  const Case &p = case_;
  args_.dropout_p = p.dropout;
  reference_.rng_seed = p.rng_seed;
  reference_.rng_offset = p.rng_offset;
  const auto dropout = Dropout::make(double(p.dropout));
  REQUIRE_MESSAGE(dropout, dropout.status().message());
  reference_.dropout = *dropout;
  if (!p.rng_pointer) {
    args_.dropout_seed = p.rng_seed;
    args_.dropout_offset = p.rng_offset;
    return;
  }
  const uint64_t both[] = {p.rng_seed, p.rng_offset};
  rng_state_.memory = std::make_shared<Memory>();
  rng_state_.memory->host.resize(sizeof both);
  std::memcpy(rng_state_.memory->host.data(), both, sizeof both);
  rng_state_.dl_shape = {2};
  rng_state_.dl_strides = {1};
  args_.rng_state = finish(rng_state_, {kDLInt, 64, 1});
  args_.dropout_seed = args_.dropout_offset = ~uint64_t(0); // not read
}

void Instance::makeSinks() {
  const Case &p = case_;
  args_.lse_without_sinks = p.lse_without_sinks;
  reference_.lse_without_sinks = p.lse_without_sinks;
  if (!p.sinks)
    return;
  sinks_.memory = std::make_shared<Memory>();
  std::vector<std::byte> &host = sinks_.memory->host;
  host.assign(size_t(p.hq * dtypeBytes(*p.sinks)), kPoison);
  for (int64_t h = 0; h < p.hq; ++h)
    reference::storeElement(host.data(), *p.sinks, h,
                            p.sink_values.empty() ? 3 * randomNormal(p.seed, 's', 0, 0, h, 0)
                                                  : p.sink_values[size_t(h)]);
  sinks_.memory->device = DeviceBuffer::guarded(host, /*at_start=*/false);
  sinks_.dl_shape = {p.hq};
  sinks_.dl_strides = {1};
  args_.sinks = finish(sinks_, typeOf(*p.sinks));
  reference_.sinks = host.data();
  reference_.sink_dtype = *p.sinks;
}

// --- outputs
// -----------------------------------------------------------------------------------------------------

void Instance::resetOutputs() {
  o_.memory->device.write(o_.memory->host);
  lse_.memory->device.write(lse_.memory->host);
  resetTiles();
}

void Instance::resetTiles() {
  std::vector<std::byte> tiles(sizeof kTilesBefore);
  std::memcpy(tiles.data(), &kTilesBefore, sizeof kTilesBefore);
  tiles_.write(tiles);
}

int64_t Instance::readTiles() const {
  const std::vector<std::byte> bytes = tiles_.read();
  int64_t value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value - kTilesBefore;
}

bool Instance::inputsUnchanged() const {
  return unchanged(q_) && unchanged(k_) && unchanged(v_);
}

/// body(reference row, head, element of o, element of lse), both counted from the start of the memory.
template <class Body> void Instance::forValidRows(Body body) const {
  const Case &p = case_;
  for (int64_t b = 0; b < p.batches(); ++b)
    for (int64_t i = 0; i < p.lengthQ(b); ++i)
      for (int64_t h = 0; h < p.hq; ++h) {
        const int64_t entry = p.ragged() ? 0 : b, row = p.startQ(b) + i;
        auto at = [&](const View &v) {
          return v.offset + entry * v.strides.b + row * v.strides.s + h * v.strides.h;
        };
        body(p.ragged() ? row : b * p.sq + i, h, at(o_), at(lse_));
      }
}

reference::Actual Instance::unpack(const std::vector<std::byte> &o, const std::vector<std::byte> &lse) const {
  const Case &p = case_;
  reference::Actual actual;
  const int64_t rows = reference_.rowsQ(), dv = p.dimV();
  actual.o.resize(size_t(rows * p.hq * dv));
  if (p.want_lse)
    actual.lse.resize(size_t(rows * p.hq));
  forValidRows([&](int64_t row, int64_t h, int64_t at_o, int64_t at_lse) {
    const int64_t index = row * p.hq + h;
    for (int64_t c = 0; c < dv; ++c)
      actual.o[size_t(index * dv + c)] = double(reference::loadElement(o.data(), p.dtype, at_o + c));
    if (p.want_lse)
      actual.lse[size_t(index)] = double(reference::loadElement(lse.data(), DType::F32, at_lse));
  });
  return actual;
}

bool Instance::untouched(const std::vector<std::byte> &o, const std::vector<std::byte> &lse,
                         std::string &where) const {
  const size_t bytes = size_t(dtypeBytes(case_.dtype));
  std::vector<std::byte> rest_o = o, rest_lse = lse;
  forValidRows([&](int64_t, int64_t, int64_t at_o, int64_t at_lse) {
    std::fill_n(rest_o.begin() + at_o * int64_t(bytes), case_.dimV() * int64_t(bytes), kPoison);
    if (case_.want_lse)
      std::fill_n(rest_lse.begin() + at_lse * 4, 4, kPoison);
  });
  for (auto [name, rest, size] : {std::tuple{"o", &rest_o, bytes}, {"lse", &rest_lse, size_t(4)}}) {
    const auto found = std::find_if(rest->begin(), rest->end(), [](std::byte x) { return x != kPoison; });
    if (found != rest->end()) {
      where = std::string(name) + " was written at element " +
              std::to_string((found - rest->begin()) / int64_t(size) - kGuard) + " of its memory";
      return false;
    }
  }
  return true;
}

} // namespace flashplus::conformance
