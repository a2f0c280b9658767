// SPDX-License-Identifier: BSD-3-Clause
#include "tests/conformance/problem.h"

#include <algorithm>
#include <numeric>
#include <sstream>
#include <type_traits>

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

std::string valueText(const std::string &value) { return value; }
std::string valueText(DType dtype) { return std::string(dtypeName(dtype)); }
std::string valueText(Alibi alibi) {
  return alibi == Alibi::None ? "none" : alibi == Alibi::PerHead ? "h" : "bh";
}
std::string valueText(const Fill &fill) { return fill ? "given" : "random"; }

template <class T>
  requires std::is_arithmetic_v<T>
std::string valueText(T value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

template <class T> std::string valueText(const std::vector<T> &values);

std::string valueText(const std::optional<float> &value) { return value ? valueText(*value) : "usual"; }

std::string valueText(const std::optional<DType> &value) { return value ? valueText(*value) : "none"; }

std::string valueText(const Layout &l) {
  static const char *const orders[] = {"bshd", "bhsd", "sbhd"};
  std::string out = orders[int(l.order)];
  if (l.gap)
    out += "+gap" + valueText(l.gap);
  if (l.shift)
    out += "+shift" + valueText(l.shift);
  if (l.broadcast)
    out += "+broadcast";
  return out;
}

std::string valueText(const Pages &p) {
  if (!p.size)
    return "none";
  static const char *const forms[] = {"table", "indices", "rows", "order"};
  return valueText(p.size) + forms[int(p.form)] + (p.heads_first ? "+hnd" : "") +
         (p.interleaved ? "+interleaved" : "") + (p.cumulative ? "+cu" : "");
}

std::string valueText(const Aux &aux) {
  const size_t values = std::hash<std::string>{}(valueText(aux.values));
  return aux.name + valueText(aux.shape) + (aux.values.empty() ? "" : "#" + valueText(values)) +
         (aux.transposed ? "+transposed" : "");
}

std::string valueText(const std::pair<std::string, float> &scalar) {
  return scalar.first + "=" + valueText(scalar.second);
}

template <class T> std::string valueText(const std::vector<T> &values) {
  std::string out = "[";
  for (size_t i = 0; i < values.size(); ++i)
    out += (i ? "," : "") + valueText(values[i]);
  return out + "]";
}

} // namespace

std::vector<Case::Field> Case::fields() const {
  static const Case usual;
  std::vector<Field> fields;
  auto add = [&](const char *name, auto Case::*member) {
    std::string value = valueText(this->*member);
    const bool is_usual = value == valueText(usual.*member);
    fields.push_back({name, std::move(value), is_usual});
  };
  add("dtype", &Case::dtype);
  add("b", &Case::batch);
  add("sq", &Case::sq);
  add("sk", &Case::sk);
  add("hq", &Case::hq);
  add("hk", &Case::hk);
  add("d", &Case::d);
  add("dv", &Case::dv);
  add("ragged_q", &Case::ragged_q);
  add("ragged_k", &Case::ragged_k);
  add("tail_q", &Case::tail_q);
  add("tail_k", &Case::tail_k);
  add("max_q", &Case::max_q);
  add("max_k", &Case::max_k);
  add("used_q", &Case::used_q);
  add("used_k", &Case::used_k);
  add("causal", &Case::causal);
  add("left", &Case::window_left);
  add("right", &Case::window_right);
  add("scale", &Case::scale);
  add("softcap", &Case::softcap);
  add("alibi", &Case::alibi);
  add("score", &Case::score);
  add("aux", &Case::aux);
  add("scalars", &Case::scalars);
  add("aux_at_start", &Case::aux_at_start);
  add("dropout", &Case::dropout);
  add("rng_seed", &Case::rng_seed);
  add("rng_offset", &Case::rng_offset);
  add("rng_pointer", &Case::rng_pointer);
  add("sinks", &Case::sinks);
  add("sink_values", &Case::sink_values);
  add("lse_without_sinks", &Case::lse_without_sinks);
  add("lse_empty", &Case::lse_empty);
  add("lse", &Case::want_lse);
  add("lse_gap", &Case::lse_gap);
  add("splits", &Case::num_splits);
  add("batch_invariant", &Case::batch_invariant);
  add("schedule", &Case::schedule);
  add("q", &Case::q_layout);
  add("k", &Case::k_layout);
  add("v", &Case::v_layout);
  add("o", &Case::o_layout);
  add("pages", &Case::pages);
  add("leftpad", &Case::leftpad);
  add("packed_qkv", &Case::packed_qkv);
  add("fill", &Case::fill);
  add("first_batch", &Case::first_batch);
  add("seed", &Case::seed);
  return fields;
}

std::string Case::text() const {
  std::string out;
  for (const Field &f : fields()) {
    const std::string name = f.name;
    const bool is_size =
        name == "dtype" || name == "sq" || name == "sk" || name == "hq" || name == "hk" || name == "d";
    if (!f.usual || is_size)
      out += (out.empty() ? "" : " ") + (name == "dtype" ? f.value : name + "=" + f.value);
  }
  return out;
}

} // namespace flashplus::conformance
