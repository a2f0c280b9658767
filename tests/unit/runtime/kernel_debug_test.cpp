// SPDX-License-Identifier: BSD-3-Clause
// What a debugger and perf are told: the list and the dump, read as they read them.
#include "runtime/devices/cpu/kernel_debug.h"
#include "runtime/devices/cpu/cpu_device.h"
#include "tests/tools/temporary.h"
#include "tests/unit/runtime/object_builder.h"

#include <atomic>
#include <cstdlib>
#include <doctest/doctest.h>
#include <elf.h>
#include <fstream>
#include <iterator>
#include <sys/wait.h>
#include <thread>
#include <time.h>
#include <unistd.h>

using namespace flashplus;
using namespace flashplus::test;

namespace {

constexpr size_t kCodeSize = 7; ///< Of `answer`.

Bytes sizedAnswer() {
  ObjectBuilder b = answerObject();
  const uint64_t size = kCodeSize;
  std::memcpy(b.sections[kSymbols].bytes.data() + 2 * sizeof(Elf64_Sym) + offsetof(Elf64_Sym, st_size), &size,
              8);
  return b.finish();
}

/// Addresses of the functions called `name` in the debugger's list, as a debugger computes them: the
/// section's address plus the symbol's value. Checks the links between the entries.
std::vector<uint64_t> listed(const std::string &name) {
  struct Search {
    std::string name;
    std::vector<uint64_t> found;
    bool linked = true;
  } search{name, {}};
  withGdbList(
      [](const jit_descriptor &list, void *context) {
        auto &search = *static_cast<Search *>(context);
        search.linked = list.version == 1 && list.action_flag == kJitNoAction;
        const jit_code_entry *before = nullptr;
        for (const jit_code_entry *e = list.first_entry; e; before = e, e = e->next_entry) {
          search.linked = search.linked && e->prev_entry == before;
          auto at = [&]<class T>(uint64_t offset, T) {
            T value{};
            if (offset + sizeof(T) <= e->symfile_size)
              std::memcpy(&value, e->symfile_addr + offset, sizeof(T));
            return value;
          };
          const auto header = at(0, Elf64_Ehdr{});
          auto section = [&](size_t i) { return at(header.e_shoff + i * sizeof(Elf64_Shdr), Elf64_Shdr{}); };
          for (size_t i = 0; i < header.e_shnum; ++i) {
            const Elf64_Shdr table = section(i);
            for (size_t s = 0; table.sh_type == SHT_SYMTAB && s < table.sh_size / sizeof(Elf64_Sym); ++s) {
              const auto symbol = at(table.sh_offset + s * sizeof(Elf64_Sym), Elf64_Sym{});
              const char *text = e->symfile_addr + section(table.sh_link).sh_offset + symbol.st_name;
              if (ELF64_ST_TYPE(symbol.st_info) == STT_FUNC && search.name == text)
                search.found.push_back(section(symbol.st_shndx).sh_addr + symbol.st_value);
            }
          }
        }
      },
      &search);
  CHECK(search.linked);
  return search.found;
}

Bytes contents(const std::string &path) {
  std::ifstream in(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(in), {});
}

/// The fields of the jitdump specification, read at their offsets.
struct Dump {
  struct Record {
    uint32_t pid, tid;
    uint64_t time, vma, address, size, index;
    std::string name;
    Bytes code;
  };
  uint32_t magic = 0, version = 0, header_size = 0, machine = 0, pid = 0;
  uint64_t time = 0, flags = 1;
  std::vector<Record> records;

