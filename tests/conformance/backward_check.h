// SPDX-License-Identifier: BSD-3-Clause
// Runs and judges backwards: the same rules for every case, whatever its theme.
#pragma once

#include "tests/conformance/backward_instance.h"
#include "tests/conformance/check.h"

namespace flashplus::conformance {

/// Each of `cases` with another choice of what may be given or left out (dlse, delta).
std::vector<BackwardCase> backwards(const std::vector<Case> &cases);
/// Each once per storage type of the device.
std::vector<BackwardCase> forEveryDtype(const std::vector<BackwardCase> &cases);
/// Each head dim in one storage type, unless the run is a soak: kernels take long to compile.
std::vector<BackwardCase> dtypesInTurn(const std::vector<BackwardCase> &cases);
std::vector<BackwardCase> chosen(std::vector<BackwardCase> cases);

/// A GPU has gradients of plain scores only. Null then, and the refusal is counted and shown in the summary;
/// a refusal of anything else fails the test.
PlanPtr makeBackwardPlan(const BackwardInstance &instance);
/// Poisoned gradients and workspace, one run of the plan.
BackwardOutputs runBackwardPlan(BackwardInstance &instance, flashplus_plan &plan);
/// Poisoned gradients, flashplus_backward in `context`, or in the session's.
BackwardOutputs runBackward(BackwardInstance &instance, flashplus_context *context = nullptr);

/// Plans chosen(cases), runs each by plan and by flashplus_backward (on the emulator, a part of them), and
/// checks
///  - dq, dk and dv against fp64 by the rule of reference/compare_backward.h, and delta,
///  - that both runs give the same bits, and leave what is not a valid row, and the inputs, as it was,
///  - that the pairs of tiles visited are those of a walk over what is visible.
void checkBackward(const std::vector<BackwardCase> &cases);
inline void checkBackward(const std::vector<Case> &cases) { checkBackward(forEveryDtype(backwards(cases))); }

/// The same without the comparison with the reference, for tests that know the exact result; nothing where
/// the device refuses the case.
std::optional<reference::Gradients> runBackwardCase(const BackwardCase &c);

} // namespace flashplus::conformance
