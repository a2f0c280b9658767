// SPDX-License-Identifier: BSD-3-Clause
// Packs: many kernels as one file, used where it lies. Each test of trust has its sibling for folders in
// store_trust_test.cpp.
#include "cache/pack.h"
#include "cache/pack_writer.h"
#include "cache/tiers.h"
#include "spec/bytes.h"
#include "tests/unit/cache/support.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <fstream>

#include <sys/stat.h>
#include <unistd.h>

namespace fs = std::filesystem;
using namespace flashplus;
using namespace flashplus::test;

namespace {

const std::string kBuild = sampleKey().build;
constexpr TextLimits kLimits = {.file_bytes = 1000, .files = 3, .all_bytes = 2000};

bool contains(const std::string &text, const std::string &part) {
  return text.find(part) != std::string::npos;
}

/// A pack that collects its warnings.
struct LoggedPack {
  explicit LoggedPack(const std::string &path, const std::string &build = kBuild,
                      const FileOps &ops = plainOps())
      : pack(KernelPack::open(
            path, build, [list = warnings](const std::string &text) { list->push_back(text); }, ops)) {}
  std::shared_ptr<std::vector<std::string>> warnings = std::make_shared<std::vector<std::string>>();
  std::unique_ptr<KernelPack> pack;
  KernelPack *operator->() { return pack.get(); }
};

/// A pack of the kernels 0 to `count` - 1, from a folder of them.
struct Packed {
  explicit Packed(int count, size_t code_bytes = 300, std::vector<PackText> texts = {}, int first = 0)
      : store(folder.path + "/cache") {
    for (int i = first; i < first + count; ++i)
      REQUIRE(store->publish(sampleKey(i), sampleArtifact(i, code_bytes)).isOk());
    write(path, std::move(texts));
  }
  void write(const std::string &to, std::vector<PackText> texts = {}) {
    const auto written = writePack(to, {store.store.get(), store->list(), std::move(texts)}, plainOps());
    INFO((written ? "" : written.status().message()));
    REQUIRE(written.isOk());
    CHECK(*written == int64_t(fs::file_size(to)));
  }
  TemporaryFolder folder;
  LoggedStore store;
  std::string path = folder.path + "/kernels.fpk";
};

} // namespace

TEST_CASE("a pack has the kernels that went into it, and the same contents are the same bytes") {
  Packed packed(20, 300, {{"b.json", "{}"}, {"a.json", "{\"x\": 1}"}});
  LoggedPack pack(packed.path);
  CHECK(pack->onDisk());
  CHECK(pack->isThere());
  CHECK(pack->size() == 20);
  CHECK(pack->build() == kBuild);
  CHECK(pack->onlyTargets() == std::vector<std::string>{"sm_80@sm_90"});
  for (int i = 0; i < 20; ++i)
    CHECK(pack->read(sampleKey(i)).artifact == sampleArtifact(i));
  CHECK(pack->read(sampleKey(20)).miss == Miss::Absent);
  const std::vector<EntryInfo> entries = pack->list();
  REQUIRE(entries.size() == 20);
  for (const EntryInfo &entry : entries) {
    CHECK(entry.isGood());
    CHECK(pack->entryBytes(entry.name).isOk());
  }
  const std::vector<TextFile> texts = pack->texts("tuning", ".json", kLimits);
  REQUIRE(texts.size() == 2);
  CHECK(texts[0].text == "{\"x\": 1}");
  CHECK(texts[1].path == packed.path + ":tuning/b.json");
  CHECK(pack.warnings->empty());

  // from another folder, filled in another order; and from the pack itself
  LoggedStore other(packed.folder.path + "/other");
  for (int i = 19; i >= 0; --i)
    REQUIRE(other->publish(sampleKey(i), sampleArtifact(i)).isOk());
  std::vector<EntryInfo> backwards = other->list();
  std::ranges::reverse(backwards);
  const std::vector<PackText> records = {{"a.json", "{\"x\": 1}"}, {"b.json", "{}"}};
  for (const PackContents &contents : {PackContents{other.store.get(), backwards, records},
                                       PackContents{pack.pack.get(), entries, records}}) {
    const std::string path = packed.folder.path + "/again.fpk";
    REQUIRE(writePack(path, contents, plainOps()).isOk());
    CHECK(readFile(path) == readFile(packed.path));
  }
  CHECK(filesBelow(packed.folder.path + "/cache").size() == 20); // no temporaries anywhere
  CHECK(!fs::exists(packed.folder.path + "/.kernels.fpk"));
}

