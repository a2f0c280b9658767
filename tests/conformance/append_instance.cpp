// SPDX-License-Identifier: BSD-3-Clause
#include "tests/conformance/append_instance.h"

#include "reference/numeric.h"
#include "tests/conformance/check.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <sstream>

namespace flashplus::conformance {
namespace {

constexpr DLDataType kInt32 = {kDLInt, 32, 1}, kInt64 = {kDLInt, 64, 1};

DLDataType typeOf(DType dtype) {
  return {uint8_t(dtype == DType::BF16 ? kDLBfloat : kDLFloat), uint8_t(dtypeBytes(dtype) * 8), 1};
}

template <class T> std::string listText(const std::vector<T> &values) {
  std::ostringstream text;
  for (const T &v : values)
    text << v << ',';
  return text.str();
}

template <class T> bool has(const std::vector<T> &values, T value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

} // namespace

int64_t AppendCase::firstNew(int64_t b) const {
  int64_t first = 0;
  for (int64_t i = 0; i < b; ++i)
    first += newOf(i);
  return first;
}

int64_t AppendCase::firstQ(int64_t b) const {
  int64_t first = 0;
  for (int64_t i = 0; i < b; ++i)
    first += rowsOfQ(i);
  return first;
}

bool AppendCase::isIdle(int64_t b) const { return has(idle, b); }

std::string AppendCase::text() const {
  std::ostringstream t;
  t << "append " << dtypeName(dtype) << " used=" << listText(used) << " fresh=" << listText(fresh)
    << (ragged_new ? " ragged_new" : "")
    << " sq=" << (ragged_q.empty() ? std::to_string(sq) : listText(ragged_q)) << " heads=" << hq << '/' << hk
    << " d=" << d << '/' << dimV() << (causal ? " causal" : "") << " left=" << window_left
    << " splits=" << num_splits << " cache=" << int(cache) << " capacity=" << capacity
    << " page=" << page_size << (heads_first ? " heads_first" : "") << " gaps=" << cache_gap << '/' << new_gap
    << " leftpad=" << listText(leftpad) << (slot_mapping ? " slots" : "") << " dropped=" << listText(dropped)
    << " idle=" << listText(idle) << idle_entry << " rotary=" << rotary_dim
    << (interleaved ? " interleaved" : "") << " positions=" << positions << " offsets=" << listText(offsets)
    << " seed=" << seed;
  return t.str();
}

int64_t AppendTensor::at(int64_t block, int64_t row, int64_t head) const {
  return offset + block * strides[0] + row * strides[1] + head * strides[2];
}

AppendInstance::AppendInstance(const AppendCase &c) : case_(c) {
  makeCache();
  makeTables();
  makeNew();
  makeRotary();
  makeQ();
  args_.causal = c.causal;
  args_.window_left = c.window_left;
  args_.num_splits = c.num_splits;
  expectCache();
  expectQ();
}

AppendTensor AppendInstance::rows(int64_t blocks, int64_t rows, int64_t heads, int64_t dim, int64_t gap,
                                  bool heads_first) {
  AppendTensor t;
  const int64_t pitch = dim + gap;
  t.shape = {blocks, rows, heads, dim};
  t.strides = {rows * heads * pitch, heads_first ? pitch : heads * pitch, heads_first ? rows * pitch : pitch,
               1};
  t.offset = 128; // of poison, and so many behind
  t.host.assign(size_t((blocks * rows * heads * pitch + 256) * dtypeBytes(case_.dtype)), std::byte{0xff});
  return t;
}

/// `packed`: without the first dimension, which has one element.
DLTensor *AppendInstance::finish(AppendTensor &t, DLDataType type, bool packed) {
  t.device = DeviceBuffer(t.host);
  t.tensor.data = t.device.data();
  t.tensor.device = Session::get().device();
  t.tensor.ndim = int32_t(t.shape.size()) - packed;
  t.tensor.dtype = type;
  t.tensor.shape = t.shape.data() + packed;
  t.tensor.strides = t.strides.data() + packed;
  t.tensor.byte_offset = uint64_t(t.offset * type.bits / 8);
  return &t.tensor;
}

DLTensor *AppendInstance::table(const void *data, DLDataType type, std::vector<int64_t> shape) {
  AppendTensor &t = tables_.emplace_back();
  t.shape = std::move(shape);
  t.strides.assign(t.shape.size(), 1);
  int64_t elements = 1;
  for (size_t d = t.shape.size(); d-- > 0; elements *= t.shape[d])
    t.strides[d] = elements;
  t.host.resize(size_t(elements) * type.bits / 8 + 8); // never empty
  std::memcpy(t.host.data(), data, size_t(elements) * type.bits / 8);
  return finish(t, type);
}

/// A row of every head.
void AppendInstance::random(AppendTensor &t, char name, int64_t block, int64_t row) {
  std::mt19937_64 bits(case_.seed * 1000003 + uint64_t(name) * 7919 + uint64_t(block) * 104729 +
                       uint64_t(row));
  std::normal_distribution<float> normal;
  for (int64_t h = 0; h < t.shape[2]; ++h)
    for (int64_t c = 0; c < t.shape[3]; ++c)
      reference::storeElement(t.host.data(), case_.dtype, t.at(block, row, h) + c, normal(bits));
}

void AppendInstance::makeCache() {
  const AppendCase &c = case_;
  const int64_t entries = (c.capacity + c.pageSlots() - 1) / c.pageSlots();
  // Pages of the sequences lie apart, in no order, with some that are nobody's between them.
  num_pages_ = c.cache == AppendCase::Cache::Plain ? c.batch() : c.batch() * entries + 3;
  std::vector<int32_t> order(static_cast<size_t>(num_pages_));
  std::iota(order.begin(), order.end(), 0);
  if (c.cache != AppendCase::Cache::Plain)
    std::shuffle(order.begin(), order.end(), std::mt19937(unsigned(c.seed)));
  for (int64_t b = 0; b < c.batch(); ++b) {
    pages_.emplace_back(order.begin() + b * entries, order.begin() + (b + 1) * entries);
    if (c.isIdle(b))
      std::fill(pages_.back().begin(), pages_.back().end(), -1);
  }
  k_ = rows(num_pages_, c.pageSlots(), c.hk, c.d, c.cache_gap, c.heads_first);
  v_ = rows(num_pages_, c.pageSlots(), c.hk, c.dimV(), c.cache_gap, c.heads_first);
  for (int64_t b = 0; b < c.batch(); ++b)
    for (int64_t s = 0; s < c.used[size_t(b)] + c.newOf(b); ++s) {
      const bool old = s < c.used[size_t(b)] && (c.leftpad.empty() || s >= c.leftpad[size_t(b)]);
      const auto [page, slot] = place(b, s);
      if (page >= 0 && (old || isDropped(b, s - c.used[size_t(b)]))) {
        random(k_, 'k', page, slot);
        random(v_, 'v', page, slot);
      }
    }
  args_.k = finish(k_, typeOf(c.dtype));
  args_.v = finish(v_, typeOf(c.dtype));
}

std::pair<int64_t, int64_t> AppendInstance::place(int64_t b, int64_t slot) const {
  const int64_t entry = slot / case_.pageSlots();
  const auto &pages = pages_[size_t(b)];
  return {entry < int64_t(pages.size()) ? pages[size_t(entry)] : -1, slot % case_.pageSlots()};
}

bool AppendInstance::isDropped(int64_t b, int64_t i) const {
  return i >= 0 && case_.slot_mapping && has(case_.dropped, case_.firstNew(b) + i);
}

int64_t AppendInstance::lengthAfter(int64_t b) const {
  const int64_t used = case_.used[size_t(b)], fresh = case_.newOf(b);
  const int64_t room = int64_t(pages_[size_t(b)].size()) * case_.pageSlots();
  if (fresh == 0 || isDropped(b, 0) || place(b, used).first < 0)
    return used;
  return std::min(used + fresh, room);
}

void AppendInstance::makeTables() {
  const AppendCase &c = case_;
  args_.seqused_k = table(c.used.data(), kInt32, {c.batch()});
  if (!c.leftpad.empty())
    args_.leftpad_k = table(c.leftpad.data(), kInt32, {c.batch()});
  const int64_t entries = int64_t(pages_[0].size());
  // Behind the last entry that is needed lies garbage.
  std::vector<int32_t> blocks, indptr = {0}, first;
  for (int64_t b = 0; b < c.batch(); ++b) {
    const int64_t needed = (c.used[size_t(b)] + c.newOf(b) + c.pageSlots() - 1) / c.pageSlots();
    for (int64_t e = 0; e < entries; ++e)
      blocks.push_back(c.isIdle(b) ? c.idle_entry : e < needed ? pages_[size_t(b)][size_t(e)] : 0x7ffffff0);
    indptr.push_back(int32_t(blocks.size()));
    first.push_back(pages_[size_t(b)][0]);
  }
  if (c.cache == AppendCase::Cache::Table)
    args_.block_table = table(blocks.data(), kInt32, {c.batch(), entries});
  if (c.cache == AppendCase::Cache::Indexed)
    args_.cache_batch_idx = table(first.data(), kInt32, {c.batch()});
  if (c.cache == AppendCase::Cache::Compressed) {
    args_.page_indptr = table(indptr.data(), kInt32, {c.batch() + 1});
    args_.page_indices = table(blocks.data(), kInt32, {int64_t(blocks.size())});
  }
  if (!c.slot_mapping)
    return;
  std::vector<int64_t> slots;
  for (int64_t b = 0; b < c.batch(); ++b)
    for (int64_t i = 0; i < c.newOf(b); ++i) {
      const auto [page, slot] = place(b, c.used[size_t(b)] + i);
      slots.push_back(page < 0 || isDropped(b, i) ? -1 : page * c.pageSlots() + slot);
    }
  args_.slot_mapping = table(slots.data(), kInt64, {int64_t(slots.size())});
}

void AppendInstance::makeNew() {
  const AppendCase &c = case_;
  const int64_t most = c.newOf(0), total = c.firstNew(c.batch());
  const int64_t blocks = c.ragged_new ? 1 : c.batch(), count = c.ragged_new ? total : most;
  k_new_ = rows(blocks, count, c.hk, c.d, c.new_gap, false);
  v_new_ = rows(blocks, count, c.hk, c.dimV(), c.new_gap, false);
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t i = 0; i < count; ++i) {
      random(k_new_, 'K', b, i);
      random(v_new_, 'V', b, i);
    }
  args_.k_new = finish(k_new_, typeOf(c.dtype), c.ragged_new);
  args_.v_new = finish(v_new_, typeOf(c.dtype), c.ragged_new);
  if (!c.ragged_new)
    return;
  std::vector<int32_t> cu;
  for (int64_t b = 0; b <= c.batch(); ++b)
    cu.push_back(int32_t(c.firstNew(b)));
  args_.cu_seqlens_k_new = table(cu.data(), kInt32, {c.batch() + 1});
}

void AppendInstance::makeRotary() {
  const AppendCase &c = case_;
  if (!c.rotary_dim)
    return;
  for (AppendTensor *t : {&cos_, &sin_}) {
    *t = rows(1, c.positions, 1, c.rotary_dim / 2, 0, false);
    for (int64_t p = 0; p < c.positions; ++p)
      for (int64_t i = 0; i < c.rotary_dim / 2; ++i) {
        const double angle = double(p) * std::pow(10000.0, -2.0 * double(i) / double(c.rotary_dim));
        reference::storeElement(t->host.data(), c.dtype, t->at(0, p, 0) + i,
                                float(t == &cos_ ? std::cos(angle) : std::sin(angle)));
      }
    t->shape = {c.positions, c.rotary_dim / 2};
    t->strides = {t->strides[1], 1};
  }
  args_.rotary_cos = finish(cos_, typeOf(c.dtype));
  args_.rotary_sin = finish(sin_, typeOf(c.dtype));
  args_.rotary_interleaved = c.interleaved;
  if (!c.offsets.empty())
    args_.rotary_seqlens = table(c.offsets.data(), kInt32, {c.batch()});
}

void AppendInstance::makeQ() {
  const AppendCase &c = case_;
  const bool ragged = !c.ragged_q.empty();
  const int64_t total = c.firstQ(c.batch());
  q_ = rows(ragged ? 1 : c.batch(), ragged ? total : c.sq, c.hq, c.d, 0, false);
  o_ = rows(ragged ? 1 : c.batch(), ragged ? total : c.sq, c.hq, c.dimV(), 0, false);
  for (int64_t b = 0; b < q_.shape[0]; ++b)
    for (int64_t i = 0; i < q_.shape[1]; ++i)
      random(q_, 'q', b, i);
  args_.q = finish(q_, typeOf(c.dtype), ragged);
  args_.o = finish(o_, typeOf(c.dtype), ragged);
  if (!ragged)
    return;
  std::vector<int32_t> cu;
  for (int64_t b = 0; b <= c.batch(); ++b)
    cu.push_back(int32_t(c.firstQ(b)));
  args_.cu_seqlens_q = table(cu.data(), kInt32, {c.batch() + 1});
  args_.max_seqlen_q = *std::max_element(c.ragged_q.begin(), c.ragged_q.end());
}

int64_t AppendInstance::position(int64_t b) const {
  return case_.offsets.empty() ? case_.used[size_t(b)] : case_.offsets[size_t(b)];
}

std::vector<float> AppendInstance::turned(const std::vector<std::byte> &from, int64_t at,
                                          int64_t position) const {
  const AppendCase &c = case_;
  std::vector<float> row;
  for (int64_t i = 0; i < c.d; ++i)
    row.push_back(reference::loadElement(from.data(), c.dtype, at + i));
  if (position >= c.positions)
    return row;
  const int64_t half = c.rotary_dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    float &a = row[size_t(c.interleaved ? 2 * i : i)], &b = row[size_t(c.interleaved ? 2 * i + 1 : i + half)];
    const float cos = reference::loadElement(cos_.host.data(), c.dtype, cos_.offset + position * half + i);
    const float sin = reference::loadElement(sin_.host.data(), c.dtype, sin_.offset + position * half + i);
    const float first = std::fma(a, cos, 0.0f - b * sin), second = std::fma(a, sin, b * cos);
    a = first;
    b = second;
  }
  return row;
}

