// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/machine.h"

#include "tools/io/file.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <dlfcn.h>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <unistd.h>

namespace flashplus::tool {

std::string nowText() {
  const std::time_t now = std::time(nullptr);
  std::tm utc = {};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

/// The few functions that we call, by their names in libnvidia-ml.so.1 (a stable ABI).
struct MachineSensors::Nvml {
  using Handle = void *;
  void *library = nullptr;
  Handle device = nullptr;
  int (*shutdown)() = nullptr;
  int (*systemGetDriverVersion)(char *, unsigned) = nullptr;
  int (*deviceGetClockInfo)(Handle, int, unsigned *) = nullptr;
  int (*deviceGetMaxClockInfo)(Handle, int, unsigned *) = nullptr;
  int (*deviceGetPowerUsage)(Handle, unsigned *) = nullptr;
  int (*deviceGetTemperature)(Handle, int, unsigned *) = nullptr;
  static constexpr int kSm = 1, kMemory = 2, kCelsius = 0;

  template <class Function> bool find(Function &to, const char *symbol) {
    to = reinterpret_cast<Function>(dlsym(library, symbol));
    return to != nullptr;
  }

  bool open(int ordinal, const std::string &model) {
    int (*init)() = nullptr;
    int (*handleByIndex)(unsigned, Handle *) = nullptr;
    int (*deviceGetName)(Handle, char *, unsigned) = nullptr;
    library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library || !find(init, "nvmlInit_v2") || !find(shutdown, "nvmlShutdown") ||
        !find(systemGetDriverVersion, "nvmlSystemGetDriverVersion") ||
        !find(handleByIndex, "nvmlDeviceGetHandleByIndex_v2") || !find(deviceGetName, "nvmlDeviceGetName") ||
        !find(deviceGetClockInfo, "nvmlDeviceGetClockInfo") ||
        !find(deviceGetMaxClockInfo, "nvmlDeviceGetMaxClockInfo") ||
        !find(deviceGetPowerUsage, "nvmlDeviceGetPowerUsage") ||
        !find(deviceGetTemperature, "nvmlDeviceGetTemperature") || init() != 0) {
      shutdown = nullptr;
      return false;
    }
    char name[128] = "";
    // Its numbers are not CUDA's where CUDA_VISIBLE_DEVICES renumbers; another model is surely not the one.
    if (handleByIndex(static_cast<unsigned>(ordinal), &device) != 0 ||
        deviceGetName(device, name, sizeof name) != 0 || name != model)
      device = nullptr;
    return true;
  }
  ~Nvml() {
    if (shutdown)
      shutdown();
    if (library)
      dlclose(library);
  }
};

MachineSensors::MachineSensors(DLDevice device, const std::string &model)
    : cpu_(device.device_type == kDLCPU) {
  if (device.device_type != kDLCUDA)
    return;
  nvml_ = std::make_unique<Nvml>();
  if (!nvml_->open(device.device_id, model))
    nvml_.reset();
}
MachineSensors::~MachineSensors() = default;

std::string MachineSensors::driver() const {
  char text[96] = "";
  return nvml_ && nvml_->systemGetDriverVersion(text, sizeof text) == 0 ? text : "";
}

Json MachineSensors::read() const {
  Json out = Json::object();
  if (cpu_) {
    double khz = 0;
    if (std::ifstream("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq") >> khz)
      out["mhz"] = std::round(khz / 1000);
    return out;
  }
  if (!nvml_ || !nvml_->device)
    return out;
  unsigned value = 0;
  if (nvml_->deviceGetClockInfo(nvml_->device, Nvml::kSm, &value) == 0)
    out["sm_mhz"] = value;
  if (nvml_->deviceGetClockInfo(nvml_->device, Nvml::kMemory, &value) == 0)
    out["memory_mhz"] = value;
  if (nvml_->deviceGetPowerUsage(nvml_->device, &value) == 0)
    out["watts"] = std::round(value / 100.0) / 10;
  if (nvml_->deviceGetTemperature(nvml_->device, Nvml::kCelsius, &value) == 0)
    out["celsius"] = value;
  return out;
}

Json MachineSensors::limits() const {
  Json out = Json::object();
  unsigned value = 0;
  if (nvml_ && nvml_->device && nvml_->deviceGetMaxClockInfo(nvml_->device, Nvml::kSm, &value) == 0)
    out["sm_mhz"] = value;
  if (nvml_ && nvml_->device && nvml_->deviceGetMaxClockInfo(nvml_->device, Nvml::kMemory, &value) == 0)
    out["memory_mhz"] = value;
  return out;
}

Result<Json> describeDevice(flashplus_context *context, DLDevice device) {
  const std::string name = device.device_type == kDLCPU    ? "cpu"
                           : device.device_type == kDLCUDA ? "cuda:" + std::to_string(device.device_id)
                                                           : "emulator";
  Result<Json> all = describe(context);
  if (!all)
    return all.status();
  for (const Json &entry : all->value("devices", Json::array()))
    if (entry.value("name", "") == name)
      return entry;
  for (const Json &entry : all->value("missing", Json::array()))
    if (entry.value("name", "") == name ||
        (device.device_type == kDLCUDA && entry.value("name", "") == "cuda"))
      return Status(StatusCode::NoDevice, name + ": " + entry.value("reason", ""));
  return Status(StatusCode::NoDevice, name + " is not there");
}

Result<Json> machineFacts(flashplus_context *context, DLDevice device) {
  Result<Json> found = describeDevice(context, device);
  if (!found)
    return found.status();
  Result<Json> all = describe(context);
  if (!all)
    return all.status();
  MachineSensors sensors(device, found->value("model", ""));
  if (std::string driver = sensors.driver(); !driver.empty())
    (*found)["driver"] = driver;
  if (Json limits = sensors.limits(); !limits.empty())
    (*found)["clock_limits"] = limits;
  return Json{{"date", nowText()},
              {"version", flashplus_version()},
              {"build", (*all)["compiler"].value("build", "")},
              {"device", *found}};
}

std::string deviceModel(const Json &result) {
  for (const auto &[device, name] : {std::pair{"device", "model"}, {"gpu", "name"}})
    if (const auto at = result.find(device); at != result.end() && at->is_object())
      if (const auto model = at->find(name); model != at->end())
        return model->is_string() ? model->get<std::string>() : "";
  return "";
}

std::string jsonLines(const Json &head, const std::string &name, const std::vector<Json> &rows) {
  auto dump = [](const Json &value, int indent) {
    return value.dump(indent, ' ', false, Json::error_handler_t::replace);
  };
  std::string text = "{\n";
  for (const auto &[key, value] : head.items())
    text += " " + dump(key, -1) + ": " + dump(value, -1) + ",\n";
  text += " " + dump(name, -1) + ": [";
  for (size_t i = 0; i < rows.size(); ++i)
    text += (i ? ",\n  " : "\n  ") + dump(rows[i], -1);
  return text + "\n ]\n}\n";
}

Status writeText(const std::string &path, const std::string &text) {
  return io::writeFileAtomically(path, [&](const io::WritePiece &write) {
    return write(std::as_bytes(std::span(text.data(), text.size())));
  });
}

Result<Json> readJson(const std::string &flag, const std::string &path) {
  auto file = io::InputFile::open(path);
  if (!file)
    return invalidArgument(flag + ": " + file.status().message());
  if (file->size() > uint64_t(256) << 20)
    return invalidArgument(flag + ": " + path + " has " + std::to_string(file->size()) +
                           " bytes; at most 256 MiB");
  std::string text(file->size(), '\0');
  if (Status read = file->read(0, std::as_writable_bytes(std::span(text.data(), text.size()))); !read)
    return invalidArgument(flag + ": " + read.message());
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object())
    return invalidArgument(flag + ": " + path + " does not hold a JSON object");
  return json;
}

double rounded(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.6g", value);
  return std::strtod(text, nullptr);
}

double median(std::vector<double> values) {
  if (values.empty())
    return 0;
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

} // namespace flashplus::tool