TEST_CASE("a pack may be empty, and is not there before it is there") {
  TemporaryFolder folder;
  const std::string path = folder.path + "/kernels.fpk";
  LoggedPack early(path);
  CHECK(early->onDisk());
  CHECK(!early->isThere());
  CHECK(early->read(sampleKey()).miss == Miss::Absent);
  CHECK(early->list().empty());
  CHECK(namesPack(path));
  CHECK(!namesPack(folder.path));
  CHECK(!namesPack(folder.path + "/kernels"));
  LoggedStore nothing(folder.path + "/cache");
  REQUIRE(writePack(path, {nothing.store.get(), {}, {}}, plainOps()).isOk());
  CHECK(early->isThere() == false); // of no build, and this library has one
  LoggedPack any(path, "");
  CHECK(any->isThere());
  CHECK(any->size() == 0);
}

TEST_CASE("every byte of a pack flipped, and every length: a miss, never another kernel") {
  Packed packed(2, 40, {{"a.json", "{}"}});
  const std::vector<uint8_t> good = readFile(packed.path);
  const std::string path = packed.folder.path + "/bad.fpk";
  int unusable = 0, missed = 0, untold = 0, texts_lost = 0;
  const auto check = [&](const std::vector<uint8_t> &bytes) {
    fs::remove(path);
    writeFile(path, bytes);
    LoggedPack pack(path);
    unusable += !pack->onDisk();
    int hits = 0;
    for (int i = 0; i < 2; ++i) {
      const ReadResult result = pack->read(sampleKey(i));
      hits += result.isHit();
      if (result.isHit())
        REQUIRE(result.artifact == sampleArtifact(i, 40));
    }
    missed += hits < 2;
    const auto texts = pack->texts("tuning", ".json", kLimits);
    texts_lost += texts.empty();
    if (!texts.empty())
      REQUIRE(texts[0].text == "{}");
    // whatever is wrong is told
    untold += pack.warnings->empty();
    REQUIRE(fs::exists(path));
  };
  for (size_t i = 0; i < good.size(); ++i)
    for (const uint8_t flip : {0x01, 0x80, 0xff}) {
      std::vector<uint8_t> bytes = good;
      bytes[i] ^= flip;
      check(bytes);
    }
  CHECK(untold == 0);
  CHECK(missed > 3 * 1000);
  CHECK(texts_lost > 0);
  untold = unusable = 0;
  for (size_t size = 0; size < good.size(); ++size)
    check({good.begin(), good.begin() + std::ptrdiff_t(size)});
  CHECK(unusable == int(good.size()));
  CHECK(untold == 0);
  std::vector<uint8_t> longer = good;
  longer.push_back(0);
  unusable = 0;
  check(longer);
  CHECK(unusable == 1);
}

TEST_CASE("entries of a pack that change places are misses") {
  Packed packed(2, 40);
  std::vector<uint8_t> bytes = readFile(packed.path);
  ParsedPackHead parsed = parsePackHead(bytes, bytes.size());
  REQUIRE(parsed.isOk());
  REQUIRE(parsed.head.entries[0].bytes == parsed.head.entries[1].bytes);
  const auto at = [&](int i) {
    return bytes.begin() + std::ptrdiff_t(parsed.head.entries[size_t(i)].offset);
  };
  std::swap_ranges(at(0), at(1), at(1));
  writeFile(packed.path, bytes);
  LoggedPack pack(packed.path);
  for (int i = 0; i < 2; ++i) {
    const ReadResult result = pack->read(sampleKey(i));
    CHECK(result.miss == Miss::Damaged);
    CHECK(result.entry_error == EntryError::OtherKey);
  }
  for (const EntryInfo &entry : pack->list()) {
    CHECK(!entry.isGood());
    CHECK(!pack->entryBytes(entry.name).isOk());
  }
}

TEST_CASE("a pack of another version or build is refused in one sentence") {
  Packed packed(1);
  std::vector<uint8_t> bytes = readFile(packed.path);
  bytes[8] = 7;
  const std::string newer = packed.folder.path + "/newer.fpk";
  writeFile(newer, bytes);
  LoggedPack version(newer);
  CHECK(!version->onDisk());
  REQUIRE(version.warnings->size() == 1);
  CHECK(contains((*version.warnings)[0], "its format version is 7, this library reads 1"));
  LoggedPack build(packed.path, "another");
  CHECK(!build->onDisk());
  REQUIRE(build.warnings->size() == 1);
  CHECK(
      contains((*build.warnings)[0], "is of build " + kBuild + " of the library, and this is build another"));
  CHECK(build->read(sampleKey()).miss == Miss::Absent);
  CHECK(build.warnings->size() == 1);
  CHECK(LoggedPack(packed.path, "")->read(sampleKey()).isHit());
}

