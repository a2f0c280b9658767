// SPDX-License-Identifier: BSD-3-Clause
// Two results become one (flashplus_merge_states): against fp64, rows of which a side saw no key bit for bit,
// any strides, in place; and halves of a real forward against the whole.
#include "reference/numeric.h"
#include "tests/conformance/check.h"

#include <flashplus/flashplus.h>

#include <cmath>
#include <cstring>
#include <doctest/doctest.h>
#include <limits>
#include <random>

using namespace flashplus;
using namespace flashplus::conformance;

namespace {

constexpr float kPlus = std::numeric_limits<float>::infinity();

struct MergeCase {
  DType dtype = DType::BF16;
  int64_t batch = 2, rows = 9, heads = 3, d = 64;
  bool ragged = false; ///< (total, heads, d); batch is then 1.
  char in_place = 0;   ///< 'a', 'b': o and lse are that side's.
  bool heads_first = false; ///< Memory has the rows of a head behind one another.
  int64_t gap = 0;          ///< Elements of poison behind every row, and rows of lse.
  bool want_lse = true;
  float scale = 3; ///< Of the differences between lse_a and lse_b.

  std::string text() const {
    return std::string(dtypeName(dtype)) + " " + std::to_string(batch) + " x " + std::to_string(rows) +
           " x " + std::to_string(heads) + " x " + std::to_string(d) + (ragged ? " packed" : "") +
           (in_place ? std::string(" in place of ") + in_place : "") + (heads_first ? " heads first" : "") +
           " gap " + std::to_string(gap) + (want_lse ? "" : " without lse");
  }
};

/// A tensor with memory: o (row, head, column) or an lse, whose columns are rows.
struct Held {
  std::vector<std::byte> host;
  DeviceBuffer device;
  std::vector<int64_t> shape, strides;
  DLTensor tensor = {};

