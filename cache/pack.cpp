// SPDX-License-Identifier: BSD-3-Clause
#include "cache/pack.h"

#include "cache/store.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <new>

#include <unistd.h>

namespace flashplus {
namespace {

constexpr std::string_view kPackSuffix = ".fpk";
/// An entry that is larger is none (KernelStore).
constexpr uint64_t kMaxEntryBytes = uint64_t(KernelStore::kMaxEntryBytes);

std::string cleanPath(const std::string &path) {
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  return error ? path : absolute.lexically_normal().string();
}

OpenFolder refused(std::string why) {
  OpenFolder file;
  file.problem = std::move(why);
  return file;
}

} // namespace

/// The pack's file, held open, and its head.
struct KernelPack::File {
  File(Descriptor descriptor, const struct stat &info, PackHead head)
      : fd(std::move(descriptor)), info(info), head(std::move(head)) {}

  ~File() { // a process that closes all its descriptors has given the number to somebody else
    struct stat now = {};
    if (fd.get() >= 0 && (::fstat(fd.get(), &now) != 0 || !is(now)))
      fd.release();
  }

  bool is(const struct stat &other) const {
    return other.st_dev == info.st_dev && other.st_ino == info.st_ino;
  }

  mutable Descriptor fd;
  struct stat info;
  PackHead head;
};

std::unique_ptr<KernelPack> KernelPack::open(const std::string &path, const std::string &build, SourceLog log,
                                             const FileOps &ops) {
  std::unique_ptr<KernelPack> pack(new KernelPack(cleanPath(path), build, std::move(log), ops));
  OpenFolder why;
  if (!pack->file(why) && why.error != ENOENT) {
    pack->reason_ = "pack of kernels '" + pack->path_ + "' " + why.problem;
    pack->warn(pack->reason_ + "; kernels in it are not used");
  }
  return pack;
}

void KernelPack::warn(const std::string &message) const {
  if (log_)
    log_(message);
}

/// Opens what is at the path now and reads its head. Null, and why: a clause.
std::shared_ptr<const KernelPack::File> KernelPack::open(OpenFolder &why) const {
  why = openFileAt(ops_, path_);
  if (!why.isOk()) {
    if (!why.error && why.fd.get() >= 0 && S_ISREG(why.info.st_mode))
      why.problem += "; if you know what is in it, use a copy of your own that only you can write to";
    return nullptr;
  }
  const auto size = static_cast<uint64_t>(why.info.st_size);
  const auto failed = [&](int error) {
    why.error = error;
    why.problem = "cannot be read: " + errnoText(error);
    return nullptr;
  };
  try {
    std::vector<uint8_t> bytes;
    if (int error = readUpToAt(ops_, why.fd.get(), 0, std::min<uint64_t>(size, kPackPrefixBytes), bytes))
      return failed(error);
    if (bytes.size() < std::min<uint64_t>(size, kPackPrefixBytes))
      return failed(EIO); // its end came too early
    const PackHeadSize head_size = packHeadSize(bytes, size);
    if (head_size.error != EntryError::None) {
      why = refused("cannot be used: " + head_size.detail);
      return nullptr;
    }
    if (int error = readUpToAt(ops_, why.fd.get(), 0, head_size.bytes, bytes))
      return failed(error);
    if (bytes.size() < head_size.bytes)
      return failed(EIO);
    ParsedPackHead parsed = parsePackHead(bytes, size);
    if (!parsed.isOk()) {
      why = refused("cannot be used: " + parsed.detail);
      return nullptr;
    }
    if (!build_.empty() && parsed.head.build != build_) {
      why = refused("is of build " + parsed.head.build + " of the library, and this is build " + build_ +
                    ", which needs a pack of its own");
      return nullptr;
    }
    return std::make_shared<const File>(std::move(why.fd), why.info, std::move(parsed.head));
  } catch (const std::bad_alloc &) {
    return failed(ENOMEM);
  }
}

/// The pack as it is now: the file that is held, unless it was replaced, deleted or its descriptor closed.
std::shared_ptr<const KernelPack::File> KernelPack::file(OpenFolder &why) const {
  std::lock_guard lock(mutex_);
  bool held_is_good = false;
  if (file_) {
    struct stat info = {};
    const int error = ops_.fstat(file_->fd.get(), &info) == 0 ? 0 : errno;
    if (error && error != EBADF) {
      why.error = error;
      why.problem = "cannot be examined: " + errnoText(error);
      return nullptr;
    }
    if (error || !file_->is(info)) {
      file_->fd.release(); // somebody else's number by now
      file_.reset();
    } else {
      why.problem = distrust(info);
      if (why.problem.empty() && info.st_size != file_->info.st_size)
        why.problem = "was changed in place; replace it by another file";
      if (!why.problem.empty())
        return nullptr;
      if (info.st_nlink > 0)
        return file_;
      held_is_good = true; // replaced or deleted
    }
  }
  if (std::shared_ptr<const File> opened = open(why)) {
    file_ = std::move(opened);
    refused_.clear();
    return file_;
  }
  if (!held_is_good)
    return nullptr;
  if (why.error != ENOENT && refused_ != why.problem) {
    refused_ = why.problem;
    warn("pack of kernels '" + path_ + "' " + why.problem + "; the one that was there before is still read");
  }
  why = {};
  return file_;
}

bool KernelPack::isThere() const {
  OpenFolder why;
  return onDisk() && file(why);
}

int KernelPack::readRow(const File &file, const PackRow &row, std::vector<uint8_t> &bytes) const {
  if (row.bytes > kMaxEntryBytes)
    return EFBIG;
  const int error = readUpToAt(ops_, file.fd.get(), row.offset, row.bytes, bytes);
  return !error && bytes.size() < row.bytes ? EIO : error;
}

ReadResult KernelPack::read(const KernelKey &key) {
  ReadResult result;
  result.miss = Miss::Absent;
  if (!onDisk())
    return result;
  OpenFolder why;
  const std::shared_ptr<const File> file = this->file(why);
  if (!file) {
    if (why.error != ENOENT) {
      result.miss = why.error ? Miss::Unreadable : Miss::Untrusted;
      if (!warned_.exchange(true))
        warn("pack of kernels '" + path_ + "' " + why.problem + "; kernels in it are not used");
    }
    return result;
  }
  const Hash128 hash = key.hash();
  const PackRow *row = file->head.find(hash);
  if (!row)
    return result;
  const auto name = [&] { return "kernel " + hash.hex() + " in the pack '" + path_ + "' "; };
  try {
    std::vector<uint8_t> bytes;
    if (int error = readRow(*file, *row, bytes)) {
      result.miss = Miss::Unreadable;
      warn(name() + "cannot be read: " + errnoText(error));
      return result;
    }
    Entry entry = decodeEntry(bytes, key);
    if (entry.isOk()) {
      result.miss = Miss::None;
      result.artifact = std::move(entry.artifact);
      return result;
    }
    result.miss = Miss::Damaged;
    result.entry_error = entry.error;
    warn(name() + "is damaged (" + entry.detail + ")");
  } catch (const std::bad_alloc &) {
    result.miss = Miss::Unreadable;
    warn(name() + "cannot be read: out of memory");
  }
  return result;
}

void KernelPack::discard(const KernelKey &key, const std::string &why) {
  warn("kernel " + key.hex() + " in the pack '" + path_ + "' is of no use (" + why + ")");
}

std::vector<EntryInfo> KernelPack::list() const {
  std::vector<EntryInfo> entries;
  OpenFolder why;
  const std::shared_ptr<const File> file = this->file(why);
  if (!file) {
    if (why.error != ENOENT)
      entries.push_back({.path = path_, .problem = "it " + why.problem});
    return entries;
  }
  for (const PackRow &row : file->head.entries) {
    EntryInfo info;
    info.name = row.hash.hex();
    info.path = path_ + ":" + info.name;
    info.bytes = static_cast<int64_t>(row.bytes);
    info.modified = file->info.st_mtime;
    std::vector<uint8_t> bytes;
    if (int error = readRow(*file, row, bytes)) {
      info.problem = "it cannot be read: " + errnoText(error);
      entries.push_back(std::move(info));
      continue;
    }
    Entry entry = parseEntry(bytes);
    if (entry.isOk() && entry.key.hash() != row.hash) {
      entry.error = EntryError::OtherKey;
      entry.detail = "its key has the hash " + entry.key.hex() + ", not that of the index";
    } else if (entry.isOk() && entry.key.build != file->head.build) {
      entry.error = EntryError::Malformed;
      entry.detail = "it is of build " + entry.key.build + ", the pack of build " + file->head.build;
    }
    info.take(std::move(entry));
    entries.push_back(std::move(info));
  }
  return entries;
}

Result<std::vector<uint8_t>> KernelPack::entryBytes(const std::string &name) const {
  const auto failed = [&](const std::string &what) {
    return Status(StatusCode::IoError, "kernel " + name + " in the pack '" + path_ + "' " + what);
  };
  OpenFolder why;
  const std::shared_ptr<const File> file = this->file(why);
  if (!file)
    return failed("cannot be read: the pack " + why.problem);
  for (const PackRow &row : file->head.entries) {
    if (row.hash.hex() != name)
      continue;
    std::vector<uint8_t> bytes;
    if (int error = readRow(*file, row, bytes))
      return failed("cannot be read: " + errnoText(error));
    const Entry entry = parseEntry(bytes);
    if (!entry.isOk() || entry.key.hash() != row.hash)
      return failed("is damaged" + (entry.isOk() ? std::string() : " (" + entry.detail + ")"));
    return bytes;
  }
  return failed("is not there");
}

std::vector<TextFile> KernelPack::texts(const std::string &folder, std::string_view suffix,
                                        const TextLimits &limits) const {
  std::vector<TextFile> files;
  OpenFolder why;
  const std::shared_ptr<const File> file = onDisk() ? this->file(why) : nullptr;
  if (!file || file->head.texts.empty())
    return files;
  int64_t all = 0;
  for (const PackRow &row : file->head.texts) {
    const std::string number = std::to_string(&row - file->head.texts.data());
    std::string problem;
    std::optional<PackText> text;
    std::vector<uint8_t> bytes;
    all += static_cast<int64_t>(std::min<uint64_t>(row.bytes, kMaxEntryBytes));
    if (static_cast<int64_t>(files.size()) >= limits.files)
      problem = "there are more than " + std::to_string(limits.files);
    else if (row.bytes > static_cast<uint64_t>(limits.file_bytes) || all > limits.all_bytes)
      problem = "it is too large, or all are";
    else if (int error = readRow(*file, row, bytes))
      problem = "it cannot be read: " + errnoText(error);
    else if (hashBytes(bytes) != row.hash)
      problem = "its checksum does not match";
    else if (text = parsePackText(bytes); !text || !text->name.ends_with(suffix))
      problem = "it is no such record";
    if (problem.empty())
      files.push_back({path_ + ":" + folder + "/" + text->name, std::move(text->text)});
    else
      warn("record " + number + " in the pack '" + path_ + "' is left out: " + problem);
  }
  return files;
}

std::optional<std::vector<std::string>> KernelPack::onlyTargets() const {
  OpenFolder why;
  const std::shared_ptr<const File> file = onDisk() ? this->file(why) : nullptr;
  return file ? file->head.targets : std::vector<std::string>();
}

std::string KernelPack::build() const {
  OpenFolder why;
  const std::shared_ptr<const File> file = onDisk() ? this->file(why) : nullptr;
  return file ? file->head.build : "";
}

size_t KernelPack::size() const {
  OpenFolder why;
  const std::shared_ptr<const File> file = onDisk() ? this->file(why) : nullptr;
  return file ? file->head.entries.size() : 0;
}

bool namesPack(const std::string &path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  return std::filesystem::exists(status) ? !std::filesystem::is_directory(status)
                                         : path.ends_with(kPackSuffix);
}

std::unique_ptr<KernelSource> openSource(const std::string &path, const std::string &build, SourceLog log,
                                         const FileOps &ops) {
  if (namesPack(path))
    return KernelPack::open(path, build, std::move(log), ops);
  return KernelStore::openReadOnly(path, std::move(log), ops);
}

} // namespace flashplus