TEST_CASE("a pack that others can write to, or that is no file of its own, is not used") {
  Packed packed(1);
  const auto refused = [&](const std::string &path, const std::string &why) {
    LoggedPack pack(path);
    CAPTURE(why);
    CHECK(!pack->onDisk());
    REQUIRE(pack.warnings->size() == 1);
    CHECK(contains((*pack.warnings)[0], why));
    CHECK(!pack->read(sampleKey()).isHit());
    CHECK(pack->texts("tuning", ".json", kLimits).empty());
  };
  const std::string &path = packed.path, base = packed.folder.path;
  for (const mode_t mode : {0666, 0664, 0646}) {
    ::chmod(path.c_str(), mode);
    refused(path, "others than its owner can write to it");
  }
  ::chmod(path.c_str(), 0644);
  CHECK(LoggedPack(path)->read(sampleKey()).isHit());
  fs::create_symlink(path, base + "/link.fpk");
  refused(base + "/link.fpk", "is a symbolic link");
  fs::create_hard_link(path, base + "/second.fpk");
  refused(path, "has 2 names");
  fs::remove(base + "/second.fpk");
  REQUIRE(::mkfifo((base + "/fifo.fpk").c_str(), 0600) == 0);
  refused(base + "/fifo.fpk", "is not a regular file");
  if (::geteuid() != 0) {
    MESSAGE("skipped, needs root: a pack of another user");
    return;
  }
  REQUIRE(::chown(path.c_str(), 12345, 12345) == 0);
  refused(path, "belongs to user 12345");
}

TEST_CASE("a pack whose mode is changed while it is used is not read on") {
  Packed packed(1);
  LoggedPack pack(packed.path);
  CHECK(pack->read(sampleKey()).isHit());
  ::chmod(packed.path.c_str(), 0666);
  CHECK(pack->read(sampleKey()).miss == Miss::Untrusted);
  CHECK(pack.warnings->size() == 1);
  ::chmod(packed.path.c_str(), 0644);
  CHECK(pack->read(sampleKey()).isHit());
}

TEST_CASE("a pack that is replaced is opened again; what comes in its place has to be one") {
  Packed packed(1), later(2);
  LoggedPack pack(packed.path);
  CHECK(pack->read(sampleKey(0)).isHit());
  CHECK(!pack->read(sampleKey(1)).isHit());
  later.write(packed.path); // as an export does it, by a rename
  CHECK(pack->read(sampleKey(1)).isHit());
  CHECK(pack->size() == 2);
  CHECK(pack.warnings->empty());

  fs::rename(packed.path, packed.path + ".old");
  fs::remove(packed.path + ".old");
  CHECK(pack->read(sampleKey(0)).isHit()); // deleted: we hold it
  writeFile(packed.path, std::vector<uint8_t>(100));
  CHECK(pack->read(sampleKey(0)).isHit());
  CHECK(pack->read(sampleKey(1)).isHit());
  REQUIRE(pack.warnings->size() == 1);
  CHECK(contains((*pack.warnings)[0], "the one that was there before is still read"));
}

