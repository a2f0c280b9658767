// SPDX-License-Identifier: BSD-3-Clause
// The kernel table over a real store in a temporary folder, a fake device and a fake compile function.
#include "cache/directory.h"
#include "runtime/kernels/kernel_table.h"
#include "tests/tools/temporary.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <fstream>
#include <mutex>
#include <sys/stat.h>
#include <thread>

using namespace flashplus;
using flashplus::test::TemporaryFolder;

namespace {

const Target kTarget{Isa::X86_64_v3, 0};
const Target kGpu{Isa::Sm80, 90};

PlannedKernel sampleKernel(const Target &target = kTarget, int head_dim = 64) {
  KernelSpec spec;
  spec.head_dim_qk = spec.head_dim_v = head_dim;
  return {spec, feasibleSchedules(spec, offlineProfile(target)).front()};
}

/// Thread-safe like every device. What a test reads of it without a lock, it reads when no thread runs.
struct FakeDevice final : Device {
  explicit FakeDevice(const Target &target) { profile_ = offlineProfile(target); }
  DLDevice id() const override { return {kDLCPU, 0}; }
  std::string name() const override { return "fake"; }
  std::string detail() const override { return ""; }
  const DeviceProfile &profile() const override { return profile_; }
  Result<std::unique_ptr<LoadedKernel>> load(const Artifact &artifact) override {
    std::lock_guard lock(mutex);
    ++loads;
    loaded_code = artifact.code;
    if (refusals > 0) {
      --refusals;
      return refusal;
    }
    return std::make_unique<LoadedKernel>();
  }
  Status launch(LoadedKernel &, const void *, int64_t, std::span<const TensorLayout>, void *) override {
    return Status::ok();
  }
  Status clearAsync(void *, size_t, void *) override { return Status::ok(); }
  std::string assemblerId() const override { return assembler; }
  Result<Artifact> assemble(const Artifact &ptx) override {
    std::lock_guard lock(mutex);
    ++assembles;
    Artifact out = ptx;
    out.kind = CodeKind::Cubin;
    out.code.push_back('!');
    return out;
  }
  Result<void *> allocate(size_t) override { return Status(StatusCode::OutOfMemory, "none"); }
  Status release(void *) override { return Status::ok(); }
  Result<void *> allocateAsync(size_t, void *) override { return Status(StatusCode::OutOfMemory, "none"); }
  Status releaseAsync(void *, void *) override { return Status::ok(); }
  Status copyToDevice(void *, const void *, size_t) override { return Status::ok(); }
  Status copyToHost(void *, const void *, size_t) override { return Status::ok(); }
  Status synchronize(void *) override { return Status::ok(); }

  std::mutex mutex;
  DeviceProfile profile_;
  std::string assembler;
  std::vector<uint8_t> loaded_code;
  int loads = 0, assembles = 0, refusals = 0;
  Status refusal{StatusCode::CompileFailed, "the device refuses this code"};
};

/// A table with what a test wants to see of it.
struct Fixture {
  explicit Fixture(const std::string &dir, bool offline = false, Target target = kTarget)
      : store(KernelStore::open(dir, log(), systemFileOps(),
                                offline ? KernelStore::Bad::Keep : KernelStore::Bad::Remove)),
        device(target),
        table(
            *store,
            [this](const std::string &spec, const std::string &schedule, const std::string &target_text,
                   bool ptx,
                   const CompilerLibrary::Waiting &) { return compile(spec, schedule, target_text, ptx); },
            offline, log(),
            [this](const flashplus_event &event) {
              std::lock_guard lock(mutex);
              CHECK(event.struct_size == sizeof event);
              events.push_back(event.kind);
              last_detail = event.detail;
              last_key = event.key;
              last = event;
            },
            [this](const Target &) { return may_assemble; }) {}

  KernelStore::Log log() {
    return [this](const std::string &message) {
      std::lock_guard lock(mutex);
      warnings.push_back(message);
    };
  }

  Result<Compiled> compile(const std::string &spec, const std::string &schedule, const std::string &target,
                           bool ptx) {
    ++compiles;
    std::this_thread::sleep_for(std::chrono::milliseconds(compile_ms));
    if (!failure && !(ptx && failure.code() == StatusCode::IoError))
      return failure;
    auto s = KernelSpec::parse(spec);
    auto h = Schedule::parse(schedule);
    auto t = Target::parse(target);
    Artifact artifact;
    artifact.kind = ptx ? CodeKind::Ptx : kind;
    const std::string code = "code of " + spec;
    artifact.code.assign(code.begin(), code.end());
    artifact.launch = *launchSchema(*s, *h, *t);
    artifact.launch.threads += wrong_threads;
    artifact.provenance = "fake";
    return Compiled{std::move(artifact), {1, 2, 3, 4, 0}};
  }

