// SPDX-License-Identifier: BSD-3-Clause
// What is kept of kernels that cannot be compiled: a text each, in a folder of their own
// (docs/file-formats.md).
#include "cache/store_parts.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <new>

namespace flashplus {
namespace {

constexpr std::string_view kMagic = "flashplus-refusal 1\n";
constexpr int64_t kMostBytes = 64 << 10;
constexpr size_t kMostReason = 8 << 10;
constexpr size_t kHashDigits = 32;

std::string encode(const KernelKey &key, const Refusal &refusal) {
  std::string toolchain = refusal.toolchain.substr(0, 200);
  std::ranges::replace(toolchain, '\n', ' ');
  std::string body = toolchain + "\n";
  const std::string text = key.text();
  body += std::to_string(text.size()) + "\n" + text + refusal.reason.substr(0, kMostReason);
  return std::string(kMagic) + hashText(body).hex() + "\n" + body;
}

/// The line at the beginning of `text`, which it is taken off; nothing if there is none.
std::optional<std::string_view> takeLine(std::string_view &text) {
  const size_t end = text.find('\n');
  if (end == std::string_view::npos)
    return std::nullopt;
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end + 1);
  return line;
}

} // namespace

std::optional<RefusalInfo> parseRefusal(std::string_view text) {
  if (!text.starts_with(kMagic))
    return std::nullopt;
  text.remove_prefix(kMagic.size());
  const auto hash = takeLine(text);
  if (!hash || hash->size() != kHashDigits || hashText(text).hex() != *hash)
    return std::nullopt;
  const auto toolchain = takeLine(text), size = takeLine(text);
  size_t key_bytes = 0;
  if (!size || std::from_chars(size->data(), size->data() + size->size(), key_bytes).ec != std::errc() ||
      *size != std::to_string(key_bytes) || key_bytes > text.size())
    return std::nullopt;
  Result<KernelKey> key = KernelKey::parse(text.substr(0, key_bytes));
  if (!key)
    return std::nullopt;
  return RefusalInfo{.key = std::move(*key),
                     .refusal = {std::string(*toolchain), std::string(text.substr(key_bytes))}};
}

std::optional<Refusal> KernelStore::refusal(const KernelKey &key) const {
  OpenFolder why;
  const std::shared_ptr<const Root> root = onDisk() ? this->root(/*make=*/false, why) : nullptr;
  if (!root)
    return std::nullopt;
  const OpenFolder folder = openFolder(ops_, root->fd.get(), kRefusedFolder, /*make=*/false);
  if (!folder.isOk())
    return std::nullopt;
  auto kept = loadRefusal(folder.fd.get(), refusalName(key.hash()));
  return kept && kept->key == key ? std::optional(std::move(kept->refusal)) : std::nullopt;
}

std::optional<RefusalInfo> KernelStore::loadRefusal(int folder, const std::string &name) const {
  const LoadedFile file = load(folder, name, kMostBytes);
  if (!file.isOk())
    return std::nullopt;
  auto kept = parseRefusal({reinterpret_cast<const char *>(file.bytes.data()), file.bytes.size()});
  if (!kept || refusalName(kept->key.hash()) != name)
    return std::nullopt;
  kept->path = dir_ + "/" + kRefusedFolder + "/" + name;
  kept->bytes = file.info.st_size;
  kept->noted = file.info.st_mtime;
  return kept;
}

std::vector<RefusalInfo> KernelStore::refusals() const {
  std::vector<RefusalInfo> all;
  OpenFolder why;
  const std::shared_ptr<const Root> root = onDisk() ? this->root(/*make=*/false, why) : nullptr;
  if (!root)
    return all;
  const OpenFolder folder = openFolder(ops_, root->fd.get(), kRefusedFolder, /*make=*/false);
  if (folder.isOk())
    for (const FileName &name : refusalFiles(*root, nullptr))
      if (auto kept = loadRefusal(folder.fd.get(), name.file))
        all.push_back(std::move(*kept));
  return all;
}

void KernelStore::noteRefusal(const KernelKey &key, const Refusal &refusal) const {
  if (!onDisk() || !canWrite())
    return;
  const std::string text = encode(key, refusal);
  OpenFolder why;
  const std::shared_ptr<const Root> root = this->root(/*make=*/true, why);
  if (!root || static_cast<int64_t>(text.size()) > kMostBytes)
    return;
  const OpenFolder from = openFolder(ops_, root->fd.get(), kTemporaryFolder, /*make=*/true);
  const OpenFolder to = openFolder(ops_, root->fd.get(), kRefusedFolder, /*make=*/true);
  std::string temporary;
  int fd = -1;
  if (!from.isOk() || !to.isOk() || openTemporary(from.fd.get(), temporary, fd) != 0)
    return;
  const std::span bytes(reinterpret_cast<const uint8_t *>(text.data()), text.size());
  if (writeTemporary(fd, bytes) == 0 &&
      ops_.rename(from.fd.get(), temporary.c_str(), to.fd.get(), refusalName(key.hash()).c_str()) == 0)
    dropRefusals(to.fd.get(), kMostRefusals);
  else
    ops_.unlink(from.fd.get(), temporary.c_str());
}

/// The oldest beyond `most`.
void KernelStore::dropRefusals(int folder, size_t most) const {
  std::vector<std::string> names;
  if (ops_.list(folder, names) != 0)
    return;
  std::erase_if(names, [](const std::string &name) { return !isRefusalName(name); });
  if (names.size() <= most)
    return;
  std::vector<std::pair<int64_t, std::string>> items;
  for (std::string &name : names) {
    struct stat info = {};
    if (ops_.lstat(folder, name.c_str(), &info) == 0)
      items.emplace_back(info.st_mtime, std::move(name));
  }
  std::ranges::sort(items, std::greater<>());
  for (size_t i = most; i < items.size(); ++i)
    ops_.unlink(folder, items[i].second.c_str());
}

} // namespace flashplus
