// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "spec/score.h"

namespace flashplus {

/// Node `node` as text in the grammar of score.h; scalars and tensors are p<slot> and t<slot>. A node below
/// it that has a name in `names` (one a node, "" for none; or empty) is written as that.
std::string printScore(std::span<const ScoreNode> nodes, int node, std::span<const std::string> names = {});

} // namespace flashplus
