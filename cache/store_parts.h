// SPDX-License-Identifier: BSD-3-Clause
// What the files of KernelStore share: store.cpp (the folder), store_read.cpp, store_publish.cpp,
// store_list.cpp and store_sweep.cpp.
#pragma once

#include "cache/directory.h"
#include "cache/store.h"

#include <string>
#include <utility>

#include <time.h>

namespace flashplus {

/// Said of a folder that others can have written to. Taking the right away does not take away what they
/// wrote.
inline constexpr const char *kEmptyIt =
    "; what is in it may be somebody else's, so remove it with everything in it, and it is made again";

/// What KernelStore::mark() says of a file. The number alone may be that of one that is gone.
inline std::string markOf(const struct stat &info) {
  return std::to_string(info.st_dev) + "-" + std::to_string(info.st_ino) + "-" +
         std::to_string(info.st_size) + "-" + std::to_string(info.st_mtim.tv_sec) + "." +
         std::to_string(info.st_mtim.tv_nsec);
}

/// The key and the refusal of a file's text, nothing if it is not whole.
std::optional<RefusalInfo> parseRefusal(std::string_view text);

/// A file as it was read: its bytes, or why not.
struct KernelStore::LoadedFile {
  int error = 0;         ///< An errno value: the system refused.
  std::string damage;    ///< Not empty: whatever the system says, this cannot be an entry.
  std::string distrust;  ///< Not empty: somebody else can have written it; it was not read.
  struct stat info = {}; ///< Of the file, when it could be opened.
  std::vector<uint8_t> bytes;

  bool isOk() const { return !error && damage.empty() && distrust.empty(); }
};

/// The store's folder, held open.
struct KernelStore::Root {
  Root(Descriptor descriptor, const struct stat &info)
      : fd(std::move(descriptor)), device(info.st_dev), inode(info.st_ino) {}

  ~Root() { // a process that closes all its descriptors has given the number to somebody else
    struct stat info = {};
    if (fd.get() >= 0 && (::fstat(fd.get(), &info) != 0 || !is(info)))
      fd.release();
  }

  bool is(const struct stat &info) const { return info.st_dev == device && info.st_ino == inode; }

  Descriptor fd;
  dev_t device;
  ino_t inode;
};

struct KernelStore::FileName {
  std::string shard; ///< Or kRefusedFolder.
  std::string file;
  std::string name() const { return file.substr(0, 32); }
};

/// A file that has the name of an entry or a refusal, as its folder tells.
struct KernelStore::FileUse {
  FileName name;
  int64_t bytes;
  timespec used;
  uid_t owner;
  std::pair<time_t, long> order() const { return {used.tv_sec, used.tv_nsec}; }
};

} // namespace flashplus
