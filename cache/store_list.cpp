// SPDX-License-Identifier: BSD-3-Clause
#include "cache/store_parts.h"

#include <algorithm>
#include <cerrno>

namespace flashplus {

/// The files of `folder_name` that `takes` takes, by name; a folder that can't be listed goes to `problems`.
void KernelStore::addFiles(const Root &root, const std::string &folder_name,
                           bool (*takes)(std::string_view folder, std::string_view name),
                           std::vector<FileName> &files, std::vector<EntryInfo> *problems) const {
  const auto problem = [&](const std::string &what) {
    if (problems)
      problems->push_back({.path = dir_ + "/" + folder_name, .problem = "it " + what});
  };
  // No symbolic link is followed: what lies elsewhere is not ours.
  const OpenFolder folder = openFolder(ops_, root.fd.get(), folder_name, /*make=*/false);
  if (!folder.isOk()) {
    if (folder.error ? folder.error != ENOENT && folder.error != ENOTDIR : folder.fd.get() >= 0)
      problem(folder.problem);
    return;
  }
  std::vector<std::string> names;
  if (ops_.list(folder.fd.get(), names) != 0)
    problem("cannot be listed: " + errnoText(errno));
  std::ranges::sort(names);
  for (const std::string &name : names)
    if (takes(folder_name, name))
      files.push_back({folder_name, name});
}

std::vector<KernelStore::FileName> KernelStore::entryFiles(const Root &root,
                                                           std::vector<EntryInfo> *problems) const {
  std::vector<FileName> files;
  std::vector<std::string> shards;
  if (ops_.list(root.fd.get(), shards) != 0 && problems)
    problems->push_back({.path = dir_, .problem = "it cannot be listed: " + errnoText(errno)});
  std::ranges::sort(shards);
  for (const std::string &shard : shards)
    if (isShardName(shard))
      addFiles(root, shard, isEntryName, files, problems);
  return files;
}

std::vector<KernelStore::FileName> KernelStore::refusalFiles(const Root &root,
                                                             std::vector<EntryInfo> *problems) const {
  std::vector<FileName> files;
  addFiles(
      root, kRefusedFolder, [](std::string_view, std::string_view name) { return isRefusalName(name); },
      files, problems);
  return files;
}

/// With sizes and times; what goes meanwhile is left out.
std::vector<KernelStore::FileUse> KernelStore::usesOf(const Root &root, std::vector<FileName> files) const {
  std::vector<FileUse> uses;
  OpenFolder folder;
  std::string opened; // the folder that `folder` is; files come in the order of their folders
  for (FileName &name : files) {
    if (name.shard != opened)
      folder = openFolder(ops_, root.fd.get(), opened = name.shard, /*make=*/false);
    struct stat info = {};
    if (folder.isOk() && ops_.lstat(folder.fd.get(), name.file.c_str(), &info) == 0)
      uses.push_back({std::move(name), info.st_size, info.st_mtim, info.st_uid});
  }
  return uses;
}

std::vector<KernelStore::FileUse> KernelStore::entryUses(const Root &root,
                                                         std::vector<EntryInfo> *problems) const {
  return usesOf(root, entryFiles(root, problems));
}

std::vector<EntryInfo> KernelStore::list() const {
  std::vector<EntryInfo> entries;
  OpenFolder why;
  const std::shared_ptr<const Root> root = onDisk() ? this->root(/*make=*/false, why) : nullptr;
  if (!root) {
    if (!why.isOk() && why.error != ENOENT)
      entries.push_back({.path = dir_, .problem = "it " + why.problem});
    return entries;
  }
  for (const FileName &name : entryFiles(*root, &entries)) {
    const OpenFolder shard = openFolder(ops_, root->fd.get(), name.shard, /*make=*/false);
    if (!shard.isOk())
      continue; // Told or removed meanwhile.
    LoadedFile file = load(shard.fd.get(), name.file);
    if (file.error == ENOENT)
      continue; // Removed meanwhile.
    EntryInfo info;
    info.path = dir_ + "/" + name.shard + "/" + name.file;
    info.name = name.name();
    info.bytes = file.info.st_size;
    info.modified = file.info.st_mtime;
    if (!file.isOk()) {
      info.problem = !file.distrust.empty() ? file.distrust
                     : file.damage.empty()  ? "it cannot be read: " + errnoText(file.error)
                                            : file.damage;
    } else {
      Entry entry = parseEntry(file.bytes);
      if (entry.isOk() && entry.key.hex() != info.name) {
        entry.error = EntryError::OtherKey;
        entry.detail = "its key has the hash " + entry.key.hex() + ", not that of its name";
      }
      info.take(std::move(entry));
    }
    entries.push_back(std::move(info));
  }
  return entries;
}

std::vector<EntryInfo> KernelStore::verify() const {
  std::vector<EntryInfo> entries = list();
  std::erase_if(entries, [](const EntryInfo &entry) { return entry.isGood(); });
  return entries;
}

Result<std::vector<uint8_t>> KernelStore::entryBytes(const std::string &name) const {
  const std::string path = dir_ + "/" + name.substr(0, 2) + "/" + name;
  const auto failed = [&](const std::string &what) {
    return Status(StatusCode::IoError, "cache entry '" + path + "' " + what);
  };
  OpenFolder why;
  const std::shared_ptr<const Root> root = onDisk() ? this->root(/*make=*/false, why) : nullptr;
  if (!root)
    return failed("cannot be read: its folder " + (why.isOk() ? "is not there" : why.problem));
  const OpenFolder shard = openFolder(ops_, root->fd.get(), name.substr(0, 2), /*make=*/false);
  if (!shard.isOk())
    return failed("cannot be read: its folder " + shard.problem);
  LoadedFile file = load(shard.fd.get(), name + ".fpk");
  if (!file.isOk())
    return failed("cannot be read: " + (!file.distrust.empty() ? file.distrust
                                        : file.damage.empty()  ? errnoText(file.error)
                                                               : file.damage));
  const Entry entry = parseEntry(file.bytes);
  if (!entry.isOk() || entry.key.hex() != name)
    return failed("is damaged" + (entry.isOk() ? std::string() : " (" + entry.detail + ")"));
  return std::move(file.bytes);
}

std::vector<TextFile> KernelStore::texts(const std::string &folder, std::string_view suffix,
                                         const TextLimits &limits) const {
  std::vector<TextFile> files;
  OpenFolder why;
  const std::shared_ptr<const Root> root = onDisk() ? this->root(/*make=*/false, why) : nullptr;
  if (!root)
    return files;
  const std::string path = dir_ + "/" + folder;
  const OpenFolder opened = openFolder(ops_, root->fd.get(), folder, /*make=*/false);
  std::vector<std::string> names;
  if (!opened.isOk()) {
    if (opened.error != ENOENT)
      warn("'" + path + "' " + opened.problem + (opened.error ? "" : kEmptyIt));
    return files;
  }
  if (ops_.list(opened.fd.get(), names) != 0)
    warn("'" + path + "' cannot be listed: " + errnoText(errno));
  std::erase_if(names, [&](const std::string &name) { return !name.ends_with(suffix); });
  std::ranges::sort(names);
  int64_t bytes = 0;
  for (const std::string &name : names) {
    std::string problem;
    if (static_cast<int64_t>(files.size()) >= limits.files) {
      warn("'" + path + "' has more than " + std::to_string(limits.files) + " files; '" + name +
           "' and what follows it are left out");
      break;
    }
    LoadedFile file = load(opened.fd.get(), name, limits.file_bytes);
    if (file.error == ENOENT)
      continue;
    bytes += static_cast<int64_t>(file.bytes.size());
    if (!file.isOk())
      problem = !file.distrust.empty() ? file.distrust
                : file.damage.empty()  ? "it cannot be read: " + errnoText(file.error)
                                       : file.damage;
    else if (bytes > limits.all_bytes)
      problem = "with it there are more than " + std::to_string(limits.all_bytes) + " bytes";
    if (problem.empty())
      files.push_back({path + "/" + name, std::string(file.bytes.begin(), file.bytes.end())});
    else
      warn("'" + path + "/" + name + "' is left out: " + problem);
  }
  return files;
}

StoreUsage KernelStore::usage() const {
  StoreUsage usage;
  OpenFolder why;
  const std::shared_ptr<const Root> root = onDisk() ? this->root(/*make=*/false, why) : nullptr;
  if (!root)
    return usage;
  for (const FileUse &file : entryUses(*root, nullptr)) {
    ++usage.entries;
    usage.bytes += file.bytes;
  }
  return usage;
}

} // namespace flashplus
