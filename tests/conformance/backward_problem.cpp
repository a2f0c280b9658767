// SPDX-License-Identifier: BSD-3-Clause
#include "tests/conformance/backward_problem.h"

namespace flashplus::conformance {
namespace {

/// As the forward's fields have it.
std::string layoutText(const Layout &layout) {
  Case c;
  c.q_layout = layout;
  for (const Case::Field &field : c.fields())
    if (std::string_view(field.name) == "q")
      return field.value;
  return "";
}

} // namespace

std::vector<Case::Field> BackwardCase::fields() const {
  std::vector<Case::Field> fields = forward.fields();
  auto flag = [&](const char *name, bool value) { fields.push_back({name, value ? "1" : "0", !value}); };
  flag("dlse", dlse);
  flag("delta", delta);
  flag("after_forward", after_forward);
  flag("infinite_lse", infinite_lse);
  flag("score_grads", score_grads);
  flag("any_order", any_order);
  for (auto [name, layout] :
       {std::pair{"dout", &dout_layout}, {"dq", &dq_layout}, {"dk", &dk_layout}, {"dv", &dv_layout}})
    fields.push_back({name, layoutText(*layout), layoutText(*layout) == layoutText({})});
  flag("packed_dqkv", packed_dqkv);
  return fields;
}

std::string BackwardCase::text() const {
  std::string out = forward.text();
  const size_t first = forward.fields().size();
  const std::vector<Case::Field> all = fields();
  for (size_t i = first; i < all.size(); ++i)
    if (!all[i].usual)
      out += std::string(" ") + all[i].name + "=" + all[i].value;
  return out;
}

} // namespace flashplus::conformance