  std::mutex mutex;
  std::vector<std::string> warnings;
  std::vector<flashplus_event_kind> events;
  std::string last_detail, last_key;
  flashplus_event last{}; ///< Its text is gone.
  std::unique_ptr<KernelStore> store;
  FakeDevice device;
  std::atomic<int> compiles{0};
  int compile_ms = 0, wrong_threads = 0;
  bool may_assemble = false;
  CodeKind kind = CodeKind::X86Object;
  Status failure;
  KernelTable table;
};

std::string entryFile(const Fixture &f, const PlannedKernel &kernel, const Target &target = kTarget) {
  return entryPath(f.store->dir(), KernelTable::keyOf(kernel, target).hash());
}

} // namespace

TEST_CASE("a miss compiles and publishes, then memory, then another process's disk") {
  TemporaryFolder folder;
  const PlannedKernel kernel = sampleKernel();
  Fixture f(folder.path("cache"));
  auto first = f.table.resident(kernel, f.device, true);
  REQUIRE_MESSAGE(first.isOk(), first.status().message());
  CHECK((*first)->code->source == KernelCode::Source::Compiled);
  auto second = f.table.resident(kernel, f.device, false);
  REQUIRE(second.isOk());
  CHECK(first->get() == second->get());
  CHECK(f.compiles == 1);
  CHECK(f.device.loads == 1);
  CHECK(f.table.counters.compiles == 1);
  CHECK(f.table.counters.memory_hits == 1);

  Fixture later(folder.path("cache"));
  auto third = later.table.resident(kernel, later.device, true);
  REQUIRE(third.isOk());
  CHECK((*third)->code->source == KernelCode::Source::Disk);
  CHECK((*third)->code->artifact == (*first)->code->artifact);
  CHECK(later.compiles == 0);
  CHECK(later.table.counters.disk_hits == 1);
  using Events = std::vector<flashplus_event_kind>;
  CHECK(f.events == Events{FLASHPLUS_EVENT_COMPILE_STARTED, FLASHPLUS_EVENT_COMPILED});
  CHECK(later.events == Events{FLASHPLUS_EVENT_DISK_HIT});
  CHECK(f.last_key == KernelTable::keyOf(kernel, kTarget).hex());
  CHECK(f.last_key == later.last_key);
  CHECK(f.last.build_ms + f.last.passes_ms + f.last.optimize_ms + f.last.emit_ms == 10);
  CHECK(f.last.code_bytes == int64_t((*first)->code->artifact.code.size()));
  CHECK(f.table.counters.miss_absent == 1);
  CHECK(f.table.counters.optimize_us == 3000);
  CHECK(f.table.counters.resident_kernels == 1);
  CHECK(f.table.counters.resident_bytes == f.last.code_bytes);
  CHECK(later.table.counters.miss_absent == 0);
  CHECK(f.warnings.empty());
  CHECK(later.warnings.empty());
}

TEST_CASE("threads that miss one kernel compile it once; other kernels do not wait for it") {
  TemporaryFolder folder;
  Fixture f(folder.path("cache"));
  f.compile_ms = 30;
  std::vector<std::thread> threads;
  std::vector<ResidentKernel *> found(16);
  for (size_t i = 0; i < found.size(); ++i)
    threads.emplace_back([&, i] {
      auto kernel = f.table.resident(sampleKernel(kTarget, 64 + 8 * int(i % 2)), f.device, true);
      found[i] = kernel ? kernel->get() : nullptr;
    });
  for (std::thread &t : threads)
    t.join();
  CHECK(f.compiles == 2);
  for (size_t i = 0; i < found.size(); ++i) {
    CHECK(found[i] != nullptr);
    CHECK(found[i] == found[i % 2]);
  }
  CHECK(found[0] != found[1]);
}

TEST_CASE("a failed compile is the caller's error, keeps nothing, and the next call tries again") {
  TemporaryFolder folder;
  Fixture f(folder.path("cache"));
  f.failure = {StatusCode::CompileFailed, "no register left"};
  auto failed = f.table.resident(sampleKernel(), f.device, true);
  REQUIRE(!failed);
  CHECK(failed.status().message() == "no register left");
  CHECK(f.events.back() == FLASHPLUS_EVENT_COMPILE_FAILED);
  CHECK(f.last_detail == "no register left");
  CHECK(f.table.counters.compile_failures == 1);
  CHECK(f.store->usage().entries == 0);
  f.failure = Status::ok();
  CHECK(f.table.resident(sampleKernel(), f.device, true).isOk());
  CHECK(f.compiles == 2);
}

TEST_CASE("a compiler whose launch schema is not the plan's is refused, and nothing is published") {
  TemporaryFolder folder;
  Fixture f(folder.path("cache"));
  f.wrong_threads = 32;
  auto refused = f.table.resident(sampleKernel(), f.device, true);
  REQUIRE(!refused);
  CHECK(refused.status().code() == StatusCode::Internal);
  CHECK(f.store->usage().entries == 0);
}

