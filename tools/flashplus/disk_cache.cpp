// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/disk_cache.h"

#include "cache/pack.h"

namespace flashplus::tool {

namespace {

using Open = std::unique_ptr<KernelStore> (*)(const std::string &dir);

Result<std::unique_ptr<KernelStore>> openStore(flashplus_context *context, Open open) {
  Result<Json> json = describe(context);
  if (!json)
    return json.status();
  Json cache = json->value("cache", Json::object());
  std::string dir = cache.contains("dir") && cache["dir"].is_string() ? cache["dir"].get<std::string>() : "";
  if (dir.empty())
    return Status(StatusCode::IoError, "there is no disk cache: " + cache.value("state", "memory only"));
  // The context has given its warnings already.
  std::unique_ptr<KernelStore> store = open(dir);
  if (!store->onDisk())
    return Status(StatusCode::IoError, "cache " + dir + ": " + store->reason());
  return store;
}

} // namespace

Result<std::unique_ptr<KernelStore>> openStore(flashplus_context *context) {
  return openStore(context,
                   [](const std::string &dir) { return KernelStore::open(dir, [](const std::string &) {}); });
}

Result<std::unique_ptr<KernelStore>> openStore(const CommonFlags &flags) {
  Result<Context> context = makeContext(flags, /*offline=*/true); // which opens no compiler
  if (!context)
    return context.status();
  auto store = openStore(context->get(), [](const std::string &dir) {
    return KernelStore::openReadOnly(dir, [](const std::string &) {});
  });
  if (store && flags.cache_dir_given && !(*store)->isThere())
    return invalidArgument("--cache-dir: '" + flags.cache_dir + "' is not there");
  return store;
}

Result<std::unique_ptr<KernelStore>> openStoreToRemove(const CommonFlags &flags) {
  auto store = openStore(flags);
  if (!store || !(*store)->isThere())
    return store;
  return KernelStore::open((*store)->dir(), [](const std::string &) {});
}

Result<std::unique_ptr<KernelStore>> openStoreToWrite(const CommonFlags &flags) {
  Result<Context> context = makeContext(flags, /*offline=*/true); // which opens no compiler
  if (!context)
    return context.status();
  Result<Json> json = describe(context->get());
  if (!json)
    return json.status();
  auto store = openStore(context->get());
  if (store)
    (*store)->setMostBytes((*json)["cache"].value("most_bytes", KernelStore::kDefaultMostBytes));
  return store;
}

Result<CacheSources> openSources(flashplus_context *context) {
  Result<Json> json = describe(context);
  if (!json)
    return json.status();
  CacheSources sources{.all = {}, .build = (*json)["compiler"].value("build", "")};
  const Json cache = json->value("cache", Json::object());
  // The context has given its warnings already.
  for (const Json &row : cache.value("read_only", Json::array()))
    sources.all.push_back(openSource(row.value("dir", ""), sources.build, [](const std::string &) {}));
  if (const std::string dir = cache.value("dir", ""); !dir.empty())
    sources.all.push_back(KernelStore::openReadOnly(dir, [](const std::string &) {}));
  return sources;
}

Result<std::unique_ptr<KernelSource>> openPackFile(const std::string &path) {
  auto pack = KernelPack::open(path, /*build=*/"", [](const std::string &) {});
  if (!pack->onDisk())
    return Status(StatusCode::IoError, pack->reason());
  if (!pack->isThere())
    return invalidArgument("'" + path + "' is not there");
  return std::unique_ptr<KernelSource>(std::move(pack));
}

Result<std::string> libraryBuild(flashplus_context *context) {
  Result<Json> json = describe(context);
  if (!json)
    return json.status();
  return (*json)["compiler"].value("build", "");
}

} // namespace flashplus::tool
