// SPDX-License-Identifier: BSD-3-Clause
// flashplus_describe: what there is on this machine, what is not, and why.
#include "runtime/api/error.h"
#include "runtime/context.h"
#include "runtime/devices/cuda/cuda_device.h"

#include "build_id.h"

#include <nlohmann/json.hpp>

using namespace flashplus;
using nlohmann::json;

namespace {

void addDevice(Context &context, DLDevice id, const std::string &name, json &devices, json &missing) {
  auto device = context.device(id);
  if (!device) {
    missing.push_back({{"name", name}, {"reason", device.status().message()}});
    return;
  }
  const DeviceProfile &p = (*device)->profile();
  devices.push_back({{"name", name},
                     {"model", (*device)->model()},
                     {"target", p.target.text()},
                     {"detail", (*device)->detail()},
                     {"multiprocessors", p.multiprocessors},
                     {"shared_memory_per_block", p.shared_memory_per_block}});
}

json describeCompiler(Context &context) {
  json out{{"path", context.compiler().path()}, {"build", FLASHPLUS_BUILD_ID}};
  // it will never compile, so the compiler is not to be opened for a description
  if (context.kernels().offline()) {
    out["state"] = "not opened (offline)";
    return out;
  }
  auto found = context.compiler().describe();
  if (!found) {
    out["state"] = "missing: " + found.status().message();
    return out;
  }
  out["state"] = "ok";
  out["runs"] = context.compiler().worksHere() ? "in this process" : "in processes of its own";
  out["version"] = found->compiler;
  out["nvjitlink"] = found->has_nvjitlink ? "version " + found->nvjitlink : found->nvjitlink;
  out["ptxas"] = found->has_ptxas ? "version " + found->ptxas : found->ptxas;
  return out;
}

} // namespace

flashplus_status flashplus_describe(flashplus_context *context, const char **out) {
  return guarded([&]() -> Status {
    if (!context || !out)
      return invalidArgument(context ? "json is null" : "context is null");
    Context &c = *context->impl;
    json devices = json::array(), missing = json::array();
    addDevice(c, {kDLCPU, 0}, "cpu", devices, missing);
    auto driver = cuda::openDriver();
    auto count = driver ? cudaDeviceCount(**driver) : Result<int>(driver.status());
    if (!count)
      missing.push_back({{"name", "cuda"}, {"reason", count.status().message()}});
    for (int i = 0; count && i < *count; ++i)
      addDevice(c, {kDLCUDA, i}, "cuda:" + std::to_string(i), devices, missing);
    addDevice(c, {kDLExtDev, 0}, "emulator", devices, missing);
    json cache{{"dir", c.store().dir()}};
    cache["state"] = c.store().onDisk() ? std::string("ok") : "memory only: " + c.store().reason();
    cache["most_bytes"] = c.store().mostBytes(); // 0: without a limit
    cache["evicted"] = c.store().counters().evicted;
    cache["read_only"] = json::array();
    for (const auto &source : c.readOnlySources()) {
      json row{{"dir", source->dir()},
               {"state", !source->onDisk()   ? source->reason()
                         : source->isThere() ? "ok"
                                             : "is not there"}};
      if (const auto targets = source->onlyTargets()) { // a pack
        row["kind"] = "pack";
        row["targets"] = *targets;
      }
      cache["read_only"].push_back(std::move(row));
    }
    std::string text = json{{"version", flashplus_version()},
                            {"devices", std::move(devices)},
                            {"missing", std::move(missing)},
                            {"compiler", describeCompiler(c)},
                            {"cache", std::move(cache)},
                            {"warnings", c.warnings()}}
                           .dump(-1, ' ', false, json::error_handler_t::replace); // paths need not be UTF-8
    std::lock_guard lock(c.description_mutex);
    c.description = std::move(text);
    *out = c.description.c_str();
    return Status::ok();
  });
}