  explicit Dump(const std::string &path) {
    const Bytes file = contents(path);
    auto u32 = [&](size_t at) {
      uint32_t v;
      REQUIRE(at + 4 <= file.size());
      std::memcpy(&v, &file[at], 4);
      return v;
    };
    auto u64 = [&](size_t at) {
      uint64_t v;
      REQUIRE(at + 8 <= file.size());
      std::memcpy(&v, &file[at], 8);
      return v;
    };
    magic = u32(0), version = u32(4), header_size = u32(8), machine = u32(12), pid = u32(20), time = u64(24),
    flags = u64(32);
    for (size_t at = header_size; at < file.size(); at += u32(at + 4)) {
      REQUIRE(u32(at) == 0); // JIT_CODE_LOAD
      REQUIRE(at + u32(at + 4) <= file.size());
      Record r{u32(at + 16), u32(at + 20), u64(at + 8), u64(at + 24), u64(at + 32), u64(at + 40),
               u64(at + 48), {},           {}};
      r.name = reinterpret_cast<const char *>(&file[at + 56]);
      const size_t code = at + 56 + r.name.size() + 1;
      REQUIRE(code + r.size == at + u32(at + 4));
      r.code.assign(file.begin() + ptrdiff_t(code), file.begin() + ptrdiff_t(code + r.size));
      records.push_back(r);
    }
  }
};

uint64_t monotonic() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return uint64_t(t.tv_sec) * 1'000'000'000 + uint64_t(t.tv_nsec);
}

KernelDebug open(const std::string &setting, const std::string &folder = "/nowhere") {
  auto debug = KernelDebug::open(setting, folder, nullptr);
  REQUIRE_MESSAGE(debug.isOk(), debug.status().message());
  return *debug;
}

} // namespace

TEST_CASE("a loaded kernel is in the debugger's list, at its address, until it is unloaded") {
  const Bytes object = sizedAnswer();
  auto first = LoadedObject::load(object), second = LoadedObject::load(object);
  REQUIRE((first.isOk() && second.isOk()));
  auto address = [](const LoadedObject &o) {
    return uint64_t(reinterpret_cast<uintptr_t>(o.find("answer")));
  };
  const KernelDebug debug = open("gdb");
  CHECK(listed("answer").empty());
  auto one = debug.loaded(**first, object);
  auto two = debug.loaded(**second, object);
  CHECK(listed("answer") == std::vector<uint64_t>{address(**second), address(**first)});
  one.reset(); // the last of the list
  CHECK(listed("answer") == std::vector<uint64_t>{address(**second)});
  one = debug.loaded(**first, object);
  two.reset(); // the last again
  two = debug.loaded(**second, object);
  two.reset(); // the first
  CHECK(listed("answer") == std::vector<uint64_t>{address(**first)});
  one.reset();
  CHECK(listed("answer").empty());
  CHECK(KernelDebug().loaded(**first, object) == nullptr);
}

TEST_CASE("threads load and unload kernels while a debugger reads the list") {
  const Bytes object = sizedAnswer();
  const KernelDebug debug = open("gdb");
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) {
        auto code = LoadedObject::load(object);
        if (!code || !debug.loaded(**code, object))
          ++failures;
      }
    });
  for (int i = 0; i < 100; ++i)
    listed("answer");
  for (std::thread &t : threads)
    t.join();
  CHECK(failures == 0);
  CHECK(listed("answer").empty());
}