  int64_t at(int64_t b, int64_t row, int64_t head) const {
    const size_t first = shape.size() - 3;
    return (first ? b * strides[0] : 0) + row * strides[first] + head * strides[first + 1];
  }
};

DLDataType typeOf(DType dtype) {
  return {uint8_t(dtype == DType::BF16 ? kDLBfloat : kDLFloat), uint8_t(dtypeBytes(dtype) * 8), 1};
}

void finish(Held &m, DType dtype, int64_t elements) {
  m.host.assign(size_t(elements * dtypeBytes(dtype)), std::byte(0xff)); // NaN
  m.tensor = {nullptr, Session::get().device(), int32_t(m.shape.size()), typeOf(dtype), m.shape.data(),
              m.strides.data(), 0};
}

Held makeO(const MergeCase &c, bool other) {
  Held m;
  const int64_t row = c.d + c.gap + (other ? 3 : 0);
  const int64_t s = c.heads_first ? row : row * c.heads, h = c.heads_first ? row * c.rows : row;
  m.shape = {c.batch, c.rows, c.heads, c.d};
  m.strides = {row * c.heads * c.rows, s, h, 1};
  if (c.ragged) {
    m.shape.erase(m.shape.begin());
    m.strides.erase(m.strides.begin());
  }
  finish(m, c.dtype, c.batch * c.rows * c.heads * row);
  return m;
}

/// lse as (b, row, head): at() works on it, the shape that the library sees is another.
struct Lse : Held {
  int64_t at(int64_t b, int64_t row, int64_t head) const {
    return (shape.size() == 3 ? b * strides[0] : 0) + head * strides[shape.size() - 2] + row;
  }
};

Lse makeLse(const MergeCase &c, bool other) {
  Lse m;
  const int64_t row = c.rows + c.gap + (other ? 2 : 0);
  m.shape = {c.batch, c.heads, c.rows};
  m.strides = {row * c.heads, row, 1};
  if (c.ragged) {
    m.shape.erase(m.shape.begin());
    m.strides.erase(m.strides.begin());
  }
  finish(m, DType::F32, c.batch * c.heads * row);
  return m;
}

/// What the lse of a row says of it: most rows are seen by both sides.
float lseOf(int64_t row, bool b, float usual) {
  switch (row % 9) {
  case 1:
    return b ? usual : -kPlus;
  case 2:
    return b ? usual : kPlus;
  case 3:
    return b ? -kPlus : usual;
  case 4:
    return b ? kPlus : usual;
  case 5:
    return b ? kPlus : -kPlus;
  case 6:
    return b ? -kPlus : kPlus;
  }
  return usual;
}

void upload(Held &m) {
  m.device = DeviceBuffer(m.host);
  m.tensor.data = m.device.data();
}

void checkMerge(const MergeCase &given) {
  MergeCase c = given;
  if (c.ragged)
    c.batch = 1;
  INFO(c.text());
  Held o[] = {makeO(c, false), makeO(c, true), makeO(c, true)};
  Lse lse[] = {makeLse(c, false), makeLse(c, true), makeLse(c, true)};
  std::mt19937 engine(7);
  std::normal_distribution<float> normal;
  auto forRows = [&](auto body) {
    for (int64_t b = 0; b < c.batch; ++b)
      for (int64_t row = 0; row < c.rows; ++row)
        for (int64_t head = 0; head < c.heads; ++head)
          body(b, row, head);
  };
  forRows([&](int64_t b, int64_t row, int64_t head) {
    for (int side = 0; side < 2; ++side) {
      const float value = lseOf(row + b + head, side == 1, normal(engine) * c.scale + 5);
      reference::storeElement(lse[side].host.data(), DType::F32, lse[side].at(b, row, head), value);
      for (int64_t e = 0; e < c.d; ++e) // of a side without a key whatever lies there
        if (!std::isinf(value))
          reference::storeElement(o[side].host.data(), c.dtype, o[side].at(b, row, head) + e, normal(engine));
    }
  });
  for (int i = 0; i < 3; ++i)
    upload(o[i]), upload(lse[i]);
  const int to = c.in_place == 'a' ? 0 : c.in_place == 'b' ? 1 : 2;
  flashplus_merge_args args = {.struct_size = sizeof args};
  args.o_a = &o[0].tensor, args.lse_a = &lse[0].tensor, args.o_b = &o[1].tensor, args.lse_b = &lse[1].tensor;
  args.o = &o[to].tensor, args.lse = c.want_lse ? &lse[to].tensor : nullptr;
  const Session &s = Session::get();
  require(flashplus_merge_states(s.context(), &args, nullptr), c.text());
  require(flashplus_synchronize(s.context(), s.device(), nullptr), c.text());

  const auto got_o = o[to].device.read(), got_lse = lse[to].device.read();
  std::vector<std::byte> expected_o = o[to].host, expected_lse = lse[to].host; // what is not a row stays
  double worst = 0, worst_lse = 0; // of what is allowed
  forRows([&](int64_t b, int64_t row, int64_t head) {
    auto lseAt = [&](int side) {
      return reference::loadElement(lse[side].host.data(), DType::F32, lse[side].at(b, row, head));
    };
    auto oAt = [&](int side, int64_t e) {
      return reference::loadElement(o[side].host.data(), c.dtype, o[side].at(b, row, head) + e);
    };
    const float a = lseAt(0), other = lseAt(1);
    const int64_t at = o[to].at(b, row, head), lse_at = lse[to].at(b, row, head);
    const bool mixed = !std::isinf(a) && !std::isinf(other);
    double want_lse = std::isinf(other) ? a : other;
    if (mixed) {
      const double most = std::max(a, other);
      want_lse = most + std::log(std::exp(a - most) + std::exp(other - most));
    }
    const float have_lse = reference::loadElement(got_lse.data(), DType::F32, lse_at);
    if (c.want_lse && mixed)
      worst_lse = std::max(worst_lse, std::fabs(have_lse - want_lse) /
                                          (std::ldexp(1, -20) + std::ldexp(std::fabs(want_lse), -22)));
    if (c.want_lse)
      reference::storeElement(expected_lse.data(), DType::F32, lse_at, mixed ? have_lse : float(want_lse));
    for (int64_t e = 0; e < c.d; ++e) {
      const float have = reference::loadElement(got_o.data(), c.dtype, at + e);
      double want = 0;
      if (mixed) {
        const double left = std::exp(a - want_lse) * oAt(0, e);
        const double right = std::exp(other - want_lse) * oAt(1, e);
        want = left + right;
        const double allowed = std::ldexp(std::fabs(want), -reference::precisionBits(c.dtype)) +
                               std::ldexp(std::fabs(left) + std::fabs(right), -19) + std::ldexp(1, -25);
        const double error = std::fabs(have - want) / allowed;
        worst = std::max(worst, error == error ? error : 1e9);
      } else if (!std::isinf(a) || !std::isinf(other)) {
        want = oAt(std::isinf(a) ? 1 : 0, e);
      }
      reference::storeElement(expected_o.data(), c.dtype, at + e, mixed ? have : float(want));
    }
  });
  CHECK(worst <= 1);
  CHECK(worst_lse <= 1);
  CHECK(got_o == expected_o);
  CHECK(got_lse == expected_lse);
  for (int i = 0; i < 2; ++i)
    if (i != to) {
      CHECK(o[i].device.read() == o[i].host);
      CHECK(lse[i].device.read() == lse[i].host);
    }
}

constexpr DType kDTypes[] = {DType::F16, DType::BF16, DType::F32}; // on GPUs, too

} // namespace