TEST_CASE("a damaged entry is one warning and a rebuild") {
  TemporaryFolder folder;
  const PlannedKernel kernel = sampleKernel();
  {
    Fixture f(folder.path("cache"));
    REQUIRE(f.table.resident(kernel, f.device, true).isOk());
  }
  Fixture f(folder.path("cache"));
  const std::string path = entryFile(f, kernel);
  std::string bytes = test::readText(path);
  REQUIRE(bytes.size() > 100);
  bytes[bytes.size() / 2] ^= 1;
  test::writeText(path, bytes);
  auto rebuilt = f.table.resident(kernel, f.device, true);
  REQUIRE(rebuilt.isOk());
  CHECK((*rebuilt)->code->source == KernelCode::Source::Compiled);
  CHECK(f.compiles == 1);
  CHECK(f.table.counters.corrupt == 1);
  CHECK(f.table.counters.miss_damaged == 1);
  CHECK(f.events ==
        std::vector{FLASHPLUS_EVENT_DAMAGED, FLASHPLUS_EVENT_COMPILE_STARTED, FLASHPLUS_EVENT_COMPILED});
  REQUIRE(f.warnings.size() == 1);
  CHECK(f.warnings[0].find("damaged") != std::string::npos);
  CHECK(f.store->verify().empty()); // the rebuilt entry took its place
  CHECK(f.store->usage().entries == 1);
}

TEST_CASE("a cached entry that the device refuses is rebuilt once; a second refusal is an error") {
  TemporaryFolder folder;
  const PlannedKernel kernel = sampleKernel();
  {
    Fixture f(folder.path("cache"));
    REQUIRE(f.table.resident(kernel, f.device, true).isOk());
  }
  {
    Fixture f(folder.path("cache"));
    f.device.refusals = 1;
    auto rebuilt = f.table.resident(kernel, f.device, true);
    REQUIRE(rebuilt.isOk());
    CHECK(f.compiles == 1);
    CHECK(f.device.loads == 2);
    CHECK(f.table.counters.corrupt == 1);
    CHECK(f.table.counters.miss_refused == 1);
    CHECK(f.events == std::vector{FLASHPLUS_EVENT_DISK_HIT, FLASHPLUS_EVENT_REFUSED,
                                  FLASHPLUS_EVENT_COMPILE_STARTED, FLASHPLUS_EVENT_COMPILED});
    REQUIRE(f.warnings.size() == 1);
    CHECK(f.warnings[0].find("the device refuses this code") != std::string::npos);
  }
  {
    Fixture f(folder.path("cache"));
    f.device.refusals = 100;
    auto failed = f.table.resident(kernel, f.device, true);
    REQUIRE(!failed);
    CHECK(f.compiles == 1);
    CHECK(f.device.loads == 2);
  }
  { // What is not about the code (no memory, a lost device) throws nothing away.
    Fixture f(folder.path("cache"));
    f.device.refusals = 1;
    f.device.refusal = {StatusCode::OutOfMemory, "no memory"};
    CHECK(f.table.resident(kernel, f.device, true).status().code() == StatusCode::OutOfMemory);
    CHECK(f.compiles == 0);
    CHECK(f.store->usage().entries == 1);
  }
}

TEST_CASE("offline, a miss names the key and how to warm it; a hit works") {
  TemporaryFolder folder;
  const PlannedKernel kernel = sampleKernel();
  {
    Fixture f(folder.path("cache"), /*offline=*/true);
    auto missed = f.table.resident(kernel, f.device, true);
    REQUIRE(!missed);
    CHECK(missed.status().code() == StatusCode::NotResident);
    CHECK(missed.status().message().find("flashplus warmup --spec '" + kernel.spec.text() +
                                         "' --target x86-64-v3") != std::string::npos);
    CHECK(f.compiles == 0);
  }
  {
    Fixture f(folder.path("cache"));
    REQUIRE(f.table.resident(kernel, f.device, true).isOk());
  }
  Fixture f(folder.path("cache"), /*offline=*/true);
  CHECK(f.table.resident(kernel, f.device, true).isOk());
}

