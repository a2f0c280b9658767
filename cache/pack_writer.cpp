// SPDX-License-Identifier: BSD-3-Clause
#include "cache/pack_writer.h"

#include "cache/directory.h"
#include "cache/trust.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <set>

#include <fcntl.h>

namespace flashplus {
namespace {

/// Whether what is at `name` may be replaced: nothing, or a pack.
Status checkReplaceable(const FileOps &ops, int folder, const std::string &name, const std::string &path) {
  struct stat info = {};
  if (ops.lstat(folder, name.c_str(), &info) != 0)
    return Status::ok(); // or the file can't be written, which is said then
  if (!S_ISREG(info.st_mode))
    return invalidArgument("'" + path + "' is there and is no file; name another");
  int fd = -1;
  if (int error = openRetrying(ops, folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0, fd))
    return Status(StatusCode::IoError, "'" + path + "' is there and cannot be read: " + errnoText(error));
  const Descriptor closes(ops, fd);
  std::vector<uint8_t> start;
  if (int error = readUpToAt(ops, fd, 0, kPackPrefixBytes, start))
    return Status(StatusCode::IoError, "'" + path + "' is there and cannot be read: " + errnoText(error));
  const EntryError error = packHeadSize(start, UINT64_MAX).error;
  if (error == EntryError::BadMagic || error == EntryError::Truncated)
    return invalidArgument("'" + path + "' is there and is no pack of kernels; remove it, or name another");
  return Status::ok();
}

/// The entry's bytes, if they are still what was listed.
Result<std::vector<uint8_t>> bytesOf(const PackContents &contents, const EntryInfo &info) {
  auto bytes = contents.source->entryBytes(info.name);
  if (bytes && static_cast<int64_t>(bytes->size()) != info.bytes)
    return Status(StatusCode::IoError, "cache entry '" + info.path + "' has changed meanwhile; try again");
  return bytes;
}

} // namespace

Result<int64_t> writePack(const std::string &path, PackContents contents, const FileOps &ops) {
  std::ranges::sort(contents.entries, {}, &EntryInfo::name);
  std::ranges::sort(contents.texts, {}, &PackText::name);
  if (contents.entries.size() > kMaxPackEntries || contents.texts.size() > kMaxPackTexts)
    return invalidArgument("a pack has at most " + std::to_string(kMaxPackEntries) + " kernels and " +
                           std::to_string(kMaxPackTexts) + " tuning records; these are " +
                           std::to_string(contents.entries.size()) + " and " +
                           std::to_string(contents.texts.size()));
  PackHead head;
  std::set<std::string> targets;
  for (const EntryInfo &entry : contents.entries) {
    if (head.build.empty())
      head.build = entry.key.build;
    if (!entry.isGood() || entry.key.build != head.build)
      return invalidArgument("cache entry '" + entry.path + "' " +
                             (entry.isGood() ? "is of another build than the others" : entry.problem));
    targets.insert(entry.key.target);
    head.entries.push_back({.hash = entry.key.hash(), .bytes = static_cast<uint64_t>(entry.bytes)});
  }
  head.targets.assign(targets.begin(), targets.end());
  std::vector<std::vector<uint8_t>> texts;
  for (const PackText &text : contents.texts) {
    texts.push_back(encodePackText(text));
    head.texts.push_back({.hash = hashBytes(texts.back()), .bytes = texts.back().size()});
  }

  std::error_code error;
  const std::filesystem::path file = std::filesystem::absolute(path, error).lexically_normal();
  const std::string name = file.filename().string();
  if (error || name.empty())
    return invalidArgument("'" + path + "' names no file");
  int fd = -1;
  if (int failed =
          openRetrying(ops, AT_FDCWD, file.parent_path().string(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, fd))
    return Status(StatusCode::IoError,
                  "'" + path + "' cannot be written: its folder cannot be opened: " + errnoText(failed));
  const Descriptor folder(ops, fd);
  FLASHPLUS_RETURN_IF_ERROR(checkReplaceable(ops, folder.get(), name, path));
  const std::string temporary = "." + name.substr(0, 200) + "." + temporaryName();
  // Who may read it is up to the umask; nobody else may write to it, or it would not be used.
  if (int failed = openRetrying(ops, folder.get(), temporary,
                                O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644, fd))
    return Status(StatusCode::IoError, "'" + path + "' cannot be written: " + errnoText(failed));
  Descriptor out(ops, fd);
  int64_t written = 0;
  const auto write = [&](std::span<const uint8_t> bytes) {
    written += static_cast<int64_t>(bytes.size());
    return writeAll(ops, out.get(), bytes);
  };
  const auto fill = [&]() -> Status {
    int failed = write(encodePackHead(head));
    for (size_t i = 0; i < contents.entries.size() && !failed; ++i) {
      auto bytes = bytesOf(contents, contents.entries[i]);
      if (!bytes)
        return bytes.status();
      failed = write(*bytes);
    }
    for (size_t i = 0; i < texts.size() && !failed; ++i)
      failed = write(texts[i]);
    if (!failed)
      failed = fsyncRetrying(ops, out.get());
    if (failed == EINVAL)
      failed = 0; // a file system without fsync
    // A network file system may report only here that it is full.
    if (ops.close(out.release()) != 0 && errno != EINTR && !failed)
      failed = errno;
    if (!failed && ops.rename(folder.get(), temporary.c_str(), folder.get(), name.c_str()) != 0)
      failed = errno;
    return failed ? Status(StatusCode::IoError, "'" + path + "' cannot be written: " + errnoText(failed))
                  : Status::ok();
  };
  if (Status filled = fill(); !filled) {
    ops.unlink(folder.get(), temporary.c_str());
    return filled;
  }
  (void)fsyncRetrying(ops, folder.get()); // makes the name durable, as well as can be
  return written;
}

} // namespace flashplus
