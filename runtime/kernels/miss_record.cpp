// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/kernels/miss_record.h"

#include <cerrno>
#include <fcntl.h>
#include <system_error>
#include <unistd.h>

namespace flashplus {

Result<std::unique_ptr<MissRecord>> MissRecord::open(const std::string &path) {
  // A FIFO without a reader must not be waited for.
  const int fd =
      ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0644);
  if (fd < 0)
    return invalidArgument("$FLASHPLUS_RECORD_MISSES is '" + path +
                           "', which cannot be written: " + std::generic_category().message(errno));
  return std::unique_ptr<MissRecord>(new MissRecord(path, fd));
}

MissRecord::~MissRecord() { ::close(fd_); }

Status MissRecord::add(const std::string &spec, const std::string &schedule, const std::string &target) {
  // After a line that was cut off (a full disk) the next one begins on its own.
  const std::string line =
      std::string(cut_.exchange(false) ? "\n" : "") + spec + "\t" + schedule + "\t" + target + "\n";
  ssize_t written;
  do
    written = ::write(fd_, line.data(), line.size());
  while (written < 0 && errno == EINTR);
  if (written != ssize_t(line.size()))
    cut_ = true;
  if (written == ssize_t(line.size()) || failed_.exchange(true))
    return Status::ok();
  return {StatusCode::IoError, "a kernel that was in no cache could not be written to '" + path_ + "': " +
                                   (written < 0 ? std::generic_category().message(errno) : "no room")};
}

} // namespace flashplus
