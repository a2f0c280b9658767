// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/devices/cpu/kernel_debug.h"

#include <algorithm>

namespace flashplus {

Result<KernelDebug> KernelDebug::open(const std::string &setting, const std::string &perf_folder,
                                      std::function<void(const std::string &)> log) {
  KernelDebug debug;
  debug.log_ = std::move(log);
  std::string folder;
  for (size_t at = 0; at < setting.size();) {
    const size_t comma = std::min(setting.find(',', at), setting.size());
    const std::string word = setting.substr(at, comma - at);
    at = comma + 1;
    if (word == "gdb")
      debug.gdb_ = true;
    else if (word == "perf")
      folder = perf_folder;
    else if (word.starts_with("perf=") && word.size() > 5)
      folder = word.substr(5);
    else
      return Status(StatusCode::InvalidArgument,
                    "$FLASHPLUS_DEBUG_KERNELS is '" + setting +
                        "'; it must be a comma-separated list of gdb, perf and perf=FOLDER");
  }
  if (!folder.empty()) {
    auto perf = PerfDump::open(folder);
    if (!perf)
      return Status(perf.status().code(),
                    "$FLASHPLUS_DEBUG_KERNELS is '" + setting + "': " + perf.status().message());
    debug.perf_ = std::move(*perf);
  }
  return debug;
}

std::unique_ptr<GdbSymbols> KernelDebug::loaded(const LoadedObject &code,
                                                std::span<const uint8_t> object) const {
  if (perf_)
    for (const LoadedFunction &f : code.functions())
      if (f.size)
        if (Status added = perf_->add(f.name, f.address, f.size); !added.isOk() && log_)
          log_(added.message());
  return gdb_ ? std::make_unique<GdbSymbols>(code.symbolFile(object)) : nullptr;
}

} // namespace flashplus
