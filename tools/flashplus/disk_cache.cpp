// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/disk_cache.h"

namespace flashplus::tool {

Result<std::unique_ptr<KernelStore>> openStore(flashplus_context *context) {
  Result<Json> json = describe(context);
  if (!json)
    return json.status();
  Json cache = json->value("cache", Json::object());
  std::string dir = cache.contains("dir") && cache["dir"].is_string() ? cache["dir"].get<std::string>() : "";
  if (dir.empty())
    return Status(StatusCode::IoError, "there is no disk cache: " + cache.value("state", "memory only"));
  // The context has given its warnings already.
  std::unique_ptr<KernelStore> store = KernelStore::open(dir, [](const std::string &) {});
  if (!store->onDisk())
    return Status(StatusCode::IoError, "cache " + dir + ": " + store->reason());
  return store;
}

Result<std::unique_ptr<KernelStore>> openStore(const CommonFlags &flags) {
  Result<Context> context = makeContext(flags, /*offline=*/true); // which opens no compiler
  if (!context)
    return context.status();
  return openStore(context->get());
}

} // namespace flashplus::tool