TEST_SUITE_BEGIN("merge");

TEST_CASE("merge: against fp64, and rows that a side has no key for") {
  for (DType dtype : kDTypes)
    for (int64_t d : {8, 20, 33, 64, 128, 256})
      checkMerge({.dtype = dtype, .d = d});
}

TEST_CASE("merge: packed rows, numbers of rows around a work item's") {
  for (DType dtype : kDTypes)
    for (int64_t rows : {1, 4, 7, 8, 17}) {
      checkMerge({.dtype = dtype, .rows = rows, .d = 40, .ragged = true});
      checkMerge({.dtype = dtype, .rows = rows, .d = 40});
    }
}

TEST_CASE("merge: any strides, in place and not") {
  for (DType dtype : kDTypes)
    for (bool ragged : {false, true})
      for (char in_place : {char(0), 'a', 'b'})
        for (auto [heads_first, gap] : {std::pair<bool, int64_t>{true, 0}, {false, 5}, {true, 1}})
          checkMerge({.dtype = dtype, .rows = 10, .d = 72, .ragged = ragged, .in_place = in_place,
                      .heads_first = heads_first, .gap = gap});
}

TEST_CASE("merge: without lse, and sides that count for nearly nothing") {
  for (DType dtype : kDTypes) {
    checkMerge({.dtype = dtype, .want_lse = false});
    checkMerge({.dtype = dtype, .in_place = 'b', .want_lse = false});
    checkMerge({.dtype = dtype, .scale = 8});
    checkMerge({.dtype = dtype, .scale = 1e-3f});
  }
  // 2^127 and more apart: the other side's weight is 0, or so small that it does not count.
  const Session &s = Session::get();
  const float far[] = {200, 1e30f, -1e30f, std::numeric_limits<float>::max()};
  std::vector<float> o_a(4 * 8, 2), o_b(4 * 8, 3), lse_a(4), lse_b(4);
  for (size_t i = 0; i < 4; ++i)
    lse_a[i] = far[i], lse_b[i] = -far[i];
  auto bytes = [](const std::vector<float> &v) {
    const auto *at = reinterpret_cast<const std::byte *>(v.data());
    return std::vector<std::byte>(at, at + v.size() * 4);
  };
  DeviceBuffer da(bytes(o_a)), db(bytes(o_b)), la(bytes(lse_a)), lb(bytes(lse_b));
  int64_t o_shape[] = {4, 1, 8}, lse_shape[] = {1, 4};
  auto tensor = [&](DeviceBuffer &b, int64_t *shape, int rank) {
    return DLTensor{b.data(), s.device(), rank, typeOf(DType::F32), shape, nullptr, 0};
  };
  DLTensor ta = tensor(da, o_shape, 3), tb = tensor(db, o_shape, 3), tla = tensor(la, lse_shape, 2),
           tlb = tensor(lb, lse_shape, 2);
  const flashplus_merge_args args = {sizeof args, &ta, &tla, &tb, &tlb, &ta, &tla};
  require(flashplus_merge_states(s.context(), &args, nullptr), "far apart");
  require(flashplus_synchronize(s.context(), s.device(), nullptr), "far apart");
  const auto out = da.read(), lse = la.read();
  for (int64_t i = 0; i < 4; ++i) {
    CHECK(reference::loadElement(out.data(), DType::F32, i * 8 + 7) == (i == 2 ? 3 : 2));
    CHECK(reference::loadElement(lse.data(), DType::F32, i) == std::max(lse_a[size_t(i)], lse_b[size_t(i)]));
  }
}

TEST_CASE("merge: a NaN is no key's absence") {
  for (DType dtype : kDTypes)
    for (bool b : {false, true}) {
      const Session &s = Session::get();
      std::vector<std::byte> o(size_t(8 * dtypeBytes(dtype))), one(4), nan(4);
      reference::storeElement(one.data(), DType::F32, 0, 1);
      reference::storeElement(nan.data(), DType::F32, 0, kNaN);
      DeviceBuffer da(o), db(o), la(b ? one : nan), lb(b ? nan : one);
      int64_t o_shape[] = {1, 1, 8}, lse_shape[] = {1, 1};
      auto tensor = [&](DeviceBuffer &m, DType type, int64_t *shape, int rank) {
        return DLTensor{m.data(), s.device(), rank, typeOf(type), shape, nullptr, 0};
      };
      DLTensor ta = tensor(da, dtype, o_shape, 3), tb = tensor(db, dtype, o_shape, 3),
               tla = tensor(la, DType::F32, lse_shape, 2), tlb = tensor(lb, DType::F32, lse_shape, 2);
      const flashplus_merge_args args = {sizeof args, &ta, &tla, &tb, &tlb, &ta, &tla};
      require(flashplus_merge_states(s.context(), &args, nullptr), "NaN");
      require(flashplus_synchronize(s.context(), s.device(), nullptr), "NaN");
      CHECK(std::isnan(reference::loadElement(da.read().data(), dtype, 3)));
      CHECK(std::isnan(reference::loadElement(la.read().data(), DType::F32, 0)));
    }
}

