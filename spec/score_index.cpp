// SPDX-License-Identifier: BSD-3-Clause
// What an index of a score's tensor is: the number type that it is worked out in, and the element that it
// names.
#include "spec/score.h"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>

namespace flashplus {
namespace {

constexpr int64_t kMost = std::numeric_limits<int32_t>::max();

/// Leaves of an index; a query row lies before the end of its sequence, and a key before the end of its own.
enum Leaf { kBatch, kHead, kHeadK, kQuery, kSeqlenQ, kKey, kSeqlenK, kOne, kLeaves };

/// A whole number: a sum of multiples of the leaves, as long as it is one, and the values that it can have.
/// Sums and products in int32 are right modulo 2^32, so that only the end of a chain of them has to fit.
struct Whole {
  std::optional<std::array<int64_t, kLeaves>> multiples;
  int64_t least = 0, most = 0;

  bool fits() const { return least >= -kMost - 1 && most <= kMost; }
};

constexpr int64_t kFar = int64_t(1) << 62; ///< Beyond this an interval is given up.

std::optional<Whole> within(__int128 least, __int128 most) {
  if (least < -kFar || most > kFar)
    return {};
  return Whole{{}, int64_t(least), int64_t(most)};
}

/// Of a q + b sq, or a k + b sk: the ends are at corners of 0 <= q < sq <= kMaxScorePosition.
void addPair(int64_t a, int64_t b, __int128 &least, __int128 &most) {
  constexpr __int128 kEnd = kMaxScorePosition;
  const auto [low, high] = std::minmax({__int128(b), b * kEnd, a * (kEnd - 1) + b * kEnd});
  least += low;
  most += high;
}

std::optional<Whole> linear(const std::array<__int128, kLeaves> &wide) {
  std::array<int64_t, kLeaves> m;
  for (size_t i = 0; i < m.size(); ++i) {
    if (wide[i] < -kMost || wide[i] > kMost)
      return {};
    m[i] = int64_t(wide[i]);
  }
  __int128 least = m[kOne], most = m[kOne];
  for (int leaf : {kBatch, kHead, kHeadK}) {
    least += std::min<__int128>(0, __int128(m[size_t(leaf)]) * kMaxScorePosition);
    most += std::max<__int128>(0, __int128(m[size_t(leaf)]) * kMaxScorePosition);
  }
  addPair(m[kQuery], m[kSeqlenQ], least, most);
  addPair(m[kKey], m[kSeqlenK], least, most);
  std::optional<Whole> whole = within(least, most);
  if (whole)
    whole->multiples = m;
  return whole;
}

/// x a + y b
std::optional<Whole> sum(const Whole &a, int64_t x, const Whole &b, int64_t y) {
  if (a.multiples && b.multiples) {
    std::array<__int128, kLeaves> m;
    for (size_t i = 0; i < m.size(); ++i)
      m[i] = __int128((*a.multiples)[i]) * x + __int128((*b.multiples)[i]) * y;
    return linear(m);
  }
  auto ends = [](const Whole &w, int64_t times) {
    return std::minmax({__int128(w.least) * times, __int128(w.most) * times});
  };
  const auto [a_least, a_most] = ends(a, x);
  const auto [b_least, b_most] = ends(b, y);
  return within(a_least + b_least, a_most + b_most);
}

std::optional<Whole> product(const Whole &a, const Whole &b) {
  for (const auto &[number, other] : {std::pair{&a, &b}, {&b, &a}})
    if (number->least == number->most && number->least >= -kMost && number->least <= kMost)
      return sum(*other, number->least, Whole{std::array<int64_t, kLeaves>{}, 0, 0}, 0);
  const auto [least, most] = std::minmax({__int128(a.least) * b.least, __int128(a.least) * b.most,
                                          __int128(a.most) * b.least, __int128(a.most) * b.most});
  return within(least, most);
}

std::optional<Whole> multipleOf(Leaf leaf, int64_t times = 1) {
  std::array<__int128, kLeaves> m{};
  m[size_t(leaf)] = times;
  return linear(m);
}

/// Of a node whose operands are whole numbers; nothing if it is none.
std::optional<Whole> wholeOf(const ScoreNode &n, const Whole &a, const Whole &b) {
  switch (n.op) {
  case ScoreOp::Constant: { // what fp32 holds, as everywhere
    const double value = double(float(n.value));
    if (value != double(scoreIndex(value)))
      return {};
    return multipleOf(kOne, int64_t(value));
  }
  case ScoreOp::Batch:
    return multipleOf(kBatch);
  case ScoreOp::Head:
    return multipleOf(kHead);
  case ScoreOp::HeadK:
    return multipleOf(kHeadK);
  case ScoreOp::Query:
    return multipleOf(kQuery);
  case ScoreOp::Key:
    return multipleOf(kKey);
  case ScoreOp::SeqlenQ:
    return multipleOf(kSeqlenQ);
  case ScoreOp::SeqlenK:
    return multipleOf(kSeqlenK);
  case ScoreOp::Neg:
    return sum(a, -1, a, 0);
  case ScoreOp::Add:
    return sum(a, 1, b, 1);
  case ScoreOp::Sub:
    return sum(a, 1, b, -1);
  case ScoreOp::Mul:
    return product(a, b);
  case ScoreOp::Mod: // by a number: a length might be 0
    if (!a.fits() || b.least != b.most || b.least <= 0)
      return {};
    return within(0, b.least - 1);
  // What compares its operands wants them themselves, not modulo 2^32.
  case ScoreOp::Abs:
    if (!a.fits())
      return {};
    return within(a.least > 0 ? a.least : std::max<int64_t>(0, -a.most), std::max(-a.least, a.most));
  case ScoreOp::Min:
    if (!a.fits() || !b.fits())
      return {};
    return within(std::min(a.least, b.least), std::min(a.most, b.most));
  case ScoreOp::Max:
    if (!a.fits() || !b.fits())
      return {};
    return within(std::max(a.least, b.least), std::max(a.most, b.most));
  default:
    return {};
  }
}

} // namespace

bool ScoreExpr::isIntegerIndex(int node) const { return flashplus::isIntegerIndex(nodes, node); }

bool isIntegerIndex(std::span<const ScoreNode> nodes, int node) {
  std::vector<std::optional<Whole>> whole(size_t(node) + 1);
  for (int i = 0; i <= node; ++i) {
    const std::vector<int> &operands = nodes[size_t(i)].operands;
    Whole in[2];
    bool known = operands.size() <= 2;
    for (size_t o = 0; known && o < operands.size(); ++o) {
      known = whole[size_t(operands[o])].has_value();
      if (known)
        in[o] = *whole[size_t(operands[o])];
    }
    if (known)
      whole[size_t(i)] = wholeOf(nodes[size_t(i)], in[0], in[1]);
  }
  return whole.back() && whole.back()->fits();
}

bool ScoreExpr::clampsIndices() const {
  for (const ScoreNode &n : nodes)
    for (size_t o = 0; n.op == ScoreOp::Tensor && o < n.operands.size(); ++o) {
      const ScoreOp index = nodes[size_t(n.operands[o])].op;
      if (index != ScoreOp::Batch && index != ScoreOp::Head && index != ScoreOp::HeadK)
        return true;
    }
  return false;
}

int64_t scoreIndex(double value) {
  if (!(value > 0)) // NaN too
    return 0;
  return value < double(kMost) ? int64_t(value) : kMost;
}

} // namespace flashplus
