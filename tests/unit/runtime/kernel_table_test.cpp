// SPDX-License-Identifier: BSD-3-Clause
// The kernel table: memory, disk, compilation.
#include "tests/unit/runtime/kernel_table_fixture.h"

#include "tests/tools/temporary.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <fstream>
#include <sys/stat.h>
#include <thread>

using namespace flashplus;
using namespace flashplus::kernel_table_test;
using flashplus::test::TemporaryFolder;

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
