// SPDX-License-Identifier: BSD-3-Clause
// Attention sinks: a logit of every query head that is in the softmax of all its rows and has no value. It
// enters where a row is finished, once, so that nothing before knows of it (docs/rationale/sinks.md).
#pragma once

#include "ir/ir.h"
#include "spec/fields.h"

#include <optional>

namespace flashplus::softmax {

struct Sink {
  Val logit;  ///< fp32, in base 2: times log2(e).
  Val in_lse; ///< i1: the row's LSE includes it.
};

/// Reads the sink of query head `head`, counted from 0 in a sequence; nothing if the spec has none.
std::optional<Sink> sinkOf(Ir &ir, const ParamReader &params, const SpecFields &spec, Val head);

} // namespace flashplus::softmax
