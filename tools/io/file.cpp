// SPDX-License-Identifier: BSD-3-Clause
#include "tools/io/file.h"

#include <atomic>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace flashplus::io {

namespace {

Status systemError(const std::string &path, const char *what, int error) {
  return Status(StatusCode::IoError, path + ": " + what + ": " + std::generic_category().message(error));
}

} // namespace

Result<InputFile> InputFile::open(const std::string &path) {
  // O_NONBLOCK: opening a pipe that nobody writes to must not hang; it is refused below.
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0)
    return systemError(path, "can't be opened", errno);
  InputFile file(fd, 0, path);
  struct stat info;
  if (::fstat(fd, &info) != 0)
    return systemError(path, "can't be examined", errno);
  if (!S_ISREG(info.st_mode))
    return Status(StatusCode::IoError, path + ": not a regular file");
  file.size_ = static_cast<uint64_t>(info.st_size);
  return file;
}

InputFile::InputFile(InputFile &&other) noexcept
    : fd_(std::exchange(other.fd_, -1)), size_(other.size_), path_(std::move(other.path_)) {}

InputFile &InputFile::operator=(InputFile &&other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  std::swap(path_, other.path_);
  return *this;
}

InputFile::~InputFile() {
  if (fd_ >= 0)
    ::close(fd_);
}

Status InputFile::read(uint64_t offset, std::span<std::byte> out) const {
  size_t done = 0;
  while (done < out.size()) {
    ssize_t n = ::pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return systemError(path_, "can't be read", errno);
    if (n == 0)
      return Status(StatusCode::IoError, path_ + ": ends at byte " + std::to_string(offset + done) +
                                             ", before byte " + std::to_string(offset + out.size()));
    done += static_cast<size_t>(n);
  }
  return Status::ok();
}

namespace {

Status writeAll(int fd, const std::string &path, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return systemError(path, "can't be written", errno);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return Status::ok();
}

/// The private name that is being written, for removeUnfinished(); the last of several threads'.
std::atomic<const char *> unfinished{nullptr};
static_assert(std::atomic<const char *>::is_always_lock_free);

} // namespace

void removeUnfinished() {
  if (const char *path = unfinished.load())
    ::unlink(path);
}

Status writeFileAtomically(const std::string &path, const std::function<Status(const WritePiece &)> &body) {
  struct stat info;
  if (::stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode))
    return Status(StatusCode::IoError, path + ": exists and is not a regular file");
  static std::atomic<unsigned> counter{0};
  size_t slash = path.rfind('/');
  std::string folder = slash == std::string::npos ? "" : path.substr(0, slash + 1);
  std::string temporary = folder + "." + path.substr(folder.size()) + ".tmp." + std::to_string(::getpid()) +
                          "." + std::to_string(counter.fetch_add(1));
  struct Unfinished { // from before the file is there until it has its name or is gone
    explicit Unfinished(const std::string &path) { unfinished.store(path.c_str()); }
    ~Unfinished() { unfinished.store(nullptr); }
  } listed(temporary);
  int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0)
    return systemError(path, "can't be created", errno);
  Status status = body([&](std::span<const std::byte> piece) { return writeAll(fd, path, piece); });
  if (status.isOk() && ::fsync(fd) != 0)
    status = systemError(path, "can't be written", errno);
  if (::close(fd) != 0 && status.isOk())
    status = systemError(path, "can't be written", errno);
  if (status.isOk() && ::rename(temporary.c_str(), path.c_str()) != 0)
    status = systemError(path, "can't be put in place", errno);
  if (!status.isOk())
    ::unlink(temporary.c_str());
  return status;
}

} // namespace flashplus::io
