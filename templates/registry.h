// SPDX-License-Identifier: BSD-3-Clause
// Which algorithms there are, and what of a spec's schedules a device can run.
#pragma once

#include "templates/algorithm.h"
#include "templates/plan.h"

#include <string>
#include <vector>

namespace flashplus {

/// Null if there is none of that name.
const Algorithm *findAlgorithm(std::string_view name);
std::vector<std::string> algorithmNames();

/// Unsupported, with a sentence that says what to use, if no algorithm for the target takes the spec's
/// dtypes.
Status checkDTypes(const SpecFields &spec, const Target &target);

/// Every candidate for a spec on a device, in the order of the tables: best first for large problems; the
/// later ones serve short queries and stand in for one that does not compile. Empty when nothing fits.
std::vector<Candidate> feasibleCandidates(const KernelSpec &spec, const DeviceProfile &device);

/// Their schedules. Warm-up compiles all of them, so that no shape of a warmed spec compiles.
std::vector<Schedule> feasibleSchedules(const KernelSpec &spec, const DeviceProfile &device);

/// Every feasible schedule worth timing for a spec on a device, of all algorithms, in a fixed order: the
/// product of the knobs' values.
std::vector<Schedule> scheduleSpace(const KernelSpec &spec, const DeviceProfile &device);

/// The schedule with the standard value of every knob that it does not name. Unknown names stay, for
/// launchSchema to refuse.
Schedule completeSchedule(Schedule schedule);

/// The launch schema of a spec under a complete schedule. Fails with Unsupported when the algorithm or a knob
/// is not known, or a knob is outside what its algorithm allows, naming it.
Result<LaunchSchema> launchSchema(const KernelSpec &spec, const Schedule &schedule, const Target &target);

/// Whether the schedule can be launched on this very device, which may have less shared memory than its kind.
bool runsOnDevice(const KernelSpec &spec, const Schedule &schedule, const DeviceProfile &device);

/// What an item of a schedule is; of an unknown algorithm nothing.
ItemTraits itemTraits(const Schedule &schedule);

/// A kernel that some plan wants.
struct PlannedKernel {
  KernelSpec spec;
  Schedule schedule;
};

} // namespace flashplus