TEST_CASE("merge: halves of a forward are the whole") {
  const Session &s = Session::get();
  for (DType dtype : s.dtypes()) {
    const int64_t sq = 20, sk = 48, half = 24;
    const Case c = {.dtype = dtype, .sq = sq, .sk = sk, .hq = 2, .hk = 2, .d = 64};
    Instance whole(c);
    const flashplus_forward_args &all = whole.args();
    DLTensor k[2], v[2];
    int64_t shape[4];
    std::copy(all.k->shape, all.k->shape + 4, shape);
    shape[1] = half;
    std::vector<int64_t> strides(4, 1);
    for (int d = 2; d >= 0; --d)
      strides[size_t(d)] = all.k->strides ? all.k->strides[d] : strides[size_t(d) + 1] * all.k->shape[d + 1];
    if (all.k->strides)
      strides[3] = all.k->strides[3];
    Instance second(c); // its o and lse are the other half's
    for (int i = 0; i < 2; ++i) {
      k[i] = *all.k, v[i] = *all.v;
      for (DLTensor *t : {&k[i], &v[i]}) {
        t->shape = shape, t->strides = strides.data();
        t->byte_offset += uint64_t(i * half * strides[1] * dtypeBytes(dtype));
      }
    }
    whole.resetOutputs();
    second.resetOutputs();
    require(flashplus_forward(s.context(), &all, nullptr), c.text());
    require(flashplus_synchronize(s.context(), s.device(), nullptr), c.text());
    const auto expected = whole.unpack(whole.readO(), whole.readLse());
    for (int i = 0; i < 2; ++i) {
      flashplus_forward_args part = i ? second.args() : all;
      part.q = all.q, part.k = &k[i], part.v = &v[i];
      require(flashplus_forward(s.context(), &part, nullptr), c.text());
    }
    flashplus_merge_args args = {.struct_size = sizeof args};
    args.o_a = all.o, args.lse_a = all.lse, args.o_b = second.args().o, args.lse_b = second.args().lse;
    args.o = all.o, args.lse = all.lse;
    require(flashplus_merge_states(s.context(), &args, nullptr), c.text());
    require(flashplus_synchronize(s.context(), s.device(), nullptr), c.text());
    const auto got = whole.unpack(whole.readO(), whole.readLse());
    // Halves and their merge are rounded to the storage type, and so are the probabilities.
    const double unit = std::ldexp(1, -reference::precisionBits(dtype)), tolerance = std::max(6 * unit, 1e-5);
    double worst = 0, worst_lse = 0;
    for (size_t i = 0; i < got.o.size(); ++i)
      worst = std::max(worst, double(std::fabs(got.o[i] - expected.o[i])));
    for (size_t i = 0; i < got.lse.size(); ++i)
      worst_lse = std::max(worst_lse, double(std::fabs(got.lse[i] - expected.lse[i])));
    CHECK(got.o.size() == size_t(sq * 2 * 64));
    CHECK_MESSAGE(worst <= tolerance, dtypeName(dtype));
    CHECK(worst_lse <= 1e-5);
  }
}

TEST_CASE("merge: nothing to do, and refusals that write nothing") {
  const Session &s = Session::get();
  checkMerge({.batch = 0});
  checkMerge({.rows = 0});
  checkMerge({.heads = 0});
  MergeCase c;
  Held o = makeO(c, false), other = makeO(c, false);
  Lse lse = makeLse(c, false);
  upload(o), upload(other), upload(lse);
  flashplus_merge_args args = {sizeof args, &o.tensor, &lse.tensor, &o.tensor, &lse.tensor, &other.tensor,
                               nullptr};
  other.shape[1] -= 1;
  CHECK(flashplus_merge_states(s.context(), &args, nullptr) == FLASHPLUS_INVALID_ARGUMENT);
  CHECK(std::string(flashplus_last_error()) ==
        "o has shape (2, 8, 3, 64); it must be that of o_a = (2, 9, 3, 64)");
  CHECK(other.device.read() == other.host);
}

TEST_SUITE_END();