TEST_CASE("once the table is ready, a compilation warns or fails, and names the kernel") {
  TemporaryFolder folder;
  Fixture f(folder.path("cache"));
  REQUIRE(f.table.resident(sampleKernel(), f.device, true).isOk());
  f.table.setLate(KernelTable::Late::Warn);
  CHECK(f.table.resident(sampleKernel(), f.device, true).isOk()); // is there
  CHECK(f.table.counters.late_compiles == 0);
  CHECK(f.warnings.empty());
  const PlannedKernel second = sampleKernel(kTarget, 96), third = sampleKernel(kTarget, 128);
  auto warned = f.table.resident(second, f.device, true);
  CHECK(warned.isOk());
  CHECK(f.table.counters.late_compiles == 1);
  REQUIRE(f.warnings.size() == 1);
  for (const std::string &part : {second.spec.text(), second.schedule.text(), kTarget.text()})
    CHECK(f.warnings[0].find(part) != std::string::npos);

  f.table.setLate(KernelTable::Late::Error);
  auto refused = f.table.resident(third, f.device, true);
  REQUIRE(!refused);
  CHECK(refused.status().code() == StatusCode::NotResident);
  CHECK(refused.status().message().find(third.spec.text()) != std::string::npos);
  CHECK(refused.status().message().find("marked ready") != std::string::npos);
  CHECK(f.table.counters.late_compiles == 2);
  CHECK(f.warnings.size() == 1);
  CHECK(f.compiles == 2);
  CHECK(f.table.counters.compile_failures == 0);
  // On disk is warm, whoever compiled it.
  Fixture other(folder.path("cache"));
  other.table.setLate(KernelTable::Late::Error);
  CHECK(other.table.resident(second, other.device, true).isOk());
  CHECK(other.table.counters.late_compiles == 0);

  f.table.setLate(KernelTable::Late::Allow);
  CHECK(f.table.resident(third, f.device, true).isOk());
  CHECK(f.table.counters.late_compiles == 2);
}

TEST_CASE("once the table is ready, PTX on disk is taken as it is") {
  TemporaryFolder folder;
  const PlannedKernel kernel = sampleKernel(kGpu);
  {
    Fixture f(folder.path("cache"), false, kGpu);
    f.kind = CodeKind::Ptx;
    REQUIRE(f.table.code(kernel, kGpu).isOk());
  }
  Fixture f(folder.path("cache"), false, kGpu);
  f.may_assemble = true;
  f.table.setLate(KernelTable::Late::Error);
  auto code = f.table.code(kernel, kGpu);
  REQUIRE_MESSAGE(code.isOk(), code.status().message());
  CHECK((*code)->source == KernelCode::Source::Disk);
  CHECK(f.compiles == 0);
  CHECK(f.table.counters.late_compiles == 0);
}

TEST_CASE("under capture only what is resident is found") {
  Fixture f("");
  auto missed = f.table.resident(sampleKernel(), f.device, /*may_make=*/false);
  REQUIRE(!missed);
  CHECK(missed.status().code() == StatusCode::NotResident);
  CHECK(missed.status().message().find("captured") != std::string::npos);
  CHECK(f.compiles == 0);
  REQUIRE(f.table.resident(sampleKernel(), f.device, true).isOk());
  CHECK(f.table.resident(sampleKernel(), f.device, false).isOk());
}

TEST_CASE("a kernel that cannot be published still runs, with one warning") {
  TemporaryFolder folder;
  Fixture f(folder.path("cache"));
  // A folder that others can write to where the entry's has to be.
  const std::string shard = shardPath(f.store->dir(), KernelTable::keyOf(sampleKernel(), kTarget).hash());
  REQUIRE((::mkdir(shard.c_str(), 0700) == 0 && ::chmod(shard.c_str(), 0777) == 0));
  auto kernel = f.table.resident(sampleKernel(), f.device, true);
  REQUIRE_MESSAGE(kernel.isOk(), kernel.status().message());
  CHECK(f.table.counters.publish_failures == 1);
  CHECK(f.events.back() == FLASHPLUS_EVENT_PUBLISH_FAILED);
  CHECK(f.last_detail.find("cannot be written") != std::string::npos);
  CHECK(f.table.resident(sampleKernel(), f.device, true).isOk());
  CHECK(f.compiles == 1);
  bool told = false;
  for (const std::string &warning : f.warnings)
    told |= warning.find("could not be written to the cache") != std::string::npos;
  CHECK(told);
}

TEST_CASE("without a disk cache kernels live in memory") {
  Fixture f("");
  REQUIRE(f.table.resident(sampleKernel(), f.device, true).isOk());
  REQUIRE(f.table.resident(sampleKernel(), f.device, true).isOk());
  CHECK(f.compiles == 1);
  CHECK(f.table.counters.publish_failures == 0);
}

