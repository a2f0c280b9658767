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

/// A file beside `path`, which it is to become; listed from before it is there until it is `done` or removed.
struct PrivateFile {
  explicit PrivateFile(const std::string &path) : path(path) {
    static std::atomic<unsigned> counter{0};
    const size_t folder = path.rfind('/') + 1; // 0 without one
    name = path.substr(0, folder) + "." + path.substr(folder) + ".tmp." + std::to_string(::getpid()) + "." +
           std::to_string(counter.fetch_add(1));
  }
  PrivateFile(const PrivateFile &) = delete;
  ~PrivateFile() {
    if (fd >= 0)
      ::close(fd);
    if (made && !done)
      ::unlink(name.c_str());
    unfinished.store(nullptr);
  }

  Status create() {
    struct stat info;
    if (::stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode))
      return Status(StatusCode::IoError, path + ": exists and is not a regular file");
    unfinished.store(name.c_str());
    fd = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    made = fd >= 0;
    return made ? Status::ok() : systemError(path, "can't be created", errno);
  }

  std::string path, name;
  int fd = -1;
  bool made = false, done = false;
};

} // namespace

void removeUnfinished() {
  if (const char *path = unfinished.load())
    ::unlink(path);
}

Status writeFileAtomically(const std::string &path, const std::function<Status(const WritePiece &)> &body) {
  PrivateFile file(path);
  FLASHPLUS_RETURN_IF_ERROR(file.create());
  Status status = body([&](std::span<const std::byte> piece) { return writeAll(file.fd, path, piece); });
  if (status.isOk() && ::fsync(file.fd) != 0)
    status = systemError(path, "can't be written", errno);
  if (::close(std::exchange(file.fd, -1)) != 0 && status.isOk())
    status = systemError(path, "can't be written", errno);
  if (status.isOk() && ::rename(file.name.c_str(), path.c_str()) != 0)
    status = systemError(path, "can't be put in place", errno);
  file.done = status.isOk();
  return status;
}

Status checkCanWrite(const std::string &path) { return PrivateFile(path).create(); }

} // namespace flashplus::io
