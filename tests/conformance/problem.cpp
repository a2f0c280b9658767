// SPDX-License-Identifier: BSD-3-Clause
#include "tests/conformance/problem.h"

#include "tests/conformance/session.h"

#include <algorithm>
#include <numeric>
#include <sstream>

namespace flashplus::conformance {

int64_t Case::start(const std::vector<int64_t> &lengths, int64_t b) {
  return lengths.empty() ? 0 : std::accumulate(lengths.begin(), lengths.begin() + b, int64_t(0));
}

int64_t Case::length(const std::vector<int64_t> &ragged, const std::vector<int32_t> &used, int64_t dense,
                     int64_t b) {
  const int64_t n = ragged.empty() ? dense : ragged[size_t(b)];
  return used.empty() ? n : std::min<int64_t>(n, used[size_t(b)]);
}

namespace {

template <class T> std::string list(const std::vector<T> &values) {
  std::ostringstream out;
  for (size_t i = 0; i < values.size(); ++i)
    out << (i ? "," : "[") << values[i];
  out << "]";
  return out.str();
}

void layoutText(std::ostringstream &out, const char *name, const Layout &l) {
  static const char *const orders[] = {"bshd", "bhsd", "sbhd"};
  if (l.order == Layout::Order::Bshd && !l.gap && !l.shift && !l.broadcast)
    return;
  out << ' ' << name << '=' << orders[int(l.order)];
  if (l.gap)
    out << "+gap" << l.gap;
  if (l.shift)
    out << "+shift" << l.shift;
  if (l.broadcast)
    out << "+broadcast";
}

} // namespace

std::string Case::text() const {
  std::ostringstream out;
  out << dtypeName(dtype);
  if (ragged())
    out << " q=" << list(ragged_q) << " k=" << list(ragged_k);
  else
    out << " b=" << batch << " sq=" << sq << " sk=" << sk;
  out << " h=" << hq << '/' << hk << " d=" << d;
  if (dimV() != d)
    out << " dv=" << dv;
  auto number = [&](const char *name, auto value, auto usual) {
    if (value != usual)
      out << ' ' << name << '=' << value;
  };
  number("tail_q", tail_q, 0);
  number("tail_k", tail_k, 0);
  number("max_q", max_q, -1);
  number("max_k", max_k, -1);
  if (!used_q.empty())
    out << " used_q=" << list(used_q);
  if (!used_k.empty())
    out << " used_k=" << list(used_k);
  if (causal)
    out << " causal";
  number("left", window_left, -1);
  number("right", window_right, -1);
  if (scale)
    out << " scale=" << *scale;
  number("softcap", softcap, 0.0f);
  if (alibi != Alibi::None)
    out << " alibi=" << (alibi == Alibi::PerHead ? "h" : "bh");
  if (!score.empty())
    out << " score={" << score << '}';
  number("aux_at_start", aux_at_start, false);
  number("lse_empty", lse_empty, kInf);
  if (!want_lse)
    out << " no-lse";
  number("lse_gap", lse_gap, 0);
  number("splits", num_splits, 1);
  if (batch_invariant)
    out << " batch-invariant";
  layoutText(out, "q", q_layout);
  layoutText(out, "k", k_layout);
  layoutText(out, "v", v_layout);
  layoutText(out, "o", o_layout);
  if (packed_qkv)
    out << " packed-qkv";
  return out.str();
}

std::vector<Case> forEveryDtype(const std::vector<Case> &cases) {
  std::vector<Case> all;
  for (DType dtype : Session::get().dtypes())
    for (Case c : cases) {
      c.dtype = dtype;
      all.push_back(std::move(c));
    }
  return all;
}

} // namespace flashplus::conformance
