// SPDX-License-Identifier: BSD-3-Clause
// Folders that are only read, before the one that is written.
#include "cache/tiers.h"
#include "tests/unit/cache/support.h"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

using namespace flashplus;
using namespace flashplus::test;

namespace {

struct ReadOnlyStore {
  explicit ReadOnlyStore(const std::string &dir)
      : store(KernelStore::openReadOnly(dir, [this](const std::string &text) { warnings.push_back(text); })) {
  }
  std::vector<std::string> warnings;
  std::unique_ptr<KernelStore> store;
};

Artifact artifactOf(CodeKind kind, int number) {
  Artifact artifact = sampleArtifact(number);
  artifact.kind = kind;
  if (kind == CodeKind::Ptx)
    artifact.code.assign(100, uint8_t('a' + number)); // text
  return artifact;
}

} // namespace

TEST_CASE("a store that is only read makes nothing, finds what comes later, and keeps what is damaged") {
  TemporaryFolder folder;
  const std::string dir = folder.path + "/image";
  ReadOnlyStore reader(dir);
  CHECK(reader.store->onDisk());
  CHECK(!reader.store->isThere());
  CHECK(reader.store->read(sampleKey()).miss == Miss::Absent);
  CHECK(reader.store->list().empty());
  CHECK(!std::filesystem::exists(dir));
  CHECK(reader.warnings.empty());

  LoggedStore writer(dir);
  REQUIRE(writer->publish(sampleKey(), sampleArtifact()).isOk());
  CHECK(reader.store->isThere());
  CHECK(reader.store->has(sampleKey()));
  CHECK(!reader.store->has(sampleKey(1)));
  CHECK(reader.store->read(sampleKey()).isHit());

  std::vector<uint8_t> bytes = readFile(entryFile(dir, sampleKey()));
  bytes[bytes.size() / 2] ^= 1;
  writeFile(entryFile(dir, sampleKey()), bytes);
  writer->noteRefusal(sampleKey(3), {"a toolchain", "a reason"});
  REQUIRE(reader.store->refusal(sampleKey(3)));
  const auto before = filesBelow(dir);
  CHECK(reader.store->read(sampleKey()).miss == Miss::Damaged);
  reader.store->discard(sampleKey(), "a test");
  CHECK(filesBelow(dir) == before);

  CHECK(!reader.store->canWrite());
  CHECK(reader.store->publish(sampleKey(2), sampleArtifact()).code() == StatusCode::IoError);
  CHECK(reader.store->addText("tuning", "mine.json", "{}").status().code() == StatusCode::IoError);
  reader.store->noteRefusal(sampleKey(4), {"a toolchain", "a reason"});
  CHECK(!reader.store->addCounts({.contexts = 1}, /*patient=*/false));
  CHECK(reader.store->clear().status().code() == StatusCode::IoError);
  CHECK(reader.store->prune({.most_bytes = 0}).status().message().find("only read") != std::string::npos);
  CHECK(filesBelow(dir) == before);
}

TEST_CASE("a folder that others can write to is no tier") {
  TemporaryFolder folder;
  const std::string dir = folder.path + "/image";
  REQUIRE(LoggedStore(dir)->publish(sampleKey(), sampleArtifact()).isOk());
  ::chmod(dir.c_str(), 0777);
  ReadOnlyStore reader(dir);
  CHECK(!reader.store->onDisk());
  REQUIRE(reader.warnings.size() == 1);
  CHECK(reader.warnings[0].find("0777") != std::string::npos);
  CHECK(!reader.store->read(sampleKey()).isHit());
}

TEST_CASE("tiers are looked up in order, PTX only where nothing is better, and only the last is written") {
  TemporaryFolder folder;
  LoggedStore first(folder.path + "/first"), second(folder.path + "/second"), own(folder.path + "/own");
  REQUIRE(first->publish(sampleKey(0), artifactOf(CodeKind::Cubin, 10)).isOk());
  REQUIRE(second->publish(sampleKey(0), artifactOf(CodeKind::Cubin, 11)).isOk());
  REQUIRE(first->publish(sampleKey(1), artifactOf(CodeKind::Ptx, 12)).isOk());
  REQUIRE(second->publish(sampleKey(1), artifactOf(CodeKind::Cubin, 13)).isOk());
  REQUIRE(first->publish(sampleKey(2), artifactOf(CodeKind::Ptx, 14)).isOk());
  REQUIRE(second->publish(sampleKey(3), artifactOf(CodeKind::Cubin, 15)).isOk());

  ReadOnlyStore a(folder.path + "/first"), b(folder.path + "/second");
  Tiers tiers(*own.store, {a.store.get(), b.store.get()});
  const auto found = [&](int key) { return tiers.read(sampleKey(key)); };
  CHECK(*found(0).artifact == artifactOf(CodeKind::Cubin, 10));
  CHECK(found(0).tier == 0);
  CHECK(*found(1).artifact == artifactOf(CodeKind::Cubin, 13));
  CHECK(*found(2).artifact == artifactOf(CodeKind::Ptx, 14));
  CHECK(found(3).tier == 1);
  CHECK(found(4).miss == Miss::Absent);
  CHECK(found(4).tier == -1);

  // A better one that was made here is not hidden by PTX in an image.
  REQUIRE(tiers.publish(sampleKey(2), artifactOf(CodeKind::Cubin, 16)).isOk());
  CHECK(*found(2).artifact == artifactOf(CodeKind::Cubin, 16));
  CHECK(own->usage().entries == 1);

  // What the driver refuses is passed over, in its folder only, and stays there.
  const auto discard = [&](const KernelKey &key, const ReadResult &read) {
    tiers.discard(key, read.tier, read.mark, "the driver refuses it");
  };
  discard(sampleKey(0), found(0));
  CHECK(*found(0).artifact == artifactOf(CodeKind::Cubin, 11));
  discard(sampleKey(0), found(0));
  CHECK(!found(0).isHit());
  CHECK(first->has(sampleKey(0)));
  CHECK(second->has(sampleKey(0)));
  discard(sampleKey(2), found(2));
  CHECK(!own->has(sampleKey(2)));
}