TEST_CASE("the perf dump holds the code of each kernel, as its format says") {
  TemporaryFolder folder;
  const Bytes object = sizedAnswer();
  auto code = LoadedObject::load(object);
  REQUIRE(code.isOk());
  const uint64_t before = monotonic();
  const KernelDebug debug = open("perf", folder.path() + "/new/er");
  const std::string path = folder.path() + "/new/er/jit-" + std::to_string(getpid()) + ".dump";
  CHECK(debug.loaded(**code, object) == nullptr);
  std::thread([&] { debug.loaded(**code, object); }).join();
  const Dump dump(path);
  CHECK(dump.magic == 0x4A695444);
  CHECK(dump.version == 1);
  CHECK(dump.header_size == 40);
  CHECK(dump.machine == EM_X86_64);
  CHECK(dump.pid == uint32_t(getpid()));
  CHECK(dump.flags == 0);
  REQUIRE(dump.records.size() == 2);
  uint64_t time = before;
  const auto *bytes = static_cast<const uint8_t *>((*code)->find("answer"));
  for (uint64_t i = 0; i < 2; ++i) {
    const Dump::Record &r = dump.records[i];
    CHECK(r.name == "answer");
    CHECK(r.pid == uint32_t(getpid()));
    CHECK((r.tid == uint32_t(getpid())) == (i == 0)); // the main thread's number is the process's
    CHECK(r.index == i);
    CHECK(r.address == reinterpret_cast<uintptr_t>(bytes));
    CHECK(r.vma == r.address);
    CHECK(r.size == kCodeSize);
    CHECK(r.code == Bytes(bytes, bytes + kCodeSize));
    CHECK(r.time >= time);
    time = r.time;
  }
  CHECK((dump.time >= before && time <= monotonic()));

  // perf finds the file by an executable mapping of it.
  std::ifstream maps("/proc/self/maps");
  bool mapped = false;
  for (std::string line; std::getline(maps, line);)
    mapped = mapped || (line.find("r-xp") != std::string::npos && line.ends_with(path));
  CHECK(mapped);

  // A process has one dump; a second context shares it.
  open("perf", folder.path() + "/new/er").loaded(**code, object);
  CHECK(Dump(path).records.size() == 3);
  CHECK(!KernelDebug::open("perf", folder.path(), nullptr).isOk());

  // The child of a fork does not write into its parent's.
  const pid_t child = fork();
  if (child == 0) {
    debug.loaded(**code, object);
    _exit(0);
  }
  int status = 1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(Dump(path).records.size() == 3);
}

TEST_CASE("a dump that an earlier process left, or a link, is replaced and not followed") {
  TemporaryFolder folder;
  const std::string path = folder.path() + "/jit-" + std::to_string(getpid()) + ".dump",
                    other = folder.path() + "/other";
  std::ofstream(other) << "precious";
  REQUIRE(symlink(other.c_str(), path.c_str()) == 0);
  const KernelDebug debug = open("perf=" + folder.path());
  CHECK(contents(other).size() == 8);
  CHECK(Dump(path).records.empty());
}

TEST_CASE("the setting, when it is wrong") {
  for (const char *text : {"gdbx", "gdb,,perf", ",", "perf=", "gdb perf", "GDB"}) {
    auto debug = KernelDebug::open(text, "/nowhere", nullptr);
    INFO(text);
    REQUIRE(!debug);
    CHECK(debug.status().code() == StatusCode::InvalidArgument);
    CHECK(debug.status().message().find("'" + std::string(text) + "'; it must be") != std::string::npos);
  }
  auto debug = KernelDebug::open("gdb,perf=/dev/null/x", "/nowhere", nullptr);
  REQUIRE(!debug);
  CHECK(debug.status().message().find("/dev/null/x/jit-") != std::string::npos);
}

TEST_CASE("the CPU device tells of the kernels that it holds, and of their end") {
  TemporaryFolder folder;
  ThreadPool pool(1);
  auto device = createCpuDevice(pool, {}, open("gdb,perf", folder.path()));
  if (!device)
    return; // a processor older than x86-64-v3
  Artifact artifact;
  artifact.kind = CodeKind::X86Object;
  artifact.code = sizedAnswer();
  artifact.launch.entry = "answer";
  auto kernel = (*device)->load(artifact);
  REQUIRE(kernel.isOk());
  const std::vector<uint64_t> found = listed("answer");
  REQUIRE(found.size() == 1);
  const Dump dump(folder.path() + "/jit-" + std::to_string(getpid()) + ".dump");
  REQUIRE(dump.records.size() == 1);
  CHECK(dump.records[0].address == found[0]);
  kernel->reset();
  CHECK(listed("answer").empty());
}