void AppendInstance::expectCache() {
  const AppendCase &c = case_;
  const size_t bytes = size_t(dtypeBytes(c.dtype));
  expected_k_ = k_.host;
  expected_v_ = v_.host;
  for (int64_t b = 0; b < c.batch(); ++b)
    for (int64_t i = 0; i < c.newOf(b); ++i) {
      const auto [page, slot] = place(b, c.used[size_t(b)] + i);
      if (page < 0 || isDropped(b, i))
        continue;
      const int64_t block = c.ragged_new ? 0 : b, row = c.ragged_new ? c.firstNew(b) + i : i;
      for (int64_t h = 0; h < c.hk; ++h) {
        const auto key = turned(k_new_.host, k_new_.at(block, row, h), position(b) + i);
        for (int64_t e = 0; e < c.d; ++e)
          reference::storeElement(expected_k_.data(), c.dtype, k_.at(page, slot, h) + e, key[size_t(e)]);
        std::copy_n(v_new_.host.begin() + v_new_.at(block, row, h) * int64_t(bytes), size_t(c.dimV()) * bytes,
                    expected_v_.begin() + v_.at(page, slot, h) * int64_t(bytes));
      }
    }
}

void AppendInstance::expectQ() {
  const AppendCase &c = case_;
  expected_q_ = q_.host;
  for (int64_t b = 0; b < c.batch(); ++b)
    for (int64_t i = 0; i < c.rowsOfQ(b); ++i)
      for (int64_t h = 0; h < c.hq; ++h) {
        const int64_t at = c.ragged_q.empty() ? q_.at(b, i, h) : q_.at(0, c.firstQ(b) + i, h);
        const auto row = turned(q_.host, at, position(b) + (c.causal || c.window_left >= 0 ? i : 0));
        for (int64_t e = 0; e < c.d; ++e)
          reference::storeElement(expected_q_.data(), c.dtype, at + e, row[size_t(e)]);
      }
}