TEST_CASE("two devices that refuse what both have read do not remove what one of them made instead") {
  TemporaryFolder folder;
  LoggedStore image(folder.path + "/image"), own(folder.path + "/own");
  REQUIRE(image->publish(sampleKey(), artifactOf(CodeKind::Cubin, 1)).isOk());
  ReadOnlyStore tier(folder.path + "/image");
  Tiers tiers(*own.store, {tier.store.get()});
  for (int number : {2, 3}) { // the entry of the image, then that of the folder that is written
    const ReadResult first = tiers.read(sampleKey()), second = tiers.read(sampleKey());
    REQUIRE(first.isHit());
    CHECK(first.tier == (number == 2 ? 0 : -1));
    tiers.discard(sampleKey(), first.tier, first.mark, "the driver refuses it");
    CHECK(!tiers.read(sampleKey()).isHit());
    REQUIRE(tiers.publish(sampleKey(), artifactOf(CodeKind::Cubin, number)).isOk());
    tiers.discard(sampleKey(), second.tier, second.mark, "the driver refuses it");
    const ReadResult made = tiers.read(sampleKey());
    REQUIRE(made.isHit());
    CHECK(*made.artifact == artifactOf(CodeKind::Cubin, number));
  }
}

TEST_CASE("two refusals of one read do not pass over what comes after it") {
  TemporaryFolder folder;
  LoggedStore first(folder.path + "/first"), second(folder.path + "/second"), own(folder.path + "/own");
  for (LoggedStore *store : {&first, &second})
    REQUIRE((*store)->publish(sampleKey(), sampleArtifact()).isOk());
  ReadOnlyStore a(folder.path + "/first"), b(folder.path + "/second");
  Tiers tiers(*own.store, {a.store.get(), b.store.get()});
  const ReadResult read = tiers.read(sampleKey());
  for (int device = 0; device < 2; ++device)
    tiers.discard(sampleKey(), read.tier, read.mark, "the driver refuses it");
  CHECK(tiers.read(sampleKey()).tier == 1);
}

TEST_CASE("a use that is noted between a read and its refusal does not save what was read") {
  TemporaryFolder folder;
  LoggedStore store(folder.path);
  REQUIRE(store->publish(sampleKey(), sampleArtifact()).isOk());
  const timespec then{::time(nullptr) - 7200, 0}, times[] = {then, then};
  REQUIRE(::utimensat(AT_FDCWD, entryFile(folder.path, sampleKey()).c_str(), times, 0) == 0);
  const ReadResult read = store->read(sampleKey());
  CHECK(read.mark == store->mark(sampleKey()));
  store->discard(sampleKey(), "the driver refuses it", read.mark);
  CHECK(!store->has(sampleKey()));
}

TEST_CASE("what is wrong in a tier is told where no other has the entry") {
  TemporaryFolder folder;
  LoggedStore image(folder.path + "/image"), own(folder.path + "/own");
  REQUIRE(image->publish(sampleKey(), sampleArtifact()).isOk());
  writeFile(entryFile(folder.path + "/image", sampleKey()), std::vector<uint8_t>(100));
  ReadOnlyStore reader(folder.path + "/image");
  Tiers tiers(*own.store, {reader.store.get()});
  CHECK(tiers.read(sampleKey()).miss == Miss::Damaged);
  CHECK(tiers.read(sampleKey(1)).miss == Miss::Absent);
  REQUIRE(tiers.publish(sampleKey(), sampleArtifact()).isOk());
  CHECK(tiers.read(sampleKey()).isHit());
  CHECK(std::filesystem::file_size(entryFile(folder.path + "/image", sampleKey())) == 100);
}
