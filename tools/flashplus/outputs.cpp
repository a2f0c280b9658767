// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/outputs.h"

#include "tools/io/file.h"

#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <sstream>
#include <system_error>
#include <unistd.h>

namespace flashplus::tool {

namespace {

namespace fs = std::filesystem;

Status refused(const OutputFile &file, const std::string &why) {
  return invalidArgument(file.flag + ": " + file.path + " cannot be written: " + why);
}

Status checkName(const OutputFile &file) {
  std::error_code error;
  if (fs::is_directory(file.path, error))
    return refused(file, "it is a folder; name a file in it");
  std::istringstream endings{std::string(file.endings)};
  std::string allowed;
  for (std::string ending; endings >> ending; allowed += (allowed.empty() ? "" : " or ") + ending)
    if (file.path.ends_with(ending))
      return Status::ok();
  return allowed.empty() ? Status::ok()
                         : invalidArgument(file.flag + ": " + file.path + " must end in " + allowed +
                                           ", the format that is written");
}

Status prepare(const OutputFile &file) {
  std::error_code error;
  const fs::path folder = fs::absolute(file.path, error).parent_path();
  fs::create_directories(folder, error);
  if (error || !fs::is_directory(folder))
    return refused(file, "its folder " + folder.string() +
                             " cannot be made: " + (error ? error.message() : "something else is there"));
  if (::access(folder.c_str(), W_OK | X_OK) != 0)
    return refused(file, "its folder " + folder.string() + ": " + std::generic_category().message(errno));
  // A folder may still take no file of this name, and what is there may be no file.
  const Status can = io::checkCanWrite(file.path);
  return can ? Status::ok() : invalidArgument(file.flag + ": " + can.message());
}

} // namespace

Status prepareOutputs(std::initializer_list<OutputFile> files) {
  for (const OutputFile &file : files)
    if (!file.path.empty())
      FLASHPLUS_RETURN_IF_ERROR(checkName(file));
  for (const OutputFile &file : files)
    if (!file.path.empty())
      FLASHPLUS_RETURN_IF_ERROR(prepare(file));
  return Status::ok();
}

Status prepareAppend(const std::string &flag, const std::string &path) {
  // A FIFO without a reader must not be waited for.
  const int file =
      path.empty() ? -1 : ::open(path.c_str(), O_WRONLY | O_APPEND | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
  if (file >= 0) {
    ::close(file);
    return Status::ok();
  }
  if (path.empty() || errno == ENOENT)
    return prepareOutputs({{flag, path}});
  return invalidArgument(flag + ": " + path +
                         " cannot be written: " + std::generic_category().message(errno));
}

} // namespace flashplus::tool