TEST_CASE("PTX that the compiler could not assemble is assembled by the device, under a key of its own") {
  TemporaryFolder folder;
  const PlannedKernel kernel = sampleKernel(kGpu);
  Fixture f(folder.path("cache"), false, kGpu);
  f.kind = CodeKind::Ptx;
  f.device.assembler = "cuda-driver 12040";
  auto made = f.table.resident(kernel, f.device, true);
  REQUIRE_MESSAGE(made.isOk(), made.status().message());
  CHECK((*made)->code->key.driver == "cuda-driver 12040");
  CHECK((*made)->code->artifact.kind == CodeKind::Cubin);
  CHECK(f.device.assembles == 1);

  Fixture same(folder.path("cache"), false, kGpu);
  same.device.assembler = "cuda-driver 12040";
  REQUIRE(same.table.resident(kernel, same.device, true).isOk());
  CHECK(same.compiles == 0);
  CHECK(same.device.loaded_code.back() == '!');

  // Another driver's work is of no use.
  Fixture other(folder.path("cache"), false, kGpu);
  other.kind = CodeKind::Ptx;
  other.device.assembler = "cuda-driver 13000";
  REQUIRE(other.table.resident(kernel, other.device, true).isOk());
  CHECK(other.compiles == 1);
  CHECK(other.store->usage().entries == 2);

  // Without a device PTX is what there is; a cubin of the compiler's own has no driver in its key.
  Fixture none(folder.path("cache"), false, kGpu);
  none.kind = CodeKind::Ptx;
  auto code = none.table.code(kernel, kGpu);
  REQUIRE(code.isOk());
  CHECK((*code)->artifact.kind == CodeKind::Ptx);
  CHECK((*code)->key.driver.empty());
  CHECK(none.store->usage().entries == 3);

  // That entry does not satisfy a device.
  Fixture third(folder.path("cache"), false, kGpu);
  third.kind = CodeKind::Ptx;
  third.device.assembler = "cuda-driver 13010";
  REQUIRE(third.table.resident(kernel, third.device, true).isOk());
  CHECK(third.device.loaded_code.back() == '!');
}

TEST_CASE("PTX on disk is compiled again where an assembler may be had, once a process while there is none") {
  TemporaryFolder folder;
  const PlannedKernel kernels[] = {sampleKernel(kGpu, 64), sampleKernel(kGpu, 128)};
  const auto make = [&](Fixture &f, CodeKind kind, bool may_assemble) {
    f.kind = kind;
    f.may_assemble = may_assemble;
    for (const PlannedKernel &kernel : kernels)
      for (int again = 0; again < 2; ++again) {
        auto code = f.table.code(kernel, kGpu);
        REQUIRE_MESSAGE(code.isOk(), code.status().message());
        CHECK((*code)->artifact.kind == kind);
      }
    return f.compiles.load();
  };
  const std::string dir = folder.path("cache");
  CHECK(make(*std::make_unique<Fixture>(dir, false, kGpu), CodeKind::Ptx, false) == 2);
  CHECK(make(*std::make_unique<Fixture>(dir, false, kGpu), CodeKind::Ptx, false) == 0); // nothing that could
  CHECK(make(*std::make_unique<Fixture>(dir, true, kGpu), CodeKind::Ptx, true) == 0);   // offline
  // in vain, so not for the second
  CHECK(make(*std::make_unique<Fixture>(dir, false, kGpu), CodeKind::Ptx, true) == 1);
  {
    Fixture f(dir, false, kGpu);
    CHECK(make(f, CodeKind::Cubin, true) == 2);
    CHECK(f.store->counters().replaced == 2);
    CHECK(f.store->usage().entries == 2);
  }
  CHECK(make(*std::make_unique<Fixture>(dir, false, kGpu), CodeKind::Cubin, true) == 0);
  // without an assembler, too
  CHECK(make(*std::make_unique<Fixture>(dir, false, kGpu), CodeKind::Cubin, false) == 0);
}

TEST_CASE("an assembler that cannot be run now: the driver takes PTX, nothing is kept, and the next process "
          "tries again") {
  TemporaryFolder folder;
  const PlannedKernel kernel = sampleKernel(kGpu);
  const std::string dir = folder.path("cache");
  const auto broken = [](Fixture &f) {
    f.may_assemble = true;
    f.failure = {StatusCode::IoError, "no process for ptxas"};
  };
  {
    Fixture f(dir, false, kGpu);
    broken(f);
    auto made = f.table.resident(kernel, f.device, true);
    REQUIRE_MESSAGE(made.isOk(), made.status().message());
    CHECK((*made)->code->artifact.kind == CodeKind::Ptx);
    CHECK(f.store->usage().entries == 0);
    REQUIRE(f.warnings.size() == 1);
    CHECK(f.warnings[0].find("no process for ptxas") != std::string::npos);
    // for a warm-up
    CHECK(f.table.code(sampleKernel(kGpu, 128), kGpu).status().code() == StatusCode::IoError);
  }
  { // PTX that is there already serves, and stays.
    Fixture f(dir, false, kGpu);
    f.kind = CodeKind::Ptx;
    REQUIRE(f.table.code(kernel, kGpu).isOk());
  }
  {
    Fixture f(dir, false, kGpu);
    broken(f);
    auto found = f.table.code(kernel, kGpu);
    REQUIRE_MESSAGE(found.isOk(), found.status().message());
    CHECK((*found)->source == KernelCode::Source::Disk);
    CHECK(f.warnings.size() == 1);
    CHECK(f.table.code(kernel, kGpu).isOk());
    CHECK(f.compiles == 1);
  }
  // What an assembler refuses, or a named one that does not work, is no reason to run something else in
  // silence.
  {
    for (StatusCode code : {StatusCode::CompileFailed, StatusCode::InvalidArgument}) {
      Fixture f(dir, false, kGpu);
      f.may_assemble = true;
      f.failure = {code, "no"};
      CHECK(f.table.code(kernel, kGpu).status().code() == code);
    }
  }
  Fixture f(dir, false, kGpu);
  f.may_assemble = true;
  f.kind = CodeKind::Cubin;
  CHECK((*f.table.code(kernel, kGpu))->artifact.kind == CodeKind::Cubin);
}