void AppendInstance::reset() {
  k_.device.write(k_.host);
  v_.device.write(v_.host);
  o_.device.write(o_.host);
}

reference::Comparison AppendInstance::compare() const {
  const AppendCase &c = case_;
  const int64_t bytes = dtypeBytes(c.dtype);
  // The keys of every sequence, one after another, without what is left out.
  std::vector<std::byte> keys, values;
  std::vector<int32_t> cu_q, cu_k = {0};
  for (int64_t b = 0; b < c.batch(); ++b) {
    const int64_t left = c.leftpad.empty() ? 0 : c.leftpad[size_t(b)];
    for (int64_t s = left; s < lengthAfter(b); ++s)
      for (int64_t h = 0; h < c.hk; ++h) {
        const auto [page, slot] = place(b, s);
        auto copy = [&](const std::vector<std::byte> &from, int64_t at, int64_t dim,
                        std::vector<std::byte> &to) {
          to.insert(to.end(), from.begin() + at * bytes, from.begin() + (at + dim) * bytes);
        };
        copy(expected_k_, k_.at(page, slot, h), c.d, keys);
        copy(expected_v_, v_.at(page, slot, h), c.dimV(), values);
      }
    cu_k.push_back(int32_t(int64_t(keys.size()) / bytes / c.hk / c.d));
  }
  for (int64_t b = 0; b <= c.batch(); ++b)
    cu_q.push_back(int32_t(c.firstQ(b)));
  reference::Problem r;
  r.dtype = c.dtype;
  r.batch = c.batch();
  r.total_q = cu_q.back();
  r.total_k = cu_k.back();
  r.heads_q = c.hq;
  r.heads_k = c.hk;
  r.head_dim_qk = c.d;
  r.head_dim_v = c.dimV();
  r.q = expected_q_.data() + q_.offset * bytes;
  r.k = keys.data();
  r.v = values.data();
  r.q_strides = {0, c.hq * c.d, c.d};
  r.k_strides = {0, c.hk * c.d, c.d};
  r.v_strides = {0, c.hk * c.dimV(), c.dimV()};
  r.cu_seqlens_q = cu_q.data();
  r.cu_seqlens_k = cu_k.data();
  r.window_left = c.window_left;
  r.window_right = c.causal ? 0 : -1;
  r.softmax_scale = 1.0f / std::sqrt(float(c.d));
  r.lse_empty = kInf;
  reference::Actual actual;
  const std::vector<std::byte> o = readO();
  for (int64_t i = 0; i < r.total_q * c.hq * c.dimV(); ++i)
    actual.o.push_back(double(reference::loadElement(o.data(), c.dtype, o_.offset + i)));
  return reference::compare(r, actual);
}

