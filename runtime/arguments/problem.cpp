// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/arguments/problem.h"

namespace flashplus {

KernelSpec ProblemSpec::spec() const {
  KernelSpec spec;
  static_cast<SpecFields &>(spec) = *this;
  spec.score = score->expr;
  return spec;
}

bool ProblemSpec::sameSpec(const ProblemSpec &o) const {
  return static_cast<const SpecFields &>(*this) == o &&
         (score == o.score || score->canonical == o.score->canonical);
}

} // namespace flashplus
