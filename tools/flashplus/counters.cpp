// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/counters.h"

namespace flashplus::tool {

Json countersJson(const flashplus_counters &c) {
  return {{"memory_hits", c.memory_hits},
          {"disk_hits", c.disk_hits},
          {"compiles", c.compiles},
          {"corrupt", c.corrupt},
          {"publish_failures", c.publish_failures},
          {"compile_ms", c.compile_ms},
          {"load_ms", c.load_ms},
          {"miss_absent", c.miss_absent},
          {"miss_damaged", c.miss_damaged},
          {"miss_unreadable", c.miss_unreadable},
          {"miss_refused", c.miss_refused},
          {"compile_failures", c.compile_failures},
          {"fallbacks", c.fallbacks},
          {"build_ms", c.build_ms},
          {"passes_ms", c.passes_ms},
          {"optimize_ms", c.optimize_ms},
          {"emit_ms", c.emit_ms},
          {"assemble_ms", c.assemble_ms},
          {"resident_kernels", c.resident_kernels},
          {"resident_bytes", c.resident_bytes},
          {"warnings", c.warnings},
          {"late_compiles", c.late_compiles},
          {"evicted", c.evicted}};
}

} // namespace flashplus::tool