void AppendInstance::judge() const {
  const size_t bytes = size_t(dtypeBytes(case_.dtype));
  for (auto [name, t, expected] : {std::tuple{"k", &k_, &expected_k_}, {"v", &v_, &expected_v_}}) {
    const std::vector<std::byte> found = t->device.read();
    const auto at = std::mismatch(found.begin(), found.end(), expected->begin()).first;
    CHECK_MESSAGE(at == found.end(), std::string(name)
                                         << " is wrong at element " << size_t(at - found.begin()) / bytes
                                         << " of " << found.size() / bytes << ": " << case_.text());
  }
  for (const AppendTensor *t : {&k_new_, &v_new_, &q_, &cos_, &sin_})
    CHECK_MESSAGE(t->device.read() == t->host, "an input was written: " << case_.text());
  for (const AppendTensor &t : tables_)
    CHECK_MESSAGE(t.device.read() == t.host, "a table was written: " << case_.text());
  const reference::Comparison result = compare();
  Session::get().record(case_.dtype, result, case_.text());
  CHECK_MESSAGE(result.error <= result.bound, "o, worst at row " << result.worst_row << " head "
                                                                 << result.worst_head << ": "
                                                                 << case_.text());
}

void checkAppend(const std::vector<AppendCase> &all) {
  const Session &s = Session::get();
  std::vector<AppendCase> cases;
  std::vector<Row> texts;
  for (DType dtype : s.dtypes())
    for (AppendCase c : all) {
      c.dtype = dtype;
      cases.push_back(c);
      std::istringstream words(c.text());
      texts.emplace_back();
      for (std::string word; words >> word;)
        texts.back().push_back(word);
    }
  for (size_t i = 0; i < texts.size(); ++i) // words that are not there count as words, too
    texts[i].resize(24);
  for (size_t i : chosenOf(texts)) {
    AppendInstance instance(cases[i]);
    flashplus_plan *made = nullptr;
    require(flashplus_plan_create(s.context(), &instance.args(), &made), cases[i].text());
    const PlanPtr plan(made);
    const DeviceBuffer workspace = freshWorkspace(*plan);
    require(flashplus_plan_run(plan.get(), &instance.args(), workspace.data(), workspace.size(), nullptr),
            cases[i].text());
    require(flashplus_synchronize(s.context(), s.device(), nullptr), cases[i].text());
    instance.judge();
    const std::vector<std::byte> planned = instance.readO();
    instance.reset();
    require(flashplus_forward(s.context(), &instance.args(), nullptr), cases[i].text());
    require(flashplus_synchronize(s.context(), s.device(), nullptr), cases[i].text());
    CHECK_MESSAGE(planned == instance.readO(), "the second run differs: " << cases[i].text());
  }
}

} // namespace flashplus::conformance