TEST_CASE("offline nothing is removed: neither what the device refuses nor what is damaged") {
  TemporaryFolder folder;
  const PlannedKernel kernel = sampleKernel();
  {
    Fixture f(folder.path("cache"));
    REQUIRE(f.table.resident(kernel, f.device, true).isOk());
  }
  {
    Fixture f(folder.path("cache"), /*offline=*/true);
    f.device.refusals = 1;
    CHECK(f.table.resident(kernel, f.device, true).status().code() == StatusCode::NotResident);
    CHECK(f.warnings.size() == 1);
    CHECK(f.store->usage().entries == 1);
    CHECK(f.table.resident(kernel, f.device, true).isOk());
  }
  Fixture f(folder.path("cache"), /*offline=*/true);
  std::string bytes = test::readText(entryFile(f, kernel));
  bytes.back() ^= 1;
  test::writeText(entryFile(f, kernel), bytes);
  CHECK(f.table.resident(kernel, f.device, true).status().code() == StatusCode::NotResident);
  CHECK(test::readText(entryFile(f, kernel)) == bytes);
}

TEST_CASE("a disk hit that is to be launched otherwise than the plan says is no hit") {
  // What can be written with the right key, checksum and ranges, and would be launched with too little
  // scratch, threads or shared memory, or with parameters of another size.
  const auto spoil = {+[](LaunchSchema &s) { s.scratch = 0; },
                      +[](LaunchSchema &s) { s.scratch += 64; },
                      +[](LaunchSchema &s) { s.threads += 32; },
                      +[](LaunchSchema &s) { s.shared_memory += 1024; },
                      +[](LaunchSchema &s) { s.params_size -= 8; },
                      +[](LaunchSchema &s) { s.entry += "x"; },
                      +[](LaunchSchema &s) { s.blocks_per_sm += 1; },
                      +[](LaunchSchema &s) {
                        s.tensor_maps.push_back({Operand::K, 64, 64});
                      }};
  const auto spoilt = [](const PlannedKernel &kernel, const Target &target, void (*change)(LaunchSchema &)) {
    Artifact artifact;
    artifact.kind = isGpu(target.isa) ? CodeKind::Cubin : CodeKind::X86Object;
    artifact.code = {'b', 'a', 'd'};
    artifact.launch = *launchSchema(kernel.spec, kernel.schedule, target);
    change(artifact.launch);
    return artifact;
  };
  int changed = 0;
  for (const Target &target : {kTarget, kGpu})
    for (const auto change : spoil) {
      TemporaryFolder folder;
      const PlannedKernel kernel = sampleKernel(target);
      const Artifact artifact = spoilt(kernel, target, change);
      if (artifact.launch == *launchSchema(kernel.spec, kernel.schedule, target))
        continue; // a GPU's scratch is 0 already
      ++changed;
      CAPTURE(changed);
      {
        auto store = KernelStore::open(folder.path("cache"), [](const std::string &) {});
        REQUIRE(store->publish(KernelTable::keyOf(kernel, target), artifact).isOk());
      }
      if (!KernelStore::open(folder.path("cache"), [](const std::string &) {})->verify().empty())
        continue; // the store itself finds it out of range
      {
        Fixture f(folder.path("cache"), /*offline=*/true, target);
        CHECK(f.table.resident(kernel, f.device, true).status().code() == StatusCode::NotResident);
        CHECK(f.device.loads == 0);
        CHECK(f.store->usage().entries == 1);
      }
      Fixture f(folder.path("cache"), /*offline=*/false, target);
      f.kind = artifact.kind;
      auto rebuilt = f.table.resident(kernel, f.device, true);
      REQUIRE(rebuilt.isOk());
      CHECK(f.device.loads == 1);
      CHECK(f.device.loaded_code != artifact.code);
      CHECK(f.table.counters.miss_refused == 1);
      CHECK(f.table.counters.disk_hits == 0);
      CHECK(f.events ==
            std::vector{FLASHPLUS_EVENT_REFUSED, FLASHPLUS_EVENT_COMPILE_STARTED, FLASHPLUS_EVENT_COMPILED});
      REQUIRE(f.warnings.size() == 1);
      CHECK(f.warnings[0].find("launch schema is not the plan's") != std::string::npos);
      Fixture again(folder.path("cache"), /*offline=*/false, target);
      again.kind = artifact.kind;
      REQUIRE(again.table.resident(kernel, again.device, true).isOk());
      CHECK(again.compiles == 0); // healed
    }
  CHECK(changed >= 10);

  SUBCASE("of a folder that is only read: passed over, and kept") {
    TemporaryFolder folder;
    const PlannedKernel kernel = sampleKernel();
    const KernelKey key = KernelTable::keyOf(kernel, kTarget);
    const Artifact bad = spoilt(kernel, kTarget, [](LaunchSchema &s) { s.scratch = 0; });
    const auto quiet = [](const std::string &) {};
    const std::string image = folder.path("image"), own = folder.path("own");
    REQUIRE(KernelStore::open(image, quiet)->publish(key, bad).isOk());
    REQUIRE(
        KernelStore::open(own, quiet)->publish(key, spoilt(kernel, kTarget, [](LaunchSchema &) {})).isOk());
    const auto before = KernelStore::openReadOnly(image, quiet);
    const auto store = KernelStore::open(own, quiet);
    FakeDevice device(kTarget);
    KernelTable table(
        {*store, {before.get()}},
        [](const std::string &, const std::string &, const std::string &, bool,
           const CompilerLibrary::Waiting &) {
          return Result<Compiled>(Status(StatusCode::Internal, "must not compile"));
        },
        /*offline=*/false, quiet);
    CHECK(table.resident(kernel, device, true).isOk());
    CHECK(table.counters.miss_refused == 1);
    CHECK(table.counters.disk_hits == 1);
    CHECK(before->usage().entries == 1);
  }
}

