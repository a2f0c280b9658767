// SPDX-License-Identifier: BSD-3-Clause
#include "tests/unit/cache/support.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include <unistd.h>

namespace flashplus::test {

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "flashplus-test-XXXXXX").string();
  path = ::mkdtemp(pattern.data());
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path, ignored);
}

KernelKey sampleKey(int number) {
  KernelKey key;
  key.spec = "forward dtype=bf16 dqk=128 dv=128 left=0 right=1 split=0 align=16 score={s}";
  key.schedule = "sm80.flash tile_m=64 tile_n=" + std::to_string(64 + number) + " warps=4";
  key.target = "sm_80@sm_90";
  key.params = "q:ptr@0 k:ptr@8 size=16";
  key.build = "0123456789abcdef0123456789abcdef";
  return key;
}

std::vector<uint8_t> readFile(const std::string &path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void writeFile(const std::string &path, std::span<const uint8_t> bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char *>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

std::vector<std::string> filesBelow(const std::string &folder) {
  std::vector<std::string> files;
  for (const auto &item : std::filesystem::recursive_directory_iterator(folder))
    if (!item.is_directory() || item.is_symlink())
      files.push_back(item.path().lexically_relative(folder).string());
  std::ranges::sort(files);
  return files;
}

std::string entryFile(const std::string &dir, const KernelKey &key) { return entryPath(dir, key.hash()); }

LoggedStore::LoggedStore(const std::string &dir, const FileOps &ops, KernelStore::Bad bad) {
  store = KernelStore::open(
      dir, [list = warnings](const std::string &text) { list->push_back(text); }, ops, bad);
}

Fault &fault() {
  thread_local Fault instance;
  return instance;
}

namespace {

/// Counts a call; true when it is to be spoiled. Dies when told to, except before a write, which dies
/// half-way.
bool spoil(const char *operation) {
  Fault &f = fault();
  ++f.calls;
  f.trace += std::string(operation) + " ";
  if (f.kind == Fault::Off || f.calls < f.at || (f.calls > f.at && !f.onwards))
    return false;
  const std::string name = operation;
  if (f.kind == Fault::Short && name != "read" && name != "pread" && name != "write")
    return false;
  if (f.kind == Fault::Kill && name != "write")
    ::raise(SIGKILL);
  f.spoiled += name + " ";
  return true;
}

int failing() {
  errno = fault().error;
  return -1;
}

const FileOps &sys() { return plainOps(); }

} // namespace

const FileOps &plainOps() {
  static const FileOps ops = [] {
    FileOps changed = systemFileOps();
    changed.fsync = [](int) { return 0; };
    return changed;
  }();
  return ops;
}

const FileOps &faultyOps() {
  static const FileOps ops = {
      .open = [](int dir, const char *name, int flags,
                 mode_t mode) { return spoil("open") ? failing() : sys().open(dir, name, flags, mode); },
      .read = [](int fd, void *buffer, size_t size) -> ssize_t {
        if (!spoil("read"))
          return sys().read(fd, buffer, size);
        return fault().kind == Fault::Short ? sys().read(fd, buffer, (size + 1) / 2) : failing();
      },
      .pread = [](int fd, void *buffer, size_t size, off_t offset) -> ssize_t {
        if (!spoil("pread"))
          return sys().pread(fd, buffer, size, offset);
        return fault().kind == Fault::Short ? sys().pread(fd, buffer, (size + 1) / 2, offset) : failing();
      },
      .write = [](int fd, const void *buffer, size_t size) -> ssize_t {
        if (!spoil("write"))
          return sys().write(fd, buffer, size);
        if (fault().kind == Fault::Short)
          return sys().write(fd, buffer, (size + 1) / 2);
        if (fault().kind != Fault::Fail && sys().write(fd, buffer, size / 2) < 0)
          return -1;
        if (fault().kind == Fault::Kill)
          ::raise(SIGKILL);
        return failing();
      },
      .fsync = [](int fd) { return spoil("fsync") ? failing() : sys().fsync(fd); },
      .close =
          [](int fd) {
            const bool spoiled = spoil("close");
            const int result = sys().close(fd);
            return spoiled ? failing() : result;
          },
      .fstat = [](int fd, struct stat *out) { return spoil("fstat") ? failing() : sys().fstat(fd, out); },
      .lstat = [](int dir, const char *name,
                  struct stat *out) { return spoil("lstat") ? failing() : sys().lstat(dir, name, out); },
      .readlink = [](int dir, const char *name, char *out, size_t size) -> ssize_t {
        return spoil("readlink") ? failing() : sys().readlink(dir, name, out, size);
      },
      .link =
          [](int from_dir, const char *from, int to_dir, const char *to) {
            if (spoil("link"))
              return failing();
            if (!fault().no_links)
              return sys().link(from_dir, from, to_dir, to);
            errno = EPERM;
            return -1;
          },
      .rename =
          [](int from_dir, const char *from, int to_dir, const char *to) {
            return spoil("rename") ? failing() : sys().rename(from_dir, from, to_dir, to);
          },
      .rename_new =
          [](int from_dir, const char *from, int to_dir, const char *to) {
            if (spoil("rename_new"))
              return failing();
            if (!fault().no_links && !fault().no_rename_new)
              return sys().rename_new(from_dir, from, to_dir, to);
            errno = EINVAL;
            return -1;
          },
      .unlink = [](int dir,
                   const char *name) { return spoil("unlink") ? failing() : sys().unlink(dir, name); },
      .mkdir = [](int dir, const char *name,
                  mode_t mode) { return spoil("mkdir") ? failing() : sys().mkdir(dir, name, mode); },
      .flock = [](int fd, int operation) { return spoil("flock") ? failing() : sys().flock(fd, operation); },
      .touch = [](int dir, const char *name) { return spoil("touch") ? failing() : sys().touch(dir, name); },
      .list =
          [](int dir, std::vector<std::string> &names) {
            return spoil("list") ? failing() : sys().list(dir, names);
          },
  };
  return ops;
}

} // namespace flashplus::test
