// SPDX-License-Identifier: BSD-3-Clause
#include "cache/entry.h"

#include "spec/bytes.h"

#include <algorithm>

namespace flashplus {
namespace {

// As in PNG: the first byte is not text, and the line ends show a copy that translated them.
constexpr uint8_t kMagic[8] = {0x89, 'F', 'P', 'K', '\r', '\n', 0x1a, '\n'};
constexpr uint32_t kEntryVersion = 1;
constexpr size_t kHeaderBytes = sizeof(kMagic) + 4 + 4 + 8;
constexpr size_t kChecksumBytes = 16;

Entry failed(EntryError error, std::string detail) {
  Entry entry;
  entry.error = error;
  entry.detail = std::move(detail);
  return entry;
}

} // namespace

const char *entryErrorName(EntryError error) {
  switch (error) {
  case EntryError::None:
    return "none";
  case EntryError::Truncated:
    return "truncated";
  case EntryError::BadMagic:
    return "bad_magic";
  case EntryError::OtherVersion:
    return "other_version";
  case EntryError::BadChecksum:
    return "bad_checksum";
  case EntryError::OtherKey:
    return "other_key";
  case EntryError::Malformed:
    return "malformed";
  }
  return "unknown";
}

std::vector<uint8_t> encodeEntry(const KernelKey &key, const Artifact &artifact) {
  const std::string key_text = key.text();
  const std::vector<uint8_t> payload = serializeArtifact(artifact);
  ByteWriter out;
  out.reserve(kHeaderBytes + key_text.size() + payload.size() + kChecksumBytes);
  out.raw(kMagic);
  out.integer(kEntryVersion);
  out.integer<uint32_t>(static_cast<uint32_t>(key_text.size()));
  out.integer<uint64_t>(payload.size());
  out.raw(key_text);
  out.raw(payload);
  out.raw(hashBytes(out.bytes()).bytes());
  return out.take();
}

Entry parseEntry(std::span<const uint8_t> bytes) {
  ByteReader in(bytes);
  std::span<const uint8_t> magic = in.raw(sizeof(kMagic));
  const uint32_t version = in.integer<uint32_t>();
  const uint32_t key_size = in.integer<uint32_t>();
  const uint64_t payload_size = in.integer<uint64_t>();
  if (!in.ok())
    return failed(EntryError::Truncated,
                  "it has " + std::to_string(bytes.size()) + " bytes, fewer than a header");
  if (!std::equal(magic.begin(), magic.end(), kMagic))
    return failed(EntryError::BadMagic, "it does not start as an entry does");
  if (version != kEntryVersion)
    return failed(EntryError::OtherVersion, "its format version is " + std::to_string(version) +
                                                ", this library reads " + std::to_string(kEntryVersion));

  const std::string key_text = in.text(key_size);
  std::span<const uint8_t> payload = in.raw(payload_size);
  const size_t checked_bytes = in.offset();
  std::span<const uint8_t> checksum = in.raw(kChecksumBytes);
  if (!in.ok())
    return failed(EntryError::Truncated,
                  "it has " + std::to_string(bytes.size()) + " bytes, fewer than its header announces");
  if (!in.atEnd())
    return failed(EntryError::Malformed, "bytes follow its end");
  if (!std::ranges::equal(checksum, hashBytes(bytes.first(checked_bytes)).bytes()))
    return failed(EntryError::BadChecksum, "its checksum does not match");

  Result<KernelKey> key = KernelKey::parse(key_text);
  if (!key)
    return failed(EntryError::Malformed, key.status().message());
  Result<Artifact> artifact = parseArtifact(payload);
  if (!artifact)
    return failed(EntryError::Malformed, artifact.status().message());
  Entry entry;
  entry.key = *std::move(key);
  entry.artifact = *std::move(artifact);
  return entry;
}

Entry decodeEntry(std::span<const uint8_t> bytes, const KernelKey &expected) {
  Entry entry = parseEntry(bytes);
  if (entry.isOk() && entry.key != expected)
    return failed(EntryError::OtherKey,
                  "it holds the kernel \"" + entry.key.spec + "\" for " + entry.key.target);
  return entry;
}

} // namespace flashplus