namespace {

/// A table over the folder whose compiler fails so, and whose assemblers are these.
struct Refusing : Fixture {
  Refusing(const std::string &dir, Status failure, std::optional<std::string> toolchain = "ptxas 13.0",
           bool offline = false)
      : Fixture(dir, offline) {
    this->failure = std::move(failure);
    table.rememberRefusals([toolchain](const Target &) { return toolchain; });
  }
  Status compile() { return table.code(sampleKernel(), kTarget).status(); }
};

const Status kSpills(StatusCode::CompileFailed, "the schedule spills");

} // namespace

TEST_CASE("what the compiler refuses is not tried again, by any process, with the same assemblers") {
  TemporaryFolder folder;
  Refusing first(folder.path("cache"), kSpills);
  CHECK(first.compile().message() == "the schedule spills");
  for (int i = 0; i < 2; ++i) {
    Refusing f(folder.path("cache"), Status::ok());
    const Status again = f.compile();
    CHECK(again.code() == StatusCode::CompileFailed);
    CHECK(again.message().starts_with("the schedule spills (so it was when it was compiled before"));
    CHECK(f.compiles == 0);
    CHECK(f.events.empty());
  }
  Refusing other(folder.path("cache"), Status::ok(), "ptxas 13.1"); // as another build has another key
  CHECK(other.compile().isOk());
  CHECK(other.compiles == 1);
}

TEST_CASE("refusals are listed, and forgotten as kernels are removed: all, the old, those of other builds") {
  TemporaryFolder folder;
  const std::string dir = folder.path("cache");
  Refusing first(dir, kSpills);
  KernelStore &store = *first.store;
  const auto refuse = [&] {
    Refusing f(dir, kSpills);
    CHECK(!f.compile());
    REQUIRE(store.refusals().size() == 1);
  };
  const auto removed = [&](const Result<StoreUsage> &what) { return what ? what->refusals : -1; };
  refuse();
  const RefusalInfo known = store.refusals()[0];
  CHECK(known.key == KernelTable::keyOf(sampleKernel(), kTarget));
  CHECK(known.path == dir + "/refused/" + known.key.hex() + ".txt");
  CHECK(known.bytes == int64_t(std::filesystem::file_size(known.path)));
  CHECK(known.noted > ::time(nullptr) - 60);
  CHECK(known.refusal.toolchain == "ptxas 13.0");
  CHECK(known.refusal.reason == "the schedule spills");
  const auto file = [&](char digit) { return dir + "/refused/" + std::string(32, digit) + ".txt"; };
  test::writeText(file('a'), test::readText(known.path)); // another's name
  test::writeText(file('b'), "damaged");
  test::writeText(dir + "/refused/notes.txt", "mine");
  CHECK(store.refusals().size() == 1);
  CHECK(store.usage().entries == 0);

  CHECK(removed(store.prune({.most_bytes = 1 << 20, .used_since = 1, .build = known.key.build})) == 0);
  CHECK(removed(store.prune({.build = "another", .only_count = true})) == 2);
  CHECK(store.refusals().size() == 1);
  CHECK(removed(store.prune({.build = "another"})) == 2); // what is damaged stays, as with kernels
  refuse();
  const timespec old[2] = {{1, 0}, {1, 0}};
  REQUIRE(utimensat(AT_FDCWD, known.path.c_str(), old, 0) == 0);
  CHECK(removed(store.prune({.used_since = 2})) == 1);
  refuse();
  CHECK(removed(store.prune({.most_bytes = 0})) == 2); // the damaged one, too
  refuse();
  CHECK(removed(store.clear()) == 1);
  CHECK(test::readText(dir + "/refused/notes.txt") == "mine");
  Refusing f(dir, Status::ok());
  CHECK(f.compile().isOk());
}

