// SPDX-License-Identifier: BSD-3-Clause
// What a result file says of the machine: the device and its driver, clocks where they can be read, the date.
#pragma once

#include "tools/flashplus/command.h"

#include <memory>

namespace flashplus::tool {

/// "2026-11-24T17:05:33Z"
std::string nowText();

/// Reads clocks, power and temperature of one device. NVIDIA's management library is opened at run time;
/// without it, or where the system does not say, the answers are empty objects.
class MachineSensors {
public:
  /// `model` is the GPU's name, by which the management library's device is checked.
  MachineSensors(DLDevice device, const std::string &model);
  ~MachineSensors();
  MachineSensors(const MachineSensors &) = delete;
  std::string driver() const; ///< "580.159.04", or "".
  /// {"sm_mhz": 1980, "memory_mhz": 3201, "watts": 86.5, "celsius": 39} of a GPU, {"mhz": ...} of a CPU.
  Json read() const;
  /// The highest clocks that the device allows.
  Json limits() const;

private:
  struct Nvml;
  std::unique_ptr<Nvml> nvml_;
  bool cpu_ = false;
};

/// {"date", "version", "build", "device": {name, model, target, detail, driver, ...}}: how a result file
/// begins.
Result<Json> machineFacts(flashplus_context *context, DLDevice device);
/// The entry of flashplus_describe for `device`; NoDevice with the reason if it is not there.
Result<Json> describeDevice(flashplus_context *context, DLDevice device);

/// The model of the device that a result file is of, `flashplus bench`'s or bench/forward_gpu.py's; "" if it
/// doesn't say.
std::string deviceModel(const Json &result);

/// JSON text of `head` with `name`: [rows] added, a row a line: long files stay readable and differences
/// small.
std::string jsonLines(const Json &head, const std::string &name, const std::vector<Json> &rows);
/// Replaces `path` atomically.
Status writeText(const std::string &path, const std::string &text);
Result<Json> readJson(const std::string &flag, const std::string &path);

/// To six significant digits: more is noise in a timing.
double rounded(double value);
/// Of a copy; 0 of none.
double median(std::vector<double> values);

} // namespace flashplus::tool
