// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/devices/cpu/perf_dump.h"

#include "cache/fork.h"
#include "runtime/kernels/flights.h"

#include <cerrno>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <vector>

namespace flashplus {
namespace {

struct Header {
  uint32_t magic = 0x4A695444; // "JiTD"; its byte order tells the reader the file's
  uint32_t version = 1;
  uint32_t total_size = sizeof(Header);
  uint32_t elf_machine = EM_X86_64;
  uint32_t padding = 0;
  uint32_t process = 0;
  uint64_t timestamp = 0;
  uint64_t flags = 0;
};
static_assert(sizeof(Header) == 40);

struct CodeLoad { // followed by the name, a NUL and the code
  uint32_t id = 0; // JIT_CODE_LOAD
  uint32_t total_size = 0;
  uint64_t timestamp = 0;
  uint32_t process = 0, thread = 0;
  uint64_t address = 0, code_address = 0, code_size = 0;
  uint64_t index = 0; ///< Unique in the file.
};
static_assert(sizeof(CodeLoad) == 56);

/// The clock of `perf record -k mono`.
uint64_t now() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return uint64_t(t.tv_sec) * 1'000'000'000 + uint64_t(t.tv_nsec);
}

bool writeAll(int file, const void *data, size_t size) {
  const char *at = static_cast<const char *>(data);
  while (size) {
    const ssize_t written = write(file, at, size);
    if (written < 0 && errno == EINTR)
      continue;
    if (written <= 0)
      return false;
    at += written;
    size -= size_t(written);
  }
  return true;
}

/// Makes what is missing of a path, for this user alone: part of it may be the kernel cache.
void makeFolders(const std::string &path) {
  for (size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    mkdir(path.substr(0, slash).c_str(), 0700);
    if (slash == std::string::npos)
      return;
  }
}

// They outlive every context. A dump is made by one thread at a time, and found under the lock, which no disk
// is waited for with.
Flights &opening = *new Flights;
ForkSafe<std::mutex> &current_mutex = *new ForkSafe<std::mutex>;
std::weak_ptr<PerfDump> &current = *new std::weak_ptr<PerfDump>;

} // namespace

Result<std::shared_ptr<PerfDump>> PerfDump::open(const std::string &folder) {
  const Flights::Flight flight(opening, "");
  std::shared_ptr<PerfDump> open;
  {
    std::lock_guard lock(current_mutex);
    open = current.lock();
  }
  if (open && open->process_ == getpid()) {
    if (open->folder_ == folder)
      return open;
    return Status(StatusCode::InvalidArgument, "the perf dump of this process is " + open->path_ +
                                                   ", so it cannot be in '" + folder +
                                                   "'; a process has one");
  }
  std::shared_ptr<PerfDump> dump(new PerfDump);
  dump->folder_ = folder;
  dump->process_ = getpid();
  dump->path_ = folder + "/jit-" + std::to_string(dump->process_) + ".dump";
  auto failed = [&](const char *what) {
    return Status(StatusCode::InvalidArgument,
                  "the perf dump " + dump->path_ + " cannot be " + what + ": " + std::strerror(errno));
  };
  makeFolders(folder); // open() tells
  // An earlier process of this number may have left one. O_EXCL follows no link that someone else put into
  // /tmp.
  if (unlink(dump->path_.c_str()) != 0 && errno != ENOENT)
    return failed("replaced");
  dump->file_ = ::open(dump->path_.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
  if (dump->file_ < 0)
    return failed("made");
  Header header;
  header.process = uint32_t(dump->process_);
  header.timestamp = now();
  if (!writeAll(dump->file_, &header, sizeof header))
    return failed("written");
  // perf records executable mappings, and finds the dump by this one's file name.
  dump->mark_size_ = size_t(sysconf(_SC_PAGESIZE));
  void *mark = mmap(nullptr, dump->mark_size_, PROT_READ | PROT_EXEC, MAP_PRIVATE, dump->file_, 0);
  if (mark == MAP_FAILED)
    return failed("mapped as executable (is its file system mounted noexec?)");
  dump->mark_ = mark;
  std::lock_guard lock(current_mutex);
  current = dump;
  return dump;
}

PerfDump::~PerfDump() {
  if (mark_)
    munmap(mark_, mark_size_);
  if (file_ >= 0)
    close(file_);
}

Status PerfDump::add(const std::string &name, const uint8_t *code, size_t size) {
  if (process_ != getpid())
    return Status::ok(); // the child of a fork, for which another thread may have the lock for ever
  std::lock_guard lock(mutex_);
  if (file_ < 0)
    return Status::ok();
  CodeLoad load;
  const size_t total = sizeof load + name.size() + 1 + size;
  load.total_size = uint32_t(total);
  load.process = uint32_t(process_);
  load.thread = uint32_t(syscall(SYS_gettid));
  load.address = load.code_address = reinterpret_cast<uintptr_t>(code);
  load.code_size = size;
  load.index = next_index_++;
  load.timestamp = now();
  std::vector<uint8_t> record(total);
  std::memcpy(record.data(), &load, sizeof load);
  std::memcpy(record.data() + sizeof load, name.c_str(), name.size() + 1);
  std::memcpy(record.data() + sizeof load + name.size() + 1, code, size);
  if (writeAll(file_, record.data(), record.size()))
    return Status::ok();
  const int error = errno;
  close(file_); // half a record may be there; perf stops at it
  file_ = -1;
  return {StatusCode::DeviceError, "the perf dump " + path_ + " cannot be written: " + std::strerror(error)};
}

} // namespace flashplus
