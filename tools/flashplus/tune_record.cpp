// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/tune_record.h"

#include "tools/flashplus/machine.h"

#include <algorithm>
#include <cmath>
#include <tuple>

namespace flashplus::tool {

double Trial::ratio(size_t cell) const {
  auto at = ratios.find(cell);
  return at == ratios.end() || at->second.empty() ? INFINITY : median(at->second);
}

std::string TuneGroup::today(const Prepared &chosen) const {
  // Texts begin with the operation; steps of one plan are of different ones.
  const std::string operation = spec.substr(0, spec.find(' ') + 1);
  for (const Prepared::Step &step : chosen.steps())
    if (step.spec.starts_with(operation))
      return step.schedule;
  return "";
}

Json cellJson(const TuneGroup &group, size_t cell, const Prepared &chosen) {
  const BenchCase &c = chosen.problem();
  Json out = {{"spec", group.spec}};
  out["queries"] = c.seqlen_q;
  out["keys"] = c.window_left >= 0 && c.window_right >= 0
                    ? std::min(c.seqlen_k, c.window_left + c.window_right + 1)
                    : c.seqlen_k;
  out["problem"] = c.json();
  out["reference"] = group.today(chosen);
  std::vector<const Trial *> order;
  for (const Trial &candidate : group.trials)
    order.push_back(&candidate);
  // Rounds that decide come before those that only pruned.
  auto rank = [&](const Trial *x) {
    auto at = x->ratios.find(cell);
    const size_t count = at == x->ratios.end() ? 0 : at->second.size();
    return std::tuple(x->fine.count(cell) ? 0 : count ? 1 : 2, x->ratio(cell), x->schedule);
  };
  std::sort(order.begin(), order.end(), [&](const Trial *a, const Trial *b) { return rank(a) < rank(b); });
  out["best"] = order.empty() || !std::isfinite(order.front()->ratio(cell)) ? group.today(chosen)
                                                                            : order.front()->schedule;
  Json timed = Json::array();
  for (const Trial *candidate : order) {
    if (!candidate->failed.empty()) {
      timed.push_back({{"schedule", candidate->schedule}, {"failed", candidate->failed}});
      continue;
    }
    if (!std::isfinite(candidate->ratio(cell)))
      continue; // pruned at other lengths
    std::vector<double> seconds, ratios;
    for (double s : candidate->seconds.at(cell))
      seconds.push_back(rounded(s));
    for (double r : candidate->ratios.at(cell))
      ratios.push_back(rounded(r));
    timed.push_back({{"schedule", candidate->schedule},
                     {"ratio", rounded(candidate->ratio(cell))},
                     {"tflops", rounded(c.flops() / median(seconds) / 1e12)},
                     {"coarse", candidate->fine.count(cell) == 0},
                     {"seconds", seconds},
                     {"ratios", ratios}});
  }
  out["timed"] = std::move(timed);
  return out;
}

} // namespace flashplus::tool
