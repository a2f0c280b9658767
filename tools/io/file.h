// SPDX-License-Identifier: BSD-3-Clause
// Whole files and atomic replacement. Failures: IoError with the path and the system's reason.
#pragma once

#include "spec/status.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace flashplus::io {

/// A regular file open for reading, whose size is known before anything is read. Move-only; closes itself.
class InputFile {
public:
  static Result<InputFile> open(const std::string &path);
  InputFile(InputFile &&other) noexcept;
  InputFile &operator=(InputFile &&other) noexcept;
  ~InputFile();

  uint64_t size() const { return size_; }
  /// Reads exactly `out.size()` bytes at `offset`.
  Status read(uint64_t offset, std::span<std::byte> out) const;

private:
  InputFile(int fd, uint64_t size, std::string path) : fd_(fd), size_(size), path_(std::move(path)) {}
  int fd_ = -1;
  uint64_t size_ = 0;
  std::string path_;
};

/// Writes a file so that `path` holds either what it held before or all of the new content: a private name in
/// the same folder, fsync, rename. `body` calls its argument for each piece in order. Nothing is left after a
/// failure.
using WritePiece = std::function<Status(std::span<const std::byte>)>;
Status writeFileAtomically(const std::string &path, const std::function<Status(const WritePiece &)> &body);

/// Whether writeFileAtomically() can begin to write `path`: it makes the private file, and removes it.
Status checkCanWrite(const std::string &path);

/// For a signal's handler that ends the process: removes the private file that is being written, if any.
void removeUnfinished();

} // namespace flashplus::io