TEST_CASE("a pack that is cut or overwritten where it lies gives misses, and no signal") {
  Packed packed(3, 100'000);
  LoggedPack pack(packed.path);
  CHECK(pack->read(sampleKey(0)).isHit());
  REQUIRE(::truncate(packed.path.c_str(), 5000) == 0);
  for (int i = 0; i < 3; ++i)
    CHECK(!pack->read(sampleKey(i)).isHit());
  CHECK(pack.warnings->size() == 1);
}

TEST_CASE("no file but a pack is replaced by an export, and the pack that was there stays if it fails") {
  Packed packed(3, 300, {{"a.json", "{}"}});
  const PackContents contents = {packed.store.store.get(), packed.store->list(), {}};
  const std::string mine = packed.folder.path + "/mine.txt", in = packed.folder.path + "/in";
  std::ofstream(mine) << "mine";
  CHECK(writePack(mine, contents, plainOps()).status().code() == StatusCode::InvalidArgument);
  CHECK(readFile(mine).size() == 4);
  CHECK(writePack(packed.folder.path, contents, plainOps()).status().code() == StatusCode::InvalidArgument);
  CHECK(writePack(packed.folder.path + "/no/k.fpk", contents, plainOps()).status().code() ==
        StatusCode::IoError);

  fs::create_directory(in);
  const std::string path = in + "/kernels.fpk";
  fs::copy_file(packed.path, path);
  const std::vector<uint8_t> before = readFile(path);
  int failures = 0;
  for (const int error : {EIO, ENOSPC, EACCES})
    for (int at = 1;; ++at) {
      REQUIRE(at < 200);
      fault() = {.kind = Fault::FailHalf, .at = at, .error = error};
      const auto written = writePack(path, contents, faultyOps());
      const std::string spoiled = fault().spoiled;
      fault() = {};
      if (spoiled.empty()) {
        writeFile(path, before);
        break;
      }
      CAPTURE(spoiled);
      failures += !written.isOk();
      const LoggedPack pack(path);
      REQUIRE(pack.pack->onDisk());
      REQUIRE(pack.pack->read(sampleKey(2)).isHit());
      if (!written)
        REQUIRE(readFile(path) == before);
      REQUIRE(filesBelow(in) == std::vector<std::string>{"kernels.fpk"});
      writeFile(path, before);
    }
  CHECK(failures > 10);
}

TEST_CASE("whatever fails in reading a pack, a kernel is the right one or a miss") {
  Packed packed(2);
  int misses = 0;
  for (const Fault::Kind kind : {Fault::Fail, Fault::Short})
    for (const int error : {EIO, EACCES, EMFILE, ESTALE, ENOMEM, EINTR})
      for (int at = 1;; ++at) {
        REQUIRE(at < 200);
        fault() = {.kind = kind, .at = at, .error = error};
        LoggedPack pack(packed.path, kBuild, faultyOps());
        for (int i = 0; i < 2; ++i) {
          const ReadResult result = pack->read(sampleKey(i));
          misses += !result.isHit();
          if (result.isHit())
            REQUIRE(result.artifact == sampleArtifact(i));
        }
        const bool spoiled = !fault().spoiled.empty();
        fault() = {};
        if (kind == Fault::Short)
          REQUIRE(pack->read(sampleKey()).isHit());
        if (!spoiled)
          break;
      }
  CHECK(misses > 10);
}

TEST_CASE("an entry that has changed since it was listed is not packed") {
  Packed packed(1);
  PackContents contents = {packed.store.store.get(), packed.store->list(), {}};
  packed.store->discard(sampleKey(), "a test");
  CHECK(writePack(packed.path, contents, plainOps()).status().code() == StatusCode::IoError);
  CHECK(LoggedPack(packed.path)->read(sampleKey()).isHit());
  KernelKey other = sampleKey(1);
  other.build = "another";
  REQUIRE(packed.store->publish(sampleKey(), sampleArtifact()).isOk());
  REQUIRE(packed.store->publish(other, sampleArtifact()).isOk());
  contents.entries = packed.store->list();
  const Status mixed = writePack(packed.path, contents, plainOps()).status();
  CHECK(mixed.code() == StatusCode::InvalidArgument);
  CHECK(contains(mixed.message(), "another build"));
}

TEST_CASE("records of a pack are kept within the limits, and others of them are left out") {
  const std::string large(3000, ' ');
  Packed packed(1, 300, {{"a.json", "{}"}, {"b.json", large}, {"c.txt", "{}"}, {"d.json", "[]"}});
  LoggedPack pack(packed.path);
  const auto texts = pack->texts("tuning", ".json", {.file_bytes = 1000, .files = 9, .all_bytes = 5000});
  REQUIRE(texts.size() == 2);
  CHECK(texts[1].text == "[]");
  CHECK(pack.warnings->size() == 2);
  CHECK(parsePackText(encodePackText({"a/b", ""})) == std::nullopt);
  CHECK(parsePackText(encodePackText({"..", ""})) == std::nullopt);
  CHECK(parsePackText(encodePackText({"", ""})) == std::nullopt);
  CHECK(parsePackText(encodePackText({"a", "x"})) == PackText{"a", "x"});
}

TEST_CASE("packs are tiers; that they are for other GPUs is said once") {
  Packed first(1), second(2);
  LoggedStore own(first.folder.path + "/own");
  std::vector<std::string> log;
  LoggedPack a(first.path), b(second.path);
  Tiers tiers(*own.store, {a.pack.get(), b.pack.get()},
              [&](const std::string &text) { log.push_back(text); });
  CHECK(tiers.read(sampleKey(0)).tier == 0);
  CHECK(tiers.read(sampleKey(1)).tier == 1);
  CHECK(tiers.read(sampleKey(2)).miss == Miss::Absent);
  CHECK(log.empty()); // a kernel of a target that they know
  KernelKey cpu = sampleKey(), gpu = sampleKey();
  cpu.target = "x86-64-v3";
  gpu.target = "sm_90a@sm_90a";
  CHECK(!tiers.read(cpu).isHit());
  CHECK(log.empty()); // packs for GPUs say nothing about CPUs
  for (int i = 0; i < 3; ++i)
    CHECK(!tiers.read(gpu).isHit());
  REQUIRE(log.size() == 1);
  CHECK(contains(log[0], "no pack of the cache path has kernels for sm_90a@sm_90a: '" + first.path +
                             "' has kernels for sm_80@sm_90"));
  tiers.discard(sampleKey(0), 0, "", "the driver refuses it");
  CHECK(tiers.read(sampleKey(0)).tier == 1);
  tiers.discard(sampleKey(0), 1, "", "the driver refuses it");
  CHECK(!tiers.read(sampleKey(0)).isHit());
  CHECK(a->read(sampleKey(0)).isHit());
}