TEST_CASE("what the folder of an image says of refusals is believed where that is only read") {
  TemporaryFolder folder;
  Refusing image(folder.path("image"), kSpills);
  CHECK(!image.compile());
  const auto before = KernelStore::openReadOnly(folder.path("image"), nullptr);
  const auto own = KernelStore::open("", nullptr);
  KernelTable table({*own, {before.get()}}, {}, /*offline=*/true, [](const std::string &) {});
  table.rememberRefusals([](const Target &) { return std::nullopt; });
  const auto code = table.code(sampleKernel(), kTarget);
  REQUIRE_FALSE(code.isOk());
  CHECK(code.status().code() == StatusCode::CompileFailed);
}

TEST_CASE("a kill, a time-out, a crash, no memory, and what is unknown of the assemblers are no refusal") {
  TemporaryFolder folder;
  for (const StatusCode code : {StatusCode::IoError, StatusCode::TimedOut, StatusCode::CompilerCrashed,
                                StatusCode::OutOfMemory, StatusCode::InvalidArgument, StatusCode::Internal}) {
    Refusing f(folder.path("cache"), {code, "not this time"});
    CHECK(!f.compile());
  }
  Refusing blind(folder.path("cache"), kSpills, std::nullopt);
  CHECK(!blind.compile());
  Refusing f(folder.path("cache"), Status::ok());
  CHECK(f.compile().isOk());
}

TEST_CASE("offline a refusal is believed, whatever refused: the caller's next choice is what was warmed") {
  TemporaryFolder folder;
  Refusing first(folder.path("cache"), kSpills);
  CHECK(!first.compile());
  Refusing f(folder.path("cache"), Status::ok(), std::nullopt, /*offline=*/true);
  CHECK(f.compile().code() == StatusCode::CompileFailed); // not NotResident, which ends the search
  CHECK(f.compiles == 0);
}

TEST_CASE("a refusal that is damaged, of others or of another key is none") {
  TemporaryFolder folder;
  const std::string file =
      folder.path("cache") + "/refused/" + KernelTable::keyOf(sampleKernel(), kTarget).hex() + ".txt";
  const auto text = [&] {
    Refusing first(folder.path("cache"), kSpills);
    CHECK(!first.compile());
    std::ifstream stream(file);
    return std::string(std::istreambuf_iterator<char>(stream), {});
  }();
  REQUIRE(text.starts_with("flashplus-refusal 1\n"));
  const auto known = [&] {
    return KernelStore::open(folder.path("cache"), nullptr)
        ->refusal(KernelTable::keyOf(sampleKernel(), kTarget));
  };
  REQUIRE(known());
  CHECK(known()->reason == "the schedule spills");
  CHECK(known()->toolchain == "ptxas 13.0");
  const auto write = [&](const std::string &bytes) { std::ofstream(file, std::ios::trunc) << bytes; };
  for (size_t i = 0; i < text.size(); ++i) {
    std::string damaged = text;
    damaged[i] ^= 1;
    write(damaged);
    CHECK(!known());
    write(text.substr(0, i));
    CHECK(!known());
  }
  write(text);
  CHECK(known());
  REQUIRE(chmod(file.c_str(), 0666) == 0);
  CHECK(!known());
  REQUIRE(chmod(file.c_str(), 0600) == 0);
  CHECK(!KernelStore::open(folder.path("cache"), nullptr)
             ->refusal(KernelTable::keyOf(sampleKernel(kTarget, 32), kTarget)));
}

TEST_CASE("so many refusals are kept, the oldest go") {
  TemporaryFolder folder;
  const auto store = KernelStore::open(folder.path("cache"), nullptr);
  const auto key = [](int i) {
    KernelKey key = KernelTable::keyOf(sampleKernel(), kTarget);
    key.build = std::to_string(i);
    return key;
  };
  const int most = int(KernelStore::kMostRefusals);
  store->noteRefusal(key(0), {"", "first"});
  const timespec old[2] = {{1, 0}, {1, 0}};
  const std::string first = folder.path("cache") + "/refused/" + key(0).hex() + ".txt";
  REQUIRE(utimensat(AT_FDCWD, first.c_str(), old, 0) == 0);
  for (int i = 1; i < most; ++i) // as cheap as a file: what is counted is names
    test::writeText(folder.path("cache") + "/refused/" + key(i).hex() + ".txt", "x");
  CHECK(store->refusal(key(0)));
  store->noteRefusal(key(most), {"", "last"});
  CHECK(!store->refusal(key(0)));
  CHECK(store->refusal(key(most)));
}
